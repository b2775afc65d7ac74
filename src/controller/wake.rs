//! Has resources reconciled that no watch on themselves or their children would.

use std::{collections::HashMap, sync::Arc};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::stored::Stored;

/// Those that are to be reconciled in one scope.
pub type Woken = UnboundedReceiver<ObjectRef<Stored>>;

/// Wakes resources, each in the scope that watches it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Wake(Arc<HashMap<Option<String>, UnboundedSender<ObjectRef<Stored>>>>);

impl Wake {
    /// For these scopes: a namespace each, or none for all namespaces. Gives what each is to listen to.
    pub fn new(scopes: &[Option<String>]) -> (Self, Vec<Woken>) {
        let (mut senders, mut receivers) = (HashMap::new(), Vec::new());
        for scope in scopes {
            let (sender, receiver) = mpsc::unbounded_channel();
            senders.insert(scope.clone(), sender);
            receivers.push(receiver);
        }
        (Self(Arc::new(senders)), receivers)
    }

    /// Has that resource reconciled, if it is watched.
    pub fn wake(&self, namespace: &str, name: &str) {
        let sender = self.0.get(&None).or_else(|| self.0.get(&Some(namespace.to_owned())));
        if let Some(sender) = sender {
            // Without its receiver the controller has ended.
            drop(sender.send(ObjectRef::new(name).within(namespace)));
        }
    }
}
