//! `spec.database`: where the orders are, and by which certificates.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::defaults;

/// Where the orders and tickets are stored.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)")
    .message("database.name cannot be changed: the orders would be left behind in the old database; create a new OrdersService instead"))]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// The Secret with the MongoDB connection string.
    pub uri_secret_ref: UriSecretRef,

    /// Name of the database. Default: the one in the connection string, or "orders" if it has none. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r#"^[^/\\. "$*<>:|?]+$"#))]
    pub name: Option<String>,

    /// Certificates for TLS to the database. TLS is then on. Default: TLS as the connection string says, by public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DatabaseTls>,
}

/// A key of a Secret whose value is a MongoDB connection string.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within the Secret. Default: MONGO_URI.
    #[serde(default = "defaults::uri_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Certificates for TLS to the database.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.caSecretRef) || has(self.clientCertificateSecretRef)")
    .message("database.tls needs caSecretRef, clientCertificateSecretRef or both: to only switch TLS on, write tls=true in the connection string"))]
#[serde(rename_all = "camelCase")]
pub struct DatabaseTls {
    /// The Secret with the CA that the database's certificate must be signed by, as PEM. Default: the public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,

    /// The Secret of type kubernetes.io/tls with the certificate to present to the database: PEM under the keys tls.crt
    /// and tls.key. With authMechanism=MONGODB-X509 in the connection string it also authenticates. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

impl DatabaseTls {
    /// The key of the certificate in a Secret of type kubernetes.io/tls.
    pub const CERTIFICATE_KEY: &'static str = "tls.crt";

    /// The key of its private key.
    pub const PRIVATE_KEY_KEY: &'static str = "tls.key";
}

/// A key of a Secret whose value is a CA.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within the Secret. Default: ca.crt.
    #[serde(default = "defaults::ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A Secret of type kubernetes.io/tls with a client certificate.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}
