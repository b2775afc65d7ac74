//! Every Secret that a spec takes values from: by which field, under which keys, and what the values are.

use super::{
    database::{Database, DatabaseTls},
    spec::OrdersServiceSpec,
};

/// A field of the spec that names a Secret whose values the pods get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretField {
    /// The signing key of the sessions.
    JwtKey,
    /// The connection string of the database.
    DatabaseUri,
    /// The CA of the database.
    DatabaseCa,
    /// The certificate to present to the database.
    DatabaseCertificate,
    /// The URLs of the NATS servers.
    NatsUrl,
    /// The CA of the NATS servers.
    NatsCa,
    /// The credentials of a user of NATS.
    NatsCreds,
}

impl SecretField {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::JwtKey,
        Self::DatabaseUri,
        Self::DatabaseCa,
        Self::DatabaseCertificate,
        Self::NatsUrl,
        Self::NatsCa,
        Self::NatsCreds,
    ];

    /// The path of the field.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::JwtKey => "spec.auth.jwtSecretRef",
            Self::DatabaseUri => "spec.database.uriSecretRef",
            Self::DatabaseCa => "spec.database.tls.caSecretRef",
            Self::DatabaseCertificate => "spec.database.tls.clientCertificateSecretRef",
            Self::NatsUrl => "spec.events.nats.urlSecretRef",
            Self::NatsCa => "spec.events.nats.caSecretRef",
            Self::NatsCreds => "spec.events.nats.credsSecretRef",
        }
    }

    /// What the Secret has to have, for a message.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::JwtKey => "the value that your auth service signs sessions with",
            Self::DatabaseUri => "the connection string of the database",
            Self::DatabaseCa => "the CA of the database's certificate, as PEM",
            Self::DatabaseCertificate => {
                "the client certificate (tls.crt) and its private key (tls.key), as PEM"
            }
            Self::NatsUrl => "the URLs of the NATS servers",
            Self::NatsCa => "the CA of the NATS servers' certificates, as PEM",
            Self::NatsCreds => "the credentials of a user of NATS, as nsc writes them",
        }
    }
}

/// A reference to a Secret in the namespace of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRef<'a> {
    /// The field that has it.
    pub field: SecretField,
    /// The name of the Secret.
    pub name: &'a str,
    /// The key that the field names; none where the Secret's type says which keys it has.
    pub key: Option<&'a str>,
}

impl<'a> SecretRef<'a> {
    /// The keys that the Secret must have.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        let of_type = [DatabaseTls::CERTIFICATE_KEY, DatabaseTls::PRIVATE_KEY_KEY];
        self.key.into_iter().chain(of_type.into_iter().filter(move |_| self.key.is_none()))
    }
}

/// The reference in a field that names a key, where it is set.
macro_rules! by_key {
    ($field:ident, $set:expr) => {
        $set.map(|set| SecretRef { field: SecretField::$field, name: &set.name, key: Some(&set.key) })
    };
}

impl Database {
    /// The references of `spec.database`.
    pub fn secret_refs(&self) -> impl Iterator<Item = SecretRef<'_>> {
        let tls = self.tls.as_ref();
        let certificate = tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref());
        let certificate = certificate.map(|set| SecretRef {
            field: SecretField::DatabaseCertificate,
            name: &set.name,
            key: None,
        });
        [
            by_key!(DatabaseUri, Some(&self.uri_secret_ref)),
            by_key!(DatabaseCa, tls.and_then(|tls| tls.ca_secret_ref.as_ref())),
            certificate,
        ]
        .into_iter()
        .flatten()
    }
}

impl OrdersServiceSpec {
    /// The references to Secrets whose values the pods get. The certificate of the hosts is not among them.
    pub fn secret_refs(&self) -> impl Iterator<Item = SecretRef<'_>> {
        let nats = self.events.as_ref().map(|events| &events.nats);
        let of_nats = [
            by_key!(NatsUrl, nats.and_then(|nats| nats.url_secret_ref.as_ref())),
            by_key!(NatsCa, nats.and_then(|nats| nats.ca_secret_ref.as_ref())),
            by_key!(NatsCreds, nats.and_then(|nats| nats.creds_secret_ref.as_ref())),
        ];
        let jwt = by_key!(JwtKey, Some(&self.auth.jwt_secret_ref));
        jwt.into_iter().chain(self.database.secret_refs()).chain(of_nats.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::OrdersService;

    /// The paths of all fields whose names end as those of references to Secrets do.
    fn in_schema(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if name.ends_with("SecretRef") {
                found.insert(path);
            } else {
                in_schema(field, &path, found);
            }
        }
    }

    #[test]
    fn every_reference_of_the_schema_is_known() {
        let schema = &OrdersService::crd().spec.versions[0].schema;
        let schema = schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap();
        let mut found = BTreeSet::new();
        in_schema(&serde_json::to_value(schema).unwrap(), "", &mut found);
        assert_eq!(found, SecretField::ALL.iter().map(|field| field.path().to_owned()).collect());
    }

    #[test]
    fn each_reference_is_found_under_its_field_with_its_keys() {
        // Names and keys that differ everywhere: whoever takes the one for the other is noticed.
        let of = |name: &str| json!({"name": name, "key": format!("KEY_OF_{name}")});
        let spec: OrdersServiceSpec = serde_json::from_value(json!({
            "auth": {"jwtSecretRef": of("a")},
            "database": {
                "uriSecretRef": of("b"),
                "tls": {"caSecretRef": of("c"), "clientCertificateSecretRef": {"name": "d"}},
            },
            "events": {"nats": {"urlSecretRef": of("e"), "caSecretRef": of("f"), "credsSecretRef": of("g")}},
        }))
        .unwrap();
        let found: Vec<_> = spec.secret_refs().map(|of| (of.field, of.name, of.keys().collect())).collect();
        let expected = [
            (SecretField::JwtKey, "a", vec!["KEY_OF_a"]),
            (SecretField::DatabaseUri, "b", vec!["KEY_OF_b"]),
            (SecretField::DatabaseCa, "c", vec!["KEY_OF_c"]),
            (SecretField::DatabaseCertificate, "d", vec!["tls.crt", "tls.key"]),
            (SecretField::NatsUrl, "e", vec!["KEY_OF_e"]),
            (SecretField::NatsCa, "f", vec!["KEY_OF_f"]),
            (SecretField::NatsCreds, "g", vec!["KEY_OF_g"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_set_is_no_reference() {
        let spec: OrdersServiceSpec = serde_json::from_value(json!({
            "auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}},
        }))
        .unwrap();
        let fields: Vec<_> = spec.secret_refs().map(|of| of.field).collect();
        assert_eq!(fields, [SecretField::JwtKey, SecretField::DatabaseUri]);
    }
}
