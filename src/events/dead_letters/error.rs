//! Why the command stopped, and the exit codes.

use std::io;

use thiserror::Error;

use crate::store::StoreError;

/// Why the command stopped.
#[derive(Debug, Error)]
pub enum DeadLettersError {
    /// `--with` is for one letter.
    #[error("--with replaces the content of one letter, but {0} are named: name one")]
    ManyWith(usize),
    /// The file of `--with` cannot be read.
    #[error("the file of --with cannot be read: {0}")]
    File(io::Error),
    /// What was sent cannot be written.
    #[error("the letter cannot be written to the standard output: {0}")]
    Output(io::Error),
    /// Some letters are left.
    #[error("{0} of the letters are left as they were")]
    Left(usize),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeadLettersError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ManyWith(_) | Self::File(_) => 2,
            Self::Left(_) => 3,
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) | Self::Output(_) => 1,
        }
    }
}
