//! Waiting for the lists with which watches begin.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// Some lists. Clones are the same ones.
#[derive(Clone)]
pub struct Lists(Arc<watch::Sender<usize>>);

impl Lists {
    /// So many lists, none of which has come in.
    pub fn new(number: usize) -> Self {
        Self(Arc::new(watch::Sender::new(number)))
    }

    /// Waits until every list is settled.
    pub async fn settled(&self) {
        // The sender lives as long as we do.
        drop(self.0.subscribe().wait_for(|missing| *missing == 0).await);
    }

    /// One of them.
    pub fn list(&self) -> List {
        List { settled: Arc::default(), lists: self.clone() }
    }
}

/// A list that others wait for. Clones are the same one.
#[derive(Clone)]
pub struct List {
    settled: Arc<AtomicBool>,
    lists: Lists,
}

impl List {
    /// It has come in, or never will: no one need wait for it any longer.
    pub fn settle(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.lists.0.send_modify(|missing| *missing = missing.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_list_counts_once() {
        let lists = Lists::new(2);
        let (one, other) = (lists.list(), lists.list());
        one.settle();
        one.clone().settle();
        assert!(lists.settled().now_or_never().is_none());
        other.settle();
        assert!(lists.settled().now_or_never().is_some());
    }
}
