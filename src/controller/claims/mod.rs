//! Who claims which routes, and who gets them.
//!
//! ```text
//! requested   the routes that a spec asks for, in canonical form and order
//! claimed     the routes that an object claims
//! registry    the claims of all objects in the cluster, as the watches show them
//! hosts_file  the hosts that each namespace may have
//! ```
//!
//! Who wins a claim is decided in [`crate::routing`].

pub mod claimed;
pub mod hosts_file;
pub mod registry;
pub mod requested;
#[cfg(test)]
mod tests;
