//! The database without the API: the stored documents, and the statements that the routes send.
//!
//! Ids are derived from a number, so that both sides know the id of every order and ticket.

use std::{
    env,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    bson::{DateTime, Document, RawDocumentBuf, doc, oid::ObjectId, rawdoc},
    options::{Acknowledgment, AggregateOptions, ClientOptions, FindOptions, WriteConcern},
};

use crate::{Result, measure::Client};

/// The name of the benchmark's database; what a killed run has left of it is dropped first.
pub const NAME: &str = "orders-bench";

/// The user who reserves.
pub const BUYER: &str = "buyer";

/// Orders per user.
pub const ORDERS_PER_USER: u64 = 10;

/// The pool size of `serve`.
const POOL: u32 = 32;

/// Documents per insert.
const BATCH: u64 = 1000;

/// What an id belongs to: an order, a sold ticket or a free ticket.
#[derive(Clone, Copy)]
pub enum Kind {
    Order = 1,
    Sold,
    Free,
}

pub fn id(kind: Kind, number: u64) -> ObjectId {
    let mut bytes = [0x65, 0xf0, 0xc1, kind as u8, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from(bytes)
}

/// The user of the order with this number, if users have `each` orders.
pub fn user(number: u64, each: u64) -> String {
    format!("user-{each}-{}", number / each)
}

/// The benchmark's own database.
#[derive(Clone)]
pub struct Db {
    pub database: Database,
    pub orders: Collection<RawDocumentBuf>,
    pub tickets: Collection<RawDocumentBuf>,
}

impl Db {
    /// Connects as `serve` does, and drops what is stored.
    pub async fn open() -> Result<Self> {
        let mut options = ClientOptions::parse(uri()?).await?;
        options.max_pool_size.get_or_insert(POOL);
        options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
        options
            .write_concern
            .get_or_insert_with(|| WriteConcern::builder().w(Acknowledgment::Majority).build());
        let database = mongodb::Client::with_options(options)?.database(NAME);
        let db =
            Self { orders: database.collection("orders"), tickets: database.collection("tickets"), database };
        db.drop().await?;
        Ok(db)
    }

    pub async fn drop(&self) -> Result<()> {
        Ok(self.database.drop().await?)
    }

    /// Stores complete orders with these numbers and their tickets, `each` per user.
    pub async fn store_orders(&self, numbers: Range<u64>, each: u64) -> Result<()> {
        self.store_tickets(Kind::Sold, numbers.clone()).await?;
        let order = |number| {
            rawdoc! {
                "_id": id(Kind::Order, number),
                "userId": user(number, each),
                "status": "complete",
                "expiresAt": DateTime::now(),
                "ticket": id(Kind::Sold, number),
                "version": 2,
            }
        };
        insert(&self.orders, "orders", numbers, order).await
    }

    /// Stores the tickets with these numbers.
    pub async fn store_tickets(&self, kind: Kind, numbers: Range<u64>) -> Result<()> {
        let ticket = |number| {
            rawdoc! {
                "_id": id(kind, number),
                "title": format!("Ticket {number}"),
                "price": 20.5,
                "version": 0,
            }
        };
        insert(&self.tickets, "tickets", numbers, ticket).await
    }

    /// Makes the titles of the sold tickets with these numbers as long as any that is taken.
    pub async fn lengthen_titles(&self, numbers: Range<u64>) -> Result<()> {
        let ids: Vec<_> = numbers.map(|number| id(Kind::Sold, number)).collect();
        let title = doc! { "$set": { "title": "x".repeat(10_000) } };
        self.tickets.update_many(doc! { "_id": { "$in": ids } }, title).await?;
        Ok(())
    }

    /// Deletes the reservations, so that every round begins with the same orders.
    pub async fn delete_reservations(&self) -> Result<()> {
        self.orders.delete_many(doc! { "userId": BUYER }).await?;
        Ok(())
    }
}

pub fn uri() -> Result<String> {
    env::var("MONGO_URI").map_err(|_| "MONGO_URI is not set: run `make bench-api`".into())
}

async fn insert(
    collection: &Collection<RawDocumentBuf>,
    what: &str,
    numbers: Range<u64>,
    document: impl Fn(u64) -> RawDocumentBuf,
) -> Result<()> {
    let mut last_progress = Instant::now();
    let mut start = numbers.start;
    while start < numbers.end {
        let end = numbers.end.min(start + BATCH);
        collection.insert_many((start..end).map(&document)).ordered(false).await?;
        start = end;
        if last_progress.elapsed() > Duration::from_secs(2) {
            last_progress = Instant::now();
            eprintln!("bench: storing {what}: {} of {}", start - numbers.start, numbers.end - numbers.start);
        }
    }
    Ok(())
}

/// How orders are read with their tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Two finds, the second by `$in`.
    Find,
    /// Two finds of one document.
    FindOne,
    /// Two finds, each in one batch.
    OneBatch,
    /// One aggregate.
    Lookup,
    /// One aggregate, in one batch.
    LookupOneBatch,
    /// One aggregate with `$unwind`.
    LookupUnwind,
}

impl Join {
    const fn is_lookup(self) -> bool {
        matches!(self, Self::Lookup | Self::LookupOneBatch | Self::LookupUnwind)
    }

    /// Documents per batch; `None` for the server's default, which is 101 and then 16 MB.
    const fn batch_size(self) -> Option<u32> {
        match self {
            Self::OneBatch | Self::LookupOneBatch => Some(100_000),
            _ => None,
        }
    }
}

/// The statements of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// One order with its ticket.
    One(Join),
    /// This number of a user's orders, with their tickets.
    List(Join, u64),
    /// A ticket, and the insert of an order for it.
    Reserve,
}

/// The free tickets; clones share them.
#[derive(Clone)]
pub struct Tickets {
    next: Arc<AtomicU64>,
    end: u64,
}

impl Tickets {
    pub fn new(numbers: Range<u64>) -> Self {
        Self { next: Arc::new(numbers.start.into()), end: numbers.end }
    }

    pub fn next(&self) -> Option<ObjectId> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end).then(|| id(Kind::Free, number))
    }
}

/// Sends the statements to the database directly.
pub struct DirectClient {
    pub db: Db,
    pub statement: Statement,
    /// The numbers of the orders to request.
    pub numbers: Range<u64>,
    pub tickets: Tickets,
}

impl Client for DirectClient {
    async fn request(&mut self) -> Result<bool> {
        let (orders, tickets) = (&self.db.orders, &self.db.tickets);
        let number = fastrand::u64(self.numbers.clone());
        let (found, expected) = match self.statement {
            Statement::One(join) if join.is_lookup() => {
                let matching = doc! { "_id": id(Kind::Order, number) };
                (aggregate(orders, matching, join).await?, 1)
            }
            Statement::One(join) => {
                let order = orders.find_one(doc! { "_id": id(Kind::Order, number) }).await?;
                let ticket = order.ok_or("no such order")?.get_object_id("ticket")?;
                let found = if join == Join::FindOne {
                    tickets.find_one(doc! { "_id": ticket }).await?.into_iter().collect()
                } else {
                    tickets.find(doc! { "_id": { "$in": [ticket] } }).await?.try_collect().await?
                };
                (found, 1)
            }
            Statement::List(join, each) if join.is_lookup() => {
                (aggregate(orders, doc! { "userId": user(number, each) }, join).await?, each)
            }
            Statement::List(join, each) => {
                let by_user = doc! { "userId": user(number, each) };
                let sorted =
                    FindOptions::builder().sort(doc! { "_id": 1 }).batch_size(join.batch_size()).build();
                let found: Vec<_> = orders.find(by_user).with_options(sorted).await?.try_collect().await?;
                let ids: Vec<_> =
                    found.iter().filter_map(|order| order.get_object_id("ticket").ok()).collect();
                let options = FindOptions::builder().batch_size(join.batch_size()).build();
                let by_id = doc! { "_id": { "$in": ids } };
                (tickets.find(by_id).with_options(options).await?.try_collect().await?, each)
            }
            Statement::Reserve => {
                let Some(id) = self.tickets.next() else { return Ok(false) };
                let ticket = tickets.find_one(doc! { "_id": id }).await?;
                let order = rawdoc! {
                    "_id": ObjectId::new(),
                    "userId": BUYER,
                    "status": "created",
                    "expiresAt": DateTime::now(),
                    "ticket": id,
                    "version": 0,
                };
                orders.insert_one(&order).await?;
                (ticket.into_iter().collect(), 1)
            }
        };
        if found.len() as u64 == expected {
            Ok(true)
        } else {
            Err(format!("{:?} found {} of {expected}", self.statement, found.len()).into())
        }
    }
}

async fn aggregate(
    orders: &Collection<RawDocumentBuf>,
    matching: Document,
    join: Join,
) -> Result<Vec<RawDocumentBuf>> {
    let mut pipeline = vec![
        doc! { "$match": matching },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$lookup": { "from": "tickets", "localField": "ticket", "foreignField": "_id", "as": "ticket" } },
    ];
    if join == Join::LookupUnwind {
        pipeline.push(doc! { "$unwind": { "path": "$ticket", "preserveNullAndEmptyArrays": true } });
    }
    let options = AggregateOptions::builder().batch_size(join.batch_size()).build();
    Ok(orders.aggregate(pipeline).with_options(options).with_type().await?.try_collect().await?)
}
