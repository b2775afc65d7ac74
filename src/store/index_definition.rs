//! What an index guarantees, and whether one of others refuses orders that ours allows.

use mongodb::bson::{Bson, Document};

use super::{
    document::{IDEMPOTENCY_KEY, statuses},
    outbox::OUTBOX,
};
use crate::order::OrderStatus;

/// The fields that every order has which is reserved here, and those that it may have.
const FIELDS: [&str; 8] =
    ["_id", "userId", "status", "expiresAt", "ticket", "version", IDEMPOTENCY_KEY, OUTBOX];

/// What must be equal for one index to serve as another, from its description in `listIndexes` or `createIndexes`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition<'a> {
    /// The keys in order, with their directions or kinds.
    keys: Vec<(&'a str, Direction<'a>)>,
    is_unique: bool,
    is_sparse: bool,
    /// A hidden index is kept up to date, but no query may use it.
    is_hidden: bool,
    /// The documents that are in it; all, if there is no filter.
    filter: Option<&'a Document>,
    /// How strings are compared; none for the comparison of bytes.
    collation: Option<&'a Document>,
    /// When it deletes documents.
    expires: Option<&'a Bson>,
}

#[derive(Clone, Debug, PartialEq)]
enum Direction<'a> {
    Ascending,
    Descending,
    /// Such as `hashed` or `text`.
    Other(&'a Bson),
}

impl<'a> Definition<'a> {
    pub(super) fn of(index: &'a Document) -> Self {
        let keys = index.get_document("key").ok().into_iter().flatten();
        let collation = index.get_document("collation").ok();
        Self {
            keys: keys.map(|(name, value)| (name.as_str(), Direction::of(value))).collect(),
            is_unique: is_true(index, "unique"),
            is_sparse: is_true(index, "sparse"),
            is_hidden: is_true(index, "hidden"),
            filter: index.get_document("partialFilterExpression").ok(),
            collation: collation.filter(|collation| collation.get_str("locale").ok() != Some("simple")),
            expires: index.get("expireAfterSeconds"),
        }
    }

    pub(super) fn is_unique(&self) -> bool {
        self.is_unique
    }

    /// Whether it is the index of ids that every collection has.
    pub(super) fn is_of_ids(&self) -> bool {
        matches!(self.keys[..], [("_id", _)])
    }

    /// Whether it differs from `ours` only in being hidden.
    pub(super) fn is_hidden_form_of(&self, ours: &Self) -> bool {
        self.is_hidden && Self { is_hidden: false, ..self.clone() } == *ours
    }

    /// Whether this index, which is none of ours, refuses orders although no active order holds their ticket. An order
    /// that it refuses would be reported as a ticket that is reserved, for ever.
    pub(super) fn refuses_orders(&self) -> bool {
        let has_key = |field: &str| self.keys.iter().any(|(name, _)| name.split('.').next() == Some(field));
        let is_ours = |name: &str| name.split('.').next().is_some_and(|field| FIELDS.contains(&field));
        let covers_ours = match self.filter {
            // It has only documents with a field that no order of ours has.
            Some(filter) => filter.keys().all(|name| name.starts_with('$') || is_ours(name)),
            None => !self.is_sparse || self.keys.iter().any(|(name, _)| is_ours(name)),
        };
        // Of two active orders that hold the same ticket, ours refuses the second one too.
        let is_weaker = has_key("ticket") && self.filter.is_some_and(has_active_only);
        self.is_unique && !has_key("_id") && covers_ours && !is_weaker
    }
}

impl<'a> Direction<'a> {
    fn of(value: &'a Bson) -> Self {
        let number = match value {
            Bson::Int32(number) => f64::from(*number),
            Bson::Int64(number) if *number > 0 => 1.0,
            Bson::Int64(_) => -1.0,
            Bson::Double(number) => *number,
            other => return Self::Other(other),
        };
        if number < 0.0 { Self::Descending } else { Self::Ascending }
    }
}

/// Whether a partial index with this filter has only active orders.
fn has_active_only(filter: &Document) -> bool {
    let active = statuses(&OrderStatus::ACTIVE);
    let is_active = |status: &Bson| status.as_str().is_some_and(|status| active.contains(&status));
    match filter.get("status") {
        Some(Bson::Document(condition)) => {
            condition.get_array("$in").is_ok_and(|among| among.iter().all(is_active))
        }
        Some(status) => is_active(status),
        None => false,
    }
}

fn is_true(index: &Document, option: &str) -> bool {
    // Some tools write 1 for true.
    match index.get(option) {
        Some(Bson::Boolean(value)) => *value,
        Some(Bson::Int32(number)) => *number != 0,
        Some(Bson::Int64(number)) => *number != 0,
        Some(Bson::Double(number)) => *number != 0.0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn direction_collation_hiding_and_expiry_make_another_index() {
        let ours = doc! { "v": 2, "name": "ours", "key": { "expiresAt": 1, "_id": 1 } };
        let same = [
            doc! { "name": "other", "key": { "expiresAt": 1.0, "_id": 1_i64 } },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "hidden": false, "collation": { "locale": "simple" } },
        ];
        let others = [
            doc! { "key": { "_id": 1, "expiresAt": 1 } },
            doc! { "key": { "expiresAt": -1, "_id": 1 } },
            doc! { "key": { "expiresAt": "hashed", "_id": 1 } },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "unique": true },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "sparse": true },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "hidden": true },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "collation": { "locale": "de" } },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "expireAfterSeconds": 60 },
            doc! { "key": { "expiresAt": 1, "_id": 1 }, "partialFilterExpression": { "status": "created" } },
        ];
        for index in &same {
            assert_eq!(Definition::of(index), Definition::of(&ours));
        }
        for index in &others {
            assert_ne!(Definition::of(index), Definition::of(&ours), "{index}");
        }
        assert!(Definition::of(&others[5]).is_hidden_form_of(&Definition::of(&ours)));
        assert!(!Definition::of(&others[4]).is_hidden_form_of(&Definition::of(&ours)));
    }

    #[test]
    fn an_index_of_others_is_in_the_way_if_it_refuses_orders_that_ours_allows() {
        let active = || doc! { "status": { "$in": ["created", "awaiting:payment", "complete"] } };
        for index in [
            doc! { "key": { "ticket": 1 }, "unique": true },
            doc! { "key": { "ticket": -1 }, "unique": true, "sparse": true },
            doc! { "key": { "ticket": 1, "userId": 1 }, "unique": true },
            doc! { "key": { "userId": 1 }, "unique": true },
            // All orders lack it, so there could be only one.
            doc! { "key": { "seat": 1 }, "unique": true },
            doc! { "key": { "ticket": 1 }, "unique": true, "partialFilterExpression": { "ticket": { "$exists": true } } },
            doc! { "key": { "ticket": 1 }, "unique": true, "partialFilterExpression": { "status": "cancelled" } },
            doc! { "key": { "userId": 1 }, "unique": true, "partialFilterExpression": active() },
        ] {
            assert!(Definition::of(&index).refuses_orders(), "{index}");
        }
        for index in [
            doc! { "key": { "ticket": 1 } },
            doc! { "key": { "ticket": 1, "_id": 1 }, "unique": true },
            doc! { "key": { "seat": 1 }, "unique": true, "sparse": true },
            doc! { "key": { "ticket": 1 }, "unique": true, "partialFilterExpression": { "seat": { "$exists": true } } },
            doc! { "key": { "ticket": -1 }, "unique": true, "partialFilterExpression": active() },
            doc! { "key": { "ticket": 1, "userId": 1 }, "unique": true, "partialFilterExpression": { "status": "created" } },
        ] {
            assert!(!Definition::of(&index).refuses_orders(), "{index}");
        }
    }
}
