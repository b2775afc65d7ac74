//! Errors of the store, sorted by what the caller or the user can do about them.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind};
use thiserror::Error as ThisError;

use super::{
    answer::on_one_line,
    code,
    driver_error::{
        describe, is_authentication, is_duplicate, is_missing_index, is_tls, is_transient, is_transient_code,
        is_unavailable_code, is_unreachable,
    },
};

/// Why a call to the store failed.
#[derive(Clone, Debug, ThisError)]
#[non_exhaustive]
pub enum StoreError {
    /// No connection string was given.
    #[error("no database is named: give its connection string by --uri, or in the environment as MONGO_URI")]
    MissingUri,
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
    #[error("the database is unavailable while {doing}: {detail}")]
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
        "some tickets are held by more than one active order (tickets {0}); cancel all but one order of each, so \
         that the unique index can be created"
    )]
    DuplicateActiveOrders(String),
    /// The server does not support the indexes.
    #[error(
        "the server cannot keep one active order per ticket: {0}; use MongoDB 6 or newer (or a compatible server that takes $in in partial indexes)"
    )]
    UnsupportedServer(String),
    /// An existing index conflicts with ours.
    #[error(
        "the index {name} conflicts with {ours}: {detail}; drop it, and {ours} is created if it is missing"
    )]
    IndexConflict {
        /// The name of the index that is in the way.
        name: String,
        /// The name of our index.
        ours: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// No database is named, the one that is then used has no orders, and the one that mongoose then uses has some.
    #[error(
        "no database is named: the default, \"orders\", has no orders, but the default of mongoose, \"{0}\", has \
         some; name the right one, in the MongoDB URI (mongodb://HOST/{0}) or with --database (MONGO_DATABASE)"
    )]
    OrdersElsewhere(&'static str),
    /// An index has been lost, or is being built.
    #[error("an index is missing while {doing}: {detail}; no ticket is sold until it is there again")]
    MissingIndex {
        /// What was attempted.
        doing: &'static str,
        /// Which one, or what the server says.
        detail: String,
    },
    /// Orders that hold a ticket, and that the unique index does not see as doing so.
    #[error(
        "{count} stored orders hold a ticket but are not in the unique index, so that the ticket could be sold \
         again ({}); set their status to created, awaiting:payment, complete or cancelled, and their ticket to an \
         ObjectId",
        examples.iter().map(|(id, problem)| format!("{id}: {problem}")).collect::<Vec<_>>().join("; ")
    )]
    UnseenOrders {
        /// How many they are, up to 10,000.
        count: u64,
        /// The ids of some of them, and what about each is not known.
        examples: Vec<(String, String)>,
    },
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
                | Self::MissingIndex { .. }
        )
    }

    /// Whether it may be over within seconds without anybody's help, as an election is.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut { .. })
    }

    /// Whether it shows that an index no longer guarantees what it should.
    #[must_use]
    pub fn is_of_an_index(&self) -> bool {
        matches!(self, Self::MissingIndex { .. } | Self::IndexConflict { .. })
    }

    /// Whether it will fail until the process is started with other settings.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        matches!(
            self,
            Self::MissingUri
                | Self::InvalidUri(_)
                | Self::UnsafeUri { .. }
                | Self::InvalidTls(_)
                | Self::InvalidDatabase(_)
        )
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::MissingUri | Self::InvalidUri(_) | Self::InvalidDatabase(_) => {
                ErrorCategory::InvalidDatabaseUri
            }
            Self::UnsafeUri { .. } => ErrorCategory::UnsafeDatabaseUri,
            Self::InvalidTls(_) | Self::TlsFailed { .. } => ErrorCategory::DatabaseTLSFailed,
            Self::Unavailable { .. } => ErrorCategory::DatabaseUnreachable,
            Self::TimedOut { .. } => ErrorCategory::DatabaseTooSlow,
            Self::AuthenticationFailed { .. } => ErrorCategory::AuthenticationFailed,
            Self::DuplicateActiveOrders(_) => ErrorCategory::DuplicateActiveOrders,
            Self::UnsupportedServer(_) => ErrorCategory::UnsupportedServer,
            Self::IndexConflict { .. } => ErrorCategory::IndexConflict,
            Self::OrdersElsewhere(_) => ErrorCategory::OrdersElsewhere,
            Self::Malformed { .. } | Self::UnseenOrders { .. } => ErrorCategory::MalformedDocument,
            Self::MissingIndex { .. } | Self::Failed { .. } => ErrorCategory::DatabaseFailed,
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
        } else if is_missing_index(error) {
            Self::MissingIndex { doing, detail }
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
    /// Whether the server has said nothing: it may still insert it later, if it has the command.
    pub(super) is_in_doubt: bool,
    /// The error to report if it is not retried.
    pub(super) error: StoreError,
}

impl InsertError {
    /// For the only document of a command, or for each document of a command that failed as a whole.
    pub(super) fn from_driver(doing: &'static str, error: &Error) -> Self {
        Self {
            is_duplicate: is_duplicate(error),
            is_transient: is_transient(error),
            is_in_doubt: matches!(*error.kind, ErrorKind::Io(_)),
            error: StoreError::from_driver(doing, error),
        }
    }

    /// For one of several documents, from the server's reply.
    pub(super) fn from_reply(doing: &'static str, code: i32, message: &str) -> Self {
        let is_transient = is_transient_code(code, message);
        let detail = on_one_line(&format!("{message} (code {code})"));
        let error = if is_transient || is_unavailable_code(code, message) {
            StoreError::Unavailable { doing, detail }
        } else {
            StoreError::Failed { doing, detail }
        };
        Self { is_duplicate: code == code::DUPLICATE_KEY, is_transient, is_in_doubt: false, error }
    }
}
