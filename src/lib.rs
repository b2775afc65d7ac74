//! The orders service of a ticketing system on Kubernetes: its operator, its HTTP API and its
//! expiry, in one binary.
//!
//! ```text
//! order/       the domain, pure: statuses and their transitions, orders, tickets, identifiers
//! store/       MongoDB: connection, indexes, tickets, reserving, transitions, expiry queries
//! import/      `tickets import`: loads local copies of tickets from a file
//! check/       `orders check`: what in a database would surprise this program
//! events/      what is published to a broker, and what is consumed from it
//! api/         the HTTP API: router, session, handlers, errors
//! sweeper/     expiry: targets, pacing, the sweep of one target, the loop
//! crd/         the OrdersService resource: spec, status, validation rules, conditions
//! routing/     ingress ordering, pure: canonical paths, the order, conflicts
//! controller/  dereference -> validate -> build -> apply -> status
//! migrate/     `migrate`: from hand-written manifests to an OrdersService
//! osvc/        `kubectl osvc`: what someone asks of the OrdersServices of a cluster, from a shell
//! manual/      completions for shells, and man pages
//! cli/         the command line: each subcommand is one call into a module above
//! runtime/     what every long-running subcommand shares: admin server, shutdown, telemetry
//! ```
//!
//! Imports point one way: `api -> events -> store -> order`, `sweeper -> store -> order`,
//! `import -> store -> order`, `check -> store -> order`, `sweeper -> crd`, `migrate -> controller -> routing`,
//! `osvc -> controller`, `osvc -> sweeper`, `controller -> crd`, and anything may use
//! `runtime`. `order` and
//! `routing` import nothing of ours and do no I/O. `tests/it/architecture.rs` holds these rules
//! against the `use` lines.
//!
//! Every guarantee about an order is a conditional write or a unique index, never a lock, a timer
//! or a leader, so any number of API pods and sweepers may run, crash or be paused at any moment.
#![forbid(unsafe_code)]

pub mod api;
pub mod check;
pub mod cli;
pub mod controller;
pub mod crd;
pub mod events;
pub mod import;
pub mod manual;
pub mod migrate;
pub mod order;
pub mod osvc;
pub mod routing;
pub mod runtime;
pub mod store;
pub mod sweeper;
