//! What is wrong with an OrdersService, as its conditions and events say it.

use std::fmt;

use crate::crd::Reason;

/// The most bytes of joined messages.
const MAX_JOINED: usize = 4000;

/// One problem: a category for machines, and a message that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The category: condition reason, event reason and metric label.
    pub reason: Reason,
    /// What is wrong, with which value, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem of a category.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The messages of several problems as one. The API server refuses conditions with a message over 32,768 bytes, and
    /// nobody reads that far.
    pub fn join<'a>(problems: impl IntoIterator<Item = &'a Self>) -> String {
        let messages: Vec<_> = problems.into_iter().map(|problem| problem.message.as_str()).collect();
        let mut text = messages.join("; ");
        if text.len() > MAX_JOINED {
            text.truncate(text.floor_char_boundary(MAX_JOINED));
            text.push('…');
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason.as_str(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_problems_is_cut_at_a_character() {
        let problem = Problem::new(Reason::InvalidSpec, "é".repeat(5000));
        assert!(Problem::join([&problem]).len() <= 4003);
    }
}
