//! Ingress ordering, pure: canonical hosts and paths, and an order of rules that every ingress controller evaluates
//! alike.
//!
//! Ingress controllers order rules by the length of the path or of the whole rule, by kind of path, or not at all.
//! Plain prefixes, longest first and with the client at `/` last, are in the right order for all of them: `/` is the
//! shortest path, of the lowest priority, and the last entry. So only canonical paths can be represented here, prefixes and
//! before them exact ones, and only in that order. If several objects claim the same path of a host, the oldest gets it.
//!
//! ```text
//! host     canonical host names
//! allowed  the hosts that each namespace may have
//! path     canonical paths
//! path_match  what a rule takes: a path alone, or all below it too
//! table    the routes of one host, in rendered order
//! claims   which objects claim which prefixes of which hosts, and who gets them
//! request  the target of a request, as `render --explain` takes it
//! ```

mod allowed;
#[cfg(test)]
mod cases;
mod claims;
mod host;
mod path;
mod path_match;
mod request;
mod table;

pub use allowed::AllowedHosts;
pub use claims::{
    Claim, ClaimIndex, Claimant, ClaimantId, ClaimantKind, EntryPoint, HostPolicy, Refusal, Site, Verdict,
};
pub use host::{CanonicalHost, HostError};
pub use path::{CanonicalPath, PathError, Proposal};
pub use path_match::PathMatch;
pub use request::{RequestTarget, RequestTargetError};
pub use table::{Backend, HostRoutes, Port, Route, RouteError, RouteTable, WrittenRoute};
