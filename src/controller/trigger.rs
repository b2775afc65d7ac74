//! Queues OrdersServices for reconciliation. Each controller has one queue: one for each watched namespace, or one for all.

use std::{collections::HashMap, sync::Arc};

use futures::{Stream, stream};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::{metrics::Metrics, object_key::ObjectKey, raw_orders_service::RawOrdersService};

/// Puts OrdersServices into the queue of the controller that watches their namespace. Clones share the queues.
#[derive(Clone)]
pub struct Trigger {
    queues: Arc<HashMap<Option<String>, UnboundedSender<ObjectRef<RawOrdersService>>>>,
    metrics: Metrics,
}

impl Trigger {
    /// One queue for each scope (a namespace, or none for all), and the stream of keys that each controller reconciles.
    pub fn new(
        scopes: &[Option<String>],
        metrics: Metrics,
    ) -> (Self, Vec<impl Stream<Item = ObjectRef<RawOrdersService>> + Send + use<>>) {
        let (mut queues, mut streams) = (HashMap::new(), Vec::new());
        for scope in scopes {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            queues.insert(scope.clone(), sender);
            streams.push(stream::poll_fn(move |context| receiver.poll_recv(context)));
        }
        (Self { queues: Arc::new(queues), metrics }, streams)
    }

    /// Queues that OrdersService for reconciliation, if its namespace is watched.
    pub fn requeue(&self, key: &ObjectKey) {
        let of_namespace = || self.queues.get(&Some(key.namespace().to_owned()));
        if let Some(queue) = self.queues.get(&None).or_else(of_namespace) {
            self.metrics.queued(key);
            // Without a receiver the controller has ended.
            drop(queue.send(key.to_ref()));
        }
    }
}
