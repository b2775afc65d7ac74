//! The Middleware of Traefik, as far as the controller writes it. The types have the names that they have in Traefik's own
//! Go package.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What is changed in a request before it is sent on.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "traefik.io",
    version = "v1alpha1",
    kind = "Middleware",
    plural = "middlewares",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MiddlewareSpec {
    /// Takes a prefix off. Without its deprecated `forceSlash`, of the prefix alone `/` is left.
    pub strip_prefix: StripPrefix,
}

/// The prefixes, of which the first that a path begins with is taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StripPrefix {
    /// The prefixes. We write one.
    pub prefixes: Vec<String>,
}
