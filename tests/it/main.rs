//! Integration tests against real parts: one binary, since linking is slow.
//!
//! Each test has its own namespace or database, and waits on conditions with a deadline. The parts
//! come from the environment (`KUBECONFIG`, `MONGO_URI`, `helm` on the `PATH`), which `make test`
//! sets up, so that the same tests can be pointed at another cluster or database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod api_chaos;
mod api_errors;
mod api_limits;
mod api_process;
mod api_security;
mod architecture;
mod bed;
mod cluster;
mod controller;
mod course;
mod crd;
mod database_clock;
mod database_tls;
mod dataplane;
mod dead_letters;
mod demo;
mod docs;
mod election;
mod events;
mod events_flowing;
mod events_heard;
mod events_streaming;
mod express;
mod fault_proxy;
mod guarantee;
mod hostile_answers;
mod hostile_database;
mod idempotency;
mod identity;
mod import;
mod ipv6;
mod jwt;
mod lease;
mod list;
mod log_lines;
mod machine;
mod mongo;
mod mongoose;
mod nats;
mod orders_check;
mod packaging;
mod pki;
mod render;
mod rights;
mod routes;
mod server;
mod skaffold;
mod store;
mod store_events;
mod store_expiry;
mod store_faults;
mod store_lost_replies;
mod store_payments;
mod store_settle;
mod stranger;
mod streaming;
mod sweeper;
mod sweeper_chaos;
mod sweeper_history;
mod sweeper_many;
mod sweeper_once;
mod sweeper_status;
mod traces;
mod untrusted_uri;
mod watchdog;
mod way;
