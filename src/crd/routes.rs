//! Hosts, routes and Services, which `spec.ingress` and `spec.gateway` share.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::defaults;

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

/// A path prefix, and the Service that its requests go to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Path prefix, such as /api/payments. Regex forms such as /api/payments/?(.*) mean the same.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /, such as /api/payments"))]
    #[x_kube(validation = Rule::new("self != '/'").message("a route at / would take every request: name that service in spec.ingress.client, which is always the last rule"))]
    pub path: String,

    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A Service and its port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Name of the Service, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Port of the Service. Default: 3000.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}
