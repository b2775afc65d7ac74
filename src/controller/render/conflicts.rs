//! The routes that several of the rendered resources claim, or an Ingress beside them in the same files.

use std::collections::HashMap;

use super::files::{IngressInFile, ServiceInFile};
use crate::{
    controller::claims::{
        claimed::{claimant, claims_to, verdicts},
        requested::requested,
    },
    crd::OrdersService,
    routing::{CanonicalHost, CanonicalPath, ClaimIndex, Claimant, ClaimantKind, HostPolicy},
};

/// Every route that another object in the files has already, by file, resource and field.
pub(super) fn problems(
    services: &[ServiceInFile],
    ingresses: &[IngressInFile],
    policy: HostPolicy,
) -> Vec<String> {
    let mut index = ClaimIndex::new(policy);
    let mut files = HashMap::new();
    for IngressInFile { file, claimant, claims } in ingresses {
        // They exist already, so they are older than every resource.
        index.put(Claimant { created: i64::MIN, ..claimant.clone() }, claims.clone());
        files.insert(claimant.id.clone(), file.as_str());
    }
    let claimants = || {
        services.iter().map(|found| (found, claimant(&found.service.metadata, ClaimantKind::OrdersService)))
    };
    for (found, me) in claimants() {
        files.insert(me.id.clone(), found.file.as_str());
        if let Ok(Some(requested)) = requested(&found.service) {
            index.put(me, claims_to(&requested).collect());
        }
    }
    let whose = |other: &Claimant| format!("{other} ({})", files.get(&other.id).copied().unwrap_or_default());
    let mut problems = Vec::new();
    for (found, me) in claimants() {
        let Ok(Some(requested)) = requested(&found.service) else { continue };
        let mut problem = |field: &str, text: String| {
            problems.push(format!("{}: OrdersService {:?}: {field}: {text}", found.file, me.id.name));
        };
        for (site, verdict) in verdicts(&index, &me, &requested) {
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
