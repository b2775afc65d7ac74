//! What buyers notice while the broker is away, and how what happened meanwhile is published once it is back. Each client
//! reserves a ticket of its own and cancels, again and again, so that the order of the events of each ticket can be judged.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_nats::jetstream::{consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use futures::StreamExt;
use mongodb::bson::doc;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{EventsLoad, broker::Broker, per_second, percentile};
use crate::{
    Result,
    api::reservations_of,
    database::{Db, Kind, id},
    http::{Connection, Source},
    measure::Client,
    process::{Nats, Serve, cookie},
};

/// How long all that happened while the broker was away may take to be published.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the broker is there before.
const BEFORE: Duration = Duration::from_secs(60);

/// When a request was sent, and how long its answer took.
type Answer = (Instant, Duration);

/// Cancels the order of which another connection has left the id.
fn cancellations(user: &str, order: Arc<Mutex<String>>) -> Source {
    let cookie = cookie(user);
    Box::new(move |request| {
        let Ok(order) = order.lock() else { return false };
        let head = format!("DELETE /api/orders/{order} HTTP/1.1\r\nhost: bench\r\ncookie: {cookie}\r\n\r\n");
        request.extend_from_slice(head.as_bytes());
        true
    })
}

/// Reserves one ticket and cancels, at a pace, until there is nothing more to do.
async fn buy(
    serve: &Serve,
    number: u64,
    pace: Duration,
    end: watch::Receiver<bool>,
) -> Result<JoinSet<Result<Vec<Answer>>>> {
    let user = format!("buyer-{number}");
    let order = Arc::new(Mutex::new(String::new()));
    let reserving = reservations_of(&user, id(Kind::Free, number));
    let mut reserve = Connection::open(serve.address, 201, reserving).await?;
    let mut cancel = Connection::open(serve.address, 204, cancellations(&user, order.clone())).await?;
    let mut buying = JoinSet::new();
    buying.spawn(async move {
        let (mut answers, mut next) = (Vec::new(), Instant::now() + pace.mul_f64(fastrand::f64()));
        while !*end.borrow() {
            tokio::time::sleep_until(next.into()).await;
            next += pace;
            let sent = Instant::now();
            reserve.request().await?;
            answers.push((sent, sent.elapsed()));
            let made: Value = serde_json::from_slice(reserve.body())?;
            *order.lock().map_err(|_| "a client panicked")? =
                made["id"].as_str().unwrap_or_default().to_owned();
            let sent = Instant::now();
            cancel.request().await?;
            answers.push((sent, sent.elapsed()));
        }
        Ok(answers)
    });
    Ok(buying)
}

/// Latencies in ms of what was sent within a time.
fn report(what: &str, answers: &[Answer], from: Instant, until: Instant) -> Value {
    let sent = answers.iter().filter(|(sent, _)| (from..until).contains(sent));
    let mut seconds: Vec<_> = sent.map(|(_, took)| took.as_secs_f64()).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&seconds, percent) * 1e3);
    let rate = per_second(seconds.len() as u64, until - from);
    println!(
        "{what}: {} answers, {rate:.0} per second, p50 {p50:.1} ms, p99 {p99:.1} ms, at most {most:.1} ms",
        seconds.len()
    );
    json!({ "what": what, "answers": seconds.len(), "p50_ms": p50, "p99_ms": p99, "most_ms": most })
}

/// Reads the whole stream, and says what is wrong with the order of the events of a ticket; how many there are.
async fn judged(broker: &Broker) -> Result<u64> {
    let stream = broker.context.get_stream(&broker.stream).await?;
    let subjects = [broker.subject("order:created"), broker.subject("order:cancelled")];
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subjects: subjects.to_vec(),
        ..OrderedConfig::default()
    };
    let mut events = stream.create_consumer(config).await?.messages().await?;
    let (mut holders, mut count) = (HashMap::new(), 0);
    loop {
        let message = timeout(PATIENCE, events.next()).await?.ok_or("the broker is gone")??;
        count += 1;
        let event: Value = serde_json::from_slice(&message.payload)?;
        let order = event["id"].as_str().unwrap_or_default().to_owned();
        let ticket = event["ticket"]["id"].as_str().unwrap_or_default().to_owned();
        let is_created = message.subject.as_str() == subjects[0];
        let before = if is_created { holders.insert(ticket, order.clone()) } else { holders.remove(&ticket) };
        if before.as_deref() != (!is_created).then_some(order.as_str()) {
            return Err(
                format!("{} of {order} follows what is published of {before:?}", message.subject).into()
            );
        }
        if message.info()?.pending == 0 {
            return Ok(count);
        }
    }
}

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    db.drop().await?;
    let mut server = Nats::start().await?;
    let broker = Broker::at(server.url()).await?;
    let serve = Serve::start_with(&broker.settings()).await?;
    db.store_tickets(Kind::Free, 0..load.connections).await?;
    let (end, is_over) = watch::channel(false);
    // A round is two requests.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let pace = Duration::from_secs_f64(2.0 * load.connections as f64 / load.away_rate as f64);
    let mut clients = Vec::new();
    for number in 0..load.connections {
        clients.push(buy(&serve, number, pace, is_over.clone()).await?);
    }
    let length = Duration::from_secs(load.away_seconds);
    let begun = Instant::now();
    tokio::time::sleep(BEFORE).await;
    server.stop()?;
    let gone = Instant::now();
    eprintln!("bench: the broker is away for {} s", load.away_seconds);
    tokio::time::sleep(length).await;
    end.send_replace(true);
    let mut answers = Vec::new();
    for mut client in clients {
        while let Some(done) = client.join_next().await {
            answers.extend(done??);
        }
    }
    let over = Instant::now();
    let pending = db.orders.count_documents(doc! { "outbox": { "$exists": true } }).await?;
    server.restart().await?;
    let back = Instant::now();
    while db.orders.count_documents(doc! { "outbox": { "$exists": true } }).limit(1).await? > 0 {
        if back.elapsed() > PATIENCE {
            return Err(
                format!("not all is published {} s after the broker is back", PATIENCE.as_secs()).into()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let published = back.elapsed();
    let events = judged(&broker).await?;
    if events != answers.len() as u64 {
        return Err(format!("{events} events of {} changes", answers.len()).into());
    }
    let with = report("with the broker", &answers, begun, gone);
    let without = report("without it", &answers, gone, over);
    println!(
        "{pending} orders waited; {:.1} s after the broker was back all {events} events were published, in order",
        published.as_secs_f64()
    );
    Ok(json!({
        "seconds": load.away_seconds, "with": with, "without": without, "pending": pending, "told_seconds": published.as_secs_f64(),
        "events": events,
    }))
}
