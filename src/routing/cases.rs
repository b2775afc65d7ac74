//! How many cases each property of this module is tried with.

use proptest::test_runner::Config;

/// 1,000, unless `PROPTEST_CASES` says otherwise.
pub(super) fn cases() -> Config {
    Config::with_cases(1_000)
}
