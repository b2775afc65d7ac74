//! The fields of `spec` about the pods: their number, their image, what they may take and their environment.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::EnvVarSource,
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults, schema};

/// A HorizontalPodAutoscaler for the pods, by CPU.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("autoscaling.minReplicas is above maxReplicas: lower minReplicas or raise maxReplicas"))]
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

/// Resource requests and limits of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Resources {
    /// Resources that must be free on a node to run a pod: cpu in cores (50m is a twentieth), memory in bytes.
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

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ImagePullPolicy {
    /// Every time a container starts.
    Always,
    /// When the node does not have the image.
    #[default]
    IfNotPresent,
    /// Never: the node must have the image.
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
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}
