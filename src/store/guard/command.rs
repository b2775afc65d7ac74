//! Which command the driver sends, as far as it makes a difference for the answer.

use std::time::Duration;

/// The kind of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Looks whether a server is there, and what it is.
    Hello,
    /// A part of a login.
    Login,
    /// Takes no time, and the driver itself may wait for it without end.
    Brief,
    /// Anything else.
    Other,
}

/// The flags, the kind of the section, the length of the document, and the type of its first element, whose name is the
/// command.
const BEFORE_NAME: usize = 4 + 1 + 4 + 1;

/// Whether a login begins with the request that begins like this.
pub(super) fn is_first_of_login(start: &[u8]) -> bool {
    name(start) == b"saslStart"
}

fn name(start: &[u8]) -> &[u8] {
    let name = start.get(BEFORE_NAME..).and_then(|rest| rest.split(|byte| *byte == 0).next());
    name.unwrap_or_default()
}

impl Command {
    /// The one of a request that begins like this, after the header.
    pub(super) fn of(start: &[u8]) -> Self {
        match name(start) {
            b"hello" | b"isMaster" | b"ismaster" => Self::Hello,
            b"saslStart" | b"saslContinue" | b"authenticate" => Self::Login,
            b"killCursors" | b"endSessions" | b"ping" => Self::Brief,
            _ => Self::Other,
        }
    }

    /// How long an answer may be waited for: a little longer than the driver does where it has a deadline of its own.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Hello | Self::Login | Self::Brief => Duration::from_secs(15),
            Self::Other => Duration::from_secs(660),
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Document, doc, serialize_to_vec};

    use super::*;

    #[test]
    fn a_command_is_the_first_name_of_its_document() {
        let of = |command: Document| {
            let request = [&[0; 5][..], &serialize_to_vec(&command).unwrap()].concat();
            Command::of(&request[..request.len().min(64)])
        };
        for (command, kind) in [
            (doc! { "hello": 1, "helloOk": true }, Command::Hello),
            (doc! { "ismaster": 1 }, Command::Hello),
            (doc! { "saslContinue": 1, "payload": "find" }, Command::Login),
            (doc! { "killCursors": "orders", "cursors": [1_i64] }, Command::Brief),
            (doc! { "find": "orders" }, Command::Other),
            (doc! { "update": "orders", "hello": 1 }, Command::Other),
            (doc! { "helloo": 1 }, Command::Other),
            (doc! { "x".repeat(200): 1 }, Command::Other),
        ] {
            assert_eq!(of(command.clone()), kind, "{command}");
        }
        assert_eq!(Command::of(&[0; 7]), Command::Other);
        assert!(Command::Login.patience() < Command::Other.patience());
    }
}
