//! The program as the demo's image has it.
//!
//! It is an example of cargo's, since those are compiled with the dev-dependencies, which some dependencies' features depend
//! on: so everything that it is made of is compiled once, for it and for the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    orders_operator::cli::main()
}
