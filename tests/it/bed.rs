//! What the environment says: where the real parts are, and how long the longer runs go on.

use std::{fmt::Debug, process::Command, str::FromStr};

use tokio::{sync::RwLock, task::spawn_blocking};

/// Held for writing by a test that bears no restart of the spare database but its own, and for reading by those that bear any.
pub static SPARE_MONGO: RwLock<()> = RwLock::const_new(());

/// What the test bed sets.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: see dev/README.md"))
}

/// A number that a longer run sets, such as CHAOS_SECONDS=300.
pub fn number<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// The seed of what a test does at random: the same for everyone, unless `CHAOS_SEED` gives another.
pub fn seed() -> u64 {
    number("CHAOS_SEED", 16)
}

/// Kills a part and brings it up again with its data, by the command that this variable has.
pub async fn restart(variable: &str) {
    let command = setting(variable);
    let restart = spawn_blocking(move || Command::new("sh").args(["-c", &command]).output().unwrap());
    let output = restart.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
