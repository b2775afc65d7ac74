//! `spec.ingress`: the hosts, the certificate and the routes of the Ingress.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults,
    routes::{Backend, Host, RouteSpec},
};

/// The Ingress for the orders API and for the other services behind the same hosts.
///
/// The rules are rendered in a canonical order with the client last, whatever their order here.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.routes) || self.routes.all(r, has(r.hosts) || self.routes.exists_one(o, !has(o.hosts) && o.path == r.path && (has(o.exact) && o.exact) == (has(r.exact) && r.exact)))")
    .message("two routes have the same path: each path can go to one service only"))]
#[x_kube(validation = Rule::new("!has(self.routes) || has(self.pathHosts) || !self.routes.exists(r, !has(r.hosts) && !(has(r.exact) && r.exact) && r.path == self.path)")
    .message("a route has the path of the orders API itself, which is spec.ingress.path (/api/orders unless it is set): remove the route, or set spec.ingress.path to another path"))]
#[x_kube(validation = Rule::new("!has(self.className) || !has(self.annotations) || !('kubernetes.io/ingress.class' in self.annotations)")
    .message("className and the annotation kubernetes.io/ingress.class are both set, which the API server refuses in an Ingress: remove the annotation"))]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// Host names of the system. All get the same routes, except for routes that set hosts of their own. Default:
    /// every host without rules of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(h, self.exists_one(o, o == h))").message("the same host is listed twice"))]
    pub hosts: Vec<Host>,

    /// Name of the IngressClass. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub class_name: Option<String>,

    /// Annotations of the Ingress, for its ingress controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    pub annotations: BTreeMap<String, String>,

    /// Certificate for all hosts. Default: none, for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTlsSpec>,

    /// Path of the orders API itself. Default: /api/orders.
    #[serde(default = "defaults::path")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/orders"))]
    pub path: String,

    /// The hosts at which path leads to the orders API. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub path_hosts: Vec<Host>,

    /// Routes to the other services behind the same hosts, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub routes: Vec<RouteSpec>,

    /// The Service of the web client, which gets every request that no route matches: always the last rule, at /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Backend>,
}

/// The certificate for the hosts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTlsSpec {
    /// Name of the Secret of type kubernetes.io/tls, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub secret_name: String,
}
