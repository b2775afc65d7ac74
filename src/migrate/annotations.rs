//! What becomes of the annotations of Ingresses.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    finding::{Findings, Notes, Whom},
    ingress::OldIngress,
    judge,
    workload::is_of_tools,
};
use crate::{
    controller::{PathEffect, of_ingress_nginx, path_effect},
    routing::CanonicalHost,
};

/// The annotations of the new Ingress: those of the old ones that an OrdersService may have. `stays` says whether something
/// stays in an Ingress of this name.
pub(super) fn merged(
    used: &[&OldIngress],
    hosts: &[String],
    stays: &dyn Fn(&str) -> bool,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut merged = BTreeMap::<String, String>::new();
    for ingress in used {
        let mut notes = Notes::about(&ingress.label, findings);
        for name in &ingress.of_paths {
            if stays(&ingress.name) {
                let told = format!(
                    "annotation {name} is for what stays in this Ingress; the routes no longer need it"
                );
                notes.stays(Whom::Users, told);
            } else if of_ingress_nginx(name) == Some("rewrite-target") {
                let told = format!("annotation {name}: see the lines about the paths that it applies to");
                notes.dropped(Whom::Users, told);
            } else {
                let told = format!("annotation {name}: routes are plain prefixes, which need no regexes");
                notes.dropped(Whom::Users, told);
            }
        }
        for (name, value) in &ingress.annotations {
            if is_of_tools(name) {
                continue;
            }
            let rest = name.split_once('/').map_or("", |(_, rest)| rest);
            if let Some(why) = of_one_ingress(rest, value) {
                notes.left(Whom::Users, format!("annotation {name} was left out: {why}"));
                continue;
            }
            let alone = json!({"hosts": hosts, "annotations": {name.as_str(): value}});
            if let Some(problem) = judge::of_ingress(alone).into_iter().next() {
                refused(name, value, hosts, &ingress.name, &problem, &mut notes);
                continue;
            }
            match merged.get(name) {
                Some(known) if known == value => {}
                // Without its values, which may be secret.
                Some(_) => notes.left(
                    Whom::Users,
                    format!(
                        "annotation {name} differs from that of another Ingress, which the OrdersService has"
                    ),
                ),
                None => {
                    if used.len() > 1 && used.iter().any(|other| other.annotations.get(name) != Some(value)) {
                        notes.changed(
                            Whom::Users,
                            format!("annotation {name} is for all routes now, also for those of the other Ingresses"),
                        );
                    }
                    if path_effect(name, value).is_some() {
                        notes.left(
                            Whom::Users,
                            format!(
                                "annotation {name} is kept, and may change paths or have rules of its own: see that it fits plain prefixes, \
                                 and the path of the orders API, which serves its whole path; where it names Services, the orders' may have \
                                 another name now, and must not be among them{}",
                                if rest == "router.middlewares" {
                                    "; in place of a Middleware that takes the prefix of one route off, write stripPrefix: true in that route"
                                } else {
                                    ""
                                }
                            ),
                        );
                    }
                    merged.insert(name.clone(), value.clone());
                }
            }
        }
    }
    merged
}

/// Says what becomes of an annotation that an OrdersService may not have. It is not in it, so nothing is to be removed there.
fn refused(name: &str, value: &str, hosts: &[String], ingress: &str, problem: &str, notes: &mut Notes<'_>) {
    if let Some(PathEffect::RewritesAll | PathEffect::RegexesRewritten) = path_effect(name, value) {
        // Of ingress-nginx it is a second one, beside that of which each path was told.
        return notes.left(
            Whom::Users,
            format!(
                "annotation {name}: {value:?} was left out: by it every Service gets another path than the one that is requested, and from \
                 the OrdersService each gets the path as it is, as the orders API must: have each Service serve its paths as they are \
                 requested; or leave the paths of those that cannot to Ingress {ingress}, on its own hosts, and take them out of \
                 spec.ingress.routes"
            ),
        );
    }
    let rest = name.split_once('/').map_or("", |(_, rest)| rest);
    match rest {
        "use-regex" | "path-regex" | "path-type" => notes.dropped(
            Whom::Users,
            format!("annotation {name}: {value}: routes are plain prefixes, which need no regexes"),
        ),
        "router.priority" => notes.dropped(
            Whom::Users,
            format!("annotation {name}: {value}: of plain prefixes the longer one comes first, and the client last"),
        ),
        "http01-edit-in-place" => notes.dropped(
            Whom::You,
            format!("annotation {name}: cert-manager makes an Ingress of its own for each challenge"),
        ),
        "server-alias" | "host-aliases" | "hostname" | "internal-hostname" | "alt-names" | "common-name" => {
            let listed: Vec<CanonicalHost> =
                hosts.iter().filter_map(|host| CanonicalHost::parse(host).ok()).collect();
            let named = value.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty());
            let missing: Vec<_> = named
                .filter(|text| !CanonicalHost::parse(text).is_ok_and(|host| listed.contains(&host)))
                .collect();
            let are_hosts = missing.iter().all(|text| CanonicalHost::parse(text).is_ok());
            let told = match hosts.first().filter(|_| are_hosts) {
                Some(first) => {
                    let old = hosts.iter().map(|host| format!("--host {host}"));
                    let new = missing.iter().map(|host| format!("--host {first}={host}"));
                    format!(
                        "annotation {name} was left out: it names {}, which no rule has; to have the routes of {first} there too, migrate \
                         with {}",
                        missing.join(", "),
                        old.chain(new).collect::<Vec<_>>().join(" ")
                    )
                }
                None => format!(
                    "annotation {name} was left out: it names {}; write each host that is meant in spec.ingress.hosts",
                    missing.join(", ")
                ),
            };
            notes.left(Whom::Users, told);
        }
        _ => notes.left(Whom::Users, format!("annotation {name} was left out: {problem}")),
    }
}

/// Why an annotation cannot be one of all routes, the orders among them.
fn of_one_ingress(name: &str, value: &str) -> Option<&'static str> {
    match name {
        "permanent-redirect" | "temporal-redirect" => Some(
            "it redirects every request of its Ingress, and in the OrdersService it would redirect all; write an Ingress of your \
             own for what is to be redirected, on a host that the OrdersService does not have",
        ),
        "backend-protocol" if value != "HTTP" => Some(
            "all routes would speak that to their Services, and the pods of the orders speak HTTP; leave the paths of the others in \
             an Ingress of their own, and take them out of spec.ingress.routes",
        ),
        _ => None,
    }
}
