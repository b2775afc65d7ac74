//! Notes what has been told.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document, doc, oid::ObjectId};

use crate::{
    order::{OrderId, Version},
    store::{
        database::Store,
        document::{self, object_id},
        error::StoreError,
        outbox::{AGAIN, CREATED, FIRST_REFUSED, OUTBOX, REFUSED, SINCE, UPDATED},
        retry,
    },
};

const CLEARING: &str = "noting which changes of orders have been told";

/// How many orders one command marks as told.
const PER_COMMAND: usize = 1000;

/// An order of which everything up to a version has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The order.
    pub id: OrderId,
    /// The version.
    pub version: Version,
    /// The mark, if it was told again.
    pub again: Option<String>,
}

impl Store {
    /// Notes what has been told; what has changed since is still to be told.
    ///
    /// # Errors
    /// When the database fails. Some of it may be noted then; calling again is safe.
    pub async fn note_told(&self, told: &[Told]) -> Result<(), StoreError> {
        let mut by_version = BTreeMap::<(Version, Option<&str>), Vec<ObjectId>>::new();
        for told in told {
            let key = (told.version, told.again.as_deref());
            by_version.entry(key).or_default().push(object_id(told.id.bytes()));
        }
        // The end of an order before the making of the next: if this is interrupted, the end alone must not be told again.
        for ((version, again), ids) in by_version.into_iter().rev() {
            for ids in ids.chunks(PER_COMMAND) {
                self.note_told_at(version, again, ids).await?;
            }
        }
        Ok(())
    }

    async fn note_told_at(
        &self,
        version: Version,
        again: Option<&str>,
        ids: &[ObjectId],
    ) -> Result<(), StoreError> {
        let told = document::version(version);
        // An order without a version reads as one with 0.
        let as_read = if version == Version(0) {
            Bson::from(doc! { "$in": [told.clone(), Bson::Null] })
        } else {
            told.clone()
        };
        // What was noted again meanwhile is still to be told.
        let again = again.map_or(Bson::from(doc! { "$exists": false }), Bson::from);
        let unchanged = |has_refused: bool| {
            doc! {
                "_id": { "$in": ids }, "version": as_read.clone(), FIRST_REFUSED: { "$exists": has_refused },
                AGAIN: again.clone(),
            }
        };
        let all = self.update_told(unchanged(false), doc! { OUTBOX: "" }).await?;
        if all >= ids.len() as u64 {
            return Ok(());
        }
        self.update_told(unchanged(true), doc! { SINCE: "", CREATED: "", UPDATED: "" }).await?;
        let changed = doc! {
            "_id": { "$in": ids }, "version": { "$gt": told }, OUTBOX: { "$exists": true }, AGAIN: again,
        };
        // Whatever begins with 0 is the making; the beginning of the payment comes after it.
        let mut fields = doc! { CREATED: "" };
        if version > Version(0) {
            fields.insert(UPDATED, "");
        }
        self.update_told(changed, fields).await.map(drop)
    }

    /// Notes that the refusal of `payment` by the order `id` has been told.
    ///
    /// # Errors
    /// As [`Store::note_told`].
    pub async fn note_refusal_told(&self, id: OrderId, payment: &str) -> Result<(), StoreError> {
        let id = object_id(id.bytes());
        let without = doc! { "$pull": { REFUSED: { "payment": payment } } };
        self.update_untold(doc! { "_id": id, REFUSED: { "$exists": true } }, without).await?;
        // If this is interrupted here, there is nothing left to tell of the order, which is noted as told then.
        let mut nothing = doc! { "_id": id, OUTBOX: { "$exists": true } };
        nothing.extend(
            [SINCE, CREATED, UPDATED, FIRST_REFUSED]
                .map(|field| (field.to_owned(), doc! { "$exists": false }.into())),
        );
        self.update_told(nothing, doc! { OUTBOX: "" }).await.map(drop)
    }

    async fn update_told(&self, filter: Document, fields: Document) -> Result<u64, StoreError> {
        self.update_untold(filter, doc! { "$unset": fields }).await
    }

    async fn update_untold(&self, filter: Document, update: Document) -> Result<u64, StoreError> {
        let orders = self.orders();
        let result = retry::patiently(CLEARING, || async {
            retry::transient(CLEARING, || async {
                orders.update_many(filter.clone(), update.clone()).session(self.telling().await?.get()).await
            })
            .await
        })
        .await?;
        Ok(result.matched_count)
    }
}
