//! What a majority of the servers has, so that no failover takes it back.
//!
//! A primary answers reads with what it has alone; a write that no majority has acknowledged is seen too, by the process whose
//! write it was as well, and may be rolled back. So whoever is told that something is done, or never was, is told by one of
//! these:
//!
//! - a write that was acknowledged: no write counts before a majority has it;
//! - what a majority has ([`Store::acknowledged`]): it may be older than what the primary has. That is enough where what is
//!   read decides only whether to write, and the write has a condition of its own;
//! - what the primary has, confirmed by a write that changes nothing ([`Store::holds`]).

use mongodb::{
    Collection,
    bson::{Document, doc},
    options::{CollectionOptions, ReadConcern},
};

use super::{database::Store, error::StoreError, retry};

impl Store {
    /// A collection as a majority has it.
    pub(super) fn acknowledged<T: Send + Sync>(&self, collection: &str) -> Collection<T> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::majority());
        self.database.collection_with_options(collection, options.build())
    }

    /// Whether there is a document that `seen` matches, at a server which a majority takes for the primary, and so that no
    /// failover changes the answer.
    ///
    /// It is a write that changes nothing, and finds nothing to change if there is none: like any other, it is acknowledged
    /// only after a majority has all that its server had when it looked.
    ///
    /// # Errors
    /// When the database fails, or no majority acknowledges it in time.
    pub(super) async fn holds(
        &self,
        doing: &'static str,
        collection: &str,
        seen: Document,
    ) -> Result<bool, StoreError> {
        let collection: Collection<Document> = self.database.collection(collection);
        // Has no effect on a document that exists, and this makes none.
        let nothing = doc! { "$setOnInsert": { "version": 0 } };
        let found =
            retry::transient(doing, || async { collection.update_one(seen.clone(), nothing.clone()).await })
                .await?;
        Ok(found.matched_count > 0)
    }
}
