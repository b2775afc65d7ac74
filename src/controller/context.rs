//! What every reconcile uses.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    api_server::ApiServer,
    children::{creating::Creating, observed::ObservedChildren, served::Served},
    claims::registry::ClaimRegistry,
    known_services::KnownServices,
    metrics::Metrics,
    resource_state::ResourceStates,
    secrets::references::Secrets,
    services::OrdersServices,
    trigger::Trigger,
    upgrades::Upgrades,
};
use crate::runtime::{cache_sync::CacheSync, events::Events};

/// What every reconcile uses.
pub struct Context {
    /// The API server.
    pub api: Arc<ApiServer>,
    /// The OrdersServices that are watched.
    pub services: OrdersServices,
    /// What the watches show of the children.
    pub observed: ObservedChildren,
    /// Which children are being created.
    pub creating: Creating,
    /// What is remembered of each OrdersService.
    pub states: ResourceStates,
    /// Who claims which routes.
    pub claims: ClaimRegistry,
    /// Which Services there are.
    pub known_services: KnownServices,
    /// Copies of the Secrets that OrdersServices refer to.
    pub secrets: Secrets,
    /// Whether the API server serves HTTPRoutes.
    pub gateway_api: Served,
    /// Whether it serves Middlewares of Traefik.
    pub middlewares: Served,
    /// The initial lists of every watch, each of which is complete or was refused.
    pub initial_lists: CacheSync,
    /// Requeues OrdersServices.
    pub trigger: Trigger,
    /// Publishes Kubernetes events.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// How many reconciles may run at the same time, in all namespaces together.
    pub slots: Semaphore,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    /// Who this operator is: in the status, and for another operator on the same resources.
    pub identity: String,
    /// Whether a resource is ready only once a sweeper has reported on it.
    pub awaits_sweeper: bool,
    /// Which image those OrdersServices have that name none.
    pub upgrades: Upgrades,
    /// Whether this cluster assigns the users of pods.
    pub user_from_cluster: bool,
    /// Whether Traefik has its option `safeNaming`.
    pub traefik_safe_naming: bool,
}
