//! Names of other objects in the spec.
//!
//! They become parts of URLs, of objects and of messages. An object with another name cannot exist, so a wrong name is a
//! mistake in the spec, and no request is sent for it.

use crate::crd::OrdersServiceSpec;

/// Checks every name; what is wrong goes to `invalid`.
pub(super) fn check(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) {
    let (jwt, uri) = (&spec.auth.jwt_secret_ref, &spec.database.uri_secret_ref);
    let mut names =
        vec![("spec.auth.jwtSecretRef.name", &jwt.name), ("spec.database.uriSecretRef.name", &uri.name)];
    let tls = spec.database.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_secret_ref.as_ref());
    names.extend(ca.map(|ca| ("spec.database.tls.caSecretRef.name", &ca.name)));
    let certificate = tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref());
    names.extend(
        certificate.map(|secret| ("spec.database.tls.clientCertificateSecretRef.name", &secret.name)),
    );
    let nats = spec.events.as_ref().map(|events| &events.nats);
    let url = nats.and_then(|nats| nats.url_secret_ref.as_ref());
    let nats_ca = nats.and_then(|nats| nats.ca_secret_ref.as_ref());
    let nats_creds = nats.and_then(|nats| nats.creds_secret_ref.as_ref());
    names.extend(url.map(|url| ("spec.events.nats.urlSecretRef.name", &url.name)));
    names.extend(nats_ca.map(|ca| ("spec.events.nats.caSecretRef.name", &ca.name)));
    names.extend(nats_creds.map(|creds| ("spec.events.nats.credsSecretRef.name", &creds.name)));
    names.extend(spec.image_pull_secrets.iter().map(|secret| ("spec.imagePullSecrets[].name", &secret.name)));
    if let Some(ingress) = &spec.ingress {
        names.extend(ingress.tls.iter().map(|tls| ("spec.ingress.tls.secretName", &tls.secret_name)));
        names.extend(ingress.class_name.iter().map(|name| ("spec.ingress.className", name)));
    }
    for parent in spec.gateway.iter().flat_map(|gateway| &gateway.parent_refs) {
        names.push(("spec.gateway.parentRefs[].name", &parent.name));
        names.extend(parent.namespace.iter().map(|name| ("spec.gateway.parentRefs[].namespace", name)));
        names.extend(parent.section_name.iter().map(|name| ("spec.gateway.parentRefs[].sectionName", name)));
    }
    if let Some(template) = &spec.pod_template {
        let account = template.service_account_name.iter();
        names.extend(account.map(|name| ("spec.podTemplate.serviceAccountName", name)));
        let class = template.priority_class_name.iter();
        names.extend(class.map(|name| ("spec.podTemplate.priorityClassName", name)));
    }
    for (field, name) in names.into_iter().filter(|(_, name)| !is_dns_subdomain(name)) {
        invalid(format!(
            "{field} is {name:?}, which no object can have as its name: write lower-case letters, digits, - and ., such as \
             orders-mongo"
        ));
    }
    let mut keys =
        vec![("spec.auth.jwtSecretRef.key", &jwt.key), ("spec.database.uriSecretRef.key", &uri.key)];
    keys.extend(ca.map(|ca| ("spec.database.tls.caSecretRef.key", &ca.key)));
    keys.extend(url.map(|url| ("spec.events.nats.urlSecretRef.key", &url.key)));
    keys.extend(nats_ca.map(|ca| ("spec.events.nats.caSecretRef.key", &ca.key)));
    keys.extend(nats_creds.map(|creds| ("spec.events.nats.credsSecretRef.key", &creds.key)));
    for (field, key) in keys {
        if !is_key(key) {
            invalid(format!(
                "{field} is {key:?}, which no Secret can have as a key: write letters, digits, -, _ and ., such as MONGO_URI"
            ));
        }
    }
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
            (json!({"imagePullSecrets": [{"name": "-x"}]}), "imagePullSecrets[].name"),
            (json!({"ingress": {"tls": {"secretName": "x."}}}), "ingress.tls.secretName"),
            (json!({"ingress": {"className": "Nginx"}}), "ingress.className"),
            (gateway(json!({"name": "a/b"})), "gateway.parentRefs[].name"),
            (gateway(json!({"name": "a", "namespace": "A"})), "gateway.parentRefs[].namespace"),
            (gateway(json!({"name": "a", "sectionName": "a b"})), "gateway.parentRefs[].sectionName"),
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
}
