//! Who publishes what is pending in the outbox: one process at a time for each database, by a lease in that database.
//!
//! It only keeps duplicates away: nothing is lost whoever publishes, so nothing else depends on it. The lease is taken by a
//! conditional write, and whether its holder has renewed it in time is judged by the database's clock. Beside it is what
//! the next holder has to know: up to where on the broker, or until when, everything that was published is also marked as such.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
};

use super::{
    database::Store,
    document::{before, date, timestamp},
    driver_error::is_duplicate,
    error::StoreError,
    retry,
};

/// The collection of the lease.
const COLLECTION: &str = "relays";
pub(super) const LEASE: &str = "orders";
/// Stored by this name since its first version.
const PUBLISHED_UNTIL: &str = "toldUntil";

const TAKING: &str = "taking the lease of the relay";
const RENEWING: &str = "renewing the lease of the relay";
const RELEASING: &str = "releasing the lease of the relay";

/// Between the id of a process and the mark of its settings.
const BEFORE_MARK: char = '@';

/// A name for a process that nobody else has, with the mark of its settings if it has one: whatever is recorded under this
/// name is of a process with these settings.
#[must_use]
pub fn process_name(mark: Option<&str>) -> String {
    let id = format!("{:016x}", fastrand::u64(..));
    mark.map_or(id.clone(), |mark| format!("{id}{BEFORE_MARK}{mark}"))
}

/// The mark in such a name.
pub(super) fn mark_of(process: &str) -> Option<&str> {
    process.split_once(BEFORE_MARK).map(|(_, mark)| mark)
}

/// Places in the streams of a broker, by the name of the stream.
pub type Positions = BTreeMap<String, u64>;

/// Moves positions on to `places`; none goes back.
pub fn advance_positions(positions: &mut Positions, places: impl IntoIterator<Item = (String, u64)>) {
    for (stream, sequence) in places {
        let position = positions.entry(stream).or_default();
        *position = sequence.max(*position);
    }
}

/// What its holder leaves to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayLease {
    /// Up to where everything that was published is marked as such.
    pub positions: Positions,
    /// Everything that was published before this time, by the database's clock, is marked as such. None if nobody has said so.
    pub published_until: Option<Timestamp>,
}

impl RelayLease {
    fn read(lease: &Document) -> Self {
        let until = lease.get_datetime(PUBLISHED_UNTIL).ok();
        Self { positions: positions(lease), published_until: until.and_then(|until| timestamp(*until)) }
    }

    fn fields(&self) -> Document {
        let mut fields = doc! { "positions": position_list(&self.positions) };
        if let Some(until) = self.published_until {
            fields.insert(PUBLISHED_UNTIL, date(until));
        }
        fields
    }
}

impl Store {
    /// Whether `holder` may take the lease: nobody holds it, or whoever does has not renewed it for as long as `lasts`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_relay_lease_free(&self, holder: &str, lasts: Duration) -> Result<bool, StoreError> {
        let leases = self.relay_leases();
        let found =
            retry::transient(TAKING, || async { leases.find_one(doc! { "_id": LEASE }).await }).await?;
        let Some(found) = found else { return Ok(true) };
        Ok(is_free(&found, holder, self.server_time().await?, lasts))
    }

    /// Takes the lease for `holder`, if nobody holds it, or whoever does has not renewed it for as long as `lasts`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_relay_lease(
        &self,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<RelayLease>, StoreError> {
        let leases = self.relay_leases();
        let find = || retry::transient(TAKING, || async { leases.find_one(doc! { "_id": LEASE }).await });
        let mut found = find().await?;
        if found.is_none() {
            let free = doc! { "_id": LEASE, "holder": Bson::Null };
            retry::transient(TAKING, || async {
                match leases.insert_one(free.clone()).await {
                    Err(error) if is_duplicate(&error) => Ok(()),
                    result => result.map(drop),
                }
            })
            .await?;
            found = find().await?;
        }
        let Some(found) = found else { return Ok(None) };
        let now = self.server_time().await?;
        if !is_free(&found, holder, now, lasts) {
            return Ok(None);
        }
        // It still is as it was read.
        let mut filter = doc! { "_id": LEASE };
        for field in ["holder", "renewed"] {
            filter.insert(field, found.get(field).cloned().unwrap_or(Bson::Null));
        }
        let update =
            doc! { "$set": { "holder": holder }, "$currentDate": { "taken": true, "renewed": true } };
        let taken = retry::transient(TAKING, || async {
            // Whatever this holder reads then is not older than what the one before it has marked as published.
            leases.update_one(filter.clone(), update.clone()).session(self.relay_session().await?.get()).await
        })
        .await?;
        // A reply that was lost looks like a lease that was lost: the next attempt finds it held by this holder.
        Ok((taken.matched_count > 0).then(|| RelayLease::read(&found)))
    }

    /// Renews the lease, and stores what the next holder has to know. `false` if another has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_relay_lease(&self, holder: &str, known: &RelayLease) -> Result<bool, StoreError> {
        let leases = self.relay_leases();
        let filter = doc! { "_id": LEASE, "holder": holder };
        let update = doc! { "$set": known.fields(), "$currentDate": { "renewed": true } };
        let renewed =
            retry::transient(RENEWING, || async { leases.update_one(filter.clone(), update.clone()).await })
                .await?;
        Ok(renewed.matched_count > 0)
    }

    /// Gives the lease to whoever wants it next, with what that one has to know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_relay_lease(&self, holder: &str, known: &RelayLease) -> Result<(), StoreError> {
        let leases = self.relay_leases();
        let filter = doc! { "_id": LEASE, "holder": holder };
        let mut fields = known.fields();
        fields.insert("holder", Bson::Null);
        let update = doc! { "$set": fields, "$currentDate": { "released": true } };
        retry::transient(RELEASING, || async { leases.update_one(filter.clone(), update.clone()).await })
            .await
            .map(drop)
    }

    pub(super) fn relay_leases(&self) -> Collection<Document> {
        self.database.collection(COLLECTION)
    }
}

/// Whether `holder` may take the lease `found` at `now`.
fn is_free(found: &Document, holder: &str, now: Timestamp, lasts: Duration) -> bool {
    let Ok(held_by) = found.get_str("holder") else { return true };
    let renewed = found.get_datetime("renewed").ok().and_then(|renewed| timestamp(*renewed));
    held_by == holder || renewed.is_none_or(|renewed| date(renewed) < date(before(now, lasts)))
}

/// The names of streams may have characters that names of fields may not.
fn position_list(positions: &Positions) -> Vec<Document> {
    let document = |(stream, sequence): (&String, &u64)| {
        doc! { "stream": stream, "sequence": i64::try_from(*sequence).unwrap_or(i64::MAX) }
    };
    positions.iter().map(document).collect()
}

fn positions(lease: &Document) -> Positions {
    let list = lease.get_array("positions").into_iter().flatten();
    let position = |entry: &Bson| {
        let entry = entry.as_document()?;
        let sequence = entry.get_i64("sequence").ok().and_then(|sequence| u64::try_from(sequence).ok())?;
        Some((entry.get_str("stream").ok()?.to_owned(), sequence))
    };
    list.filter_map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_once_its_holder_has_released_it_or_not_renewed_it_in_time() {
        let now = Timestamp::from_millisecond(100_000).unwrap();
        let lasts = Duration::from_secs(6);
        let held = |by: Bson, renewed_ms: i64| {
            let renewed = date(Timestamp::from_millisecond(renewed_ms).unwrap());
            is_free(&doc! { "holder": by, "renewed": renewed }, "me", now, lasts)
        };
        assert!(held(Bson::Null, 99_999));
        assert!(held("me".into(), 99_999));
        assert!(!held("other".into(), 99_999));
        assert!(!held("other".into(), 94_000), "not before its end");
        assert!(held("other".into(), 93_999));
        assert!(is_free(&doc! { "holder": "other" }, "me", now, lasts), "it was never renewed");
    }

    #[test]
    fn the_name_of_a_process_has_the_mark_of_its_settings() {
        assert_eq!(mark_of(&process_name(Some("a@b"))), Some("a@b"));
        assert_eq!(mark_of(&process_name(None)), None);
        assert_ne!(process_name(Some("a")), process_name(Some("a")));
    }

    #[test]
    fn what_the_next_holder_has_to_know_round_trips_whatever_the_streams_are_named() {
        let positions =
            Positions::from([("a.b$c".to_owned(), 7), ("orders".to_owned(), u64::from(u32::MAX) + 1)]);
        for published_until in [None, Timestamp::from_millisecond(1_795_368_564_464).ok()] {
            let known = RelayLease { positions: positions.clone(), published_until };
            assert_eq!(RelayLease::read(&known.fields()), known);
        }
        assert_eq!(RelayLease::read(&doc! {}), RelayLease::default());
    }
}
