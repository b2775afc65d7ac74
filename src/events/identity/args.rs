//! The command line of `events identity`.

use clap::Args;

use crate::store::{DatabaseArgs, SystemId};

/// Show the identity of this system at the broker, or have it replace another system
#[derive(Args, Clone)]
#[command(after_long_help = AFTER_HELP)]
pub struct IdentityArgs {
    /// Take over this identity, that of another system, which must no longer run; the log of the pods names it
    #[arg(long, value_name = "ID")]
    pub set: Option<SystemId>,

    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
The identity is in the database. The pods leave it at the broker, so that a
second system with the same subjects is kept out (SubjectsOfOthers). It comes
back with a backup. A database that was made anew in place of another one is
given that one's identity here; the pods see it when they try again.

Exit status:
  0   it is shown, or set
  1   the database could not be used
  2   the command line is wrong

Examples:
  orders-operator events identity
  orders-operator events identity --set 0123456789abcdef";
