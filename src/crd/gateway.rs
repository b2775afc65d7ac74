//! `spec.gateway`: the same routes at a Gateway of the Gateway API.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::routes::{Backend, Host, RouteSpec};

/// Gateways that serve the routes, by an HTTPRoute.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.routes) || self.routes.all(r, has(r.hosts) || self.routes.exists_one(o, !has(o.hosts) && o.path == r.path && (has(o.exact) && o.exact) == (has(r.exact) && r.exact)))")
    .message("two routes have the same path: each path can go to one service only"))]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The Gateways, or single listeners of them, that the HTTPRoute attaches to.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,

    /// Host names of the system. All get the same routes, except for routes that set hosts of their own. Default:
    /// every host without rules of its own that a listener of the Gateways serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(h, self.exists_one(o, o == h))").message("the same hostname is listed twice"))]
    pub hostnames: Vec<Host>,

    /// Path of the orders API itself. Only without spec.ingress, whose path is used otherwise. Default: /api/orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/orders"))]
    pub path: Option<String>,

    /// The hosts at which path leads to the orders API. Only without spec.ingress, whose pathHosts are used otherwise.
    /// Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub path_hosts: Vec<Host>,

    /// Routes to the other services behind the same host names, in any order. Only without spec.ingress, whose
    /// routes are used otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub routes: Vec<RouteSpec>,

    /// The Service of the web client, which gets every request that no route matches. Only without spec.ingress, whose
    /// client is used otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Backend>,
}

/// A Gateway, or one of its listeners.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the Gateway.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,

    /// Namespace of the Gateway. Default: the namespace of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,

    /// Name of one listener of the Gateway. Default: every listener that accepts the host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub section_name: Option<String>,
}
