//! What several of the rendered resources claim, and Ingresses beside them in the same files.

use std::collections::{BTreeSet, HashMap};

use super::Found;
use crate::{
    controller::{
        claims::{claimant, claims_to, verdicts},
        routes::wanted,
    },
    crd::OrdersService,
    routing::{CanonicalHost, CanonicalPath, Claim, ClaimIndex, Claimant, ClaimantKind, HostPolicy},
};

/// An Ingress in a file, and what it claims.
pub(super) struct Beside {
    pub(super) file: String,
    pub(super) claimant: Claimant,
    pub(super) claims: BTreeSet<Claim>,
}

/// Every route that another in the files has already: by file, resource and field.
pub(super) fn problems(services: &[Found], ingresses: &[Beside], policy: HostPolicy) -> Vec<String> {
    let mut index = ClaimIndex::new(policy);
    let mut files = HashMap::new();
    for Beside { file, claimant, claims } in ingresses {
        // They are there, whatever is rendered: all resources come after them.
        index.put(Claimant { created: i64::MIN, ..claimant.clone() }, claims.clone());
        files.insert(claimant.id.clone(), file.as_str());
    }
    let claimants = || {
        services.iter().map(|found| (found, claimant(&found.service.metadata, ClaimantKind::OrdersService)))
    };
    for (found, me) in claimants() {
        files.insert(me.id.clone(), found.file.as_str());
        if let Ok(Some(wanted)) = wanted(&found.service) {
            index.put(me, claims_to(&wanted).collect());
        }
    }
    let whose = |other: &Claimant| format!("{other} ({})", files.get(&other.id).copied().unwrap_or_default());
    let mut problems = Vec::new();
    for (found, me) in claimants() {
        let Ok(Some(wanted)) = wanted(&found.service) else { continue };
        let mut problem = |field: &str, text: String| {
            problems.push(format!("{}: OrdersService {:?}: {field}: {text}", found.file, me.id.name));
        };
        for (site, verdict) in verdicts(&index, &me, &wanted) {
            let host = &site.host;
            if let Some(owner) = &verdict.refused {
                let text = format!(
                    "host {:?} belongs to namespace {:?} by {}: write another host",
                    host.to_string(),
                    owner.id.namespace,
                    whose(owner)
                );
                problem(&host_field(&found.service, host), text);
            }
            for (path, winner) in &verdict.lost {
                let text = format!(
                    "{host}{path} is also a route of {}: in a cluster the older of the two has it, and the other is \
                     not rendered; write another path or host, or remove one",
                    whose(winner)
                );
                problem(&path_field(&found.service, path), text);
            }
        }
    }
    problems
}

fn host_field(service: &OrdersService, host: &CanonicalHost) -> String {
    let hosts = service.spec.ingress.iter().flat_map(|ingress| &ingress.hosts);
    let at = hosts.into_iter().position(|known| CanonicalHost::parse(&known.0).as_ref() == Ok(host));
    format!("spec.ingress.hosts[{}]", at.unwrap_or_default())
}

fn path_field(service: &OrdersService, path: &CanonicalPath) -> String {
    if path.is_root() {
        return "spec.ingress.client".into();
    }
    let routes = service.spec.ingress.iter().flat_map(|ingress| &ingress.routes);
    let at = routes.into_iter().position(|route| CanonicalPath::parse(&route.path).as_ref() == Ok(path));
    at.map_or("spec.ingress.path".into(), |at| format!("spec.ingress.routes[{at}].path"))
}
