//! Tells people, by Events of the objects that they look at.

use std::sync::{Mutex, PoisonError};

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// How many events a recorder is used for. It keeps each for minutes, so that one that comes again is counted
/// and not written anew. Of the thousands of a cluster that is set up, that would be most of the memory; what
/// comes again does so sooner.
const FEW: usize = 200;

/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1024;

/// Writes Events.
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorder: Mutex<(Recorder, usize)>,
}

/// What is told.
pub struct News<'a> {
    /// Whether something is amiss.
    pub is_warning: bool,
    /// The category, in CamelCase.
    pub reason: &'a str,
    /// What has happened; cut where it is longer than an Event may have it.
    pub note: &'a str,
    /// What was being done.
    pub action: &'a str,
}

impl Events {
    /// Events in the name of `controller`.
    pub fn new(client: Client, controller: &str) -> Self {
        let reporter = Reporter { controller: controller.into(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder: Mutex::new((recorder, 0)) }
    }

    /// Tells `news` of `object`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, news: &News<'_>) -> kube::Result<()> {
        let event = Event {
            type_: if news.is_warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason.into(),
            note: news.note.get(..news.note.floor_char_boundary(LONGEST_NOTE)).map(Into::into),
            action: news.action.into(),
            secondary: None,
        };
        self.recorder().publish(&event, &object.object_ref(&())).await
    }

    fn recorder(&self) -> Recorder {
        let mut current = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 == FEW {
            *current = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        current.1 += 1;
        current.0.clone()
    }
}
