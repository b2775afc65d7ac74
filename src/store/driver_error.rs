//! What an error of the driver means: the server's code and words, and whether it may pass.

use mongodb::error::{Error, ErrorKind, WriteFailure};

use super::{answer::on_one_line, code};

/// The server's error code, wherever the driver keeps it.
pub(super) fn server_code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        _ => None,
    }
}

/// Whether a unique index refused the write.
pub(super) fn is_duplicate(error: &Error) -> bool {
    server_code(error) == Some(code::DUPLICATE_KEY)
}

/// Whether an immediate retry is likely to help.
///
/// A write may have happened or not, so only idempotent writes may be retried.
pub(super) fn is_transient(error: &Error) -> bool {
    const LABELS: [&str; 3] = ["RetryableWriteError", "TransientTransactionError", "RetryableError"];
    if LABELS.iter().any(|label| error.contains_label(label)) {
        return true;
    }
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        _ => server_code(error)
            .is_some_and(|code| is_transient_code(code, &server_message(error).unwrap_or_default())),
    }
}

/// The same for an error code and message in the body of a reply.
pub(super) fn is_transient_code(code: i32, message: &str) -> bool {
    // How PostgreSQL aborts one of several conflicting writers, as DocumentDB reports it.
    code::TRANSIENT.contains(&code) || (code == code::INTERNAL && message.contains("deadlock detected"))
}

pub(super) fn is_authentication(error: &Error) -> bool {
    matches!(*error.kind, ErrorKind::Authentication { .. })
        || server_code(error).is_some_and(|code| code::AUTHENTICATION.contains(&code))
}

/// Whether one side did not accept the other's certificate, or they have no version in common. The driver has only
/// the text of what kept it from selecting a server.
///
/// A server that does not speak TLS is no such failure: that it answers at all would tell an open port from a closed one.
pub(super) fn is_tls(error: &Error) -> bool {
    let of_connecting = match *error.kind {
        ErrorKind::Io(_) | ErrorKind::ServerSelection { .. } => true,
        // Of the guard, which has no other way to tell it.
        _ => server_code(error) == Some(code::HOST_UNREACHABLE),
    };
    if !of_connecting {
        return false;
    }
    let text = error.kind.to_string();
    ["invalid peer certificate", "received fatal alert"].iter().any(|part| text.contains(part))
}

pub(super) fn is_unreachable(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::Shutdown => true,
        _ => server_code(error)
            .is_some_and(|code| is_unavailable_code(code, &server_message(error).unwrap_or_default())),
    }
}

/// Whether the server cannot answer for now, and an immediate retry is unlikely to help.
pub(super) fn is_unavailable_code(code: i32, message: &str) -> bool {
    code::OVERLOADED.contains(&code) || (code == code::INTERNAL && lost_backend(message))
}

/// Whether a query names an index that is missing or being built.
pub(super) fn is_missing_index(error: &Error) -> bool {
    server_code(error).is_some_and(|code| [code::BAD_VALUE, code::INDEX_NOT_FOUND].contains(&code))
        && server_message(error).is_some_and(|message| message.contains("hint"))
}

/// FerretDB still replies while its PostgreSQL is down: with the generic error code, and a message from Go, from its
/// PostgreSQL driver or from PostgreSQL itself.
fn lost_backend(message: &str) -> bool {
    const MESSAGES: [&str; 8] = [
        "failed to connect",
        "connection refused",
        "connection reset",
        "broken pipe",
        "conn closed",
        "unexpected EOF",
        "terminating connection",
        "the database system is",
    ];
    MESSAGES.iter().any(|part| message.contains(part))
}

fn server_message(error: &Error) -> Option<String> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.message.clone()),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.message.clone()),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.message.clone()),
        _ => None,
    }
}

/// The server's message if there is one, else the driver's, as [`on_one_line`] has it.
pub(super) fn describe(error: &Error) -> String {
    let text = match (server_code(error), server_message(error)) {
        (Some(code), Some(message)) => format!("{message} (code {code})"),
        _ => error.kind.to_string(),
    };
    on_one_line(&text)
}
