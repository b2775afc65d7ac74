//! Connects, leads or waits, for as long as the process runs. The broker may be away for any time: the API goes on, and
//! what is to be published is pending in the database.

use std::{pin::pin, time::Duration};

use async_nats::{Client, Subscriber};
use futures::{StreamExt, future::join3};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    args::{Settings, Way},
    attempts::Attempts,
    backlog,
    broker::{Broker, Marks},
    connection::Connection,
    consume,
    jetstream::JetStream,
    lead::{LASTS, Lead},
    metrics::Metrics,
    relay::Relay,
    relay_error::RelayError,
    streaming::Streaming,
    system::System,
    wire::Subject,
};
use crate::{
    order::ReservationTerms,
    runtime::hex,
    store::{EventsTask, Store, process_name},
};

/// How often whoever does not lead asks whether it may.
const ASK: Duration = Duration::from_secs(1);

/// How long a relay that may not publish any more marks what it has published: its last requests are given up by then.
const MARKING: Duration = Duration::from_secs(6);

/// The least time between two messages that wake the one who leads.
const WAKE: Duration = Duration::from_millis(20);

/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What events need beside a database.
#[derive(Clone, Debug)]
pub struct Events {
    /// The broker and the subjects.
    pub settings: Settings,
    /// How long an order can be paid for.
    pub terms: ReservationTerms,
    /// What is counted.
    pub metrics: Metrics,
}

/// Publishes the events of the orders of `store`, and consumes those of other services, until `stop`; then it publishes what
/// is left, and lets another lead.
pub async fn run(store: Store, events: Events, stop: CancellationToken) {
    let Events { settings, terms, metrics } = &events;
    let me = process_name(settings.mark.as_deref());
    let publishing = publish(&store, settings, metrics, &me, &stop);
    let consuming = consume::run(&store, settings, terms, metrics, &me, &stop);
    join3(publishing, consuming, backlog::watch(&store, metrics, &stop)).await;
}

async fn publish(
    store: &Store,
    settings: &Settings,
    metrics: &Metrics,
    holder: &str,
    stop: &CancellationToken,
) {
    let mut attempts = Attempts::new(PAUSES);
    while !stop.is_cancelled() {
        attempts.begin();
        let result = connected(store, settings, metrics, holder, stop).await;
        metrics.leads(false);
        // Of the broker the failure of a database says nothing; the next attempt does.
        if matches!(result, Ok(()) | Err(RelayError::Broker(_))) {
            metrics.connected(false);
        }
        let Err(error) = result else { return };
        let is_new = attempts.fail(error.reason());
        metrics.failed(error.reason());
        if let RelayError::Broker(error) = &error
            && let Err(error) =
                store.record_events_trouble(EventsTask::Publishing, holder, error.reason()).await
        {
            tracing::debug!(%error, "why events are not published is not recorded");
        }
        if is_new {
            tracing::warn!(%error, reason = error.reason(), "cannot publish events; retrying");
        }
        attempts.pause(stop).await;
    }
}

/// Connects to the broker, and publishes to it.
async fn connected(
    store: &Store,
    settings: &Settings,
    metrics: &Metrics,
    holder: &str,
    stop: &CancellationToken,
) -> Result<(), RelayError> {
    let system = System::of(store).await?;
    let connection = Connection::open(settings).await?;
    let connected = Connected { store, connection: &connection, metrics, holder, stop };
    match &settings.way {
        Way::JetStream(stream) => {
            connected.publish(&JetStream::open(&connection, settings, stream, &system).await?).await
        }
        Way::Streaming(cluster) => {
            // The id itself is that of the connection that consumes: one id is for one connection.
            let client_id = format!("{}-relay", cluster.client_id);
            let streaming = Streaming::open(&connection, settings, cluster, &client_id).await?;
            streaming.claim(Subject::OrderCreated, &system).await?;
            connected.publish(&streaming).await
        }
    }
}

/// A process whose relay has a connection.
struct Connected<'a> {
    store: &'a Store,
    connection: &'a Connection,
    metrics: &'a Metrics,
    holder: &'a str,
    stop: &'a CancellationToken,
}

impl Connected<'_> {
    /// Leads, or waits until it may, while the connection lasts.
    async fn publish<B: Broker>(&self, broker: &B) -> Result<(), RelayError> {
        self.metrics.connected(true);
        tracing::info!("connected to the event broker");
        let wakes = Wakes::new(&self.connection.client, self.store);
        while !self.stop.is_cancelled() {
            let Some((lead, marks)) = take(self.store, broker, self.holder).await? else {
                self.metrics.is_led();
                tokio::select! {
                    () = wakes.wait_for_turn(self.store) => {}
                    error = self.connection.lost() => return Err(error.into()),
                    () = self.stop.cancelled() => {}
                }
                continue;
            };
            self.metrics.leads(true);
            tracing::info!("this pod publishes the events of orders");
            let result = self.lead(broker, (&lead, &marks), &wakes).await;
            self.metrics.leads(false);
            // Also after a failure: another pod may reach the broker.
            if let Err(error) = lead.release().await {
                tracing::debug!(%error, "the lease of the relay is not released");
            }
            wakes.announce_free().await;
            result?;
        }
        if let Err(error) = broker.close().await {
            tracing::debug!(%error, "the broker does not know that this process ends");
        }
        Ok(())
    }

    async fn lead<B: Broker>(
        &self,
        broker: &B,
        (lead, marks): (&Lead, &Marks),
        wakes: &Wakes<'_>,
    ) -> Result<(), RelayError> {
        let Self { store, metrics, holder, .. } = *self;
        let relay = Relay { store, broker, lead, holder, marks, metrics };
        let changes = wakes.changes().await;
        let woken = || async {
            match &changes {
                Some(changes) => drop(changes.lock().await.next().await),
                None => std::future::pending().await,
            }
        };
        let stop = self.stop.child_token();
        let mut running = pin!(relay.run(woken, &stop));
        let error = tokio::select! {
            result = &mut running => return result,
            () = lead.keep() => RelayError::LeaseLost,
            error = self.connection.lost() => error.into(),
        };
        // What the broker has acknowledged by now is marked: it may have forgotten it when the next one asks.
        lead.stop_publishing();
        stop.cancel();
        drop(tokio::time::timeout(MARKING, running).await);
        Err(error)
    }
}

/// Takes the lease, if it is free.
async fn take(
    store: &Store,
    broker: &impl Broker,
    holder: &str,
) -> Result<Option<(Lead, Marks)>, RelayError> {
    if !store.is_relay_lease_free(holder, LASTS).await? {
        return Ok(None);
    }
    // Before the lease: if it is lost again before anything is published, our own marks are refused.
    let marks = broker.marks().await?;
    Ok(Lead::take(store, holder).await?.map(|lead| (lead, marks)))
}

/// Messages between the pods of one database, so that they need not look for each other's changes: whoever gets none
/// looks once a second.
struct Wakes<'a> {
    client: &'a Client,
    changed: String,
    free: String,
}

impl<'a> Wakes<'a> {
    fn new(client: &'a Client, store: &Store) -> Self {
        let digest = Sha256::digest(store.target().to_string());
        let database = hex(digest.iter().take(8));
        let subject = |what: &str| format!("orders-operator.relay.{database}.{what}");
        Self { client, changed: subject("changed"), free: subject("free") }
    }

    /// Announces what this process changes, until it may be its turn to lead.
    async fn wait_for_turn(&self, store: &Store) {
        let mut free = self.client.subscribe(self.free.clone()).await.ok();
        let until = Instant::now() + ASK;
        let is_free = async {
            match &mut free {
                Some(free) => drop(free.next().await),
                None => std::future::pending().await,
            }
        };
        let announce = async {
            loop {
                store.changed().await;
                drop(self.client.publish(self.changed.clone(), Vec::new().into()).await);
                sleep(WAKE).await;
            }
        };
        tokio::select! {
            () = is_free => {}
            () = announce => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// The messages that other pods send when they have changed something.
    async fn changes(&self) -> Option<tokio::sync::Mutex<Subscriber>> {
        self.client.subscribe(self.changed.clone()).await.ok().map(tokio::sync::Mutex::new)
    }

    /// Announces that the lease is free.
    async fn announce_free(&self) {
        let announced = async {
            drop(self.client.publish(self.free.clone(), Vec::new().into()).await);
            drop(self.client.flush().await);
        };
        drop(tokio::time::timeout(ASK, announced).await);
    }
}
