//! `spec.events`: which broker, and by which names.

use std::collections::BTreeSet;

use super::{
    names::hidden,
    validated::{Broker, SecretKey, Servers, ValidatedEvents},
};
use crate::{
    crd::{EventsSpec, JetStream, Nats, OrdersServiceSpec, SUBJECTS},
    runtime::is_nats_subject,
};

/// Checks the events of a spec; what is wrong goes to `invalid`.
pub(super) fn validate(
    spec: &OrdersServiceSpec,
    invalid: &mut impl FnMut(String),
) -> Option<ValidatedEvents> {
    let events = spec.events.as_ref()?;
    check_servers(&events.nats, invalid);
    check_broker(events, invalid);
    check_subjects(events, invalid);
    let nats = &events.nats;
    let servers = match &nats.url_secret_ref {
        Some(secret) => Servers::Secret(SecretKey::new(&secret.name, &secret.key)),
        None => Servers::Listed(nats.servers.join(",")),
    };
    let renamed = events.subjects.iter().map(|(subject, name)| format!("{subject}={name}"));
    let subjects = renamed.collect::<Vec<_>>().join(",");
    let (broker, durable) = broker(events);
    Some(ValidatedEvents {
        servers,
        ca: nats.ca_secret_ref.as_ref().map(|ca| SecretKey::new(&ca.name, &ca.key)),
        creds: nats.creds_secret_ref.as_ref().map(|creds| SecretKey::new(&creds.name, &creds.key)),
        broker,
        durable,
        subjects: Some(subjects).filter(|subjects| !subjects.is_empty()),
        ticket_deleted: events.ticket_deleted.clone(),
        payment_started: events.payment_started.clone(),
        mark: events.mark(),
    })
}

/// The broker, and what its durable subscription is named.
fn broker(events: &EventsSpec) -> (Broker, String) {
    if let Some(streaming) = &events.streaming {
        let broker = Broker::Streaming { cluster_id: streaming.cluster_id.clone() };
        return (broker, streaming.durable.clone());
    }
    let JetStream { stream, durable, replicas, max_age_seconds } =
        events.jet_stream.clone().unwrap_or_default();
    (Broker::JetStream { stream, replicas, max_age_seconds }, durable)
}

/// Where the brokers are.
fn check_servers(nats: &Nats, invalid: &mut impl FnMut(String)) {
    match (nats.servers.is_empty(), &nats.url_secret_ref) {
        (true, None) => invalid(
            "spec.events.nats needs either servers or urlSecretRef: the Secret is for URLs with a password or a token"
                .into(),
        ),
        (false, Some(_)) => invalid(
            "spec.events.nats.servers and spec.events.nats.urlSecretRef are both set: remove one; the Secret is for URLs \
             with a password or a token"
                .into(),
        ),
        _ => {}
    }
    // Without the value, which may have a password.
    if let Some(at) = nats.servers.iter().position(|server| !is_server(server)) {
        invalid(format!(
            "spec.events.nats.servers[{at}] is not a server: write nats://HOST:4222 or tls://HOST:4222; put a URL \
             with a password in a Secret, see urlSecretRef"
        ));
    }
}

/// What is named on the broker, and the numbers of its stream.
fn check_broker(events: &EventsSpec, invalid: &mut impl FnMut(String)) {
    if events.jet_stream.is_some() && events.streaming.is_some() {
        invalid(
            "spec.events.jetStream and spec.events.streaming cannot be set together: keep the one of your broker"
                .into(),
        );
    }
    let jet_stream = events.jet_stream.clone().unwrap_or_default();
    let mut names =
        vec![("jetStream.stream", &jet_stream.stream), ("jetStream.durable", &jet_stream.durable)];
    if let Some(streaming) = &events.streaming {
        names.push(("streaming.clusterId", &streaming.cluster_id));
        names.push(("streaming.durable", &streaming.durable));
    }
    for (field, name) in names {
        if !is_name(name) {
            invalid(format!(
                "spec.events.{field} is {}: write letters, digits, - and _, up to 255",
                hidden(name)
            ));
        }
    }
    if !(1..=5).contains(&jet_stream.replicas) {
        invalid(format!("spec.events.jetStream.replicas is {}: write 1 to 5", jet_stream.replicas));
    }
    if !(3600..=31_536_000).contains(&jet_stream.max_age_seconds) {
        invalid(format!(
            "spec.events.jetStream.maxAgeSeconds is {}: write seconds from 3600 to 31536000 (one year)",
            jet_stream.max_age_seconds
        ));
    }
}

/// The subjects: each has a name of its own.
fn check_subjects(events: &EventsSpec, invalid: &mut impl FnMut(String)) {
    let mut free: BTreeSet<&str> = SUBJECTS.into_iter().collect();
    for (subject, name) in &events.subjects {
        // Its own name is free for another.
        if !free.remove(subject.as_str()) && !SUBJECTS.contains(&subject.as_str()) {
            invalid(format!(
                "spec.events.subjects renames {subject:?}, which is not a subject; the subjects are {}",
                SUBJECTS.join(", ")
            ));
        }
        if !is_nats_subject(name) {
            invalid(format!(
                "spec.events.subjects gives {subject:?} a name that cannot be a subject: write one such as orders.created, \
                 without spaces, *, >, commas and ="
            ));
        }
    }
    let optional = [("ticketDeleted", &events.ticket_deleted), ("paymentStarted", &events.payment_started)];
    for (field, name) in optional {
        if let Some(name) = name.as_ref().filter(|name| !is_nats_subject(name)) {
            invalid(format!(
                "spec.events.{field} is {}, which cannot be a subject: write one such as ticket:deleted, without spaces, \
                 *, >, commas and =",
                hidden(name)
            ));
        }
    }
    let mut taken = free;
    for name in events.subjects.values().chain(optional.iter().filter_map(|(_, name)| name.as_ref())) {
        if !taken.insert(name) {
            invalid(format!("spec.events gives two subjects the name {name:?}: give each its own"));
        }
    }
}

fn is_server(server: &str) -> bool {
    let host = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://"));
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":.[]-".contains(&byte);
    server.len() <= 253 && host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_allowed))
}

fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=255).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture::service;

    fn validated(events: Value) -> (Option<ValidatedEvents>, Vec<String>) {
        let mut problems = Vec::new();
        let events =
            validate(&service(json!({"events": events})).spec, &mut |problem| problems.push(problem));
        (events, problems)
    }

    #[test]
    fn the_settings_of_the_pods_follow_from_the_spec() {
        let servers = json!(["nats://nats:4222", "tls://[::1]:4222"]);
        let subjects = json!({"order:created": "orders.created", "order:cancelled": "order:created"});
        let (events, problems) = validated(json!({"nats": {"servers": servers}, "subjects": subjects}));
        assert_eq!(problems, [""; 0]);
        let events = events.unwrap();
        assert_eq!(events.servers, Servers::Listed("nats://nats:4222,tls://[::1]:4222".into()));
        assert_eq!(
            events.subjects.as_deref(),
            Some("order:cancelled=order:created,order:created=orders.created")
        );
        let jet_stream =
            Broker::JetStream { stream: "ticketing".into(), replicas: 1, max_age_seconds: 1_209_600 };
        assert_eq!((events.broker, events.durable.as_str()), (jet_stream, "orders-service"));
        let streaming = json!({"nats": {"servers": servers}, "streaming": {"clusterId": "ticketing"}});
        let (events, problems) = validated(streaming);
        let (events, streaming) = (events.unwrap(), Broker::Streaming { cluster_id: "ticketing".into() });
        assert_eq!((events.broker, events.durable.as_str()), (streaming, "orders-service"));
        assert_eq!(problems, [""; 0]);
        let (events, problems) = validated(json!({"nats": {"urlSecretRef": {"name": "nats"}}}));
        let secret = SecretKey { name: "nats".into(), key: "NATS_URL".into() };
        assert_eq!((events.unwrap().servers, problems.len()), (Servers::Secret(secret), 0));
        assert_eq!(validated(Value::Null), (None, Vec::new()));
    }

    #[test]
    fn what_admission_refuses_is_refused_again_without_a_password() {
        let with = |nats: Value, more: Value| {
            let mut events = json!({"nats": nats});
            json_patch::merge(&mut events, &more);
            events
        };
        let servers = || json!({"servers": ["nats://h"]});
        for (events, wanted) in [
            (with(json!({}), json!({})), "either servers or urlSecretRef"),
            (
                with(json!({"servers": ["nats://h"], "urlSecretRef": {"name": "s"}}), json!({})),
                "are both set: remove one",
            ),
            (
                with(json!({"servers": ["nats://h", "nats://u:hunter2@h"]}), json!({})),
                "servers[1] is not a server",
            ),
            (with(json!({"servers": ["http://h"]}), json!({})), "servers[0] is not a server"),
            (
                with(servers(), json!({"jetStream": {"stream": "a.b"}})),
                "jetStream.stream is (hidden): write letters",
            ),
            (
                with(servers(), json!({"jetStream": {"durable": ""}})),
                "jetStream.durable is empty: write letters",
            ),
            (with(servers(), json!({"jetStream": {"replicas": 6}})), "jetStream.replicas is 6"),
            (with(servers(), json!({"jetStream": {"maxAgeSeconds": 60}})), "jetStream.maxAgeSeconds is 60"),
            (with(servers(), json!({"streaming": {"clusterId": "a b"}})), "streaming.clusterId is (hidden)"),
            (
                with(servers(), json!({"streaming": {"clusterId": "a", "durable": "a:b"}})),
                "streaming.durable is (hidden)",
            ),
            (
                with(servers(), json!({"streaming": {"clusterId": "a"}, "jetStream": {}})),
                "cannot be set together",
            ),
            (
                with(servers(), json!({"subjects": {"order:made": "x"}})),
                "\"order:made\", which is not a subject",
            ),
            (with(servers(), json!({"subjects": {"order:created": "a b"}})), "cannot be a subject"),
            (with(servers(), json!({"subjects": {"order:created": "order:cancelled"}})), "two subjects"),
            (with(servers(), json!({"ticketDeleted": "a b"})), "ticketDeleted is (hidden), which cannot"),
            (with(servers(), json!({"paymentStarted": "order:created"})), "two subjects"),
        ] {
            let (_, problems) = validated(events.clone());
            assert!(problems.iter().any(|problem| problem.contains(wanted)), "{events}: {problems:?}");
            assert!(!format!("{problems:?}").contains("hunter2"));
        }
    }
}
