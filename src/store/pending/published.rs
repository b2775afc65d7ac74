//! Marks as published: clears from the outbox what the broker has.

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

const CLEARING: &str = "marking changes of orders as published";

/// How many orders one command marks as published.
const PER_COMMAND: usize = 1000;

/// An order of which everything up to a version is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The order.
    pub id: OrderId,
    /// The version.
    pub version: Version,
    /// The mark, if it was published again.
    pub again: Option<String>,
}

impl Store {
    /// Marks orders as published. Changes made since they were read stay pending.
    ///
    /// # Errors
    /// When the database fails. Some may be marked then; calling again is safe.
    pub async fn mark_published(&self, published: &[Published]) -> Result<(), StoreError> {
        let mut by_version = BTreeMap::<(Version, Option<&str>), Vec<ObjectId>>::new();
        for published in published {
            let key = (published.version, published.again.as_deref());
            by_version.entry(key).or_default().push(object_id(published.id.bytes()));
        }
        // The end of an order before the creation of the next: if this is interrupted, the end alone must not be published again.
        for ((version, again), ids) in by_version.into_iter().rev() {
            for ids in ids.chunks(PER_COMMAND) {
                self.mark_published_at(version, again, ids).await?;
            }
        }
        Ok(())
    }

    async fn mark_published_at(
        &self,
        version: Version,
        again: Option<&str>,
        ids: &[ObjectId],
    ) -> Result<(), StoreError> {
        let published = document::version(version);
        // An order without a version reads as one with 0.
        let as_read = if version == Version(0) {
            Bson::from(doc! { "$in": [published.clone(), Bson::Null] })
        } else {
            published.clone()
        };
        // What was put in the outbox again meanwhile stays pending.
        let again = again.map_or(Bson::from(doc! { "$exists": false }), Bson::from);
        let unchanged = |has_refused: bool| {
            doc! {
                "_id": { "$in": ids }, "version": as_read.clone(), FIRST_REFUSED: { "$exists": has_refused },
                AGAIN: again.clone(),
            }
        };
        let all = self.clear_fields(unchanged(false), doc! { OUTBOX: "" }).await?;
        if all >= ids.len() as u64 {
            return Ok(());
        }
        self.clear_fields(unchanged(true), doc! { SINCE: "", CREATED: "", UPDATED: "" }).await?;
        let changed = doc! {
            "_id": { "$in": ids }, "version": { "$gt": published }, OUTBOX: { "$exists": true }, AGAIN: again,
        };
        // Version 0 is the creation; the beginning of the payment comes after it.
        let mut fields = doc! { CREATED: "" };
        if version > Version(0) {
            fields.insert(UPDATED, "");
        }
        self.clear_fields(changed, fields).await.map(drop)
    }

    /// Marks the refusal of `payment` by the order `id` as published.
    ///
    /// # Errors
    /// As [`Store::mark_published`].
    pub async fn mark_refusal_published(&self, id: OrderId, payment: &str) -> Result<(), StoreError> {
        let id = object_id(id.bytes());
        let without = doc! { "$pull": { REFUSED: { "payment": payment } } };
        self.update_outbox(doc! { "_id": id, REFUSED: { "$exists": true } }, without).await?;
        // If this is interrupted here, the outbox has nothing left to publish, and the relay clears it.
        let mut nothing = doc! { "_id": id, OUTBOX: { "$exists": true } };
        nothing.extend(
            [SINCE, CREATED, UPDATED, FIRST_REFUSED]
                .map(|field| (field.to_owned(), doc! { "$exists": false }.into())),
        );
        self.clear_fields(nothing, doc! { OUTBOX: "" }).await.map(drop)
    }

    async fn clear_fields(&self, filter: Document, fields: Document) -> Result<u64, StoreError> {
        self.update_outbox(filter, doc! { "$unset": fields }).await
    }

    async fn update_outbox(&self, filter: Document, update: Document) -> Result<u64, StoreError> {
        let orders = self.orders();
        let result = retry::patiently_transient(CLEARING, || async {
            let update = orders.update_many(filter.clone(), update.clone());
            update.session(self.relay_session().await?.get()).await
        })
        .await?;
        Ok(result.matched_count)
    }
}
