//! The routes that the ingress controller of the class reads in another way than they are meant. All are rendered.
//! docs/ingress.md says of each whether it is told.
//!
//! ```text
//! kong  what Kong's routers put before others
//! ```

mod kong;

use std::collections::BTreeMap;

use crate::{
    controller::{
        claims::{
            controllers::IngressController,
            path_annotations::{PathEffect, path_effect},
            requested::RequestedRoutes,
        },
        problem::Problem,
        reconcile::dereference::Dereferenced,
    },
    crd::{IngressSpec, Reason},
    routing::{CanonicalHost, CanonicalPath, PathMatch, Route, RouteTable},
};

/// What to say of each.
pub(super) fn warnings(
    requested: &RequestedRoutes,
    ingress: Option<&IngressSpec>,
    found: &Dereferenced,
) -> Vec<Problem> {
    let of_paths = match found.controller {
        Some(IngressController::IngressNginx) => vec![odd_characters(requested, ingress)],
        Some(IngressController::Traefik) => vec![hidden(requested), escapes("Traefik", requested, ingress)],
        Some(IngressController::Kong) => vec![
            twofold("Kong does not put", requested),
            kong::hidden(requested),
            escapes("Kong", requested, ingress),
        ],
        Some(IngressController::Gce) => vec![twofold("Google's load balancer does not put", requested)],
        Some(IngressController::Other) | None => Vec::new(),
    };
    let of_all = [ingress.and_then(rewritten), regexes(requested, found)];
    let told = of_all.into_iter().chain(of_paths).flatten();
    told.map(|text| Problem::new(Reason::RouteMisread, text)).collect()
}

/// The annotations by which some Services get another path than the one that is requested.
fn rewritten(ingress: &IngressSpec) -> Option<String> {
    let rewrites =
        |(name, value): &(&String, &String)| path_effect(name, value) == Some(PathEffect::RewritesSome);
    let named: Vec<_> = ingress
        .annotations
        .iter()
        .filter(rewrites)
        .map(|(name, value)| format!("{name:?}: {value:?}"))
        .collect();
    (!named.is_empty()).then(|| {
        format!(
            "spec.ingress.annotations has {}, with which ingress controllers rewrite the path for some Services: \
             check that this is intended and does not include the orders API, which serves only its own path",
            named.join(" and ")
        )
    })
}

/// The hosts of which ingress-nginx reads every path as a regex, because another object says so of its own.
fn regexes(requested: &RequestedRoutes, found: &Dereferenced) -> Option<String> {
    if !IngressController::may_switch_to_regexes(found.controller) {
        return None;
    }
    let mut hosts = BTreeMap::new();
    for site in requested.sites() {
        let other = found.verdicts.get(&site).and_then(|verdict| verdict.regexes.as_ref());
        hosts.extend(other.map(|other| (site.host, other.to_string())));
    }
    (!hosts.is_empty()).then(|| made_regexes(&hosts))
}

/// What it means that these objects make regexes of all paths of these hosts.
pub fn made_regexes(hosts: &BTreeMap<CanonicalHost, String>) -> String {
    let all: Vec<_> = hosts.iter().map(|(host, other)| format!("{host} by {other}")).collect();
    format!(
        "ingress-nginx reads every path of a host as a regex if any Ingress for that host has the annotation \
         use-regex or rewrite-target: {}. A route /ws then also matches /wsx and /WS. Move the routes of that \
         Ingress here and delete it; or change its paths to plain prefixes, and then remove the annotation; or \
         give one of the two another host",
        all.join(", ")
    )
}

/// The paths for which ingress-nginx may refuse the Ingress.
fn odd_characters(requested: &RequestedRoutes, ingress: Option<&IngressSpec>) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
    let odd = paths_with(requested, |path| !path.bytes().all(is_plain));
    let first_odd = |path: &str| path.chars().find(|character| !u8::try_from(*character).is_ok_and(is_plain));
    let told: Vec<_> = odd
        .iter()
        .map(|path| {
            let with = match first_odd(path) {
                Some('.') | None => "a dot".to_owned(),
                Some(other) => format!("the character {other:?}"),
            };
            format!("{} {path:?} has {with}", field_of(path, ingress))
        })
        .collect();
    let only_dots = odd.iter().all(|path| path.bytes().all(|byte| is_plain(byte) || byte == b'.'));
    let (what, advice) = if only_dots {
        (
            "ingress-nginx rejects a whole Ingress from version 1.12 until its releases of autumn 2025",
            "If yours does, have it updated, or use another path",
        )
    } else {
        (
            "ingress-nginx, from version 1.12 on, rejects a whole Ingress if a path has characters other than \
             letters, digits, -, _, / and, since its releases of autumn 2025, dots",
            "Use another path",
        )
    };
    (!odd.is_empty()).then(|| format!("{}, for which {what}. {advice}", told.join("; ")))
}

/// The field in which a path is.
fn field_of(path: &str, ingress: Option<&IngressSpec>) -> String {
    let is_it = |text: &str| CanonicalPath::parse(text).is_ok_and(|canonical| canonical.as_str() == path);
    let Some(ingress) = ingress else { return "the path".into() };
    match ingress.routes.iter().position(|route| is_it(&route.path)) {
        Some(at) => format!("spec.ingress.routes[{at}].path"),
        None => "spec.ingress.path".into(),
    }
}

/// The exact paths before which Traefik puts a prefix, since it compares the length of whole rules: `PathPrefix` has six
/// characters more than `Path`.
fn hidden(requested: &RequestedRoutes) -> Option<String> {
    let of_table = |table: &RouteTable| -> Vec<String> {
        let exact = table.iter().filter(|route| route.path.is_exact());
        let hiding = |exact: &PathMatch| {
            let others = table
                .iter()
                .filter(|other| !other.path.is_exact() && exact.as_str().starts_with(other.path.as_str()));
            others
                .map(|other| other.path.as_str())
                .find(|prefix| prefix.len() + 6 >= exact.as_str().len())
                .map(str::to_owned)
        };
        exact.filter_map(|route| Some(format!("{} by {}", route.path, hiding(&route.path)?))).collect()
    };
    let hidden: Vec<_> = requested.hosts.iter().flat_map(|of| of_table(&of.routes)).collect();
    let hidden = distinct(hidden.iter().map(String::as_str));
    (!hidden.is_empty()).then(|| {
        format!(
            "Traefik tries the longest rule first, and its rule for a prefix is longer than for an exact path, so \
             these exact paths never match: {}. Make them at least seven characters longer than the prefix, remove \
             exact, or use spec.gateway, where Traefik orders them correctly",
            hidden.join(", ")
        )
    })
}

/// The paths with a percent escape, which these compare as text with the decoded path of a request.
fn escapes(whose: &str, requested: &RequestedRoutes, ingress: Option<&IngressSpec>) -> Option<String> {
    let escaped = paths_with(requested, |path| path.contains('%'));
    let told: Vec<_> = escaped.iter().map(|path| format!("{} {path:?}", field_of(path, ingress))).collect();
    (!told.is_empty()).then(|| {
        format!(
            "{whose} compares a path as it is written with the decoded path of a request, so one with a percent \
             escape never matches: {}. Use another path",
            told.join(", ")
        )
    })
}

/// The exact paths that are prefixes too, of another Service.
fn twofold(who_does_not: &str, requested: &RequestedRoutes) -> Option<String> {
    let of_table = |table: &RouteTable| -> Vec<String> {
        let is_other = |exact: &Route, other: &Route| {
            let is_same_path = other.path.path() == exact.path.path();
            is_same_path && !other.path.is_exact() && other.backend != exact.backend
        };
        let exact = table.iter().filter(|route| route.path.is_exact());
        let twofold = exact.filter(|exact| table.iter().any(|other| is_other(exact, other)));
        twofold.map(|exact| exact.path.to_string()).collect()
    };
    let all: Vec<_> = requested.hosts.iter().flat_map(|of| of_table(&of.routes)).collect();
    let all = distinct(all.iter().map(String::as_str));
    (!all.is_empty()).then(|| {
        format!(
            "{who_does_not} an exact path before another Service's prefix of the same path: {}. Remove one of the \
             two",
            all.join(", ")
        )
    })
}

/// The paths of all hosts that are so, each once.
fn paths_with(requested: &RequestedRoutes, is_so: impl Fn(&str) -> bool) -> Vec<&str> {
    let paths = requested.hosts.iter().flat_map(|of| of.routes.iter()).map(|route| route.path.as_str());
    distinct(paths.filter(|path| is_so(path)))
}

/// Each text once, in the order in which they come.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        controller::{claims::requested::requested, fixture::service},
        routing::{Claimant, ClaimantId, ClaimantKind, Verdict},
    };

    fn told(routes: Value, controller: Option<IngressController>, regexes: bool) -> String {
        let object = service(json!({"ingress": {"routes": routes}}));
        let requested = requested(&object).unwrap().unwrap();
        let mut found = Dereferenced { controller, ..Dereferenced::default() };
        let id = ClaimantId { namespace: "zoo".into(), name: "old".into(), kind: ClaimantKind::Ingress };
        let other = Arc::new(Claimant { created: 1, id });
        for site in requested.sites().filter(|site| regexes && site.host.to_string() == "a.dev") {
            found.verdicts.insert(site, Verdict { regexes: Some(other.clone()), ..Verdict::default() });
        }
        let all: Vec<_> = warnings(&requested, object.spec.ingress.as_ref(), &found)
            .into_iter()
            .map(|problem| problem.message)
            .collect();
        all.join("\n")
    }

    #[test]
    fn a_path_with_a_dot_is_told_where_ingress_nginx_serves_it() {
        let routes = json!([{"path": "/socket.io", "service": "s"}, {"path": "/api/x_y", "service": "s"}]);
        let said = told(routes.clone(), Some(IngressController::IngressNginx), false);
        assert_eq!(
            said,
            "spec.ingress.routes[0].path \"/socket.io\" has a dot, for which ingress-nginx rejects a whole Ingress \
             from version 1.12 until its releases of autumn 2025. If yours does, have it updated, or use another \
             path"
        );
        let other = json!([{"path": "/a.b", "service": "s"}, {"path": "/c:d", "service": "s"}]);
        let said = told(other, Some(IngressController::IngressNginx), false);
        let both = "spec.ingress.routes[1].path \"/c:d\" has the character ':'";
        assert!(said.contains(both) && said.ends_with("dots. Use another path"), "{said}");
        assert!(!said.contains("update"), "{said}");
        let mut object = service(json!({"ingress": {"path": "/v1.0/orders"}}));
        let requested = requested(&object).unwrap().unwrap();
        let said = odd_characters(&requested, object.spec.ingress.as_ref()).unwrap();
        assert!(said.starts_with("spec.ingress.path \"/v1.0/orders\" has a dot, "), "{said}");
        object.spec.ingress = None;
        assert!(odd_characters(&requested, None).unwrap().starts_with("the path \"/v1.0/orders\""));
        for other in [Some(IngressController::Traefik), Some(IngressController::Other), None] {
            assert_eq!(told(routes.clone(), other, false), "");
        }
    }

    #[test]
    fn an_exact_path_that_traefik_hides_behind_a_prefix_is_told_and_a_long_one_is_not() {
        let exact = |path: &str| json!({"path": path, "service": "s", "exact": true});
        let prefix = json!({"path": "/long", "service": "s"});
        let routes =
            json!([exact("/login"), exact("/long-login"), exact("/api"), exact("/api/status/all"), prefix]);
        let said = told(routes.clone(), Some(IngressController::Traefik), false);
        assert!(said.contains("never match: /long-login by /long, /login by /, /api by /. Make"), "{said}");
        assert_eq!(told(routes, Some(IngressController::IngressNginx), false), "");
    }

    #[test]
    fn a_path_with_an_escape_is_told_where_its_text_is_compared() {
        let routes = json!([{"path": "/a%20b", "service": "s"}, {"path": "/a", "service": "s"}]);
        for (controller, name) in [(IngressController::Traefik, "Traefik"), (IngressController::Kong, "Kong")]
        {
            let said = told(routes.clone(), Some(controller), false);
            let expected = "never matches: spec.ingress.routes[0].path \"/a%20b\". Use another path";
            assert!(said.starts_with(name) && said.ends_with(expected), "{said}");
        }
        assert_eq!(told(routes, Some(IngressController::Gce), false), "");
    }

    #[test]
    fn an_exact_path_that_is_a_prefix_too_is_told_where_neither_comes_first() {
        let exact = |service: &str| json!([{"path": "/a", "service": "s"}, {"path": "/a", "service": service, "exact": true}]);
        for controller in [IngressController::Kong, IngressController::Gce] {
            let said = told(exact("t"), Some(controller), false);
            assert!(said.contains("another Service's prefix of the same path: /a. Remove one"), "{said}");
            assert_eq!(told(exact("s"), Some(controller), false), "");
        }
        assert_eq!(told(exact("t"), Some(IngressController::IngressNginx), false), "");
    }

    #[test]
    fn what_an_annotation_makes_of_some_paths_is_told_whoever_serves_them() {
        let with = |name: &str, value: &str| {
            let object = service(json!({"ingress": {"annotations": {name: value}}}));
            let requested = requested(&object).unwrap().unwrap();
            warnings(&requested, object.spec.ingress.as_ref(), &Dereferenced::default())
        };
        let said = with("nginx.org/rewrites", "serviceName=s rewrite=/");
        assert!(
            said[0].message.starts_with(
                "spec.ingress.annotations has \"nginx.org/rewrites\": \"serviceName=s rewrite=/\", with which"
            ),
            "{said:?}"
        );
        assert_eq!(with("nginx.ingress.kubernetes.io/configuration-snippet", "x"), []);
    }

    #[test]
    fn who_makes_regexes_of_all_paths_of_a_host_is_named() {
        let said = told(json!([]), None, true);
        assert!(said.contains("a.dev by Ingress zoo/old. A route"), "{said}");
        assert!(!told(json!([]), Some(IngressController::IngressNginx), true).is_empty());
        assert_eq!(told(json!([]), Some(IngressController::Traefik), true), "");
        assert_eq!(told(json!([]), None, false), "");
    }
}
