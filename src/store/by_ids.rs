//! One query for the documents of several ids.

use std::collections::HashMap;

use mongodb::{
    Collection,
    action::Action,
    bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId},
    options::Hint,
};

use super::{answer::at_most, error::StoreError, retry};

/// Finds at most one document for each of `ids`. `filter` selects that of one id, or those of any of several; `hint` is
/// asked at each attempt.
pub(super) async fn one_of_each(
    doing: &'static str,
    collection: &Collection<RawDocumentBuf>,
    ids: &[ObjectId],
    filter: impl Fn(Bson) -> Document,
    hint: impl Fn() -> Option<Hint>,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    retry::transient(doing, || async {
        if let [id] = ids {
            let find = collection.find_one(filter(Bson::ObjectId(*id)));
            let found = find.optional(hint(), |find, hint| find.hint(hint)).await?;
            return Ok(found.into_iter().collect());
        }
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let find = collection.find(filter(Bson::Document(doc! { "$in": ids })));
        let find = find.optional(hint(), |find, hint| find.hint(hint));
        // A limit and one batch of that size: the server keeps no cursor open, and there is one round trip.
        at_most(count, find.limit(i64::from(count)).batch_size(count).await?).await
    })
    .await
}

/// The documents by the id that each has in `field`.
pub(super) fn by_id(found: Vec<RawDocumentBuf>, field: &str) -> HashMap<ObjectId, RawDocumentBuf> {
    let with_id = |document: RawDocumentBuf| Some((document.get_object_id(field).ok()?, document));
    found.into_iter().filter_map(with_id).collect()
}
