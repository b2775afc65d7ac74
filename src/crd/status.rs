//! `status`: what the controller and the sweeper report.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The observed state of an OrdersService and its children.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrdersServiceStatus {
    /// The generation of the spec that this status is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// Number of pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// Number of ready pods and of desired pods, such as 2/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_of_wanted: Option<String>,

    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// URL of the orders API from outside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The routes as rendered, in rendered order: they show which Service a path goes to, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RenderedRoute>,

    /// Image of the pods as last applied. A resource whose spec names none keeps it when the operator has a new one, until
    /// it is its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// The rollout of the operator's new image to the pods, from its start until its outcome is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,

    /// Hash of the Deployment as last applied, and of what it was made from. While the resource keeps its image, a
    /// Deployment that still has this hash is left as it is, even if a new operator would make another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,

    /// Hash of the children as last applied, and of the fields that the controller manages. A controller that has
    /// just started compares it and skips the apply when nothing has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,

    /// The operator that wrote this status: the namespace and name of the Lease by which it leads, or else its host
    /// name. If two operators write to one resource, this tells which was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,

    /// Progress of the expiry of unpaid orders; written by the sweeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpiryStatus>,

    /// The conditions of this resource; docs/conditions.md explains each type and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A move of the pods to the operator's new image. It is noted before the Deployment is changed, so that a controller that
/// takes over goes on where another has ended.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// The operator's image.
    pub image: String,
    /// The image before.
    pub previous_image: String,
    /// When it started.
    pub since: Time,
    /// Conditions about the pods that were not true before, and so do not count against the new image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untrue_before: Vec<String>,
}

/// Progress of the expiry of unpaid orders.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpiryStatus {
    /// When the sweeper last updated these fields: at most once a minute, and only when another of them changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sweep_time: Option<Time>,
    /// By how many seconds the oldest order that was not yet cancelled was overdue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_overdue_seconds: Option<i64>,
    /// Number of orders that the sweeper has cancelled. A lower bound: orders are not counted if the reply to their
    /// write was lost, or the sweeper was stopped before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_total: Option<i64>,
}

/// One rendered route.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedRoute {
    /// Host name; * for every host.
    pub host: String,
    /// Canonical path: a prefix, unless exact is true.
    pub path: String,
    /// Service and port that requests go to, such as payments-srv:3000.
    pub service: String,
    /// True where the path alone is taken, and nothing below it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// True where the Service gets requests without the path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// True for the web client's rule, which is the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client: bool,
}
