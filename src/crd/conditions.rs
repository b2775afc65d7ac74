//! Condition types and reasons, and updates to a list of conditions.
//!
//! `lastTransitionTime` changes only when the status does.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// All of the following types that apply are true.
    Ready,
    /// The spec passed validation.
    Valid,
    /// Every child was applied for this generation.
    Reconciled,
    /// The Deployment is available.
    Available,
    /// The routes are rendered and the ingress class exists.
    IngressReady,
    /// The sweeper reaches the database, and its indexes are in place.
    DatabaseReady,
    /// The sweeper moves this database's expired orders to cancelled.
    Sweeping,
    /// Events of orders are published, and those of other services are consumed.
    EventsFlowing,
    /// Not ready yet, and being worked on; absent otherwise, as kstatus expects it.
    Reconciling,
    /// Not ready, and nothing will change that but a change of the spec; absent otherwise, as kstatus expects it.
    Stalled,
}

impl ConditionType {
    /// The types that the controller writes. `Ready`, which summarizes the others, comes first.
    pub const CONTROLLER: [Self; 7] = [
        Self::Ready,
        Self::Valid,
        Self::Reconciled,
        Self::Available,
        Self::IngressReady,
        Self::Reconciling,
        Self::Stalled,
    ];

    /// The types that the sweeper writes.
    pub const SWEEPER: [Self; 3] = [Self::DatabaseReady, Self::Sweeping, Self::EventsFlowing];

    /// The value of the condition's `type` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Valid => "Valid",
            Self::Reconciled => "Reconciled",
            Self::Available => "Available",
            Self::IngressReady => "IngressReady",
            Self::DatabaseReady => "DatabaseReady",
            Self::Sweeping => "Sweeping",
            Self::EventsFlowing => "EventsFlowing",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// Declares the reasons: the variants, their texts (which are the variants' names), and the list of all.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident),+ $(,)?) => {
        /// Why a condition has its status; also the reason of the event about it, and a metric label.
        ///
        /// docs/conditions.md explains each of them, which a test checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])* $name),+ }

        impl Reason {
            /// Every reason, in the order of the declaration.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The value of the condition's `reason` field.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

reasons! {
    /// The condition is true, and there is nothing to warn of.
    AsExpected,
    /// A field of the spec has a value that cannot work.
    InvalidSpec,
    /// A host is not a DNS name, or is an IP address.
    InvalidHost,
    /// A route's path is not a plain prefix, or is `/`, which is the client's.
    InvalidPath,
    /// Two routes have the same path.
    DuplicatePath,
    /// A route takes every request, as the client does.
    MultipleClients,
    /// A warning: no client is set, so this resource serves nothing at paths that match no route.
    MissingClient,
    /// An older object has the same host and path.
    HostPathConflict,
    /// Another namespace was first to claim the host, or one that overlaps with it.
    HostOwnedByOtherNamespace,
    /// The namespace is not allowed to have the host.
    HostNotAllowed,
    /// The API server does not know the Gateway API.
    GatewayApiMissing,
    /// The API server does not know the Middlewares of Traefik.
    TraefikApiMissing,
    /// A Gateway has not yet reported whether it accepts the routes.
    GatewayPending,
    /// A Gateway does not accept the routes.
    RouteNotAccepted,
    /// A Gateway does not find a Service that a route names.
    BackendsNotResolved,
    /// The IngressClass does not exist; or, as a warning, none is named and there is no default.
    IngressClassNotFound,
    /// A warning: the Secret of the certificate does not exist.
    TLSSecretMissing,
    /// A warning: a route goes to a Service that does not exist.
    ServiceNotFound,
    /// A warning: another object has a wildcard that covers the host, or a host that the wildcard covers.
    WildcardOverlap,
    /// A warning: the ingress controller reads a route in another way than it is meant.
    RouteMisread,
    /// A Secret that the spec refers to does not exist.
    SecretNotFound,
    /// A Secret lacks the key that the spec refers to.
    SecretKeyMissing,
    /// Another operator writes to the resource too; this one leaves it alone for a while.
    AnotherOperator,
    /// An object with the name of a child is not owned by the resource; it is left unchanged.
    NotOwned,
    /// The operator lacks a permission.
    Forbidden,
    /// The API server refused to create, update or delete a child, or did not answer.
    ApplyFailed,
    /// An object that the spec refers to could not be read: the API server refused, or did not answer.
    ReadFailed,
    /// `spec.suspend` or `spec.expiration.suspend` is true.
    Suspended,
    /// Not enough pods are ready.
    MinimumReplicasUnavailable,
    /// A pod's image cannot be pulled.
    ImagePullFailed,
    /// A container of a pod keeps exiting.
    CrashLoopBackOff,
    /// The cluster does not let a pod be created: a quota, an admission webhook, a missing ServiceAccount.
    PodCreationFailed,
    /// Pods with a former spec still serve, or the current one's are not all there yet.
    RolloutInProgress,
    /// A rollout makes no progress.
    ProgressDeadlineExceeded,
    /// A warning: the autoscaler has no metrics to decide by, so the number of pods stays as it is.
    AutoscalerWithoutMetrics,
    /// The sweeper has not reported on this generation of the resource yet.
    AwaitingSweeper,
    /// The connection string has changed, or the sweeper was started anew, and nothing is known of the database yet.
    DatabasePending,
    /// The database cannot be reached, is too busy, or has no primary; or the Secret with its address is missing.
    DatabaseUnreachable,
    /// The database is connected to, but does not answer in time.
    DatabaseTooSlow,
    /// One side of the connection to the database does not accept the other's certificate, or one cannot be used.
    DatabaseTLSFailed,
    /// The database failed in a way that no other reason names.
    DatabaseFailed,
    /// The database refuses the credentials.
    AuthenticationFailed,
    /// The connection string, or the database's name, cannot be parsed.
    InvalidDatabaseUri,
    /// The connection string has an option that is not allowed.
    UnsafeDatabaseUri,
    /// A warning: the connection string has options that have no effect, or that do not hold.
    DatabaseOptionIgnored,
    /// More than one active order holds a ticket, so the unique index cannot be built.
    DuplicateActiveOrders,
    /// The server lacks a feature that the indexes need.
    UnsupportedServer,
    /// An index that is not ours has the name or the keys of one that is.
    IndexConflict,
    /// No database is named, and the orders are in another one than that which is then used.
    OrdersElsewhere,
    /// A document in the database cannot be read as an order or a ticket.
    MalformedDocument,
    /// A warning: open orders have no due time, so they never expire.
    OrdersWithoutDueTime,
    /// Orders expire faster than the sweeper can cancel them.
    FallingBehind,
    /// The pods do not reach the broker of events, or it does not answer in time.
    BrokerUnreachable,
    /// The broker refuses the pods, or is not the one that the spec names.
    BrokerRefused,
    /// No stream has a subject, and the one that is named has others.
    SubjectWithoutStream,
    /// The durable consumer that is named is another's.
    ConsumerOfOthers,
    /// Another system has the subjects.
    SubjectsOfOthers,
    /// The broker does not do what it is asked for, such as keeping an event in a stream that is full.
    BrokerFailed,
    /// A change of an order has been pending for a minute.
    OutboxStuck,
    /// No pod publishes events.
    NoPublisher,
    /// A warning: messages of other services could not be read.
    DeadLetters,
}

impl Reason {
    /// Whether the spec refers to something that does not exist yet. The spec is valid then, and it is worth trying again
    /// soon, since no watch shows when it is created.
    pub fn is_missing_reference(self) -> bool {
        matches!(self, Self::SecretNotFound | Self::SecretKeyMissing | Self::TraefikApiMissing)
    }
}

/// The condition of type `kind` among `conditions`.
pub fn find_condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether a condition is true.
pub fn is_true(condition: &Condition) -> bool {
    condition.status == "True"
}

/// Whether a condition has one of these reasons.
pub fn has_any_of(condition: &Condition, reasons: &[Reason]) -> bool {
    reasons.iter().any(|reason| condition.reason == reason.as_str())
}

/// Whether the condition `Available` says that a pod cannot run its image, which only a look at the pods tells.
pub fn cannot_run(available: &Condition) -> bool {
    !is_true(available) && has_any_of(available, &[Reason::ImagePullFailed, Reason::CrashLoopBackOff])
}

/// A condition to set. [`set_condition`] finds its transition time.
#[derive(Clone, Debug)]
pub struct NewCondition {
    /// Its type.
    pub kind: ConditionType,
    /// Whether it is true.
    pub status: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// The message, which says what to do about it.
    pub message: String,
    /// The generation of the spec that it is based on.
    pub generation: Option<i64>,
}

/// Adds a condition to `next`. The transition time is taken from `previous` if the status is the same there.
pub fn set_condition(next: &mut Vec<Condition>, previous: &[Condition], new: NewCondition, now: Timestamp) {
    let status = if new.status { "True" } else { "False" };
    let since = find_condition(previous, new.kind)
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    next.push(Condition {
        type_: new.kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: new.reason,
        message: new.message,
        observed_generation: new.generation,
        last_transition_time: since,
    });
}
