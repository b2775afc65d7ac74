//! The children of an OrdersService: their kinds, what is read and remembered of them, and what follows from it.
//!
//! ```text
//! kind              the kinds, listed once
//! owner             which OrdersService controls an object
//! partial           a child as it is read: the fields that the controller looks at, and no others
//! fingerprint       a short hash in place of a whole object
//! resource_version  the version of an object
//! observed          what the watches show of the children
//! creating          which objects are being created at this moment
//! last_applied      what was applied, and whether the observed child still is that
//! inspected         what a look at its pods has found
//! replica_set       which pods have the current template of a Deployment
//! rollout           how far a Deployment is
//! rollout_tracker   since when a Deployment is incomplete, and when to look at its pods
//! autoscaler        since when an autoscaler has no metrics
//! httproute         the HTTPRoute of the Gateway API, as far as it is written and read
//! httproute_status  what Gateways report about one
//! middleware        the Middleware of Traefik, as far as it is written
//! numbered          which Ingress or Middleware is for what
//! served            whether the API server serves a kind that not every cluster has
//! ```
//!
//! Nothing here sends a request, and nothing here knows the other rooms of the controller.

pub mod autoscaler;
pub mod creating;
pub mod fingerprint;
pub mod httproute;
pub mod httproute_status;
pub mod inspected;
pub mod kind;
pub mod last_applied;
pub mod middleware;
pub mod numbered;
pub mod observed;
pub mod owner;
pub mod partial;
pub mod replica_set;
pub mod resource_version;
pub mod rollout;
pub mod rollout_tracker;
pub mod served;
