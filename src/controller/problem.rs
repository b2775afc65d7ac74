//! What is wrong with an OrdersService, as its conditions and events say it.

use std::fmt;

use super::api_server::RequestError;
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
    /// What only the administrator's log has.
    pub detail: Option<String>,
}

impl Problem {
    /// A problem of a category.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), detail: None }
    }

    /// What could not be done since a request to the API server failed.
    pub fn of_request(reason: Reason, what: &str, error: &RequestError) -> Self {
        let message = format!("{what}: {}", error.remedy());
        Self { reason, message, detail: Some(error.to_string()) }
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

/// For the administrator's log.
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason.as_str(), self.message)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(formatter, " ({detail})"))
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
