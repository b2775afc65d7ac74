//! `spec.events`: the broker to which the events of orders are published, and from which those of tickets and payments are
//! consumed.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{database::CaSecretRef, defaults};
use crate::runtime::hex;

/// The names of the subjects, as the course has them.
pub const SUBJECTS: [&str; 8] = [
    "ticket:created",
    "ticket:updated",
    "payment:created",
    "order:created",
    "order:updated",
    "order:cancelled",
    "order:completed",
    "payment:refused",
];

/// The broker to which the events of orders are published, and from which those of tickets and payments are consumed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.jetStream) || !has(self.streaming)")
    .message("events.jetStream and events.streaming cannot be set together: keep the one of your broker"))]
pub struct EventsSpec {
    /// The NATS servers.
    pub nats: Nats,

    /// The stream and the consumer of JetStream, which is the broker unless streaming is set. Default: the defaults of its
    /// fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<JetStream>,

    /// NATS Streaming, the broker of older copies of the course, in place of JetStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming: Option<Streaming>,

    /// Other names of subjects, such as orders.created for order:created. Default: those of the course.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 255}))]
    #[x_kube(validation = Rule::new("self.all(k, k in ['ticket:created', 'ticket:updated', 'payment:created', 'order:created', 'order:updated', 'order:cancelled', 'order:completed', 'payment:refused'])")
        .message("events.subjects renames an unknown subject: the subjects are ticket:created, ticket:updated, \
             payment:created, order:created, order:updated, order:cancelled, order:completed and payment:refused"))]
    #[x_kube(validation = Rule::new(r"self.all(k, self[k].matches('^[^$.*>,=\\s][^.*>,=\\s]*(\\.[^.*>,=\\s]+)*$'))")
        .message("events.subjects has a name that cannot be a subject: write one such as orders.created, without spaces, *, >, commas and ="))]
    #[x_kube(validation = Rule::new("self.all(k, self.exists_one(other, self[other] == self[k]))")
        .message("events.subjects gives two subjects the same name: give each its own"))]
    pub subjects: BTreeMap<String, String>,

    /// The subject on which deleted tickets are announced, such as ticket:deleted: the local copy is deleted, so that
    /// nobody can reserve the ticket. Default: none is consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^$.*>,=\s][^.*>,=\s]*(\.[^.*>,=\s]+)*$"))]
    pub ticket_deleted: Option<String>,

    /// The subject on which begun payments are announced, such as payment:started: its order becomes
    /// awaiting:payment, which is published as order:updated. Default: none is consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^$.*>,=\s][^.*>,=\s]*(\.[^.*>,=\s]+)*$"))]
    pub payment_started: Option<String>,
}

impl EventsSpec {
    /// A mark of these settings. The pods store it in the database beside what they do, so that what those with former
    /// settings have stored can be recognized.
    #[must_use]
    pub fn mark(&self) -> String {
        hex(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).iter().take(8))
    }
}

/// NATS servers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.servers) && self.servers.size() > 0) != has(self.urlSecretRef)")
    .message("events.nats needs either servers or urlSecretRef: the Secret is for URLs with a password or a token"))]
pub struct Nats {
    /// The servers, such as nats://nats:4222, or tls:// for encrypted connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(r"self.all(s, s.matches('^(nats|tls)://[A-Za-z0-9:.\\[\\]-]+$'))")
        .message("a server is nats://HOST:4222 or tls://HOST:4222, without a user: put a URL with a password in a \
             Secret, see urlSecretRef"))]
    pub servers: Vec<String>,

    /// The Secret with the URLs, separated by commas: nats://USER:PASSWORD@HOST:4222 or nats://TOKEN@HOST:4222.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<NatsUrlSecretRef>,

    /// The Secret with the CA that the servers' certificates must be signed by, as PEM. Default: the public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,

    /// The Secret with the credentials of a user, as nsc writes them (.creds: its JWT and its seed). Default: the user and the
    /// password, or the token, of the URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds_secret_ref: Option<NatsCredsSecretRef>,
}

/// A key of a Secret whose value is the credentials of a user of NATS.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsCredsSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within the Secret. Default: nats.creds.
    #[serde(default = "defaults::nats_creds_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A key of a Secret whose value is the URLs of NATS servers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsUrlSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within the Secret. Default: NATS_URL.
    #[serde(default = "defaults::nats_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The stream and the consumer of JetStream.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JetStream {
    /// Name of the stream that is created for subjects that no stream has. Default: ticketing.
    #[serde(default = "defaults::stream")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub stream: String,

    /// Name of the durable consumer by which all pods consume the events of tickets and payments. Default: orders-service.
    #[serde(default = "defaults::durable")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub durable: String,

    /// How many servers keep each event of that stream. Default: 1.
    #[serde(default = "defaults::stream_replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,

    /// How long that stream keeps an event, in seconds. Default: 1209600 (two weeks).
    #[serde(default = "defaults::stream_max_age_seconds")]
    #[schemars(range(min = 3600, max = 31_536_000))]
    pub max_age_seconds: i32,
}

impl Default for JetStream {
    fn default() -> Self {
        Self {
            stream: defaults::stream(),
            durable: defaults::durable(),
            replicas: defaults::stream_replicas(),
            max_age_seconds: defaults::stream_max_age_seconds(),
        }
    }
}

/// A cluster of NATS Streaming. Each pod is a client by its own name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Streaming {
    /// Id of the cluster, which its servers were started with; ticketing in the course.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub cluster_id: String,

    /// Name of the durable queue group by which all pods consume the events of tickets and payments. Default:
    /// orders-service, as in the Node.js service, so that it continues where that one stopped.
    #[serde(default = "defaults::durable")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub durable: String,
}
