//! How long nobody publishes when the pod that does is asked to end: from the signal to the mark of the next one, and to the first
//! event that is published after it, while orders are made all the time.

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{EventsLoad, broker::Broker, percentile};
use crate::{
    Result,
    api::reservations,
    database::{Db, Kind, Tickets},
    http::Connection,
    measure::Client,
    process::Serve,
};

/// How long one handover may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Half of all handovers must be faster.
const GOAL: Duration = Duration::from_secs(1);

/// From one order to the next.
const PACE: Duration = Duration::from_millis(5);

/// How long a pod has to connect to the broker, and to see who publishes.
const SETTLED: Duration = Duration::from_secs(3);

/// More than are made meanwhile.
const TICKETS: u64 = 100_000;

/// When the next mark is set, and the first event after that is published.
async fn next_begins(marks: &mut Subscriber, events: &mut Subscriber) -> Result<(Instant, Instant)> {
    let mut marked = None;
    loop {
        let next = async {
            tokio::select! {
                biased;
                mark = marks.next(), if marked.is_none() => mark.map(|_| true),
                event = events.next() => event.map(|_| false),
            }
        };
        let is_mark = timeout(PATIENCE, next).await?.ok_or("the broker is gone")?;
        match marked {
            None if is_mark => marked = Some(Instant::now()),
            // The former one still publishes what it can.
            None => {}
            Some(marked) => return Ok((marked, Instant::now())),
        }
    }
}

/// What has arrived by now.
fn forget(messages: &mut Subscriber) {
    while messages.next().now_or_never().flatten().is_some() {}
}

/// Makes orders at a pod, one after the other, until it is aborted.
async fn make_orders(pod: &Serve, tickets: &Tickets) -> Result<JoinHandle<()>> {
    let mut connection = Connection::open(pod.address, 201, reservations(tickets)).await?;
    Ok(tokio::spawn(async move {
        while connection.request().await.is_ok_and(|made| made) {
            sleep(PACE).await;
        }
    }))
}

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    db.drop().await?;
    let broker = Broker::open().await?;
    let settings = broker.settings();
    let created = broker.subject("order:created");
    let mut events = broker.client.subscribe(created.clone()).await?;
    let mut marks = broker.client.subscribe(format!("orders-operator.fence.{created}.*")).await?;
    broker.client.flush().await?;
    let mut former = Serve::start_with(&settings).await?;
    db.store_tickets(Kind::Free, 0..TICKETS).await?;
    let tickets = Tickets::new(0..TICKETS);
    let making = make_orders(&former, &tickets).await?;
    timeout(PATIENCE, events.next()).await?;
    making.abort();
    let (mut begun, mut published) = (Vec::new(), Vec::new());
    for _ in 0..load.rounds {
        let next = Serve::start_with(&settings).await?;
        let making = make_orders(&next, &tickets).await?;
        sleep(SETTLED).await;
        forget(&mut marks);
        forget(&mut events);
        let signalled = Instant::now();
        former.terminate()?;
        let (marked, event) = next_begins(&mut marks, &mut events).await?;
        begun.push(marked.duration_since(signalled).as_secs_f64());
        published.push(event.duration_since(signalled).as_secs_f64());
        making.abort();
        former = next;
    }
    drop(former);
    broker.delete().await;
    for seconds in [&mut begun, &mut published] {
        seconds.sort_unstable_by(f64::total_cmp);
    }
    let [begun_ms, p50, most] = [(&begun, 50), (&published, 50), (&published, 100)]
        .map(|(seconds, percent)| percentile(seconds, percent) * 1e3);
    println!(
        "{} handovers: from SIGTERM to the mark of the next pod p50 {begun_ms:.0} ms, to its first event p50 {p50:.0} ms, at \
         most {most:.0} ms",
        published.len()
    );
    if p50 > GOAL.as_secs_f64() * 1e3 {
        return Err(format!("half of the handovers take longer than {} s", GOAL.as_secs()).into());
    }
    Ok(
        json!({ "rounds": published.len(), "begun_p50_ms": begun_ms, "told_p50_ms": p50, "told_most_ms": most }),
    )
}
