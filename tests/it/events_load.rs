//! Events under load: while the broker is away the API goes on, and pods are replaced one after the other.
//!
//! `AWAY_SECONDS=300` has the broker away for so long; what requests took before, meanwhile and afterwards is printed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use mongodb::bson::Document;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{sync::RwLock, time::sleep};

use crate::{
    api_process::Process,
    bed::number,
    cluster::{PATIENCE, eventually},
    events::{System, cancel, check_history},
    events_handover::was_handed_over,
    mongo::{persistently, unused_key},
    nats::{Nats, NatsCluster},
};

const BUYERS: usize = 6;

/// Buyers of tickets of their own, each of which is cancelled at once: every request must be answered as it should.
struct Load {
    pods: RwLock<Vec<Process>>,
    answered: AtomicUsize,
    is_over: AtomicUsize,
    /// What each request took since that was last asked.
    took: Mutex<Vec<Duration>>,
}

impl Load {
    fn over(pods: Vec<Process>) -> Self {
        Self {
            pods: RwLock::new(pods),
            answered: AtomicUsize::default(),
            is_over: AtomicUsize::default(),
            took: Mutex::default(),
        }
    }

    async fn run(&self, system: &System) {
        let buyers = (0..BUYERS).map(async |number| {
            let (user, ticket) = (format!("u{number}"), system.database.ticket().await);
            let mut turn = number;
            while self.is_over.load(Ordering::SeqCst) == 0 {
                turn += 1;
                let pods = self.pods.read().await;
                let pod = &pods[turn % pods.len()];
                let started = Instant::now();
                let (body, key) = (json!({ "ticketId": ticket.to_string() }), unused_key());
                let request =
                    || pod.by(&user, Method::POST, "/api/orders").header("idempotency-key", &key).json(&body);
                let made = persistently(request).await;
                let (StatusCode::CREATED, Some(id)) = (made.0, made.1["id"].as_str()) else {
                    let log: Vec<_> = pod
                        .lines
                        .try_iter()
                        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
                        .collect();
                    panic!("{user} gets {made:?} for a free ticket, after {:?}: {log:#?}", started.elapsed());
                };
                let reserved = Instant::now();
                assert_eq!(cancel(pod, &user, id).await, StatusCode::NO_CONTENT);
                self.took.lock().unwrap().extend([reserved - started, reserved.elapsed()]);
                drop(pods);
                self.answered.fetch_add(2, Ordering::SeqCst);
            }
        });
        futures::future::join_all(buyers).await;
    }

    /// How many requests there were since this was last asked, and within which time half and 99 % of them were answered.
    fn times(&self) -> (usize, Duration, Duration) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        let within = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        (took.len(), within(50), within(99))
    }

    /// Waits until so many more requests are answered, for as long as any is: how fast they are depends on the machine. One
    /// of them may be repeated for as long as one waits.
    async fn more(&self, count: usize) {
        let answered = || self.answered.load(Ordering::SeqCst);
        let (mut last, mut since) = (answered(), Instant::now());
        let wanted = last + count;
        while last < wanted {
            sleep(Duration::from_millis(50)).await;
            let now = answered();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < 2 * PATIENCE, "no request is answered any more");
        }
    }

    fn end(&self) {
        self.is_over.store(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_under_load_every_request_is_answered_and_all_is_told_afterwards() {
    let mut nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let pods = vec![system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let load = Load::over(pods);
    let disturb = async {
        load.more(100).await;
        let before = load.times();
        nats.kill();
        let away = Instant::now();
        load.more(300).await;
        for pod in &*load.pods.read().await {
            eventually("it is seen to be away", || async {
                (pod.metric("orders_events_connected").await == 0).then_some(())
            })
            .await;
            // The API does not depend on the broker.
            pod.wait_until_ready(true).await;
        }
        load.more(100).await;
        while away.elapsed() < Duration::from_secs(number("AWAY_SECONDS", 0)) {
            load.more(100).await;
        }
        let meanwhile = load.times();
        nats.restart().await;
        load.more(100).await;
        load.end();
        eprintln!(
            "requests, p50, p99: before {before:?}, while the broker was away {meanwhile:?}, afterwards {:?}",
            load.times()
        );
    };
    tokio::join!(load.run(&system), disturb);
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_server_of_a_cluster_that_leads_the_stream_is_killed_all_is_told_by_the_others() {
    let mut cluster = NatsCluster::start().await;
    let system = System::with(cluster.urls()).await;
    let pod = || system.pod_set(&[("NATS_STREAM_REPLICAS", "3")]);
    let load = Load::over(vec![pod(), pod()]);
    for pod in &*load.pods.read().await {
        pod.wait_until_ready(true).await;
    }
    let told = async || {
        let mut told = 0;
        for pod in &*load.pods.read().await {
            told += pod.metric("orders_events_published_total{subject=\"order:created\"}").await;
        }
        told
    };
    let disturb = async {
        let (leader, keep) = eventually("all three keep the stream", || cluster.leader(&system.stream)).await;
        assert_eq!(keep, 3);
        eventually("events flow", || async { (told().await > 20).then_some(()) }).await;
        cluster.server(leader).kill();
        load.more(60).await;
        let (next, _) = eventually("another one leads the stream", || cluster.leader(&system.stream)).await;
        assert_ne!(next, leader);
        let before = told().await;
        eventually("events flow again", || async { (told().await > before + 20).then_some(()) }).await;
        cluster.server(leader).restart().await;
        load.more(60).await;
        load.end();
    };
    tokio::join!(load.run(&system), disturb);
    check_history(&system, false).await;
}

/// How long nobody had the lease when it was handed over last, by the database's clock; none if nobody has released it.
fn handover(lease: &Document) -> Option<Duration> {
    let at =
        |field: &str| Timestamp::from_millisecond(lease.get_datetime(field).ok()?.timestamp_millis()).ok();
    Duration::try_from(at("taken")?.duration_since(at("released")?)).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_under_load_loses_no_event_and_pods_hand_over() {
    let system = System::new().await;
    let load = Load::over(vec![system.pod(), system.pod()]);
    for pod in &*load.pods.read().await {
        pod.wait_until_ready(true).await;
    }
    let mut handovers = Vec::new();
    let disturb = async {
        // A pod that is delayed for seconds has lost the lease before it ends, or has no time left to hand it over.
        for round in 0.. {
            if round >= 4 && !handovers.is_empty() {
                break;
            }
            assert!(round < 12, "none of {round} pods has handed over when it ended");
            load.more(60).await;
            let next = system.pod();
            next.wait_until_ready(true).await;
            let mut ending = {
                let mut pods = load.pods.write().await;
                let mut at = 0;
                for (number, pod) in pods.iter().enumerate() {
                    if pod.metric("orders_events_leads").await == 1 {
                        at = number;
                    }
                }
                pods.push(next);
                pods.remove(at)
            };
            let before = system.lease().await;
            ending.terminate();
            assert!(ending.ended().await.success());
            eventually("another pod publishes", || async {
                for pod in &*load.pods.read().await {
                    if pod.metric("orders_events_leads").await == 1 {
                        return Some(());
                    }
                }
                None
            })
            .await;
            let after = system.lease().await;
            if was_handed_over(&before, &after) {
                handovers.extend(handover(&after));
            }
        }
        load.end();
    };
    tokio::join!(load.run(&system), disturb);
    check_history(&system, false).await;
    eprintln!("nobody had the lease for {handovers:?}");
}
