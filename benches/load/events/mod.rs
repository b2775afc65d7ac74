//! Events: what they cost, how late they are, and how fast a backlog is worked off, beside the bare client, the bare driver
//! and a listener in Node.js on the same servers.
//!
//! ```text
//! broker   the streams, by the bare client
//! post     reserving with and without events
//! lag      how long after its change an event arrives
//! drain    many changes that are pending
//! consume  many tickets that wait to be consumed
//! away     what buyers notice while the broker is away
//! handover how long nobody publishes when the pod that does is asked to end
//! idle     what pods cost that have nothing to do
//! line     counts what they ask the database
//! ```

mod away;
mod broker;
mod consume;
mod drain;
mod handover;
mod idle;
mod lag;
mod line;
mod post;

use std::time::Duration;

use clap::Args;
use mongodb::bson::{Document, doc};
use serde_json::{Map, Value};

use crate::{Result, database::Db, report::write};

/// What is measured, and how much of it.
#[derive(Args)]
pub struct EventsLoad {
    /// The length of a turn, of a rate, and of doing nothing
    #[arg(long, env = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// The number of turns with and without events, and of handovers
    #[arg(long, env = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,

    /// The number of concurrent clients
    #[arg(long, env = "CONNECTIONS", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,

    /// Orders per second whose events are waited for
    #[arg(long, env = "RATES", value_delimiter = ',', default_value = "100,1000")]
    rates: Vec<u64>,

    /// How many changes are pending
    #[arg(long, env = "PENDING", default_value_t = 100_000)]
    pending: u64,

    /// How many tickets wait to be consumed, and how many of them the listener in Node.js gets
    #[arg(long, env = "TICKETS", default_value_t = 100_000)]
    tickets: u64,

    /// The listener in Node.js gets one in so many of them
    #[arg(long, env = "NODE_SHARE", default_value_t = 10)]
    node_share: u64,

    /// How long the broker is away
    #[arg(long, env = "AWAY_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    away_seconds: u64,

    /// Requests per second while the broker is away
    #[arg(long, env = "AWAY_RATE", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    away_rate: u64,

    /// Which parts: post, lag, drain, consume, away, handover, idle
    #[arg(
        long,
        env = "PARTS",
        value_delimiter = ',',
        default_value = "post,lag,drain,consume,away,handover,idle"
    )]
    parts: Vec<String>,
}

impl EventsLoad {
    const fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Measures the parts, and writes what was found.
pub async fn run(db: &Db, load: &EventsLoad) -> Result<()> {
    let mut results = Map::new();
    for part in &load.parts {
        eprintln!("bench: events: {part}");
        let found: Value = match part.as_str() {
            "post" => post::run(db, load).await?,
            "lag" => lag::run(db, load).await?,
            "drain" => drain::run(db, load).await?,
            "consume" => consume::run(db, load).await?,
            "away" => away::run(db, load).await?,
            "handover" => handover::run(db, load).await?,
            "idle" => idle::run(db, load).await?,
            other => return Err(format!("there is no part {other}").into()),
        };
        results.insert(part.clone(), found);
    }
    write("events", &results.into())
}

/// Forgets who publishes, since a pod that was killed would keep others from it for six seconds, and up to where it has read. Which
/// system this is stays.
async fn forget_leader(db: &Db) -> Result<()> {
    db.database.collection::<Document>("relays").delete_one(doc! { "_id": "orders" }).await?;
    Ok(())
}

/// The value below which so many percent are.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
