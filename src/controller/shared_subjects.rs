//! Two systems that were given the same subjects: OrdersServices with one broker and a database each. Each would take the other's
//! payments, so the pods of the one that comes second neither publish nor consume; this says so before any pod runs. Pure.
//!
//! By what the specs say, and within a namespace: there the name of a server, or of a Secret, means the same to both. What another
//! namespace has is nobody else's business. Servers with several accounts keep their subjects apart, and the login says which
//! account it is; so only the same login, or none, counts as the same broker.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::crd::{EventsSpec, Nats, OrdersService};

/// What must not be another system's: where events of orders are published, and where payments come.
const OWN: [&str; 2] = ["order:created", "payment:created"];

/// What to do.
pub const SHARED_SUBJECTS_REMEDY: &str = "give each a broker of its own, or other names in spec.events.subjects and, with JetStream, another \
    spec.events.jetStream.stream; if both have one database, name it by the same Secret and spec.database.name in both";

/// The one of `all` that has the same subjects as `service` at the same broker, and another database. A sentence, for whoever
/// may read both.
#[must_use]
pub fn shares_subjects(service: &OrdersService, all: &[OrdersService]) -> Option<String> {
    let other = all.iter().find(|other| are_two_systems(service, other))?;
    Some(format!(
        "OrdersService {:?} has the same subjects at the same broker, and another database: of the two, the pods of the one that \
         comes second neither publish nor consume anything (SubjectsOfOthers)",
        other.name_any()
    ))
}

fn are_two_systems(one: &OrdersService, other: &OrdersService) -> bool {
    let (Some(events), Some(others)) = (&one.spec.events, &other.spec.events) else { return false };
    one.namespace() == other.namespace()
        && one.metadata.name != other.metadata.name
        && have_two_databases(one, other)
        && is_same_broker(events, others)
        && OWN.iter().any(|subject| name(events, subject) == name(others, subject))
}

/// Where one of two that have the same connection string leaves the database to it, that may be the other's.
fn have_two_databases(one: &OrdersService, other: &OrdersService) -> bool {
    let (one, other) = (&one.spec.database, &other.spec.database);
    one.uri_secret_ref != other.uri_secret_ref
        || one.name.as_ref().zip(other.name.as_ref()).is_some_and(|(one, other)| one != other)
}

fn is_same_broker(one: &EventsSpec, other: &EventsSpec) -> bool {
    let cluster = |events: &EventsSpec| events.streaming.as_ref().map(|of| of.cluster_id.clone());
    let is_same_server = match (&one.nats.url_secret_ref, &other.nats.url_secret_ref) {
        (Some(one), Some(other)) => one == other,
        (None, None) => !servers(&one.nats).is_disjoint(&servers(&other.nats)),
        _ => false,
    };
    cluster(one) == cluster(other)
        && one.nats.creds_secret_ref == other.nats.creds_secret_ref
        && is_same_server
}

/// Hosts and ports, however they are written.
fn servers(nats: &Nats) -> BTreeSet<String> {
    let address = |server: &String| {
        let host = server.split_once("://").map_or(server.as_str(), |(_, host)| host).to_lowercase();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        if has_port { host } else { format!("{host}:4222") }
    };
    nats.servers.iter().map(address).collect()
}

fn name<'a>(events: &'a EventsSpec, subject: &'a str) -> &'a str {
    events.subjects.get(subject).map_or(subject, String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture;

    fn of(name: &str, patch: Value) -> OrdersService {
        let mut service = fixture::service(patch);
        service.metadata.name = Some(name.to_owned());
        service
    }

    /// The default subjects at this broker, with this database.
    fn system(name: &str, events: Value, database: &str) -> OrdersService {
        of(name, json!({"events": events, "database": {"name": database}}))
    }

    fn at(server: &str) -> Value {
        json!({"nats": {"servers": [server]}})
    }

    fn are_told(one: &OrdersService, other: &OrdersService) -> bool {
        let told = shares_subjects(one, std::slice::from_ref(other));
        assert_eq!(told.is_some(), shares_subjects(other, std::slice::from_ref(one)).is_some());
        told.is_some()
    }

    #[test]
    fn two_databases_with_the_same_subjects_at_one_broker_are_told_of_and_nothing_else_is() {
        let first = system("one", at("nats://nats:4222"), "a");
        let with = |more: Value| {
            let mut events = at("tls://NATS");
            json_patch::merge(&mut events, &more);
            events
        };
        let told = shares_subjects(&first, &[first.clone(), system("two", at("nats://nats"), "b")]);
        assert!(told.is_some_and(|told| told.starts_with("OrdersService \"two\" has")));
        let renamed = |name: &str| json!({"subjects": {name: "x"}});
        let both = json!({"subjects": {"order:created": "x", "payment:created": "y"}});
        for (other, is_told) in [
            (system("two", with(json!({})), "b"), true),
            (system("two", with(json!({"jetStream": {"stream": "other"}})), "b"), true),
            (system("two", with(renamed("payment:created")), "b"), true),
            (
                of("two", json!({"events": with(json!({})), "database": {"uriSecretRef": {"name": "m"}}})),
                true,
            ),
            (system("two", with(both), "b"), false),
            (system("two", with(json!({})), "a"), false),
            (of("two", json!({"events": with(json!({}))})), false),
            (of("two", json!({"database": {"name": "b"}})), false),
            (system("two", at("nats://nats:4223"), "b"), false),
            (system("two", with(json!({"streaming": {"clusterId": "ticketing"}})), "b"), false),
            (system("two", with(json!({"nats": {"credsSecretRef": {"name": "u"}}})), "b"), false),
            (system("two", json!({"nats": {"urlSecretRef": {"name": "nats"}}}), "b"), false),
        ] {
            assert_eq!(are_told(&first, &other), is_told, "{}", json!(other.spec));
        }
        let mut elsewhere = system("two", at("nats://nats:4222"), "b");
        elsewhere.metadata.namespace = Some("other".into());
        assert!(!are_told(&first, &elsewhere), "there nats is another server");
    }

    #[test]
    fn the_same_secret_and_the_same_cluster_are_one_broker_and_an_address_has_a_port() {
        let by_secret = |name: &str| json!({"nats": {"urlSecretRef": {"name": name}}});
        let first = system("one", by_secret("nats"), "a");
        assert!(are_told(&first, &system("two", by_secret("nats"), "b")));
        assert!(!are_told(&first, &system("two", by_secret("other"), "b")));
        let streaming = |cluster: &str| json!({"nats": {"servers": ["nats://nats"]}, "streaming": {"clusterId": cluster}});
        let first = system("one", streaming("ticketing"), "a");
        assert!(are_told(&first, &system("two", streaming("ticketing"), "b")));
        assert!(!are_told(&first, &system("two", streaming("other"), "b")));
        let servers = |server: &str| servers(&system("x", at(server), "a").spec.events.unwrap().nats);
        assert_eq!(servers("nats://[::1]"), servers("tls://[::1]:4222"));
        assert_ne!(servers("nats://[::1]:4223"), servers("tls://[::1]:4222"));
    }
}
