//! Which rule a request takes, and why.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::files::ServiceInFile;
use crate::{
    controller::claims::annotations,
    routing::{CanonicalHost, HostRoutes, RequestTarget, Route, RouteTable},
};

/// The rules of each host, by what serves it: an ingress class, or a Gateway.
type Sites<'a> = BTreeMap<(CanonicalHost, String), Vec<Rule<'a>>>;

/// A rule, and the resource that it belongs to.
struct Rule<'a> {
    route: &'a Route,
    owner: String,
}

/// The answer for every host that the request may be for.
pub(super) fn explain(services: &[ServiceInFile], request: &RequestTarget) -> Result<String, fmt::Error> {
    let sites = sites(services);
    let mut text = String::new();
    for (site, rules) in sites.iter().filter(|((host, _), _)| is_for(request, host, &sites)) {
        answer(&mut text, request, site, rules)?;
    }
    if text.is_empty() {
        // A host may have several sites: an ingress class, and Gateways.
        let mut hosts: Vec<_> = sites.keys().map(|(host, _)| host.to_string()).collect();
        hosts.dedup();
        match &request.host {
            Some(host) => writeln!(text, "no rule has host {host}: there are rules for {}", listed(&hosts))?,
            None => writeln!(text, "there are no rules: no OrdersService has spec.ingress or spec.gateway")?,
        }
    }
    if request.is_ambiguous() {
        writeln!(
            text,
            "note: {} has an empty, \".\" or \"..\" segment, which some servers resolve before they look for a rule",
            request.path
        )?;
    }
    Ok(text)
}

fn listed(hosts: &[String]) -> String {
    if hosts.is_empty() { "none".into() } else { hosts.join(", ") }
}

/// The rules of each host in rendered order, whichever resource they belong to.
fn sites<'a>(services: &'a [ServiceInFile]) -> Sites<'a> {
    let mut sites = Sites::new();
    for ServiceInFile { valid, .. } in services {
        let mut add = |host: &CanonicalHost, entry_point: String, routes: &'a RouteTable| {
            let owner = || format!("OrdersService {}/{}", valid.namespace, valid.name);
            let rules = routes.iter().map(|route| Rule { route, owner: owner() });
            sites.entry((host.clone(), entry_point)).or_default().extend(rules);
        };
        if let Some(ingress) = &valid.ingress {
            let class = ingress.class_name.as_ref().or_else(|| ingress.annotations.get(annotations::CLASS));
            let class = class.map(|class| format!(" (class {class})"));
            for HostRoutes { host, routes } in &ingress.hosts {
                add(host, class.clone().unwrap_or_default(), routes);
            }
        }
        if let Some(gateway) = &valid.gateway {
            for (HostRoutes { host, routes }, parent) in
                gateway.hosts.iter().flat_map(|host| gateway.parents.iter().map(move |of| (host, of)))
            {
                let namespace = parent.namespace.as_ref().unwrap_or(&valid.namespace);
                let section = parent.section_name.as_ref().map(|name| format!(", listener {name}"));
                let entry_point =
                    format!(" (Gateway {namespace}/{}{})", parent.name, section.unwrap_or_default());
                add(host, entry_point, routes);
            }
        }
    }
    for rules in sites.values_mut() {
        rules.sort_by(|left, right| (&left.route.path, &left.owner).cmp(&(&right.route.path, &right.owner)));
    }
    sites
}

/// An exact host goes before the wildcard above it, and that before every host; none falls through to the next.
fn is_for(request: &RequestTarget, host: &CanonicalHost, sites: &Sites<'_>) -> bool {
    let Some(wanted) = &request.host else { return true };
    let above = [Some(wanted.clone()), wanted.wildcard_above(), Some(CanonicalHost::any())];
    let first = above.into_iter().flatten().find(|above| sites.keys().any(|(host, _)| host == above));
    first.as_ref() == Some(host)
}

fn answer(
    text: &mut String,
    request: &RequestTarget,
    (host, entry_point): &(CanonicalHost, String),
    rules: &[Rule<'_>],
) -> fmt::Result {
    let path = &request.path;
    let taken = rules.iter().position(|rule| rule.route.path.takes(path));
    match taken.and_then(|at| rules.get(at)) {
        Some(Rule { route, owner }) => {
            writeln!(
                text,
                "{host}{path}{entry_point} goes to {} by rule {} of {owner}:",
                route.backend, route.path
            )?;
            if route.strip_prefix {
                writeln!(text, "  the Service gets it as {}", stripped(route, path))?;
            }
            if route.client {
                writeln!(text, "  no other rule takes it, and the client takes the rest")?;
            } else if route.path.is_exact() {
                writeln!(text, "  it is for this path alone, and such rules are first")?;
            } else {
                writeln!(text, "  of the rules that take it, it has the most segments, and so is first")?;
            }
        }
        None => {
            writeln!(text, "{host}{path}{entry_point} is not served: no rule takes it, and no client is set")?
        }
    }
    for (at, Rule { route, .. }) in rules.iter().enumerate() {
        let verdict = match (route.path.takes(path), taken) {
            (true, Some(taken)) if at == taken => "takes it".to_owned(),
            (true, _) => "would take it, but comes later".to_owned(),
            (false, _) => why_not(route, path),
        };
        let mark = if taken == Some(at) { '>' } else { ' ' };
        let (class, rule) = (class_of(route), &route.path);
        let (segments, bytes) = (rule.path().segments(), rule.as_str().len());
        writeln!(
            text,
            "{mark} {:>2}. {rule:<24} {class}, {segments} segments, {bytes} bytes, to {}: {verdict}",
            at + 1,
            route.backend
        )?;
    }
    Ok(())
}

fn class_of(route: &Route) -> &'static str {
    match route {
        Route { client: true, .. } => "client",
        Route { path, .. } if path.is_exact() => "exact",
        _ => "prefix",
    }
}

/// The path that the Service gets of a route that takes its prefix off.
fn stripped<'a>(route: &Route, path: &'a str) -> &'a str {
    path.strip_prefix(route.path.as_str()).filter(|rest| !rest.is_empty()).unwrap_or("/")
}

fn why_not(route: &Route, path: &str) -> String {
    let rule = route.path.as_str();
    if route.path.is_exact() && path.starts_with(rule) {
        return format!("no: it is for {rule} alone");
    }
    if path.to_ascii_lowercase().starts_with(&rule.to_ascii_lowercase()) && !path.starts_with(rule) {
        return "no: upper and lower case differ".into();
    }
    if path.starts_with(rule) {
        return format!("no: only whole segments count, and {path} is not below {rule}/");
    }
    "no".into()
}
