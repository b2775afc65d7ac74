//! What Gateways report about an HTTPRoute.

use super::{
    httproute::{HTTPRoute, ParentReference},
    partial::Partial,
};
use crate::{controller::problem::Problem, crd::Reason};

/// Why Gateways do not serve the route, one problem for each that does not.
pub fn problems(route: &Partial<HTTPRoute>) -> Vec<Problem> {
    route.spec.parent_refs.iter().filter_map(|parent| problem(route, parent)).collect()
}

fn problem(route: &Partial<HTTPRoute>, parent: &ParentReference) -> Option<Problem> {
    let gateway = parent.gateway.as_ref()?;
    let namespace = gateway.namespace.as_deref().unwrap_or_default();
    let section =
        gateway.section_name.as_ref().map(|name| format!(" (listener {name:?})")).unwrap_or_default();
    let described = format!("Gateway {namespace}/{}{section}", gateway.name);
    let name = route.metadata.name.as_deref().unwrap_or_default();
    let is_parent = |of: &ParentReference| {
        let own_namespace = route.metadata.namespace.as_ref();
        of.gateway.as_ref().is_some_and(|of| {
            (&of.name, of.namespace.as_ref().or(own_namespace), &of.section_name)
                == (&gateway.name, gateway.namespace.as_ref(), &gateway.section_name)
        })
    };
    let reported = || {
        let of_parent = route.status.parents.iter().filter(|status| is_parent(&status.parent_ref));
        of_parent.flat_map(|status| &status.conditions)
    };
    for (kind, reason, refusal) in [
        ("Accepted", Reason::RouteNotAccepted, "does not accept"),
        ("ResolvedRefs", Reason::BackendsNotResolved, "cannot resolve the backends of"),
    ] {
        // A condition about an earlier generation says nothing about this one.
        let mut current = reported()
            .filter(|condition| {
                condition.type_ == kind
                    && condition.observed_generation.is_none_or(|of| Some(of) >= route.metadata.generation)
            })
            .peekable();
        if current.peek().is_none() {
            let message = format!(
                "{described} has not said yet whether it serves HTTPRoute {name:?}: if this persists, check that \
                 the Gateway exists and that a controller for its class is running"
            );
            return Some(Problem::new(Reason::GatewayPending, message));
        }
        if let Some(condition) = current.find(|condition| condition.status != "True") {
            // Not every controller has more to say than a reason.
            let words = [condition.reason.as_str(), condition.message.trim()];
            let why = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": ");
            return Some(Problem::new(reason, format!("{described} {refusal} HTTPRoute {name:?}: {why}")));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reasons(parents: Value) -> Vec<&'static str> {
        found(parents).into_iter().map(|problem| problem.reason.as_str()).collect()
    }

    fn found(parents: Value) -> Vec<Problem> {
        let route: Partial<HTTPRoute> = serde_json::from_value(json!({
            "metadata": {"name": "orders", "namespace": "shop", "generation": 2},
            "spec": {"parentRefs": [{"group": "g", "kind": "Gateway", "name": "public", "namespace": "shop"}]},
            "status": {"parents": parents}
        }))
        .unwrap();
        problems(&route)
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
    fn every_gateway_must_accept_the_current_route_and_resolve_its_backends() {
        let good = [("Accepted", "True", 2), ("ResolvedRefs", "True", 2)];
        assert_eq!(reasons(json!([parent("public", &good)])), [""; 0]);
        assert_eq!(reasons(json!([])), ["GatewayPending"]);
        assert_eq!(reasons(json!([parent("other", &good)])), ["GatewayPending"]);
        assert_eq!(reasons(json!([parent("public", &[("Accepted", "True", 1)])])), ["GatewayPending"]);
        let refused = [("Accepted", "False", 2), ("ResolvedRefs", "True", 2)];
        assert_eq!(reasons(json!([parent("public", &refused)])), ["RouteNotAccepted"]);
        let mut silent = parent("public", &refused);
        silent["conditions"][0]["message"] = json!("");
        let message = found(json!([silent])).remove(0).message;
        assert!(message.ends_with("does not accept HTTPRoute \"orders\": R"), "{message}");
        let lost = [("Accepted", "True", 2), ("ResolvedRefs", "False", 3)];
        assert_eq!(reasons(json!([parent("public", &lost)])), ["BackendsNotResolved"]);
    }
}
