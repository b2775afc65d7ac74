//! Reserving with and without events, in turns, so that drift of the machine affects both.

use std::process;

use serde_json::{Value, json};

use super::{EventsLoad, broker::Broker};
use crate::{
    Result,
    api::reservations,
    database::{Db, Kind, Tickets},
    http::Connection,
    measure::{Processes, Sample, closed_loop, median},
    process::Serve,
};

/// Free tickets per second. If a server is faster, its turn ends early.
const TICKETS_PER_SECOND: u64 = 4000;

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for round in 0..load.rounds {
        for (has_events, samples) in [false, true].into_iter().zip(&mut samples) {
            let sample = turn(db, load, has_events).await?;
            let what = if has_events { "with" } else { "without" };
            eprintln!("bench: POST {what} events, round {}: {:.0}/s", round + 1, sample.rate);
            samples.push(sample);
        }
    }
    let of = |samples: &[Sample]| {
        let value = |field: fn(&Sample) -> f64| median(samples.iter().map(field));
        json!({ "per_second": value(|s| s.rate), "p50_us": value(|s| s.p50), "p99_us": value(|s| s.p99) })
    };
    let [without, with] = samples.map(|samples| of(&samples));
    let ratio =
        with["per_second"].as_f64().unwrap_or_default() / without["per_second"].as_f64().unwrap_or(1.0);
    println!("POST without events: {without}\nPOST with events:    {with}\nratio {:.0} %", ratio * 100.0);
    Ok(json!({ "without": without, "with": with, "ratio": ratio }))
}

async fn turn(db: &Db, load: &EventsLoad, has_events: bool) -> Result<Sample> {
    db.drop().await?;
    let broker = Broker::open().await?;
    let settings = if has_events { broker.settings() } else { Vec::new() };
    let serve = Serve::start_with(&settings).await?;
    let tickets = load.seconds * TICKETS_PER_SECOND;
    db.store_tickets(Kind::Free, 0..tickets).await?;
    let tickets = Tickets::new(0..tickets);
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(serve.address, 201, reservations(&tickets)).await?);
    }
    let processes = Processes(vec![("API", serve.pid()), ("generator", process::id())]);
    let sample = closed_loop(connections, load.length(), &processes).await?;
    drop(serve);
    broker.delete().await;
    Ok(sample)
}
