//! Hosts, routes and Services, which `spec.ingress` and `spec.gateway` share.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults, schema};

/// A host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("maxLength" = 253, "minLength" = 1, "x-kubernetes-validations" = [{
    "rule": "self.matches('^(\\\\*\\\\.)?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\\\\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*\\\\.?$')",
    "message": "a host has letters, digits, hyphens and dots only, without scheme, port or path, such as ticketing.dev or *.ticketing.dev",
}, {
    "rule": "!self.matches('(^|\\\\.)([0-9]+|0[xX][0-9A-Fa-f]*)\\\\.?$')",
    "message": "a host must be a DNS name, not an IP address in any notation: its last label must not be a number",
}]))]
pub struct Host(pub String);

/// A path, and the Service that its requests go to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.path != '/' || has(self.hosts) || (has(self.exact) && self.exact)")
    .message("a route at / would match every request: set that Service as spec.ingress.client, which is always \
         the last rule; or set hosts, and it is the client of these hosts"))]
#[x_kube(validation = Rule::new("!(has(self.exact) && self.exact && has(self.stripPrefix) && self.stripPrefix)")
    .message("exact and stripPrefix cannot be set together: nothing would be left of an exact path"))]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// Path prefix, such as /api/payments. Regex forms such as /api/payments/?(.*) mean the same.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/payments"))]
    pub path: String,

    /// Whether the route matches only its path, and nothing below it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,

    /// Whether to strip the path from requests: for /api/payments/5 the Service gets /5. Works with Gateways, and
    /// with Ingresses of Traefik, whose CRDs must be installed; rejected for other ingress controllers, since an
    /// Ingress has no portable way to do it. If Traefik does not load the Middleware, as with its kubernetesCRD
    /// provider off, the Service gets the whole path. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,

    /// The hosts of this route, among those of the Ingress or the Gateways. A route with the path / is the client of
    /// these hosts. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub hosts: Vec<Host>,

    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service, by its number or, with an Ingress, by its name. Default: 3000.
    #[serde(default = "defaults::service_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: IntOrString,
}

/// A Service and its port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The hosts that have it as their client. Default: all of them, but for those that have a route with the path /.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub hosts: Vec<Host>,

    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service, by its number or, with an Ingress, by its name. Default: 3000.
    #[serde(default = "defaults::service_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: IntOrString,
}
