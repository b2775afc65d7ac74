//! The controller: makes the cluster what each OrdersService says.
//!
//! ```text
//! args                the command line
//! run                 sets everything up, and runs until the shutdown
//!
//! watches/            watch events become keys of OrdersServices to reconcile
//! trigger             queues them
//! reconcile/          dereference -> validate -> build -> apply -> status
//! secrets/            copies of the Secrets that OrdersServices refer to
//! claims/             who claims which routes
//! children/           the kinds of children, and what is read and remembered of them
//! render/             the same steps without a cluster
//!
//! context             what every reconcile uses
//! resource_state      what is remembered of one OrdersService between reconciles
//! services            the OrdersServices that the watches show
//! raw_orders_service  one of them, not parsed yet
//! known_services      the Services that the watches show, by name
//! shared_subjects     two systems that were given the same subjects of a broker
//! schema              what the API server would refuse by the schema of the CRD
//! written             how values are written in a YAML text
//! index               the state machine that every watch shares
//! api_server          requests: bounded, counted, and only the leader's if they write
//! pod_state           what a pod's status says of it
//! readiness           which of them are not ready, and why
//! upgrades            moves resources to the operator's new image, a few at a time
//! problem             a reason and a message, for conditions and events
//! backoff, metrics, object_key
//! ```
//!
//! There is no finalizer: the children are garbage-collected through their owner references.

mod api_server;
mod args;
mod backoff;
mod children;
mod claims;
mod context;
#[cfg(test)]
mod fixture;
mod index;
mod known_services;
mod metrics;
mod object_key;
pub mod pod_state;
mod problem;
mod raw_orders_service;
mod readiness;
mod reconcile;
pub mod render;
mod resource_state;
mod run;
mod schema;
mod secrets;
mod services;
mod shared_subjects;
mod trigger;
mod upgrades;
mod watches;
mod written;

pub use args::{ControllerArgs, HostPolicy};
pub use children::{httproute::HTTPRoute, rollout::Rollout};
pub use claims::{
    path_annotations::{PathEffect, of_ingress_nginx, path_effect},
    registry::is_default_class,
};
pub use reconcile::pods::selector as pod_selector;
pub use run::{ControllerError, run};
pub use shared_subjects::{SHARED_SUBJECTS_REMEDY, shares_subjects};
