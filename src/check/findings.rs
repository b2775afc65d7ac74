//! What a check found, as it is printed and counted.

use std::fmt;

/// How many findings of one kind are printed; all of them are counted.
pub(super) const PRINTED: u64 = 20;

/// What was found; its text is the last line that the command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Tickets that more than one active order holds.
    pub duplicates: u64,
    /// Orders and tickets that cannot be read, or are no use as they are.
    pub unreadable: u64,
    /// Open orders that never become due.
    pub without_due_time: u64,
    /// Unique indexes that others have made.
    pub foreign_indexes: u64,
    /// Whether orders are where mongoose would have stored them, and none where they were looked for.
    pub elsewhere: bool,
    /// Orders that were cancelled because another one holds the same ticket.
    pub cancelled: u64,
}

impl Findings {
    /// The exit code: 3 if there is something left to do.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let Self { duplicates, unreadable, without_due_time, foreign_indexes, elsewhere, cancelled: _ } =
            *self;
        let left = duplicates + unreadable + without_due_time + foreign_indexes;
        if left > 0 || elsewhere { 3 } else { 0 }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { duplicates, unreadable, without_due_time, foreign_indexes, .. } = *self;
        write!(
            f,
            "{}, {}, {}, {}",
            counted(duplicates, "ticket with several active orders", "tickets with several active orders"),
            counted(unreadable, "unusable document", "unusable documents"),
            counted(without_due_time, "order without a due time", "orders without a due time"),
            counted(foreign_indexes, "foreign unique index", "foreign unique indexes"),
        )?;
        if self.elsewhere {
            write!(f, ", orders in another database")?;
        }
        if self.cancelled > 0 {
            write!(f, "; {} cancelled", counted(self.cancelled, "order", "orders"))?;
        }
        Ok(())
    }
}

pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_finding_is_counted_and_makes_the_exit_code_3_but_for_what_was_fixed() {
        let none = Findings { cancelled: 2, ..Findings::default() };
        assert_eq!(none.exit_code(), 0);
        assert!(none.to_string().ends_with("0 foreign unique indexes; 2 orders cancelled"), "{none}");
        for found in [
            Findings { duplicates: 1, ..none },
            Findings { unreadable: 1, ..none },
            Findings { without_due_time: 1, ..none },
            Findings { foreign_indexes: 1, ..none },
            Findings { elsewhere: true, ..none },
        ] {
            assert_eq!(found.exit_code(), 3);
            assert_ne!(found.to_string(), none.to_string());
        }
    }
}
