//! How many cases each property of this module is tried with.

use proptest::test_runner::Config;

/// `ROUTE_CASES`, else 10,000.
pub(super) fn cases() -> Config {
    let cases =
        std::env::var("ROUTE_CASES").map_or(10_000, |cases| cases.parse().expect("ROUTE_CASES is a number"));
    Config::with_cases(cases)
}
