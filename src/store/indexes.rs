//! Creates and checks the indexes.
//!
//! That an index is listed does not mean that it holds: some servers list it while they build it, and duplicates can be
//! written until that is done. So the server is always told to create the indexes, which waits for one that is being
//! built, and nothing is reserved before it has answered.

use mongodb::{
    bson::{Bson, Document, doc, oid::ObjectId},
    error::Error,
};

use super::{
    answer::on_one_line,
    code,
    database::Store,
    document::ORDERS,
    driver_error::{describe, is_transient, server_code},
    duplicates::tickets_sold_twice,
    error::StoreError,
    index_definition::Definition,
    own_indexes::{OwnIndex, outbox_index, own_indexes},
    retry,
    ticket_index::{ONE_ACTIVE_ORDER, active_order},
};

const MAKING: &str = "making the indexes";
const CHECKING: &str = "checking the indexes";

impl Store {
    /// Creates missing indexes, waits for those that are being built, and checks that nothing is in their way.
    ///
    /// Any number of processes may call it at the same time, any number of times.
    ///
    /// # Errors
    /// When stored orders violate the unique index, the server is too old for it, another index conflicts with it, or
    /// the database is unavailable. An index that cannot be made does not keep the others from being made.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        let mut first = None;
        for (index, name) in self.named_indexes().await? {
            // If the time limit passes, the server goes on, and the next attempt waits for the same index again.
            match retry::within(retry::SLOW_DEADLINE, MAKING, self.create(&index, &name)).await {
                Err(error) if error.is_unavailable() && !error.is_of_an_index() => return Err(error),
                Err(error) => first = first.or(Some(error)),
                Ok(()) => {}
            }
        }
        match first {
            Some(error) => Err(error),
            None => self.check_indexes().await,
        }
    }

    /// The indexes that must be there, each with the name under which it is made. What the server lists is not kept while
    /// they are made, which may take long.
    async fn named_indexes(&self) -> Result<Vec<(OwnIndex, String)>, StoreError> {
        let existing = self.existing_indexes().await?;
        self.see_events_in(&existing);
        // The same index under another name serves as well; under that name, one that is being built is waited for.
        let named = |index: OwnIndex| {
            let same = find_same(&existing, &Definition::of(&index.description()));
            let name = same.map_or(index.name, name_of).to_owned();
            (index, name)
        };
        Ok(self.wanted_indexes().into_iter().map(named).collect())
    }

    /// Checks that the indexes are there and in use, and that nothing is in their way. It shows also that the database
    /// can read: a server that has lost its storage still answers other commands.
    ///
    /// # Errors
    /// [`StoreError::MissingIndex`] when one is missing or being built, [`StoreError::IndexConflict`] when an index of
    /// others refuses orders that ours allow; or when the database is unavailable.
    pub async fn check_indexes(&self) -> Result<(), StoreError> {
        retry::patiently(CHECKING, || self.try_check_indexes()).await
    }

    /// Whether changes of orders are put in the outbox, as the database says.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn uses_outbox(&self) -> Result<bool, StoreError> {
        let existing = retry::patiently(CHECKING, || self.existing_indexes()).await?;
        self.see_events_in(&existing);
        Ok(self.has_events())
    }

    async fn try_check_indexes(&self) -> Result<(), StoreError> {
        let existing = self.existing_indexes().await?;
        self.see_events_in(&existing);
        let wanted = self.wanted_indexes();
        let descriptions: Vec<_> = wanted.iter().map(|index| (index.name, index.description())).collect();
        for (name, description) in &descriptions {
            let wanted = Definition::of(description);
            let Some(index) = find_same(&existing, &wanted) else {
                return Err(missing(&existing, name, &wanted));
            };
            if *name == ONE_ACTIVE_ORDER {
                self.ticket_index.set(name_of(index));
            }
        }
        let is_ours =
            |other: &Definition<'_>| descriptions.iter().any(|(_, ours)| Definition::of(ours) == *other);
        let is_in_the_way = |index: &&Document| {
            let definition = Definition::of(index);
            definition.refuses_orders() && !is_ours(&definition)
        };
        if let Some(index) = existing.iter().find(is_in_the_way) {
            return Err(StoreError::IndexConflict {
                name: on_one_line(name_of(index)),
                ours: ONE_ACTIVE_ORDER,
                detail: "it is unique and rejects orders whose ticket no active order holds".into(),
            });
        }
        // One that is listed may still be in the making; then no query can use it.
        let nobodys_ticket = ObjectId::from([0; 12]);
        let orders = self.raw_orders();
        retry::transient(CHECKING, || async {
            orders.find_one(active_order(nobodys_ticket)).hint(self.ticket_index.hint()).await
        })
        .await
        .map(drop)
    }

    /// The indexes that must be there.
    fn wanted_indexes(&self) -> Vec<OwnIndex> {
        own_indexes().into_iter().chain(self.outbox.is_wanted().then(outbox_index)).collect()
    }

    /// Looks whether all indexes are listed, and sees whether events are on for the database. Costs the server nothing.
    ///
    /// # Errors
    /// [`StoreError::MissingIndex`] when one is not; or when the database fails.
    pub async fn has_indexes(&self) -> Result<(), StoreError> {
        let existing = self.existing_indexes().await?;
        self.see_events_in(&existing);
        for index in self.wanted_indexes() {
            let description = index.description();
            let wanted = Definition::of(&description);
            if find_same(&existing, &wanted).is_none() {
                return Err(missing(&existing, index.name, &wanted));
            }
        }
        Ok(())
    }

    /// Sees whether events are on for the database.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look_for_events(&self) -> Result<(), StoreError> {
        self.see_events_in(&self.existing_indexes().await?);
        Ok(())
    }

    fn see_events_in(&self, existing: &[Document]) {
        let description = outbox_index().description();
        self.outbox.see(find_same(existing, &Definition::of(&description)).is_some());
    }

    /// The descriptions of all indexes of the orders; none if there is no collection yet.
    pub(super) async fn existing_indexes(&self) -> Result<Vec<Document>, StoreError> {
        let listed = retry::transient("listing the indexes", || async {
            match self.database.run_command(doc! { "listIndexes": ORDERS }).await {
                Err(error) if server_code(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(Document::new()),
                listed => listed,
            }
        })
        .await?;
        // The first batch has them all: MongoDB allows 64.
        let batch = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let indexes = batch.into_iter().flatten().take(MAX_INDEXES).filter_map(Bson::as_document);
        let is_one = |index: &&Document| name_of(index).len() <= MAX_NAME && fields(index) <= MAX_FIELDS;
        Ok(indexes.filter(is_one).cloned().collect())
    }

    async fn create(&self, index: &OwnIndex, name: &str) -> Result<(), StoreError> {
        let (orders, model) = (self.orders(), index.model(name));
        for attempt in 1.. {
            let Err(error) = orders.create_index(model.clone()).await else { break };
            // Processes that start at the same time also create the collection at the same time.
            let raced = server_code(&error) == Some(code::NAMESPACE_EXISTS);
            if attempt == ATTEMPTS || !(raced || is_transient(&error)) {
                return Err(self.explain_failure(index, error).await?);
            }
            retry::backoff(attempt).await;
        }
        Ok(())
    }

    /// What it means that the server did not create `index`.
    async fn explain_failure(&self, index: &OwnIndex, error: Error) -> Result<StoreError, StoreError> {
        let from_driver = |error: Error| StoreError::from_driver(MAKING, &error);
        let detail = describe(&error);
        match server_code(&error) {
            // MongoDB reports a duplicate key, DocumentDB only a failure; with both, the duplicates can be queried.
            Some(code::DUPLICATE_KEY | code::INTERNAL) if index.is_unique => {
                let tickets = tickets_sold_twice(&self.orders()).await.map_err(from_driver)?;
                Ok(tickets.map_or_else(|| from_driver(error), StoreError::DuplicateActiveOrders))
            }
            Some(code::CANNOT_CREATE_INDEX) => Ok(StoreError::UnsupportedServer(detail)),
            Some(code::INDEX_OPTIONS_CONFLICT | code::INDEX_KEYS_CONFLICT) => {
                let existing = self.existing_indexes().await?;
                let description = index.description();
                if find_same(&existing, &Definition::of(&description)).is_some() {
                    // Another process has made the same index under another name meanwhile. It may still be building
                    // it, so it is tried again under that name.
                    return Ok(StoreError::Unavailable { doing: MAKING, detail });
                }
                let by_name = existing.iter().find(|other| name_of(other) == index.name);
                let by_keys =
                    || existing.iter().find(|other| other.get_document("key").ok() == Some(&index.keys));
                let name = on_one_line(by_name.or_else(by_keys).map_or(index.name, name_of));
                Ok(StoreError::IndexConflict { name, ours: index.name, detail })
            }
            _ => Ok(from_driver(error)),
        }
    }
}

/// The most indexes of a collection that are looked at: as many as MongoDB allows.
const MAX_INDEXES: usize = 64;

/// The most fields of the description of an index that is looked at, those of documents within it included. One of 32 keys
/// with a collation has about 60.
const MAX_FIELDS: usize = 200;

/// The longest name of an index that is kept, in bytes. MongoDB's limit is lower.
const MAX_NAME: usize = 255;

/// How often the creation of an index is tried, while its errors are likely to pass.
const ATTEMPTS: u32 = 8;

pub(super) fn name_of(index: &Document) -> &str {
    index.get_str("name").unwrap_or_default()
}

/// How many fields a description has.
fn fields(index: &Document) -> usize {
    index.values().map(of_value).sum()
}

fn of_value(value: &Bson) -> usize {
    match value {
        Bson::Document(inner) => 1 + fields(inner),
        Bson::Array(list) => 1 + list.iter().map(of_value).sum::<usize>(),
        _ => 1,
    }
}

fn find_same<'a>(existing: &'a [Document], wanted: &Definition<'_>) -> Option<&'a Document> {
    existing.iter().find(|index| Definition::of(index) == *wanted)
}

/// Why none of the `existing` indexes is the one that is `wanted`.
fn missing(existing: &[Document], name: &'static str, wanted: &Definition<'_>) -> StoreError {
    let hidden = existing.iter().find(|index| Definition::of(index).is_hidden_form_of(wanted));
    match hidden {
        Some(index) => StoreError::IndexConflict {
            name: on_one_line(name_of(index)),
            ours: name,
            detail: "it is hidden, so no query may use it".into(),
        },
        None => StoreError::MissingIndex { doing: CHECKING, detail: format!("there is no index {name}") },
    }
}
