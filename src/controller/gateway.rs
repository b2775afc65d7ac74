//! The Gateway API: its HTTPRoute, as far as we write and read it, and whether it is served at all.

use std::{sync::Arc, time::Duration};

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    partial::Partial,
    problem::{CallError, Cluster, Problem},
};
use crate::crd::{ParentRef, Reason};

/// Group and version of the HTTPRoute.
const GROUP_VERSION: &str = "gateway.networking.k8s.io/v1";

/// How long until it is looked again whether it is served, while someone waits for that.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The most rules that one HTTPRoute may have.
pub const MOST_RULES: usize = 16;

/// The most HTTPRoutes of one resource: 64 routes, its own path and the client.
pub const MOST_ROUTES: usize = 66_usize.div_ceil(MOST_RULES);

/// Rules for some host names at some Gateways.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    status = "RouteStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteSpec {
    /// The Gateways.
    pub parent_refs: Vec<RouteParent>,
    /// The host names.
    pub hostnames: Vec<String>,
    /// The rules.
    pub rules: Vec<RouteRule>,
}

/// A Gateway, with what the API server would fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParent {
    /// API group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Which it is.
    #[serde(flatten)]
    pub gateway: Option<ParentRef>,
}

/// Requests that match go to the backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// Any of them.
    pub matches: Vec<RouteMatch>,
    /// The backends.
    pub backend_refs: Vec<BackendRef>,
}

/// What a request must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteMatch {
    /// Its path.
    pub path: PathMatch,
}

/// What a path must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathMatch {
    /// Such as PathPrefix.
    #[serde(rename = "type")]
    pub type_: String,
    /// The prefix.
    pub value: String,
}

/// A Service, with what the API server would fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// API group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
    /// Its part of the requests.
    pub weight: i32,
}

/// What the Gateways say of the rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// By Gateway, and by the controller that answers for it.
    pub parents: Vec<ParentStatus>,
}

/// What one Gateway says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// Which it is.
    pub parent_ref: RouteParent,
    /// Whether it accepts the rules, and finds their backends.
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
}

/// Of each Gateway, why it does not serve the route; nothing, when all do.
pub fn answers(route: &Partial<HTTPRoute>) -> Vec<Problem> {
    route.spec.parent_refs.iter().filter_map(|parent| answer(route, parent)).collect()
}

fn answer(route: &Partial<HTTPRoute>, parent: &RouteParent) -> Option<Problem> {
    let gateway = parent.gateway.as_ref()?;
    let namespace = gateway.namespace.as_deref().unwrap_or_default();
    let section =
        gateway.section_name.as_ref().map(|name| format!(" (listener {name:?})")).unwrap_or_default();
    let whose = format!("Gateway {namespace}/{}{section}", gateway.name);
    let name = route.metadata.name.as_deref().unwrap_or_default();
    let is_asked = |of: &RouteParent| {
        let own = route.metadata.namespace.as_ref();
        of.gateway.as_ref().is_some_and(|of| {
            (&of.name, of.namespace.as_ref().or(own), &of.section_name)
                == (&gateway.name, gateway.namespace.as_ref(), &gateway.section_name)
        })
    };
    let answered = || route.status.parents.iter().filter(|status| is_asked(&status.parent_ref));
    let conditions = || answered().flat_map(|of| &of.conditions);
    for (kind, reason, refusal) in [
        ("Accepted", Reason::RouteNotAccepted, "does not accept"),
        ("ResolvedRefs", Reason::BackendsNotResolved, "cannot resolve the backends of"),
    ] {
        // What it says of an older generation is no answer.
        let current = conditions().filter(|condition| {
            condition.type_ == kind
                && condition.observed_generation.is_none_or(|of| Some(of) >= route.metadata.generation)
        });
        let mut known = false;
        for condition in current {
            known = true;
            if condition.status != "True" {
                let why = format!("{}: {}", condition.reason, condition.message);
                return Some(Problem::new(reason, format!("{whose} {refusal} HTTPRoute {name:?}: {why}")));
            }
        }
        if !known {
            let message = format!(
                "{whose} has not said yet whether it serves HTTPRoute {name:?}: if that lasts, look whether the Gateway \
                 is there, and a controller for its class"
            );
            return Some(Problem::new(Reason::GatewayPending, message));
        }
    }
    None
}

/// Whether the API server serves HTTPRoutes. Clones share one state.
#[derive(Clone)]
pub struct Gateways(Arc<watch::Sender<bool>>);

impl Default for Gateways {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gateways {
    /// Whether HTTPRoutes can be written and watched.
    pub fn are_served(&self) -> bool {
        *self.0.borrow()
    }

    /// The API server does not know HTTPRoutes any more.
    pub fn lost(&self) {
        self.0.send_replace(false);
    }

    /// Waits until they are served, or are not.
    pub async fn until(&self, served: bool) {
        // The sender lives as long as we do.
        drop(self.0.subscribe().wait_for(|now| *now == served).await);
    }

    /// Looks whether they are served: at the start, and as long as they are not while they are `wanted`.
    /// Tells when that `changed`.
    pub async fn follow(&self, cluster: &Cluster, wanted: impl Fn() -> bool, changed: impl Fn()) {
        let mut is_first = true;
        loop {
            if std::mem::take(&mut is_first) || wanted() {
                match look(cluster).await {
                    Ok(true) => {
                        self.0.send_replace(true);
                        changed();
                        self.until(false).await;
                        changed();
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot look whether HTTPRoutes are served");
                        is_first = true;
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

async fn look(cluster: &Cluster) -> Result<bool, CallError> {
    let resources = cluster.client.list_api_group_resources(GROUP_VERSION);
    match cluster.read("APIResourceList", "get", resources).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == "HTTPRoute")),
        Err(CallError::Refused { code: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reasons(parents: Value) -> Vec<&'static str> {
        let route: Partial<HTTPRoute> = serde_json::from_value(json!({
            "metadata": {"name": "orders", "namespace": "shop", "generation": 2},
            "spec": {"parentRefs": [{"group": "g", "kind": "Gateway", "name": "public", "namespace": "shop"}]},
            "status": {"parents": parents}
        }))
        .unwrap();
        answers(&route).into_iter().map(|problem| problem.reason.as_str()).collect()
    }

    fn parent(name: &str, conditions: &[(&str, &str, i64)]) -> Value {
        let condition = |(kind, status, generation): &(&str, &str, i64)| {
            json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": generation,
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        json!({"parentRef": {"name": name}, "controllerName": "c", "conditions": conditions})
    }

    #[test]
    fn every_gateway_must_accept_the_route_of_today_and_find_its_backends() {
        let good = [("Accepted", "True", 2), ("ResolvedRefs", "True", 2)];
        assert_eq!(reasons(json!([parent("public", &good)])), [""; 0]);
        assert_eq!(reasons(json!([])), ["GatewayPending"]);
        assert_eq!(reasons(json!([parent("other", &good)])), ["GatewayPending"]);
        assert_eq!(reasons(json!([parent("public", &[("Accepted", "True", 1)])])), ["GatewayPending"]);
        let refused = [("Accepted", "False", 2), ("ResolvedRefs", "True", 2)];
        assert_eq!(reasons(json!([parent("public", &refused)])), ["RouteNotAccepted"]);
        let lost = [("Accepted", "True", 2), ("ResolvedRefs", "False", 3)];
        assert_eq!(reasons(json!([parent("public", &lost)])), ["BackendsNotResolved"]);
    }
}
