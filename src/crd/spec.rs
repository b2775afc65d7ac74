//! `spec`: the fields that users write, with their defaults, units and bounds; and the custom resource.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    database::Database,
    defaults,
    events::EventsSpec,
    gateway::GatewaySpec,
    ingress::IngressSpec,
    pod_template::PodTemplate,
    status::OrdersServiceStatus,
    workload::{Autoscaling, DisruptionBudget, ImagePullPolicy, LocalSecret, Resources},
};

/// The desired state: the orders API and its pods, its database, and the routes to it and to the other services.
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
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "True when everything is in place"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.readyOfWanted", description = "Number of ready pods and of desired pods"),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.routes[0].host", description = "The first host name"),
    printcolumn(name = "Expired", type_ = "integer", json_path = ".status.expiry.expiredTotal", description = "Number of orders that the sweeper has moved to cancelled"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", description = "Image of the pods", priority = 1),
    printcolumn(name = "Window", type_ = "integer", json_path = ".spec.expiration.windowSeconds", description = "How long a reservation lasts, in seconds", priority = 1),
    printcolumn(name = "Events", type_ = "string", json_path = ".status.conditions[?(@.type==\"EventsFlowing\")].status", description = "True while events are published and consumed; empty without spec.events", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is not ready", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "Why it is not ready, and what to do", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 52")
        .message("metadata.name must be at most 52 characters: the names of the children are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name is also the name of a Service: it must begin with a letter and have only a-z, 0-9 and -, without a dot"),
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
    .message("replicas and autoscaling cannot be set together, since the autoscaler decides the number: remove replicas, or set it to null"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || !has(self.resources) || (has(self.resources.requests) && 'cpu' in self.resources.requests) || (has(self.resources.limits) && 'cpu' in self.resources.limits)")
    .message("autoscaling measures CPU in percent of what the pods request: set resources.requests.cpu"))]
#[x_kube(validation = Rule::new("!has(self.gateway) || !has(self.ingress) || !(has(self.gateway.path) || has(self.gateway.pathHosts) || has(self.gateway.routes) || has(self.gateway.client))")
    .message("with spec.ingress the Gateways serve its routes: remove path, pathHosts, routes and client from spec.gateway"))]
#[x_kube(validation = Rule::new("!has(self.ingress) || !has(self.ingress.routes) || self.ingress.routes.all(r, !has(r.hosts) || r.hosts.all(h, (has(self.ingress.hosts) && h in self.ingress.hosts) || (has(self.gateway) && has(self.gateway.hostnames) && h in self.gateway.hostnames)))")
    .message("a route names a host that is not in spec.ingress.hosts, nor in spec.gateway.hostnames: list it there, or remove it from the route's hosts"))]
#[x_kube(validation = Rule::new("!has(self.gateway) || !has(self.gateway.routes) || self.gateway.routes.all(r, !has(r.hosts) || r.hosts.all(h, has(self.gateway.hostnames) && h in self.gateway.hostnames))")
    .message("a route names a host that is not in spec.gateway.hostnames: list it there, or remove it from the route's hosts"))]
#[serde(rename_all = "camelCase")]
pub struct OrdersServiceSpec {
    /// Container image of the orders API. Default: the image that the controller itself runs. When that is a new one, the
    /// resources that name none get it a few at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the kubelet pulls the image: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Secrets with the credentials of the image's registry, in the namespace of this resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalSecret>,

    /// Number of pods of the orders API. Default: 2, or the number that an autoscaler has left behind. Must be set
    /// for an autoscaler of your own that scales this resource. Cannot be set together with autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// Scales the number of pods with their load, in place of replicas. Default: no HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// How many pods may be evicted at the same time, as when a node is drained. Default: 1 if the minimum number
    /// of pods is above 1, otherwise no PodDisruptionBudget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_disruption_budget: Option<DisruptionBudget>,

    /// Port of the container and of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new("self != 8081").message("port 8081 is the admin port of the pods (probes and metrics): choose another, such as 3000"))]
    pub port: i32,

    /// Name of a second Service for the pods, for callers in the cluster that use a former name of the orders API. An
    /// existing object of this name that the operator did not create is left unchanged. Default: only the Service
    /// with the name of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service_name: Option<String>,

    /// How long a terminating pod keeps accepting requests, in seconds, until load balancers no longer send it any.
    /// If above 0, up to 6 seconds are added while requests still arrive. The pod is killed 31 seconds after this
    /// time. Load balancers that send requests to pod IPs, such as those of AWS with IP targets, may need 30 to 120.
    /// Default: 5.
    #[serde(default = "defaults::drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,

    /// How sessions are verified.
    pub auth: Auth,

    /// Where the orders and tickets are stored.
    pub database: Database,

    /// When unpaid orders expire, and how fast they are cancelled.
    #[serde(default)]
    pub expiration: Expiration,

    /// The broker to which the events of orders are published, and from which those of tickets and payments are consumed.
    /// Default: no events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsSpec>,

    /// The Ingress for the orders API and for the other services behind the same hosts. Default: no Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,

    /// Gateways of the Gateway API that serve the same routes, in addition to the Ingress or in place of it.
    /// Default: no HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,

    /// Resource requests and limits of the pods. Default: requests of cpu 50m and memory 32Mi, and a limit of memory
    /// 128Mi. A value replaces the whole default.
    #[serde(default)]
    // Of these resources, and not of the other containers: before 1.34 an API server takes each amount for as long as a request
    // may be, and refuses a CRD whose rules could then take too long. The controller compares all of them.
    #[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || ['cpu', 'memory', 'ephemeral-storage'].all(r, !(r in self.requests) || !(r in self.limits) || quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)")
        .message("a request is above the limit of the same resource: raise resources.limits or lower resources.requests"))]
    pub resources: Resources,

    /// What to add to the pods: labels, annotations, environment variables, volumes, containers; and where they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,

    /// Whether to create a NetworkPolicy. It allows connections from anywhere to the port of the API, from pods of
    /// the cluster to the admin port (metrics), and no others. Default: true.
    #[serde(default = "defaults::network_policy")]
    pub network_policy: bool,

    /// The service mesh that the pods are in: IstioAmbient or Linkerd. The NetworkPolicy then lets its proxies through:
    /// port 15008 and the probes of Istio's ambient mode, port 4143 of Linkerd. Whom the mesh lets through is for
    /// its own policies to say. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Mesh>,

    /// Whether the controller leaves the children as they are and applies no changes. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// A service mesh whose proxies take connections in place of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Mesh {
    /// Istio in ambient mode. With sidecars Istio needs no rule.
    IstioAmbient,
    /// Linkerd.
    Linkerd,
}

/// How sessions are verified.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The Secret with the key that the auth service signs its JSON Web Tokens with (HS256).
    pub jwt_secret_ref: JwtSecretRef,
}

/// A key of a Secret whose value is the signing key of the sessions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSecretRef {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within the Secret. Default: JWT_KEY.
    #[serde(default = "defaults::jwt_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// When unpaid orders expire, and how fast they are cancelled.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiration {
    /// How long a reservation lasts, in seconds. Default: 900.
    #[serde(default = "defaults::window_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub window_seconds: i32,

    /// How much longer an order lasts once its payment has begun (awaiting:payment), in seconds. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub payment_grace_seconds: i32,

    /// Whether the sweeper skips this database. Overdue orders are cancelled once it is false again. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// Maximum number of orders that the sweeper cancels per second, to limit the load on the database. Default: no
    /// limit.
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
