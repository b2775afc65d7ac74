//! `status`: what the controller answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{KubeSchema, Resource};
use serde::{Deserialize, Serialize};

use super::OrdersService;

/// What was observed of an OrdersService, and of the children made for it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrdersServiceStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pods that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// Pods that are ready, of those that are wanted, such as 2/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_of_wanted: Option<String>,

    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Where the orders API is reached from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The routes as rendered, in rendered order: the answer to "why does this path go there?".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RenderedRoute>,

    /// A hash of the children as they were applied last, and of which of their fields are the controller's: one that
    /// begins anew finds by it that there is nothing to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,

    /// How the expiry of unpaid orders goes; written by the sweeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpiryStatus>,

    /// The state of this resource, by type; see the documentation for each type's reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How the expiry of unpaid orders goes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpiryStatus {
    /// When the sweeper wrote this: once a minute at most, and only when one of the others changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sweep_time: Option<Time>,
    /// Seconds by which the oldest order was overdue that was not yet cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_overdue_seconds: Option<i64>,
    /// Orders that the sweeper has moved to cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_total: Option<i64>,
}

/// One rule of the Ingress.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedRoute {
    /// Host name.
    pub host: String,
    /// Canonical path prefix.
    pub path: String,
    /// Service and port that requests go to, such as payments-srv:3000.
    pub service: String,
    /// True for the web client's rule, which is the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client: bool,
}

/// A server-side apply of `status`, or of a part of it, to `service` and to no namesake: were it
/// replaced meanwhile, the status is not the new one's.
pub fn status_patch(service: &OrdersService, status: &impl Serialize) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": OrdersService::api_version(&()),
        "kind": OrdersService::kind(&()),
        "metadata": {"uid": service.metadata.uid},
        "status": status,
    })
}
