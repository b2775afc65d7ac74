//! Writes Kubernetes Events about objects.

use std::sync::{Mutex, PoisonError};

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// After how many Events the recorder is replaced. It remembers each for minutes, in order to count a repeated one
/// instead of creating another. While thousands of resources start up, that would be most of the process's memory, and
/// Events that repeat do so within fewer others.
const EVENTS_PER_RECORDER: usize = 200;

/// The API server rejects longer notes.
const MAX_NOTE_LEN: usize = 1024;

/// Writes Events in the name of one controller.
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorder: Mutex<(Recorder, usize)>,
}

/// The content of an Event.
pub struct EventContent<'a> {
    /// Whether its type is `Warning`, else `Normal`.
    pub is_warning: bool,
    /// The reason, in CamelCase.
    pub reason: &'a str,
    /// What has happened; truncated to the length that the API server accepts.
    pub note: &'a str,
    /// What the controller was doing.
    pub action: &'a str,
}

impl Events {
    /// Events that are reported by `controller`.
    pub fn new(client: Client, controller: &str) -> Self {
        let reporter = Reporter { controller: controller.into(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder: Mutex::new((recorder, 0)) }
    }

    /// Writes an Event about `object`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        content: &EventContent<'_>,
    ) -> kube::Result<()> {
        let event = Event {
            type_: if content.is_warning { EventType::Warning } else { EventType::Normal },
            reason: content.reason.into(),
            note: content.note.get(..content.note.floor_char_boundary(MAX_NOTE_LEN)).map(Into::into),
            action: content.action.into(),
            secondary: None,
        };
        self.recorder().publish(&event, &object.object_ref(&())).await
    }

    fn recorder(&self) -> Recorder {
        let mut current = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 == EVENTS_PER_RECORDER {
            *current = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        current.1 += 1;
        current.0.clone()
    }
}
