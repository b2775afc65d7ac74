//! The program `orders-operator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    orders_operator::cli::main()
}
