//! Kong Ingress Controller 3.5.13, by its `internal/dataplane/translator/subtranslator/ingress.go` and `ingress_atc.go`, and
//! Kong 3.9.3, by its `kong/router/transform.lua`. All paths of an Ingress with the same host, Service and port are one route.
//!
//! The router `expressions` takes the route with the highest priority: most fields, then plain hosts, then the length of the
//! longest of its paths, where a prefix is one character longer than the same path alone. The router `traditional_compatible`
//! gets an exact path as a regex, and a prefix as a regex for itself and a text for what is below it; it divides a route by
//! the kind and length of its paths, and puts regexes before texts, and longer texts before shorter ones.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::*;
use crate::planes::reading::{decoded, merged, resolved};

/// How a path of a route is compared.
#[derive(Debug)]
enum Comparison {
    Equal(String),
    Begins(String),
    Matches(Regex),
}

impl Comparison {
    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Equal(text) => path == text,
            Self::Begins(text) => path.starts_with(text),
            Self::Matches(regex) => regex.is_match(path),
        }
    }
}

/// A route of Kong's, with what its priority is made of, in that order.
#[derive(Debug)]
struct KongRoute {
    host: Option<String>,
    priority: (usize, bool, bool, usize),
    paths: Vec<Comparison>,
    service: String,
}

/// The paths of each host and Service.
fn grouped(ingress: &[HostRules]) -> BTreeMap<(Option<&str>, &str), Vec<&Rule>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for HostRules { host, rules } in ingress {
        for rule in rules {
            groups.entry((host.as_deref(), rule.service.as_str())).or_default().push(rule);
        }
    }
    groups
}

fn route(
    host: Option<&str>,
    service: &str,
    is_regex: bool,
    length: usize,
    paths: Vec<Comparison>,
) -> KongRoute {
    let fields = 1 + usize::from(host.is_some());
    let is_plain = host.is_some_and(|host| !host.starts_with('*'));
    KongRoute {
        host: host.map(str::to_owned),
        priority: (fields, is_plain, is_regex, length),
        paths,
        service: service.to_owned(),
    }
}

/// For the router `expressions`. The controller counts every exact path and prefix as a regex.
fn expressions(ingress: &[HostRules]) -> Vec<KongRoute> {
    let of_group = |((host, service), rules): ((Option<&str>, &str), Vec<&Rule>)| {
        let length = |rule: &&Rule| rule.path.len() + usize::from(!rule.exact && rule.path != "/");
        let longest = rules.iter().map(length).max().unwrap_or_default();
        let paths = rules.iter().flat_map(|rule| match rule.path.as_str() {
            path if rule.exact => vec![Comparison::Equal(path.to_owned())],
            "/" => vec![Comparison::Begins("/".to_owned())],
            path => vec![Comparison::Equal(path.to_owned()), Comparison::Begins(format!("{path}/"))],
        });
        route(host, service, true, longest, paths.collect())
    };
    grouped(ingress).into_iter().map(of_group).collect()
}

/// For the router `traditional_compatible`.
fn traditional(ingress: &[HostRules]) -> Vec<KongRoute> {
    let mut routes = Vec::new();
    for ((host, service), rules) in grouped(ingress) {
        // By the length of texts; regexes have none.
        let mut divided = BTreeMap::<Option<usize>, Vec<_>>::new();
        for rule in rules {
            let path = rule.path.trim_end_matches('/');
            if rule.exact || rule.path != "/" {
                let exact = if rule.exact { &rule.path } else { path };
                let regex = Regex::new(&format!("^{exact}$")).unwrap();
                divided.entry(None).or_default().push(Comparison::Matches(regex));
            }
            if !rule.exact {
                let text = format!("{path}/");
                divided.entry(Some(text.len())).or_default().push(Comparison::Begins(text));
            }
        }
        let of_length = |(length, paths): (Option<usize>, Vec<Comparison>)| {
            route(host, service, length.is_none(), length.unwrap_or_default(), paths)
        };
        routes.extend(divided.into_iter().map(of_length));
    }
    routes
}

/// The Service of the routes that have the highest priority of those that take the request; none if it is not one only, since
/// nothing says which it is then.
fn answer(routes: &[KongRoute], host: &str, path: &str) -> Option<String> {
    let takes = |route: &&KongRoute| {
        route.host.as_deref().is_none_or(|of| is_for(of, host)) && route.paths.iter().any(|of| of.takes(path))
    };
    let taking: Vec<_> = routes.iter().filter(takes).collect();
    let highest = taking.iter().map(|route| route.priority).max();
    let first = taking.into_iter().filter(|route| Some(route.priority) == highest);
    let services: BTreeSet<_> = first.map(|route| &route.service).collect();
    services.first().filter(|_| services.len() == 1).map(|service| (*service).clone())
}

/// It decodes all but what has a meaning, resolves dot segments and merges slashes.
fn compared(path: &str) -> Option<String> {
    let is_reserved = |byte: u8| b"!*'();:@&=+$,/?%#[]".contains(&byte);
    Some(merged(&resolved(&decoded(path, |byte| !is_reserved(byte)))))
}

/// A path with an escape is compared with one that is decoded.
fn takes(route: &Written, path: &str) -> bool {
    !route.path.contains('%') && route.takes(path)
}

/// Whether a path as a regex, in which a dot is any character, takes this one.
fn is_like(regex: &str, path: &str) -> bool {
    regex.len() == path.len() && regex.chars().zip(path.chars()).all(|(of, found)| of == '.' || of == found)
}

fn takes_by_regex(route: &Written, path: &str) -> bool {
    !route.path.contains('%') && (is_like(&route.path, path) || route.takes(path))
}

#[test]
fn kong_s_traditional_router_gives_the_oracle_s_answer_but_for_exact_paths_that_are_also_prefixes() {
    let (differing, asked) =
        differing(compared, takes_by_regex, traditional, |routes, host, path| answer(routes, host, path));
    assert!(asked > 500, "{asked}");
    assert!(!differing.is_empty(), "the systems have such paths");
    for found in differing {
        // Two regexes take it, which are the same, or one of which has a dot.
        let path = found.oracle.path.as_str();
        let mut others = found.system.all().map(|route| route.path.as_str()).filter(|other| *other != path);
        let is_dotted = others.any(|other| is_like(other, path) || is_like(path, other));
        let is_twofold = found.same_prefix().is_some();
        assert!(found.answer.is_none() && (is_twofold || is_dotted), "{}", found.asked);
    }
}

#[test]
fn kong_gives_the_oracle_s_answer_of_a_host_that_two_have() {
    let answered = |routes: &Vec<KongRoute>, host: &str, path: &str| answer(routes, host, path);
    let (by_text, asked) = differing_of_shared(true, compared, takes_by_regex, traditional, answered);
    let (by_expressions, _) = differing_of_shared(true, compared, takes, expressions, answered);
    assert!(asked > 50, "{asked}");
    let differing: Vec<_> = by_text.iter().chain(&by_expressions).map(|found| &found.asked).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
fn kong_s_router_of_expressions_gives_the_oracle_s_answer_where_each_service_has_one_path() {
    let (differing, asked) =
        differing(compared, takes, expressions, |routes, host, path| answer(routes, host, path));
    assert!(asked > 500, "{asked}");
    for found in &differing {
        let of_service = |service: &str| found.system.all().filter(|route| route.service == service).count();
        let several = found.answer.as_deref().is_some_and(|service| of_service(service) > 1);
        assert!(found.same_prefix().is_some() || several, "{}", found.asked);
    }
    let client = differing.iter().filter(|found| found.answer.as_deref() == Some("client"));
    assert!(client.count() > 3, "a client that has another path too takes what others should have");
}
