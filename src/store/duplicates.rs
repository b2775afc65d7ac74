//! Stored orders because of which a ticket has been sold twice, or would be.
//!
//! The unique index sees orders whose status it knows and whose ticket is an ObjectId. An order that other programs have
//! written with the status `completed`, or with its ticket as text, holds its ticket without being seen, and the ticket
//! would be sold again in silence.

use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
    error::Result as DriverResult,
};

use super::{
    answer::{at_most, on_one_line},
    database::Store,
    document::statuses,
    error::StoreError,
    retry,
};
use crate::order::OrderStatus;

const LOOKING: &str = "looking for orders that hold a ticket but are not in the unique index";

/// How many orders an error names.
const EXAMPLES: u32 = 3;

/// Up to which number such orders are counted.
const COUNT_LIMIT: u64 = 10_000;

impl Store {
    /// Checks that no order holds a ticket in a way that the unique index does not see. It reads the whole collection.
    ///
    /// # Errors
    /// [`StoreError::UnseenOrders`] when there are such orders; or when the database is unavailable.
    pub async fn check_orders(&self) -> Result<(), StoreError> {
        let orders = self.orders();
        let found: Vec<Document> = retry::slow(LOOKING, || async {
            let find = orders.find(unseen()).projection(doc! { "status": 1, "ticket": 1 });
            at_most(EXAMPLES, find.limit(EXAMPLES.into()).batch_size(EXAMPLES).await?).await
        })
        .await?;
        if found.is_empty() {
            return Ok(());
        }
        let count = || async { orders.count_documents(unseen()).limit(COUNT_LIMIT).await };
        let count = retry::slow(LOOKING, count).await?;
        Err(StoreError::UnseenOrders { count, examples: found.iter().map(example).collect() })
    }
}

/// Selects orders that hold a ticket and are not in the unique index as such.
fn unseen() -> Document {
    doc! { "$or": [
        { "status": { "$nin": statuses(&OrderStatus::ALL) }, "ticket": { "$ne": null } },
        {
            "status": { "$in": statuses(&OrderStatus::ACTIVE) },
            "ticket": { "$ne": null, "$not": { "$type": "objectId" } },
        },
    ] }
}

/// The id of an order, and what about it is not known.
fn example(order: &Document) -> (String, String) {
    let text = |value: Option<&Bson>| {
        let value = value.map_or_else(|| "missing".to_owned(), ToString::to_string);
        on_one_line(&value.chars().take(40).collect::<String>())
    };
    let id = match order.get("_id") {
        Some(Bson::ObjectId(id)) => id.to_hex(),
        other => text(other),
    };
    let status = order.get_str("status").ok().and_then(|status| status.parse::<OrderStatus>().ok());
    let problem = match status {
        None => format!("its status is {}", text(order.get("status"))),
        Some(_) => format!("its ticket is {}, which is not an ObjectId", text(order.get("ticket"))),
    };
    (id, problem)
}

/// Up to three tickets that more than one active order holds, separated by commas.
pub(super) async fn tickets_sold_twice(orders: &Collection<Document>) -> DriverResult<Option<String>> {
    let active = doc! { "status": { "$in": statuses(&OrderStatus::ACTIVE) }, "ticket": { "$exists": true } };
    let pipeline = [
        doc! { "$match": active },
        doc! { "$group": { "_id": "$ticket", "orders": { "$sum": 1 } } },
        doc! { "$match": { "orders": { "$gt": 1 } } },
        doc! { "$limit": EXAMPLES },
    ];
    let found: Vec<Document> = at_most(EXAMPLES, orders.aggregate(pipeline).await?).await?;
    let tickets = found.iter().filter_map(|group| group.get("_id")).map(|ticket| match ticket {
        Bson::ObjectId(id) => id.to_hex(),
        other => on_one_line(&other.to_string()),
    });
    let tickets = tickets.collect::<Vec<_>>().join(", ");
    Ok((!tickets.is_empty()).then_some(tickets))
}
