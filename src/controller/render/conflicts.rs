//! The routes that several of the rendered resources claim, or an Ingress or an HTTPRoute beside them in the same files.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::files::{OtherInFile, ServiceInFile};
use crate::{
    controller::claims::{
        claimed::{Verdicts, claims_to, requested_of, verdicts, verdicts_on},
        controllers::IngressController,
        requested::RequestedRoutes,
    },
    crd::{Host, OrdersService, RouteSpec},
    routing::{
        CanonicalHost, CanonicalPath, ClaimIndex, Claimant, ClaimantId, EntryPoint, PathMatch, Refusal, Site,
        Verdict,
    },
};

/// The claims of all objects in the files.
pub(super) struct AllClaims<'a> {
    index: ClaimIndex,
    files: HashMap<ClaimantId, &'a str>,
}

impl<'a> AllClaims<'a> {
    /// Adds the claims of these objects to `index`.
    pub(super) fn of(
        services: &'a [ServiceInFile],
        others: &'a [OtherInFile],
        mut index: ClaimIndex,
    ) -> Self {
        let mut files = HashMap::new();
        for OtherInFile { file, claimant, claims } in others {
            // They exist already, so they are older than every resource.
            index.put(Claimant { created: i64::MIN, ..claimant.clone() }, claims.clone());
            files.insert(claimant.id.clone(), file.as_str());
        }
        for found in services {
            let me = found.claimant();
            files.insert(me.id.clone(), found.file.as_str());
            index.put(me, requested_of(&found.service).iter().flat_map(claims_to).collect());
        }
        Self { index, files }
    }

    /// An object, and its file.
    pub(super) fn named(&self, other: &Claimant) -> String {
        format!("{other} ({})", self.files.get(&other.id).copied().unwrap_or_default())
    }

    /// Who makes regexes of all paths there, by this verdict, as far as the ingress controller heeds it.
    pub(super) fn regexes(&self, site: &Site, verdict: &Verdict) -> Option<String> {
        let EntryPoint::Class(class) = &site.entry_point else { return None };
        let controller = class.as_deref().and_then(IngressController::named);
        let owner = verdict.regexes.as_ref()?;
        IngressController::may_switch_to_regexes(controller).then(|| self.named(owner))
    }

    /// The hosts of these resources of which all paths are read as regexes, and who says so.
    pub(super) fn hosts_of_regexes(&self, services: &[ServiceInFile]) -> BTreeMap<CanonicalHost, String> {
        let mut hosts = BTreeMap::new();
        for found in services {
            for (site, verdict) in self.of_service(found) {
                hosts.extend(self.regexes(&site, &verdict).map(|owner| (site.host.clone(), owner)));
            }
        }
        hosts
    }

    /// What others have of all that a resource requests.
    pub(super) fn of_service(&self, found: &ServiceInFile) -> Verdicts {
        verdicts_on(&self.index, &found.claimant(), &requested_of(&found.service))
    }

    /// What others have of what a resource requests.
    pub(super) fn verdicts(&self, me: &Claimant, requested: &RequestedRoutes) -> Verdicts {
        verdicts(&self.index, me, requested)
    }
}

/// Every route that another object in the files has already, and every host that is not allowed, by file, resource and
/// field.
pub(super) fn problems(services: &[ServiceInFile], all: &AllClaims<'_>) -> Vec<String> {
    let whose = |other: &Claimant| all.named(other);
    let mut problems = Vec::new();
    for (found, me) in services.iter().map(|found| (found, found.claimant())) {
        let (mut refused, mut lost) = (BTreeMap::new(), BTreeSet::new());
        for requested in requested_of(&found.service) {
            for (site, verdict) in all.verdicts(&me, &requested) {
                lost.extend(
                    verdict
                        .lost
                        .into_iter()
                        .map(|(path, winner)| (requested.field, site.host.clone(), path, winner)),
                );
                if let Some(refusal) = verdict.refused {
                    refused.entry(site.host).or_insert(refusal);
                }
            }
        }
        let mut problem = |field: &str, text: String| {
            problems.push(format!("{}: OrdersService {:?}: {field}: {text}", found.file, me.id.name));
        };
        for (host, refusal) in &refused {
            let text = match refusal {
                Refusal::OwnedBy(owner) => format!(
                    "host {:?} belongs to namespace {:?} by {}: use another host",
                    host.to_string(),
                    owner.id.namespace,
                    whose(owner)
                ),
                Refusal::NotAllowed if host.is_any() => format!(
                    "no host is set, so the rules would be for every host, which is not allowed for namespace \
                     {:?}: list the hosts, or allow it \"*\" in the hosts file, which must list the hosts of every \
                     namespace",
                    me.id.namespace
                ),
                Refusal::NotAllowed => format!(
                    "host {:?} is not allowed by the hosts file for namespace {:?}: use another host, or allow it \
                     there",
                    host.to_string(),
                    me.id.namespace
                ),
            };
            problem(&host_field(&found.service, host), text);
        }
        for (field, host, path, winner) in &lost {
            let exact = if path.is_exact() { " (exact)" } else { "" };
            let or = if winner.is_ingress() {
                "; if this OrdersService is to replace that Ingress, render without it, and docs/migration.md says how the one gives way to \
                 the other"
            } else {
                ""
            };
            let text = format!(
                "{host}{path}{exact} is also a route of {}: in a cluster the older of the two has it, and the other is not \
                 rendered; write another path or host, or remove one{or}",
                whose(winner)
            );
            problem(&path_field(&found.service, field, host, path), text);
        }
    }
    problems
}

fn host_field(service: &OrdersService, host: &CanonicalHost) -> String {
    let position = |hosts: &[Host]| {
        hosts.iter().position(|Host(known)| CanonicalHost::parse(known).as_ref() == Ok(host))
    };
    let spec = &service.spec;
    if host.is_any() {
        let at_ingress = spec.ingress.as_ref().is_some_and(|ingress| ingress.hosts.is_empty());
        return if at_ingress { "spec.ingress.hosts" } else { "spec.gateway.hostnames" }.into();
    }
    let at_ingress = spec.ingress.as_ref().and_then(|ingress| position(&ingress.hosts));
    let at_gateway =
        || spec.gateway.as_ref().and_then(|gateway| position(&gateway.hostnames)).unwrap_or_default();
    at_ingress.map_or_else(
        || format!("spec.gateway.hostnames[{}]", at_gateway()),
        |at| format!("spec.ingress.hosts[{at}]"),
    )
}

fn path_field(service: &OrdersService, field: &str, host: &CanonicalHost, path: &PathMatch) -> String {
    let spec = &service.spec;
    let routes = match (&spec.ingress, &spec.gateway) {
        (Some(ingress), _) => ingress.routes.as_slice(),
        (None, Some(gateway)) => &gateway.routes,
        (None, None) => &[],
    };
    let is_meant = |route: &RouteSpec| {
        let mut hosts = route.hosts.iter().map(|Host(named)| CanonicalHost::parse(named));
        let is_for_host = route.hosts.is_empty() || hosts.any(|named| named.as_ref() == Ok(host));
        is_for_host
            && route.exact == path.is_exact()
            && CanonicalPath::parse(&route.path).as_ref() == Ok(path.path())
    };
    let other = if path.is_root() { "client" } else { "path" };
    let at = routes.iter().position(is_meant);
    at.map_or_else(|| format!("{field}.{other}"), |at| format!("{field}.routes[{at}].path"))
}
