//! `check`: whether a cluster, an installation and its OrdersServices are as they should be.
//!
//! Each group asks the API server alone; what is said of databases and brokers is what the operator reports. What fails is
//! told once: what only follows from it is left out.
//!
//! ```text
//! report      the lines, in groups
//! kubernetes  the version of Kubernetes
//! definition  the CRD
//! rights      what whoever asks may do
//! routing     the IngressClasses, and the Gateway API
//! operator    its Deployments, and its Lease
//! rollout     how far such a Deployment is, and what holds it up
//! service     one OrdersService: its Secrets and its conditions
//! run         the groups in their order
//! ```

mod definition;
mod kubernetes;
mod operator;
mod report;
mod rights;
mod rollout;
mod routing;
mod run;
mod service;

pub use kubernetes::MIN_KUBERNETES;
pub(super) use run::run;
