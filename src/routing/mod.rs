//! Ingress ordering, pure: canonical hosts and paths, and the one order that every ingress
//! controller agrees on.
//!
//! Ingress controllers order rules by text length, by rule length, by class or as listed. Plain
//! prefixes, longest first, with the client at `/` last, are in the right order for all of them:
//! `/` is the shortest path, the lowest class and the last entry at once. So only canonical
//! prefixes can be represented here, and only in that order. What several objects claim goes to the
//! oldest of them.

#[cfg(test)]
mod cases;
mod claims;
mod host;
mod path;
mod request;
mod table;

pub use claims::{
    Claim, ClaimIndex, Claimant, ClaimantId, ClaimantKind, Entrance, HostPolicy, Site, Verdict,
};
pub use host::{CanonicalHost, HostError};
pub use path::{CanonicalPath, PathError};
pub use request::{Request, RequestError};
pub use table::{Backend, Route, RouteError, RouteTable};
