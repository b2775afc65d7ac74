//! The command lines of `completion` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print the completions for a shell
///
/// They are for the name by which the program was called.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_long_help = COMPLETION_HELP)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Write the man pages, of `kubectl osvc` too
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// The folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

const COMPLETION_HELP: &str = "\
Examples:
  source <(orders-operator completion bash)
  orders-operator completion zsh > \"${fpath[1]}/_orders-operator\"
  orders-operator completion fish > ~/.config/fish/completions/orders-operator.fish";
