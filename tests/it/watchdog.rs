//! How long each test takes, and an end for tests that hang.
//!
//! A test is known by the name of its thread, from its set-up (a namespace, a database, a server) to its end.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    sync::{Mutex, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::bed::number;

static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());
static WATCHDOG: Once = Once::new();

thread_local! {
    static TEST: Option<Test> = Test::of_this_thread();
}

/// Counts the test of this thread as running. To be called by whatever sets a test up.
pub fn watch() {
    WATCHDOG.call_once(|| drop(thread::spawn(end_hanging_tests)));
    TEST.with(|_| ());
}

/// A test that runs; dropped when its thread ends.
struct Test {
    name: String,
    begun: Instant,
}

impl Test {
    fn of_this_thread() -> Option<Self> {
        // The threads of a runtime are no tests.
        let name = thread::current().name().filter(|name| name.contains("::"))?.to_owned();
        let begun = Instant::now();
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), begun);
        Some(Self { name, begun })
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        // `.ci/run` names the slowest tests of this file.
        if let Some(path) = std::env::var_os("TEST_TIMES") {
            let line = format!("{:.1} s {}\n", self.begun.elapsed().as_secs_f64(), self.name);
            let file = OpenOptions::new().create(true).append(true).open(path);
            drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
        }
    }
}

/// Ends the run once a test takes longer than any should: `TEST_DEADLINE_SECONDS` (900), and what the longer runs add.
fn end_hanging_tests() {
    let longer = ["AWAY_SECONDS", "CHAOS_SECONDS", "DUEL_SECONDS"]
        .map(|name| number(name, 0))
        .into_iter()
        .max()
        .unwrap_or(0);
    let deadline = Duration::from_secs(number("TEST_DEADLINE_SECONDS", 900) + longer);
    loop {
        thread::sleep(Duration::from_secs(1));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let hanging: Vec<_> = running
            .iter()
            .filter(|(_, begun)| begun.elapsed() > deadline)
            .map(|(name, _)| format!("    {name}\n"))
            .collect();
        if !hanging.is_empty() {
            // Not by a macro, whose output libtest would keep to itself.
            let message =
                format!("\nstill running after {deadline:?}, so the run ends here:\n{}", hanging.concat());
            drop(std::io::stderr().write_all(message.as_bytes()));
            std::process::exit(101);
        }
    }
}

#[test]
fn a_test_is_known_from_its_set_up_to_the_end_of_its_thread() {
    let name = "watchdog::of_another_thread";
    let running = || RUNNING.lock().unwrap().contains_key(name);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            watch();
            watch();
            assert!(RUNNING.lock().unwrap().contains_key(name));
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(!running());
}
