//! The indexes, of which one is the guarantee that a ticket is sold once.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, Document, doc},
    error::{Error, Result as DriverResult},
    options::IndexOptions,
};

use super::{
    code,
    database::Store,
    document::{IDEMPOTENCY_KEY, statuses, user_orders_keys},
    error::{StoreError, describe, is_transient, server_code},
    retry,
};
use crate::order::OrderStatus;

/// Making an index reads the whole collection, once; the server goes on if we stop waiting.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

const MAKING: &str = "making the indexes";

impl Store {
    /// Makes the indexes that are not there yet, and waits for them.
    ///
    /// Any number of processes may call it at once, and as often as they like.
    ///
    /// # Errors
    /// When orders that are there already contradict the unique index, when the server is too old
    /// for it, when another index is in the way, or when the database is away.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        let orders = self.orders();
        let there = existing(&orders).await?;
        for index in [by_user(), by_ticket(), by_key(), by_expiry()] {
            if !there.iter().any(|other| essence(other) == essence(&index)) {
                retry::within(BUILD_LIMIT, MAKING, ensure(&orders, index)).await?;
            }
        }
        Ok(())
    }
}

/// A user's orders, oldest first.
fn by_user() -> IndexModel {
    model("user_orders", user_orders_keys(), IndexOptions::default())
}

/// One active order per ticket: the guarantee.
fn by_ticket() -> IndexModel {
    let filter = doc! {
        "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        // Without it, all orders that lost their ticket would contradict one another.
        "ticket": { "$exists": true },
    };
    let options = IndexOptions::builder().unique(true).partial_filter_expression(filter).build();
    model("one_active_order_per_ticket", doc! { "ticket": 1 }, options)
}

/// One order per idempotency key of a user, whatever its status.
fn by_key() -> IndexModel {
    let filter = doc! { IDEMPOTENCY_KEY: { "$exists": true } };
    let options = IndexOptions::builder().unique(true).partial_filter_expression(filter).build();
    model("one_order_per_idempotency_key", doc! { "userId": 1, IDEMPOTENCY_KEY: 1 }, options)
}

/// What is due: only open orders are in it, so it stays small however many orders are kept.
fn by_expiry() -> IndexModel {
    let filter = doc! { "status": { "$in": statuses(&OrderStatus::OPEN) } };
    let options = IndexOptions::builder().partial_filter_expression(filter).build();
    model("open_orders_by_expiry", doc! { "expiresAt": 1, "_id": 1 }, options)
}

fn model(name: &str, keys: Document, mut options: IndexOptions) -> IndexModel {
    options.name = Some(name.to_owned());
    IndexModel::builder().keys(keys).options(options).build()
}

/// The indexes that are there. Looking first keeps the usual case, that all are, within the usual
/// deadline: a database that hangs must not be waited for as one that builds an index is.
async fn existing(orders: &Collection<Document>) -> Result<Vec<IndexModel>, StoreError> {
    let listed = retry::transient("listing the indexes", || async {
        orders.list_indexes().await?.try_collect().await
    })
    .await;
    match listed {
        Err(error) if !error.is_unavailable() => {
            // No collection yet, or an index of a kind that the driver does not know: making ours will tell.
            tracing::debug!(%error, "cannot list the indexes");
            Ok(Vec::new())
        }
        listed => listed,
    }
}

async fn ensure(orders: &Collection<Document>, index: IndexModel) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        let error = match orders.create_index(index.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Several processes that start together also create the collection together.
        let raced = server_code(&error) == Some(code::NAMESPACE_EXISTS);
        if !(retry::again(is_transient(&error), attempt) || raced && attempt < 3) {
            return refused(orders, index, error).await;
        }
        retry::pause(attempt).await;
        attempt += 1;
    }
}

/// What a refusal means.
async fn refused(orders: &Collection<Document>, index: IndexModel, error: Error) -> Result<(), StoreError> {
    let from_driver = |error: Error| StoreError::from_driver(MAKING, &error);
    match server_code(&error) {
        // A MongoDB says "duplicate key"; DocumentDB only that it failed. Both can be asked.
        Some(code::DUPLICATE_KEY | code::INTERNAL) if is_unique(&index) => {
            let tickets = sold_twice(orders).await.map_err(from_driver)?;
            if tickets.is_empty() {
                Err(from_driver(error))
            } else {
                Err(StoreError::DuplicateActiveOrders(tickets))
            }
        }
        Some(code::CANNOT_CREATE_INDEX) => Err(StoreError::UnsupportedServer(describe(&error))),
        // Somebody else made the same one under another name meanwhile, which serves as well.
        Some(code::INDEX_OPTIONS_CONFLICT | code::INDEX_KEYS_CONFLICT) => {
            if existing(orders).await?.iter().any(|other| essence(other) == essence(&index)) {
                return Ok(());
            }
            let name = index.options.and_then(|options| options.name).unwrap_or_default();
            Err(StoreError::IndexConflict { name, detail: describe(&error) })
        }
        _ => Err(from_driver(error)),
    }
}

/// Some of the tickets that more than one active order holds, as a text; empty when there are none.
async fn sold_twice(orders: &Collection<Document>) -> DriverResult<String> {
    let active = doc! { "status": { "$in": statuses(&OrderStatus::ACTIVE) }, "ticket": { "$exists": true } };
    let pipeline = [
        doc! { "$match": active },
        doc! { "$group": { "_id": "$ticket", "orders": { "$sum": 1 } } },
        doc! { "$match": { "orders": { "$gt": 1 } } },
        doc! { "$limit": 3 },
    ];
    let found: Vec<Document> = orders.aggregate(pipeline).await?.try_collect().await?;
    let tickets = found.iter().filter_map(|group| group.get("_id")).map(|ticket| match ticket {
        Bson::ObjectId(id) => id.to_hex(),
        other => other.to_string(),
    });
    Ok(tickets.collect::<Vec<_>>().join(", "))
}

fn is_unique(index: &IndexModel) -> bool {
    index.options.as_ref().and_then(|options| options.unique).unwrap_or_default()
}

/// What makes two indexes the same for us: the keys in order, uniqueness, and what is in them.
fn essence(index: &IndexModel) -> (Vec<&str>, bool, Option<&Document>) {
    let options = index.options.as_ref();
    (
        index.keys.keys().map(String::as_str).collect(),
        is_unique(index),
        options.and_then(|options| options.partial_filter_expression.as_ref()),
    )
}
