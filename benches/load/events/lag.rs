//! How long after its change an event arrives: after the answer to a reservation, and after the time at which an order
//! expires.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::StreamExt;
use mongodb::bson::{DateTime, rawdoc};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use super::{EventsLoad, broker::Broker, per_second, percentile};
use crate::{
    Result,
    api::reservations,
    database::{Db, Kind, Tickets, id},
    http::Connection,
    measure::Client,
    process::{Serve, Sweeper},
};

/// How long one event may take after the one before it, and the first one.
const PATIENCE: Duration = Duration::from_secs(90);

/// The least share of the rate that must be reached for the lag to be that at this rate.
const REACHED: f64 = 0.95;

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    let mut found = Vec::new();
    for rate in &load.rates {
        found.push(of_reservations(db, load, *rate).await?);
        found.push(of_expiries(db, load, *rate).await?);
    }
    Ok(found.into())
}

/// How many there were per second, from the first to the last.
fn reached(mut times: Vec<Instant>) -> f64 {
    times.sort_unstable();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return 0.0 };
    per_second(times.len() as u64 - 1, last.duration_since(*first))
}

fn report(what: &str, rate: u64, mut seconds: Vec<f64>) -> Value {
    seconds.sort_unstable_by(f64::total_cmp);
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&seconds, percent) * 1e3);
    println!(
        "{what}, {rate} per second: {} events, p50 {p50:.1} ms, p99 {p99:.1} ms, at most {most:.1} ms",
        seconds.len()
    );
    json!({ "what": what, "rate": rate, "events": seconds.len(), "p50_ms": p50, "p99_ms": p99, "most_ms": most })
}

/// When the events of a subject arrive, by order, up to a number of them.
async fn arrivals(mut messages: async_nats::Subscriber, count: usize) -> Result<HashMap<String, Instant>> {
    let mut arrived = HashMap::new();
    while arrived.len() < count {
        let message = timeout(PATIENCE, messages.next()).await?.ok_or("the broker is gone")?;
        let event: Value = serde_json::from_slice(&message.payload)?;
        arrived.insert(event["id"].as_str().unwrap_or_default().to_owned(), Instant::now());
    }
    Ok(arrived)
}

async fn of_reservations(db: &Db, load: &EventsLoad, rate: u64) -> Result<Value> {
    db.drop().await?;
    let broker = Broker::open().await?;
    let serve = Serve::start_with(&broker.settings()).await?;
    let count = rate * load.seconds;
    db.store_tickets(Kind::Free, 0..count + 1).await?;
    let mut messages = broker.client.subscribe(broker.subject("order:created")).await?;
    broker.client.flush().await?;
    // Until it publishes at all.
    let first = Tickets::new(count..count + 1);
    Connection::open(serve.address, 201, reservations(&first)).await?.request().await?;
    timeout(PATIENCE, messages.next()).await?;
    let tickets = Tickets::new(0..count);
    let arriving = tokio::spawn(arrivals(messages, usize::try_from(count)?));
    let (mut answered, started) = (JoinSet::new(), Instant::now());
    for number in 0..load.connections {
        let mut connection = Connection::open(serve.address, 201, reservations(&tickets)).await?;
        let pace = Duration::from_secs_f64(
            f64::from(u32::try_from(load.connections)?) / f64::from(u32::try_from(rate)?),
        );
        let first = started
            + pace.mul_f64(f64::from(u32::try_from(number)?) / f64::from(u32::try_from(load.connections)?));
        answered.spawn(async move {
            let (mut answers, mut next) = (Vec::new(), first);
            loop {
                tokio::time::sleep_until(next.into()).await;
                next += pace;
                if !connection.request().await? {
                    return Result::Ok(answers);
                }
                let body = connection.body();
                let order: Value = serde_json::from_slice(body)?;
                answers.push((order["id"].as_str().unwrap_or_default().to_owned(), Instant::now()));
            }
        });
    }
    let mut answers = Vec::new();
    while let Some(done) = answered.join_next().await {
        answers.extend(done??);
    }
    let arrived = arriving.await??;
    let lag = |(id, answered): &(String, Instant)| {
        // An event may be there before the answer.
        arrived.get(id).map(|arrived| arrived.saturating_duration_since(*answered).as_secs_f64())
    };
    let seconds = answers.iter().filter_map(lag).collect();
    drop(serve);
    broker.delete().await;
    let reached = reached(answers.iter().map(|(_, answered)| *answered).collect());
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    if reached < rate as f64 * REACHED {
        let advice = "choose lower RATES, or a machine with less other work";
        return Err(format!("{reached:.0} per second say nothing of {rate}: {advice}").into());
    }
    Ok(report("from the answer to a reservation to its event", rate, seconds))
}

async fn of_expiries(db: &Db, load: &EventsLoad, rate: u64) -> Result<Value> {
    db.drop().await?;
    let broker = Broker::open().await?;
    let serve = Serve::start_with(&broker.settings()).await?;
    let sweeper = Sweeper::start()?;
    let count = rate * load.seconds;
    let messages = broker.client.subscribe(broker.subject("order:cancelled")).await?;
    broker.client.flush().await?;
    let arriving = tokio::spawn(arrivals(messages, usize::try_from(count)?));
    // Storing them takes a while.
    let begin_in = 3000 + count / 2;
    let (begin, now) = (Instant::now() + Duration::from_millis(begin_in), DateTime::now());
    let due = |number: u64| begin_in + number * 1000 / rate;
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(1000) {
        let order = |number: &u64| {
            let millis = now.timestamp_millis() + i64::try_from(due(*number)).unwrap_or_default();
            rawdoc! {
                "_id": id(Kind::Order, *number), "userId": "u", "status": "created", "version": 0,
                "expiresAt": DateTime::from_millis(millis), "ticket": id(Kind::Sold, *number),
            }
        };
        db.orders.insert_many(numbers.iter().map(order)).ordered(false).await?;
    }
    if Instant::now() > begin {
        return Err("storing the orders took longer than until the first of them expires".into());
    }
    let arrived = arriving.await??;
    let lag = |number: u64| {
        let due = begin + Duration::from_millis(due(number) - begin_in);
        let arrived = arrived.get(&id(Kind::Order, number).to_hex())?;
        Some(arrived.saturating_duration_since(due).as_secs_f64())
    };
    let seconds = (0..count).filter_map(lag).collect();
    drop((serve, sweeper));
    broker.delete().await;
    Ok(report("from the time of an order to the event of its expiry", rate, seconds))
}
