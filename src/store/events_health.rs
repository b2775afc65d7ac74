//! Whether events flow, as the database shows it to whoever does not speak to the broker.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::{
    bson::{Document, doc},
    options::Hint,
};

use super::{
    database::Store,
    document::{before, date, timestamp},
    error::StoreError,
    outbox::{REFUSED_SINCE, SINCE},
    own_indexes::{is_pending, pending_keys},
    relay_lease::{LEASE, mark_of},
    retry,
};

const LOOKING: &str = "looking whether events flow";

/// How old a change or a refusal must be that is not published, for the outbox to be stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// For how long dead letters are news.
const RECENT: Duration = Duration::from_secs(86_400);

/// Up to how many dead letters are counted.
const MAX_COUNT: u64 = 1000;

/// What the pods do with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsTask {
    /// They publish what happens to orders.
    Publishing,
    /// They consume tickets and payments.
    Consuming,
}

impl EventsTask {
    /// The field of the lease's document, which has kept the name it was first stored by.
    const fn field(self) -> &'static str {
        match self {
            Self::Publishing => "telling",
            Self::Consuming => "hearing",
        }
    }
}

/// That a pod publishes, as it has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsShown {
    /// How long ago.
    pub age: Duration,
    /// The mark of its settings, if it has one. It is text from the database.
    pub mark: Option<String>,
}

/// A failure, as a pod has recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsTrouble {
    /// Its reason, in one word. It is text from the database.
    pub reason: String,
    /// How long ago.
    pub age: Duration,
    /// The mark of the pod's settings, if it has one. It is text from the database.
    pub mark: Option<String>,
}

/// Whether events flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsHealth {
    /// That a pod publishes; none if none does.
    pub publisher: Option<EventsShown>,
    /// Whether a change, or the refusal of a payment, has not been published for a minute.
    pub is_stuck: bool,
    /// Why a pod last could not publish.
    pub publishing: Option<EventsTrouble>,
    /// Why a pod last could not consume.
    pub consuming: Option<EventsTrouble>,
    /// The dead letters of the last day, up to a thousand.
    pub dead_letters: u64,
}

impl Store {
    /// Whether events flow.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events_health(&self) -> Result<EventsHealth, StoreError> {
        let now = self.reached().await?;
        let leases = self.relay_leases();
        let lease =
            retry::transient(LOOKING, || async { leases.find_one(doc! { "_id": LEASE }).await }).await?;
        let (orders, mut stuck) = (self.orders(), is_pending());
        let is_old = doc! { "$lt": date(before(now, STUCK_AFTER)) };
        // A change and a refusal have a time each.
        stuck.insert("$or", vec![doc! { SINCE: is_old.clone() }, doc! { REFUSED_SINCE: is_old }]);
        let stuck = retry::transient(LOOKING, || async {
            orders
                .find_one(stuck.clone())
                .projection(doc! { "_id": 1 })
                .hint(Hint::Keys(pending_keys()))
                .await
        })
        .await?;
        let (letters, recent) = (self.dead_letters(), doc! { "at": { "$gt": date(before(now, RECENT)) } });
        let dead_letters = retry::transient(LOOKING, || async {
            letters.count_documents(recent.clone()).limit(MAX_COUNT).await
        })
        .await?;
        Ok(EventsHealth {
            is_stuck: stuck.is_some(),
            dead_letters,
            ..of_lease(&lease.unwrap_or_default(), now)
        })
    }

    /// Records why the process `by` cannot do its task, for the sweeper to report.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_events_trouble(
        &self,
        task: EventsTask,
        by: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (leases, field) = (self.relay_leases(), task.field());
        let update = doc! {
            "$set": { format!("{field}.reason"): reason, format!("{field}.by"): by },
            "$currentDate": { format!("{field}.at"): true },
        };
        retry::transient(LOOKING, || async {
            leases.update_one(doc! { "_id": LEASE }, update.clone()).upsert(true).await
        })
        .await
        .map(drop)
    }

    /// Removes what the process `by` recorded of its task, since it does it again. What another has recorded since stays.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events_trouble_is_over(&self, task: EventsTask, by: &str) -> Result<(), StoreError> {
        let (leases, field) = (self.relay_leases(), task.field());
        let filter = doc! { "_id": LEASE, format!("{field}.by"): by };
        retry::transient(LOOKING, || async {
            leases.update_one(filter.clone(), doc! { "$unset": { field: "" } }).await
        })
        .await
        .map(drop)
    }
}

fn of_lease(lease: &Document, now: Timestamp) -> EventsHealth {
    let age = |at: &mongodb::bson::DateTime| {
        timestamp(*at).map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default())
    };
    let trouble = |task: EventsTask| {
        let recorded = lease.get_document(task.field()).ok()?;
        let reason = recorded.get_str("reason").ok()?.to_owned();
        let mark = recorded.get_str("by").ok().and_then(mark_of).map(str::to_owned);
        Some(EventsTrouble { reason, age: recorded.get_datetime("at").ok().and_then(age)?, mark })
    };
    let publisher = || {
        let mark = mark_of(lease.get_str("holder").ok()?).map(str::to_owned);
        Some(EventsShown { age: lease.get_datetime("renewed").ok().and_then(age)?, mark })
    };
    EventsHealth {
        publisher: publisher(),
        publishing: trouble(EventsTask::Publishing),
        consuming: trouble(EventsTask::Consuming),
        ..EventsHealth::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_shows_who_tells_and_what_troubles_the_pods() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let trouble = |second| doc! { "reason": "BrokerUnreachable", "at": date(at(second)), "by": "b@new" };
        let lease = doc! { "holder": "a@old", "renewed": date(at(95)), "telling": trouble(40), "hearing": trouble(90) };
        let health = of_lease(&lease, at(100));
        let shown = EventsShown { age: Duration::from_secs(5), mark: Some("old".into()) };
        assert_eq!(health.publisher, Some(shown));
        assert_eq!(health.consuming.as_ref().and_then(|trouble| trouble.mark.as_deref()), Some("new"));
        assert_eq!(health.publishing.map(|trouble| trouble.age), Some(Duration::from_secs(60)));
        assert_eq!(health.consuming.map(|trouble| trouble.reason).as_deref(), Some("BrokerUnreachable"));
        let released = doc! { "holder": mongodb::bson::Bson::Null, "renewed": date(at(95)) };
        assert_eq!(of_lease(&released, at(100)), EventsHealth::default());
        assert_eq!(of_lease(&doc! {}, at(100)), EventsHealth::default());
    }
}
