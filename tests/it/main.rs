//! Integration tests, in one binary: linking is slow. `make test` starts the real parts they use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod api_errors;
mod import;
mod mongo;
mod store;
mod store_expiry;
