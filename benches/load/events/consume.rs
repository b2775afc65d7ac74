//! Many tickets that wait to be heard of, beside a listener in Node.js that writes them by mongoose into the same database.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

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
    while db.tickets.estimated_document_count().await? < count {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ours = per_second(count, started.elapsed());
    let (memory, peak) = memory_of(serve.pid());
    drop(serve);
    broker.delete().await;

    db.drop().await?;
    let broker = Broker::open().await?;
    broker.make().await?;
    broker.publish("ticket:created", (0..of_node).map(ticket)).await?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/events/listener.js");
    let started = Instant::now();
    let listener = Command::new("node")
        .arg(script)
        .args([&broker.url, &broker.stream, &broker.subject("ticket:created"), &of_node.to_string()])
        .env("MONGO_URI", uri()?)
        .env("MONGO_DATABASE", NAME)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    if !listener.await?.success() {
        return Err("the listener in Node.js failed".into());
    }
    let node = per_second(of_node, started.elapsed());
    broker.delete().await;
    println!(
        "{count} tickets: {ours:.0}/s, memory {:.1} MB, at its peak {:.1} MB; Node.js with mongoose ({of_node} of them): \
         {node:.0}/s; ours is {:.1} times as fast",
        mb(memory),
        mb(peak),
        ours / node
    );
    Ok(json!({
        "tickets": count, "per_second": ours, "rss_kb": memory, "peak_rss_kb": peak,
        "node_tickets": of_node, "node_per_second": node, "ratio": ours / node,
    }))
}

fn ticket(number: u64) -> (String, Vec<u8>) {
    let id = id(Kind::Free, number).to_hex();
    let event = json!({ "id": id, "version": 0, "title": format!("Ticket {number}"), "price": 20, "userId": "seller" });
    (format!("ticket:{number}"), event.to_string().into_bytes())
}
