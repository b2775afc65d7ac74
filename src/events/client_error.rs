//! What an error of the client means.

use super::broker::BrokerError;
use crate::runtime::with_causes;

/// An error of the client. That nobody answers where JetStream should means that there is none.
pub(super) fn failed(doing: &'static str, error: &dyn std::error::Error) -> BrokerError {
    let detail = with_causes(error);
    if detail.contains("no responders") || detail.contains("jetstream not enabled") {
        BrokerError::NoJetStream
    } else if detail.contains("timed out") {
        BrokerError::TimedOut { doing }
    } else {
        BrokerError::Failed { doing, detail }
    }
}
