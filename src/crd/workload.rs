//! `spec`, of the pods: how many, how large, where they run, and who may reach them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, EnvVarSource, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Labels of the pods that the operator sets itself: the Deployment selects its pods by them.
pub const RESERVED_LABELS: [&str; 5] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
];

/// Annotation of the pods that the operator sets itself. Changing it rolls them; it changes with the
/// Secrets that they read at start.
pub const CHECKSUM_ANNOTATION: &str = "ticketing.dev/secrets-checksum";

/// Environment variables of the pods that the operator sets itself, from other fields of the spec.
pub const RESERVED_ENV: [&str; 8] = [
    "JWT_KEY",
    "MONGO_URI",
    "MONGO_DATABASE",
    "EXPIRATION_WINDOW_SECONDS",
    "PAYMENT_GRACE_SECONDS",
    "PORT",
    "ADMIN_PORT",
    "DRAIN_SECONDS",
];

/// How many pods there are, decided by their load: a HorizontalPodAutoscaler.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("autoscaling.minReplicas is above maxReplicas: lower the one or raise the other"))]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// The fewest pods. Default: 2.
    #[serde(default = "super::spec::defaults::replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,

    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// CPU use that the number of pods is chosen for, in percent of what the pods request
    /// (spec.resources.requests.cpu). Default: 70.
    #[serde(default = "default_cpu", rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: i32,
}

fn default_cpu() -> i32 {
    70
}

/// How many pods a drained node may take away at the same time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// The most pods that may be away at the same time, as a number or in percent such as 25%. 0 stops every
    /// drain of a node that runs one, 100% permits everything. Default: 1.
    #[serde(default = "default_unavailable")]
    #[schemars(schema_with = "schema::count_or_percent")]
    pub max_unavailable: IntOrString,
}

fn default_unavailable() -> IntOrString {
    IntOrString::Int(1)
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { max_unavailable: default_unavailable() }
    }
}

/// What a pod asks of its node, and the most that it may take.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(r, !(r in self.limits) || quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)")
    .message("a request is above the limit of the same resource: raise resources.limits or lower resources.requests"))]
pub struct Resources {
    /// What a node must have left for a pod, by resource: cpu in cores (50m is a twentieth), memory in bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub requests: BTreeMap<String, Quantity>,

    /// The most that a pod may use, by resource. A pod over its memory limit is killed and started again.
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

/// What else the pods get, and where they run.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Further labels of the pods; not those that the operator sets itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/component', 'app.kubernetes.io/part-of', 'app.kubernetes.io/managed-by'])")
        .message("podTemplate.labels has a label that the operator sets itself (app.kubernetes.io/name, instance, component, part-of, managed-by): remove it"))]
    pub labels: BTreeMap<String, String>,

    /// Further annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("!('ticketing.dev/secrets-checksum' in self)")
        .message("podTemplate.annotations has ticketing.dev/secrets-checksum, which the operator sets itself: remove it"))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run a pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<Toleration>>")]
    pub tolerations: Vec<Toleration>,

    /// Nodes and pods that the pods should be near to, or away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How the pods are spread. Default: evenly over the nodes, where that is possible. A constraint without a
    /// labelSelector is about the pods of this OrdersService.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<TopologySpreadConstraint>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Name of the PriorityClass of the pods. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Name of a ServiceAccount of this namespace that the pods run as; its token is not mounted, but its image
    /// pull secrets and its workload identity hold. Default: one that the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Further environment variables of the pods, such as LOG_LEVEL; not those that the operator sets itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("!self.exists(e, e.name in ['JWT_KEY', 'MONGO_URI', 'MONGO_DATABASE', 'EXPIRATION_WINDOW_SECONDS', 'PAYMENT_GRACE_SECONDS', 'PORT', 'ADMIN_PORT', 'DRAIN_SECONDS'])")
        .message("podTemplate.extraEnv has a variable that the operator sets itself, from spec.auth, database, expiration and port: use those fields"))]
    pub extra_env: Vec<ExtraEnv>,
}

/// One environment variable: a value, or where it comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))")
    .message("a variable has either value or valueFrom: remove one"))]
#[serde(rename_all = "camelCase")]
pub struct ExtraEnv {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]*$"))]
    pub name: String,

    /// Its value. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,

    /// Where its value comes from: a key of a Secret or ConfigMap of this namespace, or a field of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<EnvVarSource>")]
    pub value_from: Option<EnvVarSource>,
}
