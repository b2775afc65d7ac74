//! Many tickets that wait to be consumed, beside a listener in Node.js that writes them by mongoose into the same database.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{EventsLoad, broker::Broker, per_second};
use crate::{
    Result,
    database::{Db, Kind, NAME, id, uri},
    measure::memory_of,
    process::Serve,
    report::mb,
};

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    let (count, of_node) = (load.tickets, (load.tickets / load.node_share).max(1));
    db.drop().await?;
    let broker = Broker::open().await?;
    broker.make().await?;
    broker.publish("ticket:created", (0..count).map(ticket)).await?;
    let started = Instant::now();
    let serve = Serve::start_with(&broker.settings()).await?;
    while broker.unheard().await != Some(0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ours = per_second(count, started.elapsed());
    let (memory, peak) = memory_of(serve.pid());
    let stored = db.tickets.count_documents(doc! {}).await?;
    if stored != count {
        return Err(format!("{stored} of {count} tickets are stored").into());
    }
    drop(serve);
    broker.delete().await;

    // As the course does, which handles at the same time whatever the broker sends; and one after the other, as is usual on JetStream.
    let node = consumed_by_node(db, of_node, "together").await?;
    let one_by_one = consumed_by_node(db, of_node, "one by one").await?;
    println!(
        "{count} tickets: {ours:.0}/s, memory {:.1} MB, at its peak {:.1} MB; Node.js with mongoose ({of_node} of them): \
         {node:.0}/s, one by one {one_by_one:.0}/s; ours is {:.1} and {:.1} times as fast",
        mb(memory),
        mb(peak),
        ours / node,
        ours / one_by_one
    );
    Ok(json!({
        "tickets": count, "per_second": ours, "rss_kb": memory, "peak_rss_kb": peak,
        "node_tickets": of_node, "node_per_second": node, "node_one_by_one_per_second": one_by_one,
        "ratio": ours / node, "ratio_one_by_one": ours / one_by_one,
    }))
}

/// How many tickets per second the listener in Node.js writes, without its start.
async fn consumed_by_node(db: &Db, count: u64, how: &str) -> Result<f64> {
    db.drop().await?;
    let broker = Broker::open().await?;
    broker.make().await?;
    broker.publish("ticket:created", (0..count).map(ticket)).await?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/events/listener.js");
    let listener = Command::new("node")
        .arg(script)
        .args([&broker.url, &broker.stream, &broker.subject("ticket:created"), &count.to_string(), how])
        .env("MONGO_URI", uri()?)
        .env("MONGO_DATABASE", NAME)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !listener.status.success() {
        return Err("the listener in Node.js failed".into());
    }
    let stored = db.tickets.count_documents(doc! {}).await?;
    if stored != count {
        return Err(format!("the listener in Node.js has stored {stored} of {count} tickets").into());
    }
    broker.delete().await;
    let seconds: f64 = String::from_utf8(listener.stdout)?.trim().parse()?;
    Ok(per_second(count, Duration::from_secs_f64(seconds)))
}

fn ticket(number: u64) -> (String, Vec<u8>) {
    let id = id(Kind::Free, number).to_hex();
    let event = json!({ "id": id, "version": 0, "title": format!("Ticket {number}"), "price": 20, "userId": "seller" });
    (format!("ticket:{number}"), event.to_string().into_bytes())
}
