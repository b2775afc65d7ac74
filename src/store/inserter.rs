//! Inserts orders; concurrent inserts share commands.

use std::collections::HashMap;

use mongodb::{
    Collection,
    bson::Document,
    error::{Error, ErrorKind},
};
use tokio::time::Instant;

use super::{
    batcher::Batcher,
    error::{InsertError, StoreError},
};

type InsertResult = Result<(), InsertError>;

/// Inserts into one collection. Clones share their commands.
#[derive(Clone)]
pub(super) struct Inserter {
    collection: Collection<Document>,
    doing: &'static str,
    batcher: Batcher<Document, InsertResult>,
}

impl Inserter {
    pub(super) fn new(collection: Collection<Document>, doing: &'static str) -> Self {
        Self { collection, doing, batcher: Batcher::new(doing) }
    }

    /// Inserts `document`, and gives it up at `until`. That another document of the same command is refused does not affect
    /// this one.
    pub(super) async fn insert(
        &self,
        until: Instant,
        document: Document,
    ) -> Result<InsertResult, StoreError> {
        let (collection, doing) = (self.collection.clone(), self.doing);
        let send = move |batch| insert(collection.clone(), doing, batch);
        self.batcher.call_until(until, document, 1, send).await
    }
}

async fn insert(
    collection: Collection<Document>,
    doing: &'static str,
    documents: Vec<Document>,
) -> Vec<InsertResult> {
    // Sorted by ticket: a server that runs each command as one transaction would otherwise see deadlocks between
    // processes that insert orders for some of the same tickets.
    let mut positions: Vec<_> = (0..documents.len()).collect();
    positions.sort_by_key(|position| {
        documents.get(*position).and_then(|document| document.get_object_id("ticket").ok())
    });
    let sorted: Vec<_> = positions.iter().filter_map(|position| documents.get(*position)).collect();
    let result = match &sorted[..] {
        [one] => collection.insert_one(*one).await.map(drop),
        sorted => collection.insert_many(sorted.iter().copied()).ordered(false).await.map(drop),
    };
    let mut results = vec![Ok(()); documents.len()];
    if let Err(error) = result {
        for (position, outcome) in positions.into_iter().zip(per_document(doing, &error, documents.len())) {
            if let Some(result) = results.get_mut(position) {
                *result = outcome;
            }
        }
    }
    results
}

/// What `error` means for each of the `count` documents of its command.
fn per_document(doing: &'static str, error: &Error, count: usize) -> Vec<InsertResult> {
    let ErrorKind::InsertMany(failure) = &*error.kind else {
        return vec![Err(InsertError::from_driver(doing, error)); count];
    };
    let write_errors = failure.write_errors.iter().flatten();
    let mut refused: HashMap<_, _> = write_errors
        .map(|write| (write.index, InsertError::from_reply(doing, write.code, &write.message)))
        .collect();
    // The other documents were inserted, but a failover may still roll them back: the caller has to check.
    let unacknowledged = failure.write_concern_error.as_ref().map(|concern| InsertError {
        is_transient: true,
        ..InsertError::from_reply(doing, concern.code, &concern.message)
    });
    (0..count).map(|index| refused.remove(&index).or(unacknowledged.clone()).map_or(Ok(()), Err)).collect()
}
