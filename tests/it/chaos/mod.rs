//! What must hold while processes, databases and brokers are killed, frozen and restarted. These run for a while, so they
//! are among the first that libtest, which goes by name, starts.

mod api;
mod events;
mod events_judge;
mod sweeper;
mod sweeper_history;
