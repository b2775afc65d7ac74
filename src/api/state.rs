//! The state that the handlers share.

use axum::extract::FromRef;

use super::{
    base_path::BasePath, budget::Budget, database::Database, metrics::Metrics, pages::Pages,
    reading::Reading, session::Sessions,
};
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
    pub(super) base: BasePath,
    pub(super) pages: Pages,
}

impl FromRef<ApiState> for BasePath {
    fn from_ref(state: &ApiState) -> Self {
        state.base.clone()
    }
}

impl FromRef<ApiState> for Pages {
    fn from_ref(state: &ApiState) -> Self {
        state.pages.clone()
    }
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
