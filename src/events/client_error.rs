//! What an error of the client means.

use super::broker::BrokerError;

/// An error of the client. That nobody answers where JetStream should means that there is none.
pub(super) fn failed(doing: &'static str, error: &dyn std::error::Error) -> BrokerError {
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !detail.contains(&text) {
            detail = format!("{detail}: {text}");
        }
        source = inner.source();
    }
    if detail.contains("no responders") || detail.contains("jetstream not enabled") {
        BrokerError::NoJetStream
    } else if detail.contains("timed out") {
        BrokerError::TimedOut { doing }
    } else {
        BrokerError::Failed { doing, detail }
    }
}
