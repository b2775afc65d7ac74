//! Writes completions and man pages.

use std::{fs, io, path::PathBuf};

use clap::Command;
use thiserror::Error;

use super::args::{CompletionArgs, ManArgs};

/// Why man pages are not written.
#[derive(Debug, Error)]
pub enum ManualError {
    /// A file cannot be written.
    #[error("cannot write man pages to {}: {source}", out.display())]
    Write {
        /// The folder.
        out: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The completions of `command`, which is called by this name.
#[must_use]
pub fn completion(args: CompletionArgs, mut command: Command, name: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes a page for each of these commands, and for each of what is below it.
///
/// # Errors
/// When the folder cannot be made, or a file not be written.
pub fn man_pages(args: &ManArgs, commands: impl IntoIterator<Item = Command>) -> Result<(), ManualError> {
    let failed = |source| ManualError::Write { out: args.out.clone(), source };
    fs::create_dir_all(&args.out).map_err(failed)?;
    commands.into_iter().try_for_each(|command| clap_mangen::generate_to(command, &args.out)).map_err(failed)
}
