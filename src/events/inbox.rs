//! What a broker delivers to this service, whichever broker it is.

use std::time::Duration;

use super::{broker::BrokerError, handle::Received};

/// The most messages that are taken at once.
pub(super) const BATCH: usize = 200;

/// The messages of one stream or channel. What is not acknowledged is delivered again, by the broker itself.
pub(super) trait Inbox: Send + Sync {
    /// A message, as this broker delivers it.
    type Delivered: Send + Sync;

    /// Waits for messages, and takes those that are there, up to [`BATCH`]. After a while there may be none.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Delivered>, BrokerError>> + Send;

    /// What a message says.
    fn read(&self, delivered: &Self::Delivered) -> Result<Received, BrokerError>;

    /// A message is done with.
    fn acknowledge(
        &self,
        delivered: &Self::Delivered,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// A message is to be delivered again, after about `pause` if the broker can be asked for that.
    fn postpone(
        &self,
        delivered: &Self::Delivered,
        pause: Duration,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;
}
