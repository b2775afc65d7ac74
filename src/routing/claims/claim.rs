//! What is claimed, by whom, and what a claimant is told about the claims of others.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::routing::{host::CanonicalHost, path_match::PathMatch};

/// The kind of an object that makes claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimantKind {
    /// An Ingress that no OrdersService controls.
    Ingress,
    /// An HTTPRoute that no OrdersService controls.
    HTTPRoute,
    /// An OrdersService.
    OrdersService,
}

/// Identifies an object that makes claims. Clones share the strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimantId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: ClaimantKind,
}

/// An object that makes claims. The smallest wins: the oldest, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimant {
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// The object.
    pub id: ClaimantId,
}

impl Claimant {
    /// Whether it is an Ingress that no OrdersService controls, such as one in whose place an OrdersService comes.
    pub fn is_ingress(&self) -> bool {
        self.id.kind == ClaimantKind::Ingress
    }
}

impl fmt::Display for Claimant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.id.kind {
            ClaimantKind::Ingress => "Ingress",
            ClaimantKind::HTTPRoute => "HTTPRoute",
            ClaimantKind::OrdersService => "OrdersService",
        };
        write!(formatter, "{kind} {}/{}", self.id.namespace, self.id.name)
    }
}

/// Where requests enter the cluster. The same path of a host at two entry points is not a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryPoint {
    /// The ingress controller of an IngressClass; `None` for the cluster's default class.
    Class(Option<Arc<str>>),
    /// A Gateway, as `namespace/name`.
    Gateway(Arc<str>),
}

/// A host at an entry point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// The entry point.
    pub entry_point: EntryPoint,
    /// The host.
    pub host: CanonicalHost,
}

/// A claim on a host and, unless it is `None`, on what a path takes. The exact path of a prefix goes to whoever has that, if
/// that is an older object of another namespace; a prefix loses nothing to an exact path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The host.
    pub site: Site,
    /// The path; the prefix `/` is the client's.
    pub path: Option<PathMatch>,
    /// Whether it is served already, and not only requested.
    pub is_served: bool,
    /// Whether the object has an annotation by which ingress-nginx reads every path of the host as a regex, whosever it is.
    pub switches_to_regexes: bool,
}

/// Who may have rules for a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Every object; each path goes to the oldest that claims it.
    #[default]
    Shared,
    /// Only objects in the namespace that was first to claim the host, a wildcard above it or a host below it. What an
    /// OrdersService has rendered, it keeps. Rules for every host are for namespaces only that the list of allowed hosts
    /// gives every host.
    Namespace,
}

/// Why an object may have nothing of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The list of allowed hosts does not have it for the object's namespace.
    NotAllowed,
    /// It belongs to another namespace, by this object.
    OwnedBy(Arc<Claimant>),
}

/// How the claims of other objects on a host affect those of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object may have nothing of the host, if so. All else is empty then.
    pub refused: Option<Refusal>,
    /// The paths that go to other objects, and to which.
    pub lost: BTreeMap<PathMatch, Arc<Claimant>>,
    /// The other object whose client serves the host.
    pub client: Option<Arc<Claimant>>,
    /// Another object's host that this wildcard would match, or another object's wildcard that would match this host. Of
    /// rules for every host: another object's host.
    pub overlap: Option<(CanonicalHost, Arc<Claimant>)>,
    /// Another object by which ingress-nginx reads every path of the host as a regex.
    pub regexes: Option<Arc<Claimant>>,
}
