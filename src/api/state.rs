//! The state that the handlers share.

use axum::extract::FromRef;

use super::{budget::Budget, database::Database, metrics::Metrics, reading::Reading, session::Sessions};
use crate::order::ReservationTerms;

/// What every handler has access to.
#[derive(Clone, Debug)]
pub(super) struct ApiState {
    pub(super) database: Database,
    pub(super) sessions: Sessions,
    pub(super) metrics: Metrics,
    pub(super) terms: ReservationTerms,
    pub(super) budget: Budget,
    pub(super) reading: Reading,
}

impl FromRef<ApiState> for Sessions {
    fn from_ref(state: &ApiState) -> Self {
        state.sessions.clone()
    }
}

impl FromRef<ApiState> for Metrics {
    fn from_ref(state: &ApiState) -> Self {
        state.metrics.clone()
    }
}
