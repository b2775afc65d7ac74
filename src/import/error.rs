//! Why an import stopped before the end of its file.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::summary::ImportSummary;
use crate::store::StoreError;

/// Why an import stopped before the end of its file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// No connection string was given.
    #[error(
        "MONGO_URI is not set: give the database's connection string in the environment, or by --mongo-uri"
    )]
    MissingUri,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Its name.
        file: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A line is not a ticket.
    #[error(
        "line {number} is bad: {reason}\nstopped there ({before}); correct the line and run the import again, or skip bad lines by --on-error skip"
    )]
    BadLine {
        /// Its number, from 1.
        number: u64,
        /// What is wrong with it, and what to write instead.
        reason: String,
        /// What was imported before it.
        before: ImportSummary,
    },
    /// The database failed.
    #[error(
        "{source} ({before} before); run the import again: tickets that are stored already are left unchanged"
    )]
    Store {
        /// How it failed.
        source: StoreError,
        /// What was imported before it.
        before: ImportSummary,
    },
}

impl ImportError {
    /// The exit code: 2 for a mistake on the command line or in the environment, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::MissingUri => 2,
            Self::Store { source, .. } if source.is_misconfigured() => 2,
            Self::Read { .. } | Self::BadLine { .. } | Self::Store { .. } => 1,
        }
    }
}
