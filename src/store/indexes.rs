//! The indexes. A unique one guarantees that each ticket is sold only once.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, future::ready};
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, Document, doc},
    error::{Error, Result as DriverResult},
    options::IndexOptions,
};

use super::{
    answer::{at_most, on_one_line},
    code,
    database::Store,
    document::{IDEMPOTENCY_KEY, statuses, user_orders_keys},
    error::{StoreError, describe, is_transient, server_code},
    positions, retry,
};
use crate::order::OrderStatus;

/// The time limit for creating an index, which reads the whole collection. The server continues if we stop waiting.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The most indexes of a collection that are looked at. MongoDB allows 64.
pub(super) const MAX_INDEXES: u32 = 1000;

const MAKING: &str = "making the indexes";

impl Store {
    /// Creates missing indexes, and waits for them.
    ///
    /// Any number of processes may call it at the same time, any number of times.
    ///
    /// # Errors
    /// When stored orders violate the unique index, the server is too old for it, another index conflicts with it, or
    /// the database is unavailable.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        let orders = self.orders();
        let existing = existing_indexes(&orders).await?;
        for index in ours() {
            if !has(&existing, &index) {
                retry::within(BUILD_LIMIT, MAKING, ensure(&orders, index)).await?;
            }
        }
        Ok(())
    }
}

/// Every index that the orders need.
pub(super) fn ours() -> [IndexModel; 5] {
    [
        user_orders(),
        one_active_order_per_ticket(),
        one_order_per_idempotency_key(),
        one_order_per_list_position(),
        open_orders_by_expiry(),
    ]
}

/// A user's orders, oldest first.
fn user_orders() -> IndexModel {
    model("user_orders", user_orders_keys(), IndexOptions::default())
}

/// Guarantees that a ticket is sold only once.
fn one_active_order_per_ticket() -> IndexModel {
    let filter = doc! {
        "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        // Otherwise orders without a ticket would violate the index, all having the same missing value.
        "ticket": { "$exists": true },
    };
    let options = IndexOptions::builder().unique(true).partial_filter_expression(filter).build();
    model("one_active_order_per_ticket", doc! { "ticket": 1 }, options)
}

/// One order per idempotency key of a user, whatever its status.
fn one_order_per_idempotency_key() -> IndexModel {
    let filter = doc! { IDEMPOTENCY_KEY: { "$exists": true } };
    let options = IndexOptions::builder().unique(true).partial_filter_expression(filter).build();
    model("one_order_per_idempotency_key", doc! { "userId": 1, IDEMPOTENCY_KEY: 1 }, options)
}

/// One order per position of a user's list.
fn one_order_per_list_position() -> IndexModel {
    let options =
        IndexOptions::builder().unique(true).partial_filter_expression(positions::is_placed()).build();
    model("one_order_per_list_position", positions::keys(), options)
}

/// For the sweeper. Only open orders are in it, so it stays small however many orders are stored.
fn open_orders_by_expiry() -> IndexModel {
    let filter = doc! { "status": { "$in": statuses(&OrderStatus::OPEN) } };
    let options = IndexOptions::builder().partial_filter_expression(filter).build();
    model("open_orders_by_expiry", doc! { "expiresAt": 1, "_id": 1 }, options)
}

fn model(name: &str, keys: Document, mut options: IndexOptions) -> IndexModel {
    options.name = Some(name.to_owned());
    IndexModel::builder().keys(keys).options(options).build()
}

/// Those of our indexes that exist; nothing is kept of others. Usually none is missing, and then only the usual deadline applies: a server that builds an
/// index is waited for longer, but not one that hangs.
async fn existing_indexes(orders: &Collection<Document>) -> Result<Vec<IndexModel>, StoreError> {
    let listed = retry::transient("listing the indexes", || async {
        let listed = orders.list_indexes().await?.take(MAX_INDEXES as usize);
        let of_ours =
            |listed: IndexModel| ready(Ok(ours().into_iter().find(|index| is_same(index, &listed))));
        listed.try_filter_map(of_ours).try_collect().await
    })
    .await;
    match listed {
        Err(error) if !error.is_unavailable() => {
            // There is no collection yet, or an index that the driver cannot parse: creating ours will show.
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
        // Processes that start at the same time also create the collection at the same time.
        let raced = server_code(&error) == Some(code::NAMESPACE_EXISTS);
        if !(retry::should_retry(is_transient(&error), attempt) || raced && attempt < 3) {
            return explain_failure(orders, index, error).await;
        }
        retry::backoff(attempt).await;
        attempt += 1;
    }
}

/// What it means that the server did not create `index`.
async fn explain_failure(
    orders: &Collection<Document>,
    index: IndexModel,
    error: Error,
) -> Result<(), StoreError> {
    let from_driver = |error: Error| StoreError::from_driver(MAKING, &error);
    match server_code(&error) {
        // MongoDB reports a duplicate key, DocumentDB only a failure; with both, the duplicates can be queried.
        Some(code::DUPLICATE_KEY | code::INTERNAL) if is_unique(&index) => {
            let tickets = tickets_sold_twice(orders).await.map_err(from_driver)?;
            if tickets.is_empty() {
                Err(from_driver(error))
            } else {
                Err(StoreError::DuplicateActiveOrders(tickets))
            }
        }
        Some(code::CANNOT_CREATE_INDEX) => Err(StoreError::UnsupportedServer(describe(&error))),
        // Another process has created the same index under another name meanwhile, which serves as well.
        Some(code::INDEX_OPTIONS_CONFLICT | code::INDEX_KEYS_CONFLICT) => {
            if has(&existing_indexes(orders).await?, &index) {
                return Ok(());
            }
            let name = index.options.and_then(|options| options.name).unwrap_or_default();
            Err(StoreError::IndexConflict { name, detail: describe(&error) })
        }
        _ => Err(from_driver(error)),
    }
}

/// Up to three tickets that more than one active order holds, separated by commas; empty if there are none.
async fn tickets_sold_twice(orders: &Collection<Document>) -> DriverResult<String> {
    let active = doc! { "status": { "$in": statuses(&OrderStatus::ACTIVE) }, "ticket": { "$exists": true } };
    let pipeline = [
        doc! { "$match": active },
        doc! { "$group": { "_id": "$ticket", "orders": { "$sum": 1 } } },
        doc! { "$match": { "orders": { "$gt": 1 } } },
        doc! { "$limit": 3 },
    ];
    let found: Vec<Document> = at_most(3, orders.aggregate(pipeline).await?).await?;
    let tickets = found.iter().filter_map(|group| group.get("_id")).map(|ticket| match ticket {
        Bson::ObjectId(id) => id.to_hex(),
        other => on_one_line(&other.to_string()),
    });
    Ok(tickets.collect::<Vec<_>>().join(", "))
}

pub(super) fn is_unique(index: &IndexModel) -> bool {
    index.options.as_ref().and_then(|options| options.unique).unwrap_or_default()
}

fn has(existing: &[IndexModel], index: &IndexModel) -> bool {
    existing.iter().any(|other| is_same(other, index))
}

fn is_same(one: &IndexModel, other: &IndexModel) -> bool {
    definition(one) == definition(other)
}

/// What must be equal for an existing index to serve as ours: the keys in order, uniqueness and the partial filter.
pub(super) fn definition(index: &IndexModel) -> (Vec<&str>, bool, Option<&Document>) {
    let options = index.options.as_ref();
    (
        index.keys.keys().map(String::as_str).collect(),
        is_unique(index),
        options.and_then(|options| options.partial_filter_expression.as_ref()),
    )
}
