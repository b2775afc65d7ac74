//! Inserting orders, together with whoever else does so at the time.

use std::collections::HashMap;

use mongodb::{
    Collection,
    bson::Document,
    error::{Error, ErrorKind},
};

use super::{
    batch::Batches,
    error::{InsertError, StoreError},
};

type Inserted = Result<(), InsertError>;

/// Inserts into one collection. Clones share their commands.
#[derive(Clone)]
pub(super) struct Inserts {
    documents: Collection<Document>,
    doing: &'static str,
    batches: Batches<Document, Inserted>,
}

impl Inserts {
    pub(super) fn new(documents: Collection<Document>, doing: &'static str) -> Self {
        Self { documents, doing, batches: Batches::new(doing) }
    }

    /// Inserts `document`. Where another is refused, this one is not.
    pub(super) async fn one(&self, document: Document) -> Result<Inserted, StoreError> {
        let (documents, doing) = (self.documents.clone(), self.doing);
        self.batches.ask(document, 1, move |all| insert(documents.clone(), doing, all)).await
    }
}

async fn insert(documents: Collection<Document>, doing: &'static str, all: Vec<Document>) -> Vec<Inserted> {
    // Always by ticket: two processes that insert some of the same ones then never wait for each other in a circle,
    // where a server takes each command as one transaction.
    let mut places: Vec<_> = (0..all.len()).collect();
    places.sort_by_key(|place| all.get(*place).and_then(|document| document.get_object_id("ticket").ok()));
    let sorted: Vec<_> = places.iter().filter_map(|place| all.get(*place)).collect();
    let result = match &sorted[..] {
        [one] => documents.insert_one(*one).await.map(drop),
        sorted => documents.insert_many(sorted.iter().copied()).ordered(false).await.map(drop),
    };
    let mut inserted = vec![Ok(()); all.len()];
    if let Err(error) = result {
        for (place, outcome) in places.into_iter().zip(outcomes(doing, &error, all.len())) {
            if let Some(inserted) = inserted.get_mut(place) {
                *inserted = outcome;
            }
        }
    }
    inserted
}

/// What became of each of `count` documents of a command with this error.
fn outcomes(doing: &'static str, error: &Error, count: usize) -> Vec<Inserted> {
    let ErrorKind::InsertMany(failure) = &*error.kind else {
        return vec![Err(InsertError::from_driver(doing, error)); count];
    };
    let refused = failure.write_errors.iter().flatten();
    let mut refused: HashMap<_, _> = refused
        .map(|refused| (refused.index, InsertError::from_answer(doing, refused.code, &refused.message)))
        .collect();
    // Those that were inserted and may be lost again: to be looked at.
    let unsafe_yet = failure.write_concern_error.as_ref().map(|concern| InsertError {
        is_transient: true,
        ..InsertError::from_answer(doing, concern.code, &concern.message)
    });
    (0..count).map(|index| refused.remove(&index).or(unsafe_yet.clone()).map_or(Ok(()), Err)).collect()
}
