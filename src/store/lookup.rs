//! Reading documents by their ids, together with whoever else does so at the time.

use std::collections::HashMap;

use futures::{TryStreamExt, future::try_join_all};
use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, oid::ObjectId},
};

use super::{StoreError, batch::Batches, retry};

type Found = Result<Option<RawDocumentBuf>, StoreError>;

/// The documents of one collection, by id. Clones share their queries.
#[derive(Clone)]
pub(super) struct Lookup {
    documents: Collection<RawDocumentBuf>,
    doing: &'static str,
    batches: Batches<ObjectId, Found>,
}

impl Lookup {
    pub(super) fn new(documents: Collection<RawDocumentBuf>, doing: &'static str) -> Self {
        Self { documents, doing, batches: Batches::default() }
    }

    /// The document with this id, if there is one.
    pub(super) async fn one(&self, id: ObjectId) -> Found {
        Ok(self.all([id]).await?.pop().flatten())
    }

    /// Those with these ids, in their order, as far as there are any.
    pub(super) async fn all(
        &self,
        ids: impl IntoIterator<Item = ObjectId>,
    ) -> Result<Vec<Option<RawDocumentBuf>>, StoreError> {
        let (documents, doing) = (self.documents.clone(), self.doing);
        let answers = self.batches.ask(ids, move |ids| find(documents.clone(), doing, ids));
        let lost = || StoreError::Failed { doing, detail: "the query has ended without an answer".into() };
        let answer = |answer| async move { Result::unwrap_or_else(answer.await, |_| Err(lost())) };
        retry::within(retry::DEADLINE, doing, try_join_all(answers.into_iter().map(answer))).await
    }
}

async fn find(documents: Collection<RawDocumentBuf>, doing: &'static str, ids: Vec<ObjectId>) -> Vec<Found> {
    let found: Result<Vec<RawDocumentBuf>, _> = retry::transient(doing, || async {
        match &ids[..] {
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
    let found: Result<HashMap<_, _>, _> = found.map(|found| {
        let with_id = |document: RawDocumentBuf| Some((document.get_object_id("_id").ok()?, document));
        found.into_iter().filter_map(with_id).collect()
    });
    ids.iter().map(|id| found.as_ref().map(|found| found.get(id).cloned()).map_err(Clone::clone)).collect()
}
