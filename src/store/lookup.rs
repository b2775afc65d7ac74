//! Reading documents by their ids, together with whoever else does so at the time.

use std::collections::HashMap;

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, oid::ObjectId},
};

use super::{batch::Batches, error::StoreError, retry};

/// The documents of one call, in the order of its ids.
type Found = Result<Vec<Option<RawDocumentBuf>>, StoreError>;

/// The documents of one collection, by id. Clones share their queries.
#[derive(Clone)]
pub(super) struct Lookup {
    documents: Collection<RawDocumentBuf>,
    doing: &'static str,
    batches: Batches<Vec<ObjectId>, Found>,
}

impl Lookup {
    pub(super) fn new(documents: Collection<RawDocumentBuf>, doing: &'static str) -> Self {
        Self { documents, doing, batches: Batches::new(doing) }
    }

    /// The document with this id, if there is one.
    pub(super) async fn one(&self, id: ObjectId) -> Result<Option<RawDocumentBuf>, StoreError> {
        Ok(self.all(vec![id]).await?.pop().flatten())
    }

    /// Those with these ids, in their order, as far as there are any.
    pub(super) async fn all(&self, ids: Vec<ObjectId>) -> Found {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (documents, doing) = (self.documents.clone(), self.doing);
        let (weight, send) = (ids.len(), move |calls| find(documents.clone(), doing, calls));
        self.batches.ask(ids, weight, send).await?
    }
}

async fn find(
    documents: Collection<RawDocumentBuf>,
    doing: &'static str,
    calls: Vec<Vec<ObjectId>>,
) -> Vec<Found> {
    let found: Result<Vec<RawDocumentBuf>, _> = retry::transient(doing, || async {
        match &calls.concat()[..] {
            [id] => Ok(documents.find_one(doc! { "_id": id }).await?.into_iter().collect()),
            ids => {
                let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                let find = documents.find(doc! { "_id": { "$in": ids } });
                // All in one batch, after which no cursor stays open.
                find.limit(i64::from(count)).batch_size(count).await?.try_collect().await
            }
        }
    })
    .await;
    match found {
        Ok(found) => {
            let with_id = |document: RawDocumentBuf| Some((document.get_object_id("_id").ok()?, document));
            let found: HashMap<_, _> = found.into_iter().filter_map(with_id).collect();
            calls.into_iter().map(|ids| Ok(ids.iter().map(|id| found.get(id).cloned()).collect())).collect()
        }
        Err(error) => vec![Err(error); calls.len()],
    }
}
