//! The HTTPRoute of the Gateway API, as far as the controller writes and reads it. The types have the names that they
//! have in the Gateway API's own Go package.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};
use serde_json::json;

use crate::crd::ParentRef;

/// The most rules that one HTTPRoute may have.
pub const MAX_RULES: usize = 16;

/// Rules for some host names at some Gateways.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    status = "HTTPRouteStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteSpec {
    /// The Gateways.
    pub parent_refs: Vec<ParentReference>,
    /// The host names; none for every host of the Gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// The rules.
    pub rules: Vec<HTTPRouteRule>,
}

/// A Gateway, with the defaults that the API server would fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// API group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name, namespace and listener.
    #[serde(flatten)]
    pub gateway: Option<ParentRef>,
}

/// Requests that match go to the backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteRule {
    /// A request matches the rule if it matches any of these.
    pub matches: Vec<HTTPRouteMatch>,
    /// What is changed in a request before it is sent on. Those of others are not read.
    #[serde(skip_serializing_if = "Vec::is_empty", skip_deserializing)]
    pub filters: Vec<StripPrefix>,
    /// The backends.
    pub backend_refs: Vec<HTTPBackendRef>,
}

/// What a request must be like. Of the routes of others it must be known whether they depend on more than the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteMatch {
    /// Its path.
    pub path: HTTPPathMatch,
    /// Its headers. We write none.
    #[serde(skip_serializing)]
    pub headers: Vec<IgnoredAny>,
    /// The parameters of its query. We write none.
    #[serde(skip_serializing)]
    pub query_params: Vec<IgnoredAny>,
    /// Its method. We write none.
    #[serde(skip_serializing)]
    pub method: Option<IgnoredAny>,
}

/// What a path must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPPathMatch {
    /// How the value is compared, such as `PathPrefix`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The value.
    pub value: String,
}

/// Takes the path of a prefix off, as a filter of type `URLRewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripPrefix;

impl Serialize for StripPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"});
        json!({"type": "URLRewrite", "urlRewrite": {"path": path}}).serialize(serializer)
    }
}

/// A Service, with the defaults that the API server would fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPBackendRef {
    /// API group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
    /// Its share of the requests.
    pub weight: i32,
}

/// What Gateways report about an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPRouteStatus {
    /// By Gateway, and by the controller that manages it.
    pub parents: Vec<RouteParentStatus>,
}

/// What one Gateway reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The Gateway.
    pub parent_ref: ParentReference,
    /// Whether it accepts the rules, and whether it resolved their backends.
    pub conditions: Vec<Condition>,
}
