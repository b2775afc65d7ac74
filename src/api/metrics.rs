//! The API's metrics. All labels have a fixed set of values, so clients cannot create new time series.

use std::{sync::atomic::AtomicU64, time::Duration};

use axum::http::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::runtime::server::ServerMetrics;

/// Buckets from 1 ms to 10 s, which is the deadline of a request.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The API's metrics. Clones share the counters.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    reservations: Family<OutcomeLabels, Counter>,
    abandoned: Family<RouteLabels, Counter>,
    over_budget: Counter,
    lists_aborted: Counter,
    connections: Gauge,
    connections_evicted: Counter,
    accept_errors: Counter,
    streams_refused: Counter,
    streams_stalled: Counter,
    unauthenticated: Family<WhyLabels, Counter>,
    clock_offset: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabels {
    why: &'static str,
}

/// The outcome of an attempt to reserve a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReservationOutcome {
    /// A new order was created.
    Reserved,
    /// The idempotency key was used before; its order was returned.
    Repeated,
    /// An active order holds the ticket.
    AlreadyReserved,
    /// The ticket does not exist.
    TicketNotFound,
    /// The ticket id is missing or invalid, or the idempotency key is invalid or was used for another ticket.
    Invalid,
    /// The database was unavailable.
    Unavailable,
    /// An unexpected error.
    Failed,
    /// It was dropped before it had an answer: its client disconnected, or its time was over. It may have been made.
    Unanswered,
}

impl ReservationOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Repeated => "repeated",
            Self::AlreadyReserved => "already_reserved",
            Self::TicketNotFound => "ticket_not_found",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Why nobody is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unauthenticated {
    /// The request has neither a session cookie nor a bearer token.
    Absent,
    /// The cookie is not base64 of JSON with a `jwt`, or that is not a token.
    Malformed,
    /// The token is signed by another algorithm than HS256.
    Algorithm,
    /// It is signed with another key.
    Signature,
    /// Its `exp` is over.
    Expired,
    /// Its `nbf` is yet to come.
    NotYetValid,
    /// It has no `id`, or one that is neither a text nor a whole number.
    NoUser,
}

impl Unauthenticated {
    /// The label, and the word in the log.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NoUser => "no_user",
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let server = ServerMetrics::default();
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            reservations: Family::default(),
            abandoned: Family::default(),
            over_budget: Counter::default(),
            lists_aborted: Counter::default(),
            connections: server.open.clone(),
            connections_evicted: server.evicted.clone(),
            accept_errors: server.accept_errors.clone(),
            streams_refused: server.refused.clone(),
            streams_stalled: server.stalled.clone(),
            unauthenticated: Family::default(),
            clock_offset: Gauge::default(),
        };
        let orders = registry.sub_registry_with_prefix("orders_api");
        orders.register(
            "requests",
            "Requests by method, route and class of status",
            metrics.requests.clone(),
        );
        orders.register_with_unit(
            "request_duration",
            "Time from the head of a request to the head of its response",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        orders.register(
            "reservations",
            "Attempts to reserve a ticket, by outcome",
            metrics.reservations.clone(),
        );
        orders.register(
            "requests_abandoned",
            "Requests whose client disconnected before they were answered; what they asked for may have been done",
            metrics.abandoned.clone(),
        );
        orders.register(
            "requests_over_budget",
            "Requests refused because the memory for client requests was used up",
            metrics.over_budget.clone(),
        );
        orders.register(
            "lists_aborted",
            "Lists aborted after the response had begun, mostly because the database failed; see the log",
            metrics.lists_aborted.clone(),
        );
        orders.register("connections", "Connections that are open", metrics.connections.clone());
        orders.register(
            "connections_evicted",
            "Idle connections that were closed to make room for others",
            metrics.connections_evicted.clone(),
        );
        orders.register(
            "accept_errors",
            "Connections that the operating system did not let this process accept",
            metrics.accept_errors.clone(),
        );
        orders.register(
            "streams_refused",
            "HTTP/2 requests refused because too many were in progress",
            metrics.streams_refused.clone(),
        );
        orders.register(
            "streams_stalled",
            "HTTP/2 responses aborted because the client did not read them",
            metrics.streams_stalled.clone(),
        );
        orders.register(
            "unauthenticated",
            "Requests that are not signed in, by what is wrong with their session",
            metrics.unauthenticated.clone(),
        );
        orders.register_with_unit(
            "clock_offset",
            "How far the database's clock is ahead of this machine's",
            Unit::Seconds,
            metrics.clock_offset.clone(),
        );
        metrics
    }

    /// Counts a request that was answered, and records how long it took.
    pub(super) fn request(&self, method: &Method, route: &'static str, status: StatusCode, took: Duration) {
        let method = method_label(method);
        self.requests.get_or_create(&RequestLabels { method, route, status: status_class(status) }).inc();
        self.durations.get_or_create(&RouteLabels { method, route }).observe(took.as_secs_f64());
    }

    /// Counts a request whose client disconnected before it was answered.
    pub(super) fn abandoned(&self, method: &Method, route: &'static str) {
        self.abandoned.get_or_create(&RouteLabels { method: method_label(method), route }).inc();
    }

    /// Counts a request that was refused for lack of memory.
    pub(super) fn over_budget(&self) {
        self.over_budget.inc();
    }

    /// Counts a list that was broken off.
    pub(super) fn list_aborted(&self) {
        self.lists_aborted.inc();
    }

    /// What the server counts.
    pub(super) fn server(&self) -> ServerMetrics {
        ServerMetrics {
            open: self.connections.clone(),
            evicted: self.connections_evicted.clone(),
            accept_errors: self.accept_errors.clone(),
            refused: self.streams_refused.clone(),
            stalled: self.streams_stalled.clone(),
        }
    }

    /// Counts a request by nobody who is signed in.
    pub(super) fn unauthenticated(&self, why: Unauthenticated) {
        self.unauthenticated.get_or_create(&WhyLabels { why: why.label() }).inc();
    }

    /// Sets how far the database's clock is ahead of this machine's.
    pub(super) fn clock_offset(&self, seconds: f64) {
        self.clock_offset.set(seconds);
    }

    /// Counts an attempt to reserve.
    pub(super) fn reservation(&self, outcome: ReservationOutcome) {
        self.reservations.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
