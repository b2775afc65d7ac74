//! The time by the database's clock, which decides when orders expire.
//!
//! The clocks of this machine and of other pods do not matter: an order made by a pod whose clock is wrong lasts as
//! long as any other.

use std::time::Instant;

use jiff::Timestamp;
use mongodb::bson::doc;

use super::{clock::ServerClock, database::Store, document::timestamp, error::StoreError, retry};

const ASKING: &str = "asking the database for the time";

impl Store {
    /// Bounds of the database's clock. The database is asked if that was half a minute ago.
    ///
    /// # Errors
    /// When the database fails, or its reply has no time.
    pub async fn clock(&self) -> Result<ServerClock, StoreError> {
        let known = *self.clock.lock();
        match known.filter(|clock| !clock.is_stale(Instant::now())) {
            Some(clock) => Ok(clock),
            None => self.read_clock().await,
        }
    }

    /// Bounds of the database's clock, which is asked now.
    ///
    /// # Errors
    /// As [`Store::clock`].
    pub async fn read_clock(&self) -> Result<ServerClock, StoreError> {
        let new = retry::patiently(ASKING, || self.ask_for_time()).await?;
        let mut known = self.clock.lock();
        let refined = known.map_or(new, |clock| clock.refined(new));
        *known = Some(refined);
        Ok(refined)
    }

    async fn ask_for_time(&self) -> Result<ServerClock, StoreError> {
        // Each attempt has times of its own: one that failed first would only make the bounds wider.
        let (hello, asked, heard) = retry::transient(ASKING, || async {
            let asked = Instant::now();
            let hello = self.database.run_command(doc! { "hello": 1 }).await?;
            Ok((hello, asked, Instant::now()))
        })
        .await?;
        let said =
            hello.get_datetime("localTime").ok().and_then(|time| timestamp(*time)).ok_or_else(|| {
                StoreError::Failed { doing: ASKING, detail: "its answer to hello has no localTime".into() }
            })?;
        Ok(ServerClock::new(said, asked, heard))
    }

    /// The time that the database's clock has reached, by a reading of its own.
    ///
    /// # Errors
    /// As [`Store::clock`].
    pub async fn server_time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.read_clock().await?.reached(Instant::now()))
    }
}
