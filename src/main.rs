//! The command line of the orders operator: each subcommand is one call into the library.
fn main() {
    print!("{}", orders_operator::crd::crd_yaml().unwrap());
}
