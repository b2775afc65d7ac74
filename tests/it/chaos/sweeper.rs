//! A chaos test: sweepers are killed, frozen and stopped, their clocks are wrong, and a database restarts. Every order
//! must have a correct history, and none may be left over.
//!
//! It prints its seed. `CHAOS_SEED=... CHAOS_SECONDS=600 cargo test --test it chaos::sweeper` repeats it, for ten minutes
//! instead of one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::{
    order::{Order, OrderId, ReservationTerms, ReservationWindow, UserId},
    store::{CancelError, PaymentError, ReserveError, Settled, StoreError, Transitioned},
};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::sweeper_history::History;
use crate::{
    bed::{SPARE_MONGO, number, restart, seed, setting},
    cluster::{Process, TestNamespace, eventually},
    mongo::{TestDatabase, make_indexes, uri},
    sweeper::service,
};

/// By how many seconds an order expires later once its payment has begun.
const GRACE: u64 = 1;

/// How often an order is reserved in each database.
const RESERVE_INTERVAL: Duration = Duration::from_millis(120);

/// By how much an order may be overdue in the database that is never stopped, while any two of three sweepers are
/// lost: the third rank comes after 4 s, and a machine that runs other tests may be slow. It is less than the 10 s until
/// the entry of a killed sweeper expires. As the time counts what this test has seen: see [`MOST_SEEN`].
const OVERDUE_LIMIT: Duration = Duration::from_secs(9);

/// How long an order counts as overdue, at most, for each look that finds it so. Where looks themselves take longer, the machine
/// or the database is slow for everyone, and that says little of the sweepers.
const MOST_SEEN: Duration = Duration::from_millis(200);

/// The duration of an entry, and a little more until the other sweepers notice that it has expired.
const LEASE: SignedDuration = SignedDuration::from_secs(12);

type Histories = Arc<Mutex<HashMap<OrderId, History>>>;

/// One database with the histories of its orders.
#[derive(Clone)]
struct Shop {
    database: Arc<TestDatabase>,
    histories: Histories,
}

impl Shop {
    async fn over(database: TestDatabase) -> Self {
        make_indexes(&database.store).await;
        Self { database: Arc::new(database), histories: Histories::default() }
    }

    fn note(&self, id: OrderId, what: impl FnOnce(&mut History)) {
        what(self.histories.lock().unwrap().entry(id).or_default());
    }

    fn made(&self, order: &Order) {
        let made = (order.status.as_str().to_owned(), i32::try_from(order.version.0).unwrap());
        self.note(order.id, |history| history.made.push(made));
    }

    /// Reserves an order, and then cancels it, pays for it or abandons it around the time when it expires, sometimes
    /// twice.
    async fn order(&self, mut random: Rng) {
        let user = UserId::new("u1").unwrap();
        let terms = ReservationTerms {
            window: ReservationWindow::from_seconds(random.u32(1..=3)).unwrap(),
            payment_grace: Duration::from_secs(GRACE),
        };
        let Some(ticket) = self.ticket().await else { return };
        let reserved = match self.database.store.reserve(&user, ticket, None, &terms).await {
            Ok(reserved) => reserved,
            // It may have been stored all the same; then it is an abandoned one.
            Err(ReserveError::Store(error)) => return assert_unavailable(&error),
            Err(error) => panic!("{error}"),
        };
        let order = &reserved.reservation().order;
        self.note(order.id, |history| {
            let expires_at = order.expires_at.time().unwrap();
            (history.expires_at, history.end_of_grace) = (expires_at, terms.end_of_grace(expires_at));
        });
        let most = u64::from(terms.window.seconds()) * 1000 + 300;
        let moment = |random: &mut Rng| Duration::from_millis(random.u64(0..most));
        let twice = random.u8(..) < 64;
        sleep(moment(&mut random) / 2).await;
        if random.bool() {
            self.note(order.id, |history| history.tried_to_begin = true);
            self.begun(self.database.store.payment_started(order.id, Timestamp::MAX, &terms).await);
        }
        sleep(moment(&mut random) / 2).await;
        match random.u8(0..4) {
            0 => {
                self.note(order.id, |history| history.tried_to_cancel = true);
                let cancel = || self.database.store.cancel(order.id, &user);
                self.cancelled(cancel().await);
                if twice {
                    self.cancelled(cancel().await);
                }
            }
            1 => {
                self.note(order.id, |history| history.tried_to_pay = true);
                let pay = || self.database.store.settle(order.id, "p1", Timestamp::MAX, &terms);
                if twice {
                    let (first, second) = tokio::join!(pay(), pay());
                    self.paid(order.id, first).await;
                    self.paid(order.id, second).await;
                } else {
                    self.paid(order.id, pay().await).await;
                }
            }
            _ => {}
        }
    }

    /// Inserts a ticket, unless the database is unavailable.
    async fn ticket(&self) -> Option<orders_operator::order::TicketId> {
        let ticket = orders_operator::order::Ticket {
            id: crate::mongo::ticket_id(),
            title: "concert".into(),
            price: 20.0,
            version: orders_operator::order::Version(0),
        };
        let id = ticket.id;
        match self.database.store.upsert_tickets(&[ticket]).await {
            Ok(_) => Some(id),
            Err(error) => {
                assert_unavailable(&error);
                None
            }
        }
    }

    async fn paid(&self, id: OrderId, result: Result<Settled, StoreError>) {
        match result {
            // It stays as it is from then on.
            Ok(Settled::Completed) => match self.database.store.order(id).await {
                Ok(order) => self.made(&order.unwrap().order),
                Err(error) => assert_unavailable(&error),
            },
            Ok(Settled::Repeated | Settled::Refused(_)) => {}
            Ok(settled @ (Settled::OrderNotFound | Settled::TooManyRefused(_))) => {
                panic!("{id}: {settled:?}")
            }
            Err(error) => assert_unavailable(&error),
        }
    }

    fn begun(&self, result: Result<Transitioned, PaymentError>) {
        match result {
            Ok(Transitioned::Now(order)) => self.made(&order),
            Ok(Transitioned::NowUnreadable(id)) => panic!("{id} cannot be read"),
            Ok(Transitioned::Already(_)) | Err(PaymentError::TooLate(_) | PaymentError::Refused { .. }) => {}
            Err(PaymentError::Store(error)) => assert_unavailable(&error),
            Err(error @ PaymentError::NotFound(_)) => panic!("{error}"),
        }
    }

    fn cancelled(&self, result: Result<Transitioned, CancelError>) {
        match result {
            Ok(Transitioned::Now(order)) => self.made(&order),
            Ok(Transitioned::NowUnreadable(id)) => panic!("{id} cannot be read"),
            Ok(Transitioned::Already(_)) | Err(CancelError::Complete(_)) => {}
            Err(CancelError::Store(error)) => assert_unavailable(&error),
            Err(error) => panic!("{error}"),
        }
    }

    /// Reserves and moves orders until `end`, and waits for the last of them.
    async fn trade(self, mut random: Rng, end: Instant) {
        let mut orders = JoinSet::new();
        let mut ticks = tokio::time::interval(RESERVE_INTERVAL);
        while Instant::now() < end {
            ticks.tick().await;
            let (shop, random) = (self.clone(), random.fork());
            orders.spawn(async move { shop.order(random).await });
        }
        while let Some(done) = orders.join_next().await {
            done.unwrap();
        }
    }

    /// Polls all open orders until `over`. Returns by how much orders were seen to be overdue, by the moment at which they
    /// became due.
    async fn watched(self, mut over: watch::Receiver<bool>) -> BTreeMap<Timestamp, Duration> {
        let mut latest = BTreeMap::<Timestamp, Duration>::new();
        // By how much each open order has been seen to be overdue.
        let (mut open, mut last_look) = (BTreeMap::<ObjectId, Duration>::new(), Instant::now());
        while !*over.borrow_and_update() {
            // The orders that were open at the last poll, and those that are now.
            let known: Vec<_> = open.keys().copied().collect();
            let filter = doc! { "$or": [{ "_id": { "$in": known } }, { "status": { "$in": ["created", "awaiting:payment"] } }] };
            let (before, asked) = (Timestamp::now(), Instant::now());
            if let Ok(orders) = self.look(filter).await {
                let after = Timestamp::now();
                let counts = (asked - last_look).min(MOST_SEEN);
                last_look = asked;
                let mut seen = std::mem::take(&mut open);
                for (id, status, version, expires_at) in orders {
                    if ["created", "awaiting:payment"].contains(&status.as_str()) {
                        let mut overdue = seen.remove(&id).unwrap_or_default();
                        let grace = if status == "created" { 0 } else { GRACE };
                        let due = expires_at + SignedDuration::from_secs(i64::try_from(grace).unwrap());
                        if let Ok(late) = Duration::try_from(before.duration_since(due)) {
                            overdue += counts.min(late);
                            let known = latest.entry(due).or_default();
                            *known = overdue.max(*known);
                        }
                        open.insert(id, overdue);
                    }
                    let id = OrderId::from_bytes(id.bytes());
                    // There is no history of an order whose reservation is not known to have succeeded.
                    if let Some(history) = self.histories.lock().unwrap().get_mut(&id) {
                        history.seen.push((after, status, version));
                    }
                }
            }
            sleep(Duration::from_millis(40)).await;
        }
        latest
    }

    async fn look(
        &self,
        filter: Document,
    ) -> mongodb::error::Result<Vec<(ObjectId, String, i32, Timestamp)>> {
        let found: Vec<Document> = self.database.orders().find(filter).await?.try_collect().await?;
        Ok(found
            .iter()
            .map(|order| {
                let expires_at = order.get_datetime("expiresAt").unwrap().timestamp_millis();
                (
                    order.get_object_id("_id").unwrap(),
                    order.get_str("status").unwrap().to_owned(),
                    order.get_i32("version").unwrap(),
                    Timestamp::from_millisecond(expires_at).unwrap(),
                )
            })
            .collect())
    }

    /// Waits until nothing overdue is left.
    async fn settled(&self) {
        eventually("nothing overdue is left", || async {
            let open = doc! { "$in": ["created", "awaiting:payment"] };
            let due = doc! { "status": open, "expiresAt": { "$lt": DateTime::now() } };
            (self.database.orders().count_documents(due).await.ok()? == 0).then_some(())
        })
        .await;
    }

    /// Checks every history. Returns how many orders ended in each status.
    async fn checked(&self) -> BTreeMap<String, u32> {
        let mut histories = std::mem::take(&mut *self.histories.lock().unwrap());
        // Also orders whose reservation succeeded although its response was lost.
        for (id, status, version, expires_at) in self.look(doc! {}).await.unwrap() {
            let end_of_grace = expires_at + SignedDuration::from_secs(i64::try_from(GRACE).unwrap());
            let unknown = History { expires_at, end_of_grace, ..History::default() };
            let history = histories.entry(OrderId::from_bytes(id.bytes())).or_insert(unknown);
            history.last = Some((status, version));
        }
        let mut ended = BTreeMap::new();
        for (id, history) in &histories {
            let problems = history.problems();
            assert!(problems.is_empty(), "order {id}: {problems:?}\n{history:?}");
            *ended.entry(history.last.clone().unwrap().0).or_default() += 1;
        }
        ended
    }
}

/// Asserts that a call failed only because the database was unavailable.
fn assert_unavailable(error: &StoreError) {
    assert!(error.is_unavailable(), "{error}");
}

/// The running sweepers, and when some were lost.
struct Sweepers<'a> {
    namespace: &'a TestNamespace,
    running: Vec<Process>,
    random: Rng,
    /// The periods in which a sweeper was down but the others may have relied on it.
    lost: Vec<(Timestamp, Timestamp)>,
}

impl Sweepers<'_> {
    /// Starts another sweeper, with a clock that is wrong by up to five seconds.
    async fn start(&mut self) {
        let ahead = self.random.i32(-5..=5);
        let library = setting("LIBFAKETIME");
        let clock = format!("{ahead:+}s");
        let environment =
            [("LD_PRELOAD", library.as_str()), ("FAKETIME", &clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        self.running.push(self.namespace.run_sweeper_in(&environment).await);
    }

    /// Kills and replaces a sweeper, terminates and replaces one, or freezes one.
    async fn disturb(&mut self) {
        let victim = self.random.usize(0..self.running.len());
        match self.random.u8(0..5) {
            0..=2 => {
                self.running.swap_remove(victim).kill();
                let now = Timestamp::now();
                self.lost.push((now, now + LEASE));
                sleep(Duration::from_millis(self.random.u64(0..3_000))).await;
                self.start().await;
            }
            3 => {
                let stopped = self.running.swap_remove(victim);
                self.start().await;
                assert_eq!(stopped.terminate().await.code(), Some(0));
            }
            _ => {
                let time = Duration::from_millis(self.random.u64(11_000..14_000));
                self.freeze(victim, time).await;
            }
        }
    }

    /// Freezes a sweeper for longer than its entry lasts.
    async fn freeze(&mut self, victim: usize, time: Duration) {
        let now = Timestamp::now();
        self.running[victim].signal("STOP");
        sleep(time).await;
        self.running[victim].signal("CONT");
        self.lost.push((now, Timestamp::now()));
    }

    /// The longest time that orders were overdue, by the number of sweepers that were lost then.
    fn latest(&self, overdue: &BTreeMap<Timestamp, Duration>) -> BTreeMap<usize, Duration> {
        let mut latest = BTreeMap::<_, Duration>::new();
        for (due, late) in overdue {
            let end = *due + SignedDuration::try_from(*late).unwrap();
            let lost = self.lost.iter().filter(|(from, until)| *from <= end && due <= until).count();
            let known = latest.entry(lost).or_default();
            *known = (*late).max(*known);
        }
        latest
    }

    async fn disturb_until(&mut self, end: Instant) {
        // Kills are frequent, but a short run might have no freeze.
        self.freeze(0, Duration::from_secs(12)).await;
        while Instant::now() < end {
            self.disturb().await;
            sleep(Duration::from_millis(self.random.u64(500..4_000))).await;
        }
    }
}

/// Restarts the spare database every few seconds.
async fn restart_until(end: Instant, mut random: Rng) {
    while Instant::now() + Duration::from_secs(5) < end {
        sleep(Duration::from_millis(random.u64(8_000..20_000))).await;
        restart("SPARE_MONGO_RESTART").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-chaos"]
async fn every_order_has_a_correct_history_whatever_happens_to_sweepers_clocks_and_a_database() {
    let _beside_others = SPARE_MONGO.read().await;
    let seed = seed();
    let length = Duration::from_secs(number("CHAOS_SECONDS", 60));
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={}", length.as_secs());
    let mut random = Rng::with_seed(seed);
    let namespace = TestNamespace::create("history").await;
    namespace.secrets(&uri()).await;
    namespace.secret("spare", "MONGO_URI", &setting("SPARE_MONGO_URI")).await;
    let steady = Shop::over(TestDatabase::new().await).await;
    let stopped = Shop::over(TestDatabase::at(setting("SPARE_MONGO_URI")).await).await;
    let grace = json!({"expiration": {"paymentGraceSeconds": GRACE}});
    let spare = json!({"expiration": {"paymentGraceSeconds": GRACE}, "database": {"uriSecretRef": {"name": "spare"}}});
    namespace.apply(&service(&namespace, "steady", &steady.database, grace)).await.unwrap();
    namespace.apply(&service(&namespace, "stopped", &stopped.database, spare)).await.unwrap();
    let mut sweepers =
        Sweepers { namespace: &namespace, running: Vec::new(), random: random.fork(), lost: Vec::new() };
    for _ in 0..3 {
        sweepers.start().await;
    }
    for sweeper in &sweepers.running {
        eventually("it sweeps both", || async {
            (sweeper.metric("orders_operator_sweeper_looks_total{").await >= 2.0).then_some(())
        })
        .await;
    }

    let end = Instant::now() + length;
    let (over, is_over) = watch::channel(false);
    let watching = [steady.clone(), stopped.clone()].map(|shop| tokio::spawn(shop.watched(is_over.clone())));
    let trading = [steady.clone(), stopped.clone()].map(|shop| tokio::spawn(shop.trade(random.fork(), end)));
    tokio::join!(sweepers.disturb_until(end), restart_until(end, random.fork()));
    for trade in trading {
        trade.await.unwrap();
    }
    for shop in [&steady, &stopped] {
        shop.settled().await;
    }
    over.send_replace(true);
    let mut latest = Vec::new();
    for watched in watching {
        latest.push(watched.await.unwrap());
    }
    for (shop, latest) in [&steady, &stopped].into_iter().zip(&latest) {
        let ended = shop.checked().await;
        eprintln!(
            "{ended:?}, overdue at most, by the number of sweepers lost then: {:?}",
            sweepers.latest(latest)
        );
        assert!(ended.get("cancelled") > Some(&10) && ended.get("complete") > Some(&1), "{ended:?}");
    }
    let late = latest[0].values().max().copied().unwrap_or_default();
    assert!(late < OVERDUE_LIMIT, "an order was overdue by {late:?} although a sweeper was running");
    namespace.remove().await;
}
