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
    "message": "a host is a DNS name, not an IP address in any of its spellings: its last label is not a number",
}]))]
pub struct Host(pub String);

/// A path, and the Service that its requests go to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.path != '/' || has(self.hosts) || (has(self.exact) && self.exact)")
    .message("a route at / would take every request: name that service in spec.ingress.client, which is always the last rule; or write hosts, and it is the client of these"))]
#[x_kube(validation = Rule::new("!(has(self.exact) && self.exact && has(self.stripPrefix) && self.stripPrefix)")
    .message("exact and stripPrefix cannot be set together: a path alone has nothing below it that would be left"))]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// Path prefix, such as /api/payments. Regex forms such as /api/payments/?(.*) mean the same.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/payments"))]
    pub path: String,

    /// Whether the route takes its path alone, and nothing below it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,

    /// Whether the Service gets requests without the path: of /api/payments/5 it gets /5. At Gateways, and with an
    /// Ingress of Traefik, whose CRDs must be there; other ingress controllers are refused, since an Ingress has no such
    /// thing that all of them understand. As long as Traefik does not know the Middleware, as with its provider
    /// kubernetesCRD off, which nothing in the cluster shows, the Service gets the whole path. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,

    /// The hosts that have this route, of those of the Ingress or of the Gateways. One with the path / is the client of
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
