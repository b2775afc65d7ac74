//! Benchmark of the orders API, compared with the database alone. See docs/benchmarks.md.
//!
//! ```text
//! api         every route over HTTP, and the same statements without the API, in turns
//! events      what events cost, how late they are, how fast a backlog is worked off
//! attack      what clients take that want too much, and what others notice of it
//! import      large inputs: an import, a long list
//! statements  compares ways to read orders with their tickets
//! measure     a closed loop of clients: latencies, and the CPU of every process
//! http        an HTTP client with little overhead
//! database    the stored documents, and the statements sent directly
//! process     runs the product
//! report      the table and the JSON file
//! ```

mod api;
mod attack;
mod database;
mod events;
mod http;
mod import;
mod measure;
mod process;
mod report;
mod statements;

use std::{error, process::ExitCode, result, time::Duration};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use database::Db;

type Error = Box<dyn error::Error + Send + Sync>;
type Result<T> = result::Result<T, Error>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure the API's routes, and the database alone
    Api(Load),
    /// Attack the API's memory and connections, in 128 MiB
    Attack {
        /// The length of each attack
        #[arg(long, env = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,

        /// Which attacks; all by default
        #[arg(long, env = "ATTACKS", value_delimiter = ',')]
        attacks: Vec<String>,
    },
    /// Measure events, beside the bare client, the bare driver and a listener in Node.js
    Events(events::EventsLoad),
    /// Import tickets, and list a user's 100,000 orders
    Import {
        /// How many tickets
        #[arg(long, env = "TICKETS", default_value_t = 1_000_000)]
        tickets: u64,
    },
    /// Compare ways to read orders with their tickets
    Statements(Load),
}

/// The load, and for how long.
#[derive(Args)]
struct Load {
    /// The length of a turn
    #[arg(long, env = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// The number of turns of each route
    #[arg(long, env = "ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,

    /// The number of concurrent clients
    #[arg(long, env = "CONNECTIONS", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,

    /// The number of stored orders; several are measured one after the other
    #[arg(long, env = "ORDERS", value_delimiter = ',', default_value = "0,10000,100000")]
    orders: Vec<u64>,
}

impl Load {
    const fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match measured(Cli::parse().what).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and drops the database, also when it is interrupted.
async fn measured(what: What) -> Result<()> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let db = Db::open().await?;
    let result = tokio::select! {
        result = measure(&db, what) => result,
        _ = interrupted.recv() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    db.drop().await?;
    result
}

async fn measure(db: &Db, what: What) -> Result<()> {
    match what {
        What::Api(load) => api::run(db, &load).await,
        What::Attack { seconds, attacks } => attack::run(db, Duration::from_secs(seconds), &attacks).await,
        What::Events(load) => events::run(db, &load).await,
        What::Import { tickets } => import::run(db, tickets).await,
        What::Statements(load) => statements::run(db, &load).await,
    }
}
