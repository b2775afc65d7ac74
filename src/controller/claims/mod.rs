//! Who claims which routes, and who gets them.
//!
//! ```text
//! requested   the routes that a spec asks for, in canonical form and order
//! route_list  the routes as they are written, and what each host gets of them
//! annotations  annotations that would have rules mean something else
//! path_annotations  what annotations make of paths
//! controllers  ingress controllers that read some rules in another way
//! claimed     the routes that an object claims
//! registry    the claims of all objects in the cluster, as the watches show them
//! hosts_file  the hosts that each namespace may have
//! ```
//!
//! Who wins a claim is decided in [`crate::routing`].

pub mod annotations;
pub mod claimed;
pub mod controllers;
pub mod hosts_file;
pub mod path_annotations;
pub mod registry;
pub mod requested;
pub mod route_list;
#[cfg(test)]
mod tests;
