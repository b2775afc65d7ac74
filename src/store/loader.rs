//! Reads documents by their ids; concurrent reads share queries.

use std::{collections::HashMap, sync::Arc};

use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, oid::ObjectId},
};

use super::{
    batcher::Batcher,
    by_ids::{by_id, one_of_each},
    error::StoreError,
};

/// The documents with the ids of one call, in the order of these ids; `None` for an id that is not stored. All who ask for
/// a document at the same time share it.
type Loaded = Result<Vec<Option<Arc<RawDocumentBuf>>>, StoreError>;

/// Loads documents of one collection by id. Clones share their queries.
#[derive(Clone)]
pub(super) struct Loader {
    collection: Collection<RawDocumentBuf>,
    doing: &'static str,
    batcher: Batcher<Vec<ObjectId>, Loaded>,
}

impl Loader {
    pub(super) fn new(collection: Collection<RawDocumentBuf>, doing: &'static str) -> Self {
        Self { collection, doing, batcher: Batcher::new(doing) }
    }

    /// The document with this id, if it is stored.
    pub(super) async fn one(&self, id: ObjectId) -> Result<Option<Arc<RawDocumentBuf>>, StoreError> {
        Ok(self.many(vec![id]).await?.pop().flatten())
    }

    /// The documents with these ids.
    pub(super) async fn many(&self, ids: Vec<ObjectId>) -> Loaded {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (collection, doing) = (self.collection.clone(), self.doing);
        let (count, send) = (ids.len(), move |calls| find(collection.clone(), doing, calls));
        self.batcher.call(ids, count, send).await?
    }
}

/// One query for the ids of all `calls`.
async fn find(
    collection: Collection<RawDocumentBuf>,
    doing: &'static str,
    calls: Vec<Vec<ObjectId>>,
) -> Vec<Loaded> {
    let mut ids = calls.concat();
    ids.sort_unstable();
    ids.dedup();
    match one_of_each(doing, &collection, &ids, |id| doc! { "_id": id }, || None).await {
        Ok(found) => {
            let by_id = by_id(found, "_id").into_iter().map(|(id, document)| (id, Arc::new(document)));
            let by_id: HashMap<_, _> = by_id.collect();
            calls.into_iter().map(|ids| Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())).collect()
        }
        Err(error) => vec![Err(error); calls.len()],
    }
}
