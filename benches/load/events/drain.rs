//! Many changes that are pending, beside what the bare client can publish and the bare driver can clear.

use std::time::{Duration, Instant};

use mongodb::bson::{DateTime, RawDocumentBuf, doc, oid::ObjectId, rawdoc};
use serde_json::{Value, json};

use super::{EventsLoad, broker::Broker, forget_leader, per_second};
use crate::{
    Result,
    database::{Db, Kind, id},
    measure::memory_of,
    process::Serve,
    report::mb,
};

/// As many as the product clears at once.
const BATCH: usize = 1000;

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    let count = load.pending;
    // In a stream of its own: the product reads back what it may have published itself.
    let broker = Broker::open().await?;
    broker.make().await?;
    let started = Instant::now();
    broker.publish("order:created", (0..count).map(event)).await?;
    let publish = per_second(count, started.elapsed());
    broker.delete().await;

    let broker = Broker::open().await?;
    broker.make().await?;
    store(db, &broker, count).await?;
    let started = Instant::now();
    let ids: Vec<ObjectId> = (0..count).map(|number| id(Kind::Order, number)).collect();
    for ids in ids.chunks(BATCH) {
        let published = doc! { "_id": { "$in": ids }, "version": 0, "outbox.refused": { "$exists": false } };
        db.orders.update_many(published, doc! { "$unset": { "outbox": "" } }).await?;
    }
    let clear = per_second(count, started.elapsed());

    store(db, &broker, count).await?;
    let started = Instant::now();
    // Its start is part of it, since it publishes at once.
    let serve = Serve::start_with(&broker.settings()).await?;
    while db.orders.count_documents(doc! { "outbox": { "$exists": true } }).limit(1).await? > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let drained = per_second(count, started.elapsed());
    let (_, peak) = memory_of(serve.pid());
    drop(serve);
    broker.delete().await;
    let both = 1.0 / (1.0 / publish + 1.0 / clear);
    println!(
        "{count} pending: bare client {publish:.0}/s, bare driver {clear:.0}/s, one after the other {both:.0}/s; drained \
         {drained:.0}/s, {:.0} % of that; memory at its peak {:.1} MB",
        drained / both * 100.0,
        mb(peak)
    );
    Ok(json!({
        "pending": count, "bare_publish_per_second": publish, "bare_clear_per_second": clear,
        "drained_per_second": drained, "ratio": drained / both, "peak_rss_kb": peak,
    }))
}

/// The event of one of the orders.
fn event(number: u64) -> (String, Vec<u8>) {
    let order = id(Kind::Order, number).to_hex();
    let event = json!({
        "id": order, "version": 0, "status": "created", "userId": "u",
        "expiresAt": "2026-11-22T17:29:24.464Z", "ticket": { "id": id(Kind::Sold, number).to_hex(), "price": 20 },
    });
    (format!("{order}:0"), event.to_string().into_bytes())
}

/// Stores the orders in an empty database with the indexes of the product.
async fn store(db: &Db, broker: &Broker, count: u64) -> Result<()> {
    db.drop().await?;
    drop(Serve::start_with(&broker.settings()).await?);
    forget_leader(db).await?;
    let order = |number: u64| -> RawDocumentBuf {
        rawdoc! {
            "_id": id(Kind::Order, number), "userId": "u", "status": "created", "version": 0,
            "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000),
            "ticket": id(Kind::Sold, number), "outbox": { "since": DateTime::now(), "created": 20 },
        }
    };
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(BATCH) {
        db.orders.insert_many(numbers.iter().map(|number| order(*number))).ordered(false).await?;
    }
    Ok(())
}
