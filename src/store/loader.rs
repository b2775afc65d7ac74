//! Reads documents by their ids; concurrent reads share queries.

use std::{collections::HashMap, sync::Arc};

use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, oid::ObjectId},
};

use super::{answer::at_most, batcher::Batcher, error::StoreError, retry};

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
    let found: Result<Vec<RawDocumentBuf>, _> = retry::transient(doing, || async {
        match &ids[..] {
            [id] => Ok(collection.find_one(doc! { "_id": id }).await?.into_iter().collect()),
            ids => {
                let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                let find = collection.find(doc! { "_id": { "$in": ids } });
                // A limit and one batch of that size: the server keeps no cursor open, and there is one round trip.
                at_most(count, find.limit(i64::from(count)).batch_size(count).await?).await
            }
        }
    })
    .await;
    match found {
        Ok(found) => {
            let with_id =
                |document: RawDocumentBuf| Some((document.get_object_id("_id").ok()?, Arc::new(document)));
            let by_id: HashMap<_, _> = found.into_iter().filter_map(with_id).collect();
            calls.into_iter().map(|ids| Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())).collect()
        }
        Err(error) => vec![Err(error); calls.len()],
    }
}
