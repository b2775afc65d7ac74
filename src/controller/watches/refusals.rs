//! For how long the API server has refused something: rights that are missing for a moment, as when an installation creates
//! them after the pods, must not be taken for rights that will not come.

use std::time::Duration;

use tokio::time::Instant;

/// How long refusals last until nothing else is expected.
const LASTING: Duration = Duration::from_secs(30);

/// The refusals that came one after the other.
#[derive(Debug, Default)]
pub struct Refusals {
    since: Option<Instant>,
}

impl Refusals {
    /// It was refused, possibly again. Whether that has lasted.
    pub fn refused(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= LASTING
    }

    /// Anything else happened.
    pub fn ended(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_refusals_that_nothing_interrupts_last() {
        let mut refusals = Refusals::default();
        assert!(!refusals.refused());
        tokio::time::advance(LASTING / 2).await;
        assert!(!refusals.refused());
        refusals.ended();
        assert!(!refusals.refused());
        tokio::time::advance(LASTING - Duration::from_secs(1)).await;
        assert!(!refusals.refused());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(refusals.refused() && refusals.refused());
    }
}
