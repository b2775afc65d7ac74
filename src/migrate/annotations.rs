//! What becomes of the annotations of Ingresses.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    finding::{Findings, Notes, Whom},
    ingress::OldIngress,
    judge,
    workload::is_of_tools,
};

/// The annotations of the new Ingress: those of the old ones that an OrdersService may have.
pub(super) fn merged(
    used: &[&OldIngress],
    hosts: &[String],
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut merged = BTreeMap::<String, String>::new();
    for ingress in used {
        let mut notes = Notes::about(&ingress.label, findings);
        for (name, value) in &ingress.annotations {
            if is_of_tools(name) {
                continue;
            }
            let rest = name.split_once('/').map_or("", |(_, rest)| rest);
            if rest == "use-regex" {
                notes.dropped(
                    Whom::Users,
                    format!("annotation {name}: routes are plain prefixes, which need no regexes"),
                );
                continue;
            }
            if rest == "rewrite-target" {
                notes.dropped(
                    Whom::Users,
                    format!("annotation {name}: what it does is said of each path that it is for"),
                );
                continue;
            }
            if let Some(why) = of_one_ingress(rest, value) {
                notes.left(Whom::Users, format!("annotation {name} was left out: {why}"));
                continue;
            }
            let alone = json!({"hosts": hosts, "annotations": {name.as_str(): value}});
            if let Some(problem) = judge::of_ingress(alone).into_iter().next() {
                notes.left(Whom::Users, format!("annotation {name} was left out: {problem}"));
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
                    if may_change_paths(rest) {
                        notes.left(
                            Whom::Users,
                            format!(
                                "annotation {name} is kept, and may change paths or have rules of its own: see that it fits plain prefixes, \
                                 and the path of the orders API"
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

/// Whether what it says may concern paths, which are written otherwise now.
fn may_change_paths(name: &str) -> bool {
    name.ends_with("snippet")
        || name.ends_with("router.middlewares")
        || name.contains("rewrite")
        || name.contains("strip-path")
        || name.contains("path-prefix")
        // Of Traefik 1.
        || name.ends_with("rule-type")
        || name.ends_with("request-modifier")
}
