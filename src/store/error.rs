//! Errors of the store, sorted by what the caller or the user can do about them.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind, WriteFailure};
use thiserror::Error as ThisError;

use super::{answer::on_one_line, code};

/// Why a call to the store failed.
#[derive(Clone, Debug, ThisError)]
#[non_exhaustive]
pub enum StoreError {
    /// The connection string cannot be used.
    #[error("the MongoDB URI is not usable: {0}")]
    InvalidUri(String),
    /// The connection string has something that it may not choose.
    #[error("{option} is not allowed in the MongoDB URI: {instead}")]
    UnsafeUri {
        /// What it has, without a value.
        option: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// The CA or the client certificate cannot be used.
    #[error("TLS to the database cannot be used: {0}")]
    InvalidTls(String),
    /// The database's name is not valid.
    #[error(
        "{0:?} is not a database name; write at most 63 characters, none of them a space or one of /\\.\"$*<>:|?"
    )]
    InvalidDatabase(String),
    /// The database cannot be reached, is failing over, or is too busy.
    #[error("the database is away while {doing}: {detail}")]
    Unavailable {
        /// What was attempted.
        doing: &'static str,
        /// What the driver says.
        detail: String,
    },
    /// TLS cannot be agreed upon: one side does not accept the other's certificate.
    #[error("TLS to the database failed while {doing}: {detail}")]
    TlsFailed {
        /// What was attempted.
        doing: &'static str,
        /// What the driver says.
        detail: String,
    },
    /// The database did not answer in time.
    #[error("the database did not answer within {} s while {doing}", .after.as_secs())]
    TimedOut {
        /// What was attempted.
        doing: &'static str,
        /// The time limit.
        after: Duration,
    },
    /// The database refuses the credentials.
    #[error(
        "the database refuses the credentials while {doing}: {detail}; check the user, the password and authSource in the MongoDB URI"
    )]
    AuthenticationFailed {
        /// What was attempted.
        doing: &'static str,
        /// What the server says.
        detail: String,
    },
    /// The unique index cannot be created, because more than one active order holds each of these tickets.
    #[error(
        "more than one active order holds a ticket already (tickets {0}); cancel all but one order of each, then the index that prevents it can be made"
    )]
    DuplicateActiveOrders(String),
    /// The server does not support the indexes.
    #[error(
        "the server cannot keep one active order per ticket: {0}; use MongoDB 6 or newer (or a compatible server that takes $in in partial indexes)"
    )]
    UnsupportedServer(String),
    /// An existing index conflicts with ours.
    #[error("the index {name} is in the way: {detail}; drop it, ours is made in its place")]
    IndexConflict {
        /// The name of our index.
        name: String,
        /// What the server says.
        detail: String,
    },
    /// No database is named, the one that is then used has no orders, and the one that mongoose then uses has some.
    #[error(
        "no database is named, so it would be \"orders\", which has no orders; but \"{0}\", which mongoose uses then, has some: name the one that is meant, in the MongoDB URI (mongodb://HOST/{0}) or by --database (MONGO_DATABASE)"
    )]
    OrdersElsewhere(&'static str),
    /// A document that cannot be read.
    #[error("the document {id} in {collection} cannot be read: {detail}")]
    Malformed {
        /// The collection that it is in.
        collection: &'static str,
        /// Its `_id`, as the database has it.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Any other error of the database.
    #[error("the database failed while {doing}: {detail}")]
    Failed {
        /// What was attempted.
        doing: &'static str,
        /// What the driver says.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without a change of the request.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::TimedOut { .. }
                | Self::TlsFailed { .. }
                | Self::AuthenticationFailed { .. }
        )
    }

    /// Whether it will fail until the process is started with other settings.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        matches!(
            self,
            Self::InvalidUri(_) | Self::UnsafeUri { .. } | Self::InvalidTls(_) | Self::InvalidDatabase(_)
        )
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::InvalidUri(_) | Self::InvalidDatabase(_) => ErrorCategory::InvalidDatabaseUri,
            Self::UnsafeUri { .. } => ErrorCategory::UnsafeDatabaseUri,
            Self::InvalidTls(_) | Self::TlsFailed { .. } => ErrorCategory::DatabaseTLSFailed,
            Self::Unavailable { .. } => ErrorCategory::DatabaseUnreachable,
            Self::TimedOut { .. } => ErrorCategory::DatabaseTooSlow,
            Self::AuthenticationFailed { .. } => ErrorCategory::AuthenticationFailed,
            Self::DuplicateActiveOrders(_) => ErrorCategory::DuplicateActiveOrders,
            Self::UnsupportedServer(_) => ErrorCategory::UnsupportedServer,
            Self::IndexConflict { .. } => ErrorCategory::IndexConflict,
            Self::OrdersElsewhere(_) => ErrorCategory::OrdersElsewhere,
            Self::Malformed { .. } => ErrorCategory::MalformedDocument,
            Self::Failed { .. } => ErrorCategory::DatabaseFailed,
        }
    }

    /// The category as one word, for logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.category().as_str()
    }

    /// Classifies an error of the driver.
    pub(super) fn from_driver(doing: &'static str, error: &Error) -> Self {
        let detail = describe(error);
        if is_authentication(error) {
            Self::AuthenticationFailed { doing, detail }
        } else if matches!(*error.kind, ErrorKind::IncompatibleServer { .. }) {
            Self::UnsupportedServer(detail)
        } else if is_tls(error) {
            Self::TlsFailed { doing, detail }
        } else if is_transient(error) || is_unreachable(error) {
            Self::Unavailable { doing, detail }
        } else {
            Self::Failed { doing, detail }
        }
    }
}

/// The kinds of failures, by what one can do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCategory {
    /// The connection string, or the database's name, cannot be parsed.
    InvalidDatabaseUri,
    /// The connection string has an option that is not allowed.
    UnsafeDatabaseUri,
    /// The database cannot be reached, is too busy, or has no primary.
    DatabaseUnreachable,
    /// A certificate is not accepted, or cannot be used.
    DatabaseTLSFailed,
    /// The database is connected to, but does not answer in time.
    DatabaseTooSlow,
    /// The database refuses the credentials.
    AuthenticationFailed,
    /// More than one active order holds a ticket, so the unique index cannot be built.
    DuplicateActiveOrders,
    /// The server lacks a feature that the indexes need.
    UnsupportedServer,
    /// Another index has the name or the keys of one of ours.
    IndexConflict,
    /// No database is named, and the orders are in another one than that which is then used.
    OrdersElsewhere,
    /// A document cannot be read as an order or a ticket.
    MalformedDocument,
    /// Any other failure.
    DatabaseFailed,
}

impl ErrorCategory {
    /// Every category.
    pub const ALL: [Self; 12] = [
        Self::InvalidDatabaseUri,
        Self::UnsafeDatabaseUri,
        Self::DatabaseUnreachable,
        Self::DatabaseTLSFailed,
        Self::DatabaseTooSlow,
        Self::AuthenticationFailed,
        Self::DuplicateActiveOrders,
        Self::UnsupportedServer,
        Self::IndexConflict,
        Self::OrdersElsewhere,
        Self::MalformedDocument,
        Self::DatabaseFailed,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidDatabaseUri => "InvalidDatabaseUri",
            Self::UnsafeDatabaseUri => "UnsafeDatabaseUri",
            Self::DatabaseUnreachable => "DatabaseUnreachable",
            Self::DatabaseTLSFailed => "DatabaseTLSFailed",
            Self::DatabaseTooSlow => "DatabaseTooSlow",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::DuplicateActiveOrders => "DuplicateActiveOrders",
            Self::UnsupportedServer => "UnsupportedServer",
            Self::IndexConflict => "IndexConflict",
            Self::OrdersElsewhere => "OrdersElsewhere",
            Self::MalformedDocument => "MalformedDocument",
            Self::DatabaseFailed => "DatabaseFailed",
        }
    }
}

/// Why one document was not inserted.
#[derive(Clone, Debug)]
pub(super) struct InsertError {
    /// Whether a unique index refused it.
    pub(super) is_duplicate: bool,
    /// Whether an immediate retry is likely to help.
    pub(super) is_transient: bool,
    /// The error to report if it is not retried.
    pub(super) error: StoreError,
}

impl InsertError {
    /// For the only document of a command, or for each document of a command that failed as a whole.
    pub(super) fn from_driver(doing: &'static str, error: &Error) -> Self {
        Self {
            is_duplicate: is_duplicate(error),
            is_transient: is_transient(error),
            error: StoreError::from_driver(doing, error),
        }
    }

    /// For one of several documents, from the server's reply.
    pub(super) fn from_reply(doing: &'static str, code: i32, message: &str) -> Self {
        let is_transient = is_transient_code(code, message);
        let detail = on_one_line(&format!("{message} (code {code})"));
        let error = if is_transient || (code == code::INTERNAL && lost_backend(message)) {
            StoreError::Unavailable { doing, detail }
        } else {
            StoreError::Failed { doing, detail }
        };
        Self { is_duplicate: code == code::DUPLICATE_KEY, is_transient, error }
    }
}

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
    if ["RetryableWriteError", "TransientTransactionError"].iter().any(|label| error.contains_label(label)) {
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

fn is_authentication(error: &Error) -> bool {
    matches!(*error.kind, ErrorKind::Authentication { .. })
        || server_code(error).is_some_and(|code| code::AUTHENTICATION.contains(&code))
}

/// Whether one side did not accept the other's certificate, or they have no version in common. The driver has only
/// the text of what kept it from selecting a server.
///
/// A server that does not speak TLS is no such failure: that it answers at all would tell an open port from a closed one.
fn is_tls(error: &Error) -> bool {
    if !matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ServerSelection { .. }) {
        return false;
    }
    let text = error.kind.to_string();
    ["invalid peer certificate", "received fatal alert"].iter().any(|part| text.contains(part))
}

fn is_unreachable(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::Shutdown => true,
        _ => {
            server_code(error) == Some(code::INTERNAL)
                && lost_backend(&server_message(error).unwrap_or_default())
        }
    }
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
