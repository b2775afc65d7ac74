//! What the long-running subcommands share: whatever a Kubernetes process needs, and nothing about orders.
//!
//! ```text
//! process        starts a subcommand: signals, the admin server, a client of the cluster
//! client         the configuration of that client
//! resend         what that client sends again by itself
//! shutdown       SIGTERM and SIGINT as a cancellation token
//! server         an HTTP server whose clients can take no more than is theirs
//! resources      what the process may use: open files, memory
//! admin          /livez, /readyz and /metrics
//! process_stats  what every process says of itself on /metrics
//! telemetry      logs, and whether there are traces
//! log_writer     writes log lines without ever waiting for whoever reads them
//! colour         whether what is printed has colours
//! escape         escapes control characters in what is logged and printed
//! traces         OpenTelemetry spans and their export
//! lease          leader election
//! contention     two processes that write to one resource come to rest
//! history        notices that the API server shows an earlier state
//! watch          watches on the API server: flags, scope, restarts
//! cache_sync     waits for the initial lists of watches
//! public_cas     the certificate authorities of the program
//! secret_cache   copies of Secrets, which no watch keeps fresh
//! events         Kubernetes Events
//! backoff        exponential backoff
//! causes         what an error says together with what caused it
//! percent        percent-decoding
//! hex            bytes as hexadecimal digits
//! yaml           why a text is not YAML
//! nats_subject   what may be the name of a subject of NATS
//! ```

pub mod admin;
mod backoff;
pub mod cache_sync;
mod causes;
pub mod client;
mod colour;
pub mod contention;
mod escape;
pub mod events;
mod hex;
pub mod history;
pub mod lease;
mod log_writer;
mod nats_subject;
mod percent;
mod process;
pub mod process_stats;
mod public_cas;
mod resend;
mod resources;
pub mod secret_cache;
pub mod server;
mod shutdown;
pub mod telemetry;
pub mod traces;
pub mod watch;
pub mod yaml;

pub use backoff::exponential;
pub use causes::with_causes;
pub use colour::has_colours;
pub use escape::Escape;
pub use hex::hex;
pub use nats_subject::is_nats_subject;
pub use percent::percent_decoded;
pub use process::{Process, RunError, cluster};
pub use public_cas::public_cas;
pub use resources::Resources;
pub use shutdown::on_signal;
