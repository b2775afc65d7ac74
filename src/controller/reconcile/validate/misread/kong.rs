//! What Kong's router `expressions` hides: its controller makes one route of all paths that a Service has on a host, and the
//! longest of them is the priority of all.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    controller::claims::requested::RequestedRoutes,
    routing::{Backend, PathMatch, Route, RouteTable},
};

/// What to say of the routes that a Service with a longer path takes by a shorter one.
pub(super) fn hidden(requested: &RequestedRoutes) -> Option<String> {
    let hidden: BTreeSet<_> = requested.hosts.iter().flat_map(|of| of_host(&of.routes)).collect();
    let hidden: Vec<_> = hidden.into_iter().collect();
    (!hidden.is_empty()).then(|| {
        format!(
            "Kong's \"expressions\" router gives all paths of a Service on a host the priority of the longest, so \
             these never match there: {}. Give the longest path of that Service to a second Service, which may \
             select the same pods, or have Kong use its traditional_compatible router",
            hidden.join(", ")
        )
    })
}

fn of_host(table: &RouteTable) -> Vec<String> {
    let mut priorities = BTreeMap::<String, usize>::new();
    for route in table.iter() {
        let of_service = priorities.entry(route.backend.to_string()).or_default();
        *of_service = (*of_service).max(length(&route.path));
    }
    let priority = |backend: &Backend| priorities.get(&backend.to_string());
    let hides = |other: &Route, route: &Route| {
        let is_shorter = other.path.path() != route.path.path() && other.path.takes(route.path.as_str());
        is_shorter && other.backend != route.backend && priority(&other.backend) >= priority(&route.backend)
    };
    let by = |route: &Route| table.iter().find(|other| hides(other, route));
    table.iter().filter_map(|route| Some(format!("{} by {}", route.path, by(route)?.backend))).collect()
}

/// The length as the controller counts it: a prefix is compared with a slash at its end.
fn length(path: &PathMatch) -> usize {
    path.as_str().len() + usize::from(!path.is_exact() && !path.is_root())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::{claims::requested::requested, fixture::service};

    #[test]
    fn routes_that_a_service_takes_by_its_shorter_path_are_told() {
        let said = |routes: serde_json::Value| {
            let object = service(json!({"ingress": {"routes": routes}}));
            hidden(&requested(&object).unwrap().unwrap())
        };
        // The client of the fixture, at /, has a longer path than the others.
        let told = said(json!([
            {"path": "/static/images/large", "service": "client-srv"}, {"path": "/ws", "service": "s"},
            {"path": "/static/images/large/of-all", "service": "t"},
        ]));
        let told = told.unwrap();
        assert!(
            told.contains("never match there: /api/orders by client-srv:3000, /ws by client-srv:3000. Give"),
            "{told}"
        );
        assert_eq!(said(json!([{"path": "/a", "service": "s"}, {"path": "/a/b", "service": "t"}])), None);
    }
}
