//! Names of other objects in the spec.
//!
//! They become parts of URLs, of objects and of messages. An object with another name cannot exist, so a wrong name is a
//! mistake in the spec, and no request is sent for it.

use crate::crd::{LocalSecret, OrdersServiceSpec, SecretRef};

/// What is told of a text that may be a password, or a URL with one.
pub(super) fn hidden(text: &str) -> &'static str {
    if text.is_empty() { "empty" } else { "(hidden)" }
}

/// Checks every name; what is wrong goes to `invalid`. The name or key of a Secret is not told: people write the password
/// itself there.
pub(super) fn check(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) {
    for SecretRef { field, name, key } in spec.secret_refs() {
        let field = field.path();
        if !is_dns_subdomain(name) {
            invalid(format!(
                "{field}.name is {}, which no Secret can have as its name: write the name of the Secret, in lower-case \
                 letters, digits, - and ., such as orders-mongo",
                hidden(name)
            ));
        }
        if let Some(key) = key.filter(|key| !is_key(key)) {
            invalid(format!(
                "{field}.key is {}, which no Secret can have as a key: write letters, digits, -, _ and ., such as MONGO_URI",
                hidden(key)
            ));
        }
    }
    let mut names = Vec::new();
    let mut add = |field: String, name: &String| names.push((field, name.clone()));
    for (at, LocalSecret { name }) in spec.image_pull_secrets.iter().enumerate() {
        add(format!("spec.imagePullSecrets[{at}].name"), name);
    }
    if let Some(ingress) = &spec.ingress {
        ingress.tls.iter().for_each(|tls| add("spec.ingress.tls.secretName".into(), &tls.secret_name));
        ingress.class_name.iter().for_each(|name| add("spec.ingress.className".into(), name));
    }
    let parents = spec.gateway.iter().flat_map(|gateway| &gateway.parent_refs);
    for (at, parent) in parents.enumerate() {
        let field = format!("spec.gateway.parentRefs[{at}]");
        add(format!("{field}.name"), &parent.name);
        parent.namespace.iter().for_each(|name| add(format!("{field}.namespace"), name));
        parent.section_name.iter().for_each(|name| add(format!("{field}.sectionName"), name));
    }
    if let Some(template) = &spec.pod_template {
        let account = template.service_account_name.iter();
        account.for_each(|name| add("spec.podTemplate.serviceAccountName".into(), name));
        let class = template.priority_class_name.iter();
        class.for_each(|name| add("spec.podTemplate.priorityClassName".into(), name));
    }
    for (field, name) in names.into_iter().filter(|(_, name)| !is_dns_subdomain(name)) {
        invalid(format!(
            "{field} is {name:?}, which no object can have as its name: write lower-case letters, digits, - and ., such as \
             orders-mongo"
        ));
    }
}

/// Whether the metadata can have this key: a name, with a DNS subdomain and a slash before it or without.
pub(super) fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let ends = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.ends_with(|last: char| last.is_ascii_alphanumeric())
    };
    // Kubernetes takes the prefix in any case for annotations.
    prefix.is_none_or(|prefix| is_dns_subdomain(&prefix.to_ascii_lowercase()))
        && name.len() <= 63
        && is_key(name)
        && ends(name)
}

/// RFC 1123 subdomain, which the name of most objects must be.
fn is_dns_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
            && label.bytes().next().is_some_and(is_alphanumeric)
            && label.bytes().next_back().is_some_and(is_alphanumeric)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether a Secret can have this key.
fn is_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture::service;

    fn problems(patch: Value) -> Vec<String> {
        let mut problems = Vec::new();
        check(&service(patch).spec, &mut |problem| problems.push(problem));
        problems
    }

    #[test]
    fn a_name_that_no_object_can_have_is_named_with_its_field() {
        let gateway = |parent: Value| json!({"gateway": {"hostnames": ["a.dev"], "parentRefs": [parent]}});
        assert_eq!(problems(json!({})), [""; 0]);
        for (patch, field) in [
            (json!({"auth": {"jwtSecretRef": {"name": "Not A Secret?x=1"}}}), "auth.jwtSecretRef.name"),
            (json!({"auth": {"jwtSecretRef": {"key": "a b"}}}), "auth.jwtSecretRef.key"),
            (json!({"database": {"uriSecretRef": {"name": "../x"}}}), "database.uriSecretRef.name"),
            (json!({"database": {"uriSecretRef": {"key": ""}}}), "database.uriSecretRef.key"),
            (
                json!({"database": {"tls": {"caSecretRef": {"name": "A", "key": "k"}}}}),
                "database.tls.caSecretRef.name",
            ),
            (
                json!({"database": {"tls": {"caSecretRef": {"name": "a", "key": "/"}}}}),
                "database.tls.caSecretRef.key",
            ),
            (
                json!({"database": {"tls": {"clientCertificateSecretRef": {"name": "?"}}}}),
                "database.tls.clientCertificateSecretRef.name",
            ),
            (json!({"events": {"nats": {"urlSecretRef": {"name": "A"}}}}), "events.nats.urlSecretRef.name"),
            (
                json!({"events": {"nats": {"urlSecretRef": {"name": "a", "key": " "}}}}),
                "events.nats.urlSecretRef.key",
            ),
            (
                json!({"events": {"nats": {"servers": ["nats://h"], "credsSecretRef": {"name": "a/b"}}}}),
                "events.nats.credsSecretRef.name",
            ),
            (
                json!({"events": {"nats": {"servers": ["nats://h"], "caSecretRef": {"name": "a/b"}}}}),
                "events.nats.caSecretRef.name",
            ),
            (
                json!({"events": {"nats": {"servers": ["nats://h"], "caSecretRef": {"name": "a", "key": "?"}}}}),
                "events.nats.caSecretRef.key",
            ),
            (json!({"imagePullSecrets": [{"name": "-x"}]}), "imagePullSecrets[0].name"),
            (json!({"ingress": {"tls": {"secretName": "x."}}}), "ingress.tls.secretName"),
            (json!({"ingress": {"className": "Nginx"}}), "ingress.className"),
            (gateway(json!({"name": "a/b"})), "gateway.parentRefs[0].name"),
            (gateway(json!({"name": "a", "namespace": "A"})), "gateway.parentRefs[0].namespace"),
            (gateway(json!({"name": "a", "sectionName": "a b"})), "gateway.parentRefs[0].sectionName"),
            (json!({"podTemplate": {"serviceAccountName": "a_b"}}), "podTemplate.serviceAccountName"),
            (json!({"podTemplate": {"priorityClassName": "é"}}), "podTemplate.priorityClassName"),
        ] {
            let found = problems(patch);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("spec.{field} is ")),
                "{field}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_written_in_place_of_the_name_or_key_of_a_secret_is_not_told() {
        let secret = "mongodb://u:hunter2@m/o";
        let reference = |key: &str| json!({"name": secret, "key": key});
        for (patch, field) in [
            (json!({"auth": {"jwtSecretRef": reference("JWT KEY hunter2")}}), "auth.jwtSecretRef"),
            (json!({"database": {"uriSecretRef": reference("hunter2!")}}), "database.uriSecretRef"),
            (
                json!({"events": {"nats": {"urlSecretRef": reference("hunter2/")}}}),
                "events.nats.urlSecretRef",
            ),
        ] {
            let found = problems(patch);
            let said = |of: &str| format!("spec.{field}.{of} is (hidden), which no Secret can have as ");
            assert!(
                found.len() == 2 && found[0].starts_with(&said("name")) && found[1].starts_with(&said("key")),
                "{found:?}"
            );
            assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn a_key_of_the_metadata_has_one_slash_at_most_and_no_spaces() {
        for key in
            ["a", "example.com/a_b.c-d", "nginx.ingress.kubernetes.io/proxy-body-size", "Example.com/A"]
        {
            assert!(is_qualified(key), "{key}");
        }
        for key in ["", "nginx ingress/foo", "a/b/c", "/a", "a/", "-a", "a.", "é", &"a".repeat(64)] {
            assert!(!is_qualified(key), "{key}");
        }
    }
}
