//! `spec`: the fields that a user writes, their defaults, units and bounds.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    gateway::GatewaySpec,
    status::OrdersServiceStatus,
    workload::{Autoscaling, DisruptionBudget, PodTemplate, Resources},
};

/// What runs the orders API, where its data is, and how requests reach it and its neighbours.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ticketing.dev",
    version = "v1alpha1",
    kind = "OrdersService",
    plural = "ordersservices",
    shortname = "osvc",
    category = "ticketing",
    namespaced,
    status = "OrdersServiceStatus",
    derive = "PartialEq",
    doc = "An OrdersService runs the orders API of a ticketing system: its Deployment, its Service, the ordered Ingress routes of the whole system with the web client last, and the expiry of unpaid orders.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "True: everything is in place"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.readyOfWanted", description = "Pods that are ready, of those that are wanted"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.ingress.hosts[0]", description = "The first host name"),
    printcolumn(name = "Expired", type_ = "integer", json_path = ".status.expiry.expiredTotal", description = "Orders that the sweeper has moved to cancelled"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", description = "Image of the pods; none is the operator's own", priority = 1),
    printcolumn(name = "Window", type_ = "integer", json_path = ".spec.expiration.windowSeconds", description = "Seconds that a reservation lasts", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is not ready", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "The same, for people", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 52")
        .message("metadata.name must be at most 52 characters: the names of the children are made from it"),
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
    .message("replicas and autoscaling cannot be set together, since the autoscaler decides the number: remove replicas, or set it to null"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || !has(self.resources) || (has(self.resources.requests) && 'cpu' in self.resources.requests) || (has(self.resources.limits) && 'cpu' in self.resources.limits)")
    .message("autoscaling measures CPU in percent of what the pods request: set resources.requests.cpu"))]
#[x_kube(validation = Rule::new("!has(self.gateway) || !has(self.ingress) || !(has(self.gateway.path) || has(self.gateway.routes) || has(self.gateway.client))")
    .message("with spec.ingress the Gateways serve its routes: remove path, routes and client from spec.gateway"))]
#[serde(rename_all = "camelCase")]
pub struct OrdersServiceSpec {
    /// Container image of the orders API. Default: the image that the controller itself runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the kubelet pulls the image: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Secrets with the credentials of the image's registry, in the namespace of this resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalSecret>,

    /// Number of pods of the orders API. Default: 2 pods are made, and the number that an autoscaler left is
    /// kept. An autoscaler of your own that scales this resource needs it to be set. Not together with
    /// autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// Lets the load decide the number of pods, in place of replicas. Leave it out for no HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// How many pods a drained node may take away at the same time. Default: one, where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_disruption_budget: Option<DisruptionBudget>,

    /// Port of the container and of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new("self != 8081").message("port 8081 is the admin port of the pods (probes and metrics): choose another, such as 3000"))]
    pub port: i32,

    /// How sessions are verified.
    pub auth: Auth,

    /// Where the orders and tickets are stored.
    pub database: Database,

    /// When unpaid orders expire.
    #[serde(default)]
    pub expiration: Expiration,

    /// How requests from outside reach the orders API and the services beside it. Leave it out for no Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,

    /// Gateways of the Gateway API that the same routes are served by, beside the Ingress or instead of it.
    /// Leave it out for no HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,

    /// What a pod asks of its node, and the most that it may take. What is written here replaces the default
    /// whole, which is requests of cpu 50m and memory 32Mi, and a limit of memory 128Mi.
    #[serde(default)]
    pub resources: Resources,

    /// What else the pods get, and where they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,

    /// True: a NetworkPolicy lets others reach the pods at their port, and pods of the cluster at the admin port
    /// (metrics), and nothing else. Default: true.
    #[serde(default = "defaults::network_policy")]
    pub network_policy: bool,

    /// True: the controller stops touching the children; they stay as they are. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a container.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl ImagePullPolicy {
    /// The value as the Pod API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// A Secret of this namespace, by name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How sessions are verified.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Where the key is that the auth service signs its JSON Web Tokens with (HS256).
    pub jwt_secret_ref: JwtSecretRef,
}

/// One key of a Secret that holds the signing key of the sessions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret. Default: JWT_KEY.
    #[serde(default = "defaults::jwt_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where the orders and tickets are stored.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)")
    .message("database.name cannot be changed: the orders would be left behind in the old database; create a new OrdersService instead"))]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Where the MongoDB connection string is.
    pub uri_secret_ref: UriSecretRef,

    /// Name of the database. Default: the one in the connection string, else "orders". Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r#"^[^/\\. "$*<>:|?]+$"#))]
    pub name: Option<String>,
}

/// One key of a Secret that holds a MongoDB connection string.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret. Default: MONGO_URI.
    #[serde(default = "defaults::uri_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// When unpaid orders expire.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiration {
    /// Seconds that a reservation lasts. Default: 900.
    #[serde(default = "defaults::window_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub window_seconds: i32,

    /// Extra seconds that an order gets whose payment has begun (awaiting:payment) before it is cancelled. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub payment_grace_seconds: i32,

    /// True: the sweeper leaves this database alone; overdue orders stay until it is false again. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// The most orders per second that the sweeper cancels, to spare the database. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_per_second: Option<i32>,
}

impl Default for Expiration {
    fn default() -> Self {
        Self {
            window_seconds: defaults::window_seconds(),
            payment_grace_seconds: 0,
            suspend: false,
            max_per_second: None,
        }
    }
}

/// How requests from outside reach the orders API and the services beside it.
///
/// The rules are rendered in a canonical order with the client last, whatever their order here.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.routes) || self.routes.all(r, self.routes.exists_one(o, o.path == r.path))")
    .message("two routes have the same path: each path can go to one service only"))]
#[x_kube(validation = Rule::new("!has(self.routes) || !self.routes.exists(r, r.path == self.path)")
    .message("a route has the path of the orders API itself, which is spec.ingress.path (/api/orders unless it is set): remove the route, or set spec.ingress.path to another path"))]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// Host names that the system is reached by; every host gets the same routes.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(h, self.exists_one(o, o == h))").message("the same host is listed twice"))]
    pub hosts: Vec<Host>,

    /// Name of the IngressClass. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// Annotations for the Ingress, as its ingress controller understands them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    pub annotations: std::collections::BTreeMap<String, String>,

    /// The certificate that all hosts are served with. Leave it out for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTlsSpec>,

    /// Path of the orders API itself. Default: /api/orders.
    #[serde(default = "defaults::path")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/orders"))]
    pub path: String,

    /// The other services behind the same hosts, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub routes: Vec<RouteSpec>,

    /// The web client: always the last rule, at /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Backend>,
}

/// A host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("maxLength" = 253, "minLength" = 1, "x-kubernetes-validations" = [{
    "rule": "self.matches('^(\\\\*\\\\.)?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\\\\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*\\\\.?$')",
    "message": "a host has letters, digits, hyphens and dots only, without scheme, port or path, such as ticketing.dev or *.ticketing.dev",
}]))]
pub struct Host(pub String);

/// The certificate of the hosts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTlsSpec {
    /// Name of the Secret of type kubernetes.io/tls, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// One path and the service that requests below it go to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Path prefix, such as /api/payments. Regex forms such as /api/payments/?(.*) mean the same.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/payments"))]
    #[x_kube(validation = Rule::new("self != '/'").message("a route at / would take every request: name that service in spec.ingress.client, which is always the last rule"))]
    pub path: String,

    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A Service and its port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// The defaults, as the schema shows them.
pub(super) mod defaults {
    pub(in crate::crd) fn replicas() -> i32 {
        2
    }
    pub(super) fn port() -> i32 {
        3000
    }
    pub(super) fn jwt_key() -> String {
        "JWT_KEY".into()
    }
    pub(super) fn uri_key() -> String {
        "MONGO_URI".into()
    }
    pub(super) fn window_seconds() -> i32 {
        900
    }
    pub(super) fn path() -> String {
        "/api/orders".into()
    }
    pub(super) fn network_policy() -> bool {
        true
    }
}
