//! The fields of `spec` about the pods: their number, resources, placement and environment.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, EnvVarSource, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults, schema};

/// Labels that the operator sets on the pods; the Deployment selects its pods by them.
pub const RESERVED_LABELS: [&str; 5] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
];

/// Annotation that the operator sets on the pods: a checksum of the Secrets that they read when they start, so a change
/// of a Secret rolls the Deployment.
pub const CHECKSUM_ANNOTATION: &str = "ticketing.dev/secrets-checksum";

/// Environment variables that the operator sets on the pods, from other fields of the spec.
pub const RESERVED_ENV: [&str; 20] = [
    "JWT_KEY",
    "MONGO_URI",
    "MONGO_DATABASE",
    "MONGO_TLS_CA_FILE",
    "MONGO_TLS_CERT_FILE",
    "MONGO_TLS_KEY_FILE",
    "EXPIRATION_WINDOW_SECONDS",
    "PAYMENT_GRACE_SECONDS",
    "PORT",
    "ADMIN_PORT",
    "DRAIN_SECONDS",
    "NATS_URL",
    "NATS_CA_FILE",
    "NATS_CLUSTER_ID",
    "NATS_CLIENT_ID",
    "NATS_STREAM",
    "NATS_DURABLE",
    "NATS_STREAM_REPLICAS",
    "NATS_STREAM_MAX_AGE_SECONDS",
    "NATS_SUBJECTS",
];

/// A HorizontalPodAutoscaler for the pods, by CPU.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("autoscaling.minReplicas is above maxReplicas: lower the one or raise the other"))]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Minimum number of pods. Default: 2.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,

    /// Maximum number of pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// Target CPU use of the pods, in percent of their request (spec.resources.requests.cpu). Default: 70.
    #[serde(default = "defaults::target_cpu_utilization", rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: i32,
}

/// A PodDisruptionBudget for the pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// Maximum number of pods that may be evicted at the same time, as a number or a percentage such as 25%. 0 blocks
    /// every drain of a node that runs a pod, 100% allows every eviction. Default: 1.
    #[serde(default = "defaults::max_unavailable")]
    #[schemars(schema_with = "schema::count_or_percent")]
    pub max_unavailable: IntOrString,
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { max_unavailable: defaults::max_unavailable() }
    }
}

/// Resource requests and limits of the pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(r, !(r in self.limits) || quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)")
    .message("a request is above the limit of the same resource: raise resources.limits or lower resources.requests"))]
pub struct Resources {
    /// What a node must have left to run a pod, by resource: cpu in cores (50m is a twentieth), memory in bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub requests: BTreeMap<String, Quantity>,

    /// Maximum use of a pod, by resource. A container that exceeds its memory limit is killed and restarted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Default for Resources {
    fn default() -> Self {
        let amounts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
        };
        Self {
            requests: amounts(&[("cpu", "50m"), ("memory", "32Mi")]),
            limits: amounts(&[("memory", "128Mi")]),
        }
    }
}

/// Labels, annotations and environment variables to add to the pods, and where the pods run.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Additional labels of the pods. Those that the operator sets itself are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/component', 'app.kubernetes.io/part-of', 'app.kubernetes.io/managed-by'])")
        .message("podTemplate.labels has a label that the operator sets itself (app.kubernetes.io/name, instance, component, part-of, managed-by): remove it"))]
    pub labels: BTreeMap<String, String>,

    /// Additional annotations of the pods. Those that the operator sets itself are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("!('ticketing.dev/secrets-checksum' in self)")
        .message("podTemplate.annotations has ticketing.dev/secrets-checksum, which the operator sets itself: remove it"))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<Toleration>>")]
    pub tolerations: Vec<Toleration>,

    /// Rules about the nodes that the pods run on, and about which pods they share them with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How the pods are spread. Default: evenly over the nodes, if possible. A constraint without a labelSelector
    /// applies to the pods of this OrdersService.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<TopologySpreadConstraint>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Name of the PriorityClass of the pods. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub priority_class_name: Option<String>,

    /// Name of the ServiceAccount that the pods run as, in the namespace of this resource. Its token is not mounted,
    /// but its image pull secrets and its workload identity are used. Default: one that the operator creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,

    /// Additional environment variables of the pods, such as LOG_LEVEL. Those that the operator sets itself are
    /// rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("!self.exists(e, e.name in ['JWT_KEY', 'MONGO_URI', 'MONGO_DATABASE', 'MONGO_TLS_CA_FILE', 'MONGO_TLS_CERT_FILE', 'MONGO_TLS_KEY_FILE', 'EXPIRATION_WINDOW_SECONDS', 'PAYMENT_GRACE_SECONDS', 'PORT', 'ADMIN_PORT', 'DRAIN_SECONDS', 'NATS_URL', 'NATS_CA_FILE', 'NATS_CLUSTER_ID', 'NATS_CLIENT_ID', 'NATS_STREAM', 'NATS_DURABLE', 'NATS_STREAM_REPLICAS', 'NATS_STREAM_MAX_AGE_SECONDS', 'NATS_SUBJECTS'])")
        .message("podTemplate.extraEnv has a variable that the operator sets itself, from spec.auth, database, events, expiration and port: use those fields"))]
    pub extra_env: Vec<ExtraEnv>,
}

/// An environment variable, with its value or the source of its value.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))")
    .message("a variable has either value or valueFrom: remove one"))]
#[serde(rename_all = "camelCase")]
pub struct ExtraEnv {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]*$"))]
    pub name: String,

    /// Value of the variable. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,

    /// Source of the value: a key of a Secret or ConfigMap in the namespace of this resource, or a field of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<EnvVarSource>")]
    pub value_from: Option<EnvVarSource>,
}
