//! What a failure of the database means for those who may not read the administrator's log.

#[cfg(doc)]
use super::ConnectOptions;
use super::error::StoreError;

/// The most servers that are named; a replica set may have many more.
const MAX_TOLD: usize = 5;

/// The database at these `hosts` ([`ConnectOptions::hosts_to_tell`]), of which not all are named if they are many.
#[must_use]
pub fn database_at(hosts: &[String]) -> String {
    let (first, others) = hosts.split_at(hosts.len().min(MAX_TOLD));
    match (first, others.len()) {
        ([], _) => "the database".to_owned(),
        (told, 0) => format!("the database at {}", told.join(", ")),
        (told, more) => format!("the database at {} and {more} other servers", told.join(", ")),
    }
}

impl StoreError {
    /// What is wrong and what to do about it, for whoever may read about the database but not the administrator's log.
    ///
    /// It has none of the server's and the driver's words: a server may be anything that a connection string names, and
    /// they tell more about the network than that the database cannot be used.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.of_database("the database")
    }

    /// The same, where it is known at which `hosts` ([`ConnectOptions::hosts_to_tell`]) the database is meant to be: what
    /// keeps it from being used is mostly one of them.
    #[must_use]
    pub fn remedy_at(&self, hosts: &[String]) -> String {
        self.of_database(&database_at(hosts))
    }

    fn of_database(&self, database: &str) -> String {
        match self {
            // These are about what the reader has written, and have no value of it.
            Self::MissingUri | Self::InvalidUri(_) | Self::UnsafeUri { .. } | Self::InvalidTls(_) => {
                self.to_string()
            }
            Self::OrdersElsewhere(other) => format!(
                "the connection string names no database: the default, \"orders\", has no orders, but the default \
                 of mongoose, \"{other}\", has some; name the right one, as in mongodb://HOST/{other}"
            ),
            Self::InvalidDatabase(_) => {
                "the database's name is not valid; write at most 63 characters, none of them \
                                         a space or one of /\\.\"$*<>:|?"
                    .into()
            }
            Self::DuplicateActiveOrders(tickets) => {
                let ids: Vec<_> = tickets.split(", ").filter(|id| is_id(id)).collect();
                let which =
                    if ids.is_empty() { String::new() } else { format!(" (tickets {})", ids.join(", ")) };
                format!(
                    "the database has tickets held by more than one active order{which}; cancel all but one order \
                     of each, and the unique index is then created"
                )
            }
            Self::IndexConflict { ours, .. } => {
                format!(
                    "in the database another index conflicts with the index {ours}; drop it, and {ours} is created \
                     in its place"
                )
            }
            Self::MissingIndex { .. } => {
                "an index is missing in the database, or being built; no ticket is sold \
                                          until it is there"
                    .into()
            }
            Self::UnseenOrders { count, examples } => {
                let ids: Vec<_> = examples.iter().map(|(id, _)| id.as_str()).filter(|id| is_id(id)).collect();
                let which =
                    if ids.is_empty() { String::new() } else { format!(" (such as {})", ids.join(", ")) };
                format!(
                    "in the database {count} orders{which} hold a ticket but are not in the unique index, so that \
                     the ticket could be sold again; set their status to created, awaiting:payment, complete or \
                     cancelled, and their ticket to an ObjectId"
                )
            }
            Self::Malformed { collection, id, .. } => {
                let which = if is_id(id) { format!("the document {id}") } else { "a document".into() };
                format!("in the database {which} in {collection} cannot be read; correct or delete it")
            }
            Self::Unavailable { .. } => format!(
                "{database} cannot be reached, or has no primary; check the servers in the connection string, the database, \
                 and the network between"
            ),
            Self::TimedOut { .. } => {
                format!("{database} answers too slowly; check its load, and give it more resources")
            }
            Self::TlsFailed { .. } => format!(
                "TLS to {database} failed: one side does not accept the other's certificate; check the host names in the \
                 certificate, spec.database.tls.caSecretRef and spec.database.tls.clientCertificateSecretRef"
            ),
            Self::AuthenticationFailed { .. } => format!(
                "{database} refuses the credentials; check user, password and authSource in the connection string, and the \
                 user's roles"
            ),
            Self::UnsupportedServer(_) => {
                "the database cannot keep one active order per ticket; use MongoDB 6 or \
                                           newer (or a compatible server that takes $in in partial indexes)"
                    .into()
            }
            Self::Failed { .. } => {
                "the database refuses a command; see the logs of the database and of the operator".into()
            }
        }
    }
}

/// Whether this is an ObjectId in hexadecimal digits, in which nothing else can hide.
fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_word_of_a_server_is_passed_on() {
        let (doing, detail) = ("asking", "hunter2".to_owned());
        for error in [
            StoreError::Unavailable { doing, detail: detail.clone() },
            StoreError::TlsFailed { doing, detail: detail.clone() },
            StoreError::AuthenticationFailed { doing, detail: detail.clone() },
            StoreError::Failed { doing, detail: detail.clone() },
            StoreError::TimedOut { doing, after: Duration::from_secs(5) },
            StoreError::UnsupportedServer(detail.clone()),
            StoreError::InvalidDatabase(detail.clone()),
            StoreError::DuplicateActiveOrders(format!("{detail}, 65f0c1d2a3b4c5d6e7f80911")),
            StoreError::IndexConflict { name: detail.clone(), ours: "ours", detail: detail.clone() },
            StoreError::MissingIndex { doing, detail: detail.clone() },
            StoreError::UnseenOrders { count: 1, examples: vec![(detail.clone(), detail.clone())] },
            StoreError::Malformed { collection: "orders", id: detail.clone(), detail },
        ] {
            for remedy in [error.remedy(), error.remedy_at(&["mongo.shop.svc".into()])] {
                assert!(!remedy.contains("hunter2") && remedy.contains("database"), "{remedy}");
            }
        }
        let twice = StoreError::DuplicateActiveOrders("65f0c1d2a3b4c5d6e7f80911".into());
        assert!(twice.remedy().contains("65f0c1d2a3b4c5d6e7f80911"));
    }

    #[test]
    fn what_keeps_a_database_from_being_used_names_its_servers_and_not_all_of_many() {
        let hosts = |count: usize| (0..count).map(|number| format!("m{number}.shop.svc")).collect::<Vec<_>>();
        let away = StoreError::Unavailable { doing: "asking", detail: String::new() };
        assert!(away.remedy_at(&hosts(1)).starts_with("the database at m0.shop.svc cannot be reached"));
        let five = away.remedy_at(&hosts(5));
        assert!(
            five.contains("m0.shop.svc, m1.shop.svc, m2.shop.svc, m3.shop.svc, m4.shop.svc cannot"),
            "{five}"
        );
        let many = away.remedy_at(&hosts(50));
        assert!(many.contains("m4.shop.svc and 45 other servers cannot"), "{many}");
        assert_eq!(away.remedy_at(&[]), away.remedy());
    }
}
