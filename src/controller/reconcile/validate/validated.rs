//! A spec that passed validation.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString};

use super::pods::{Replicas, ValidatedPods};
use crate::{
    controller::problem::Problem,
    crd::{ImagePullPolicy, Mesh, ParentRef},
    routing::{CanonicalPath, HostRoutes},
};

/// The port of the pods' probes and metrics.
pub const ADMIN_PORT: i32 = 8081;

/// The name of the API's port, of the containers and of the Service. Old pods and new ones may have different numbers
/// under it, so what refers to it by name serves through both while `spec.port` is changed.
pub const API_PORT: &str = "http";

/// The name of [`ADMIN_PORT`].
pub const ADMIN_PORT_NAME: &str = "admin";

/// A spec that passed validation: everything that the children are built from.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedOrdersService {
    /// Name of the resource and of all its children.
    pub name: String,
    /// Namespace of the resource and of all its children.
    pub namespace: String,
    /// The owner reference of its children; none while the resource is in no cluster.
    pub owner: Option<OwnerReference>,
    /// Container image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of the Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Number of pods.
    pub replicas: Replicas,
    /// How many of them a drain may evict at a time; none where there is no PodDisruptionBudget.
    pub max_unavailable: Option<IntOrString>,
    /// The settings and the placement of the pods.
    pub pods: ValidatedPods,
    /// Whether a NetworkPolicy protects them.
    pub network_policy: bool,
    /// The mesh that it lets through.
    pub mesh: Option<Mesh>,
    /// Port of the container and of the Service.
    pub port: i32,
    /// Name of a second Service, if there is to be one.
    pub service_name: Option<String>,
    /// Seconds that a stopping pod goes on accepting requests.
    pub drain_seconds: i32,
    /// Secret and key of the session signing key.
    pub jwt_secret: SecretKey,
    /// Secret and key of the connection string.
    pub uri_secret: SecretKey,
    /// Secret and key of the CA of the database.
    pub database_ca: Option<SecretKey>,
    /// Secret of type kubernetes.io/tls with the certificate to present to the database.
    pub database_certificate: Option<String>,
    /// Database, if it is not the one in the connection string.
    pub database: Option<String>,
    /// Seconds that a reservation lasts.
    pub window_seconds: i32,
    /// Extra seconds of an order whose payment has begun.
    pub payment_grace_seconds: i32,
    /// The broker of events, if any.
    pub events: Option<ValidatedEvents>,
    /// Changes when a referenced Secret's value does; none where no Secret was read.
    pub secrets_checksum: Option<String>,
    /// The routes from outside, if any.
    pub ingress: Option<ValidatedIngress>,
    /// The same routes at Gateways, if any.
    pub gateway: Option<ValidatedGateway>,
}

impl ValidatedOrdersService {
    /// The path at which requests for the orders API come; none if no routes lead to it.
    pub fn own_path(&self) -> Option<&str> {
        let ingress = self.ingress.as_ref().map(|ingress| &ingress.own_path);
        ingress.or(self.gateway.as_ref().map(|gateway| &gateway.own_path)).map(CanonicalPath::as_str)
    }
}

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// Key within it.
    pub key: String,
}

impl SecretKey {
    /// This key of the Secret of this name.
    pub fn new(name: &str, key: &str) -> Self {
        Self { name: name.to_owned(), key: key.to_owned() }
    }
}

/// The broker of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedEvents {
    /// Its servers.
    pub servers: Servers,
    /// Secret and key of their CA.
    pub ca: Option<SecretKey>,
    /// Secret and key of the credentials.
    pub creds: Option<SecretKey>,
    /// Which of the two it is.
    pub broker: Broker,
    /// The durable consumer, or the durable queue group.
    pub durable: String,
    /// Other names of subjects, as the pods read them.
    pub subjects: Option<String>,
    /// The subject that says that a ticket is gone, if it is consumed.
    pub ticket_deleted: Option<String>,
    /// The subject that says that a payment has begun, if it is consumed.
    pub payment_started: Option<String>,
    /// By which the pods show that they have these settings.
    pub mark: String,
}

/// Which of the two brokers it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// JetStream.
    JetStream {
        /// The stream that is made for subjects that have none.
        stream: String,
        /// How many servers keep each event.
        replicas: i32,
        /// How long, in seconds.
        max_age_seconds: i32,
    },
    /// NATS Streaming.
    Streaming {
        /// The id of its cluster.
        cluster_id: String,
    },
}

/// Where the URLs of the servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// In the spec, separated by commas.
    Listed(String),
    /// In a Secret.
    Secret(SecretKey),
}

/// Hosts and routes that passed validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedIngress {
    /// The hosts, each with the routes that no other object holds there, so the routes may differ between hosts.
    pub hosts: Vec<HostRoutes>,
    /// Name of the IngressClass; none for the cluster's default.
    pub class_name: Option<String>,
    /// Whether that does not exist.
    pub lacks_class: bool,
    /// Annotations for the ingress controller.
    pub annotations: BTreeMap<String, String>,
    /// Secret of the certificate.
    pub tls_secret: Option<String>,
    /// Whether Traefik has its option `safeNaming`.
    pub traefik_safe_naming: bool,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// Why some routes are not rendered; the others are.
    pub problems: Vec<Problem>,
    /// What is probably unintended but does not keep any route from being rendered.
    pub warnings: Vec<Problem>,
}

/// Hosts and routes at Gateways that passed validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedGateway {
    /// The Gateways, or listeners of them.
    pub parents: Vec<ParentRef>,
    /// The hosts, and for each the routes that no other object has at any of the Gateways.
    pub hosts: Vec<HostRoutes>,
    /// Whether the spec has a client, if only of some hosts.
    pub has_client: bool,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// Why some routes are not rendered; the others are.
    pub problems: Vec<Problem>,
}
