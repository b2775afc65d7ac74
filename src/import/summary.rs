//! What an import did.

use std::fmt;

/// What an import did; its text is the last line that the command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Tickets that were not stored before, or only in an older version.
    pub imported: u64,
    /// Tickets that were stored already, in the same or a newer version.
    pub unchanged: u64,
    /// Lines that are not a ticket.
    pub bad: u64,
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { imported, unchanged, bad } = self;
        write!(f, "imported {imported}, unchanged {unchanged}, bad {bad}")
    }
}
