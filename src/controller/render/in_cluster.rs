//! Which rule of a cluster a request takes: the same as for files, of what is rendered there.
//!
//! What counts is what the status of each OrdersService says, since that is what is served: the spec may have changed since,
//! or not be valid. What is asked for and not rendered is told beside it, with whoever has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde::Serialize;
use serde_json::Value;

use super::explain::{Answer, Rule, Sites, after_host};
use crate::{
    controller::{
        children::{httproute::HTTPRoute, partial::Partial},
        claims::{
            claimed::{Claims, claimant, of_http_route, of_ingress, of_service, requested_of},
            controllers::IngressController,
            registry::ClaimRegistry,
        },
        index::Index,
        raw_orders_service::RawOrdersService,
        reconcile::validate::misread::made_regexes,
    },
    crd::{ConditionType, OrdersService, RenderedRoute, find_condition, is_true},
    routing::{
        Backend, CanonicalHost, CanonicalPath, Claim, Claimant, ClaimantKind, EntryPoint, HostPolicy,
        PathMatch, Port, Refusal, RequestTarget, Route, Site,
    },
};

/// The objects of a cluster that have to do with routes, as the API server gives them.
#[derive(Debug, Default)]
pub struct ClusterObjects {
    /// The OrdersServices.
    pub services: Vec<Value>,
    /// The Ingresses, those of OrdersServices among them.
    pub ingresses: Vec<Value>,
    /// The HTTPRoutes, those of OrdersServices among them.
    pub http_routes: Vec<Value>,
    /// The IngressClasses.
    pub classes: Vec<IngressClass>,
}

/// The rules of a cluster, and what is asked for beside them.
pub struct ClusterRoutes {
    sites: Sites,
    /// By host and what serves it: who makes regexes of all its paths.
    regexes: BTreeMap<(CanonicalHost, String), Claimant>,
    missing: Vec<MissingRoute>,
    /// The OrdersServices that do not match the schema, as `namespace/name`.
    unreadable: Vec<String>,
    default_class: Option<String>,
}

/// A route that an OrdersService asks for and that is not rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingRoute {
    /// The OrdersService, as `namespace/name`.
    pub of: String,
    /// The host; `*` for every host.
    pub host: String,
    /// The path.
    pub path: String,
    /// Whether it is for the path alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// The Service and its port.
    pub service: String,
    /// The object that has the route, if that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had_by: Option<String>,
    /// Why it is not rendered.
    pub why: String,
    #[serde(skip)]
    site: (CanonicalHost, String),
    #[serde(skip)]
    takes: PathMatch,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Explained {
    /// The answer for people.
    pub text: String,
    /// The rules that take it, at each of the things that serve its host.
    pub takers: Vec<Taker>,
}

/// A rule that takes a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taker {
    /// The object, such as `OrdersService shop/orders`.
    pub owner: String,
    /// Its namespace, which is also that of its Services.
    pub namespace: String,
    /// The Service; none for the rule of an object that is no OrdersService.
    pub service: Option<String>,
}

impl ClusterRoutes {
    /// The rules of these objects.
    pub fn new(objects: &ClusterObjects) -> Self {
        // Whether a host is refused is told by the resource itself, so what the operator's policy is need not be known.
        let registry = ClaimRegistry::new(HostPolicy::Shared);
        let mut classes = registry.classes();
        for class in &objects.classes {
            classes.apply(class);
        }
        let mut this = Self {
            sites: Sites::default(),
            regexes: BTreeMap::new(),
            missing: Vec::new(),
            unreadable: Vec::new(),
            default_class: registry.default_class(),
        };
        let (mut ingresses, mut http_routes) = (registry.of_ingresses(None), registry.of_http_routes(None));
        for ingress in parsed::<Partial<Ingress>>(&objects.ingresses) {
            ingresses.apply(&ingress);
            let owner = claimant(&ingress.metadata, ClaimantKind::Ingress);
            let claims = of_ingress(&ingress);
            this.note_regexes(&registry, &owner, &claims);
            this.add_others(&owner, claims);
        }
        for route in parsed::<Partial<HTTPRoute>>(&objects.http_routes) {
            http_routes.apply(&route);
            this.add_others(&claimant(&route.metadata, ClaimantKind::HTTPRoute), of_http_route(&route));
        }
        let (mut of_services, mut services) = (registry.of_services(None), Vec::new());
        for raw in parsed::<RawOrdersService>(&objects.services) {
            of_services.apply(&raw);
            match raw.parse() {
                Ok(service) => services.push(service),
                Err(_) => this.unreadable.push(format!("{}/{}", raw.key().namespace(), raw.key().name())),
            }
        }
        for service in &services {
            this.add_service(&registry, service);
        }
        this
    }

    /// What becomes of a request.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn explain(&self, request: &RequestTarget) -> Result<Explained, fmt::Error> {
        let mut text = self.sites.explain(request)?;
        let answers = self.sites.answers(request);
        for answer in &answers {
            let site = (answer.host.clone(), answer.entry_point.to_owned());
            if let Some(owner) = self.regexes.get(&site) {
                let of_host = BTreeMap::from([(site.0, owner.to_string())]);
                writeln!(text, "note: the rules may mean something else: {}", made_regexes(&of_host))?;
            }
        }
        for missing in &self.missing {
            let is_asked = request.host.is_none()
                || answers.iter().any(|answer| *answer.host == missing.site.0)
                || request.host.as_ref() == Some(&missing.site.0);
            if is_asked && missing.takes.takes(&request.path) {
                let MissingRoute { of, host, path, service, why, .. } = missing;
                let at = &missing.site.1;
                writeln!(
                    text,
                    "not rendered: {host}{path}{at}, by which OrdersService {of} would send it to {service}: {why}"
                )?;
            }
        }
        if !self.unreadable.is_empty() {
            let named = self.unreadable.join(", ");
            writeln!(
                text,
                "note: not known are the routes of {named}, which do not match the schema of this version"
            )?;
        }
        let takers: BTreeSet<_> = answers.iter().filter_map(Answer::taker).map(taker).collect();
        Ok(Explained { text, takers: takers.into_iter().collect() })
    }

    /// What this OrdersService asks for and does not have; and what others ask for and do not have since this one has it.
    pub fn missing(&self, namespace: &str, name: &str) -> (Vec<MissingRoute>, Vec<MissingRoute>) {
        let (me, as_winner) = (format!("{namespace}/{name}"), format!("OrdersService {namespace}/{name}"));
        let of_me = self.missing.iter().filter(|missing| missing.of == me);
        let by_me = self.missing.iter().filter(|missing| missing.had_by.as_ref() == Some(&as_winner));
        (of_me.cloned().collect(), by_me.cloned().collect())
    }

    /// Notes where this object makes regexes of all paths. Of several, the oldest is told, as the controller does.
    fn note_regexes(&mut self, registry: &ClaimRegistry, owner: &Claimant, claims: &Claims) {
        let Claims::These(claims) = claims else { return };
        for Claim { site, .. } in claims.iter().filter(|claim| claim.switches_to_regexes) {
            let EntryPoint::Class(class) = &site.entry_point else { continue };
            if IngressController::may_switch_to_regexes(registry.controller_of(class.as_deref())) {
                let at = (site.host.clone(), self.entry_point(&site.entry_point));
                let known = self.regexes.entry(at).or_insert_with(|| owner.clone());
                if owner < known {
                    *known = owner.clone();
                }
            }
        }
    }

    fn add_others(&mut self, owner: &Claimant, claims: Claims) {
        let Claims::These(claims) = claims else { return };
        let default_class = self.default_class.as_deref();
        self.sites.add_claims(owner, &claims, &|entry_point| after_host(entry_point, default_class));
    }

    fn add_service(&mut self, registry: &ClaimRegistry, service: &OrdersService) {
        let owner = claimant(&service.metadata, ClaimantKind::OrdersService);
        let rendered: BTreeMap<_, _> = service
            .status
            .iter()
            .flat_map(|status| &status.routes)
            .filter_map(|shown| {
                let (host, route) = route(shown)?;
                Some(((host, route.path.clone()), route))
            })
            .collect();
        let Claims::These(claims) = of_service(service) else { return };
        let mut served = BTreeSet::new();
        for Claim { site, path, .. } in claims.into_iter().filter(|claim| claim.is_served) {
            let Some(path) = path else { continue };
            if let Some(route) = rendered.get(&(site.host.clone(), path.clone())) {
                let entry_point = self.entry_point(&site.entry_point);
                self.sites.add(site.host.clone(), entry_point, [Rule::new(route, owner.clone())]);
            }
            served.insert((site, path));
        }
        let verdicts = registry.judge(service);
        let before = self.missing.len();
        for requested in requested_of(service) {
            for of in &requested.hosts {
                for site in requested.sites_of(&of.host) {
                    let verdict = verdicts.get(&site);
                    for route in of.routes.iter() {
                        if served.contains(&(site.clone(), route.path.clone())) {
                            continue;
                        }
                        let winner = verdict.and_then(|verdict| verdict.lost.get(&route.path));
                        let refused = verdict.and_then(|verdict| verdict.refused.as_ref());
                        let why = match (winner, refused) {
                            (Some(winner), _) => format!("{winner} has it"),
                            (None, Some(Refusal::OwnedBy(owner))) => format!("the host belongs to {owner}"),
                            (None, Some(Refusal::NotAllowed)) => "the host is not allowed here".to_owned(),
                            (None, None) => why_not(service),
                        };
                        let had_by = winner.map(ToString::to_string);
                        let missing = self.missing_route(&owner, &site, route, had_by, why);
                        // At several Gateways it is one route all the same. Those of other OrdersServices differ anyway.
                        if !self.missing.iter().skip(before).any(|other| *other == missing) {
                            self.missing.push(missing);
                        }
                    }
                }
            }
        }
    }

    fn missing_route(
        &self,
        owner: &Claimant,
        site: &Site,
        route: &Route,
        had_by: Option<String>,
        why: String,
    ) -> MissingRoute {
        MissingRoute {
            of: format!("{}/{}", owner.id.namespace, owner.id.name),
            host: site.host.to_string(),
            path: route.path.to_string(),
            exact: route.path.is_exact(),
            service: route.backend.to_string(),
            had_by,
            why,
            site: (site.host.clone(), self.entry_point(&site.entry_point)),
            takes: route.path.clone(),
        }
    }

    /// What serves a host, as it is written after it.
    fn entry_point(&self, of: &EntryPoint) -> String {
        after_host(of, self.default_class.as_deref())
    }
}

/// Those that can be read. The others are none of ours, or the API server would have refused them.
fn parsed<T: serde::de::DeserializeOwned>(values: &[Value]) -> impl Iterator<Item = T> {
    values.iter().filter_map(|value| serde_json::from_value(value.clone()).ok())
}

fn taker(rule: &Rule) -> Taker {
    Taker {
        owner: rule.owner.to_string(),
        namespace: rule.owner.id.namespace.to_string(),
        service: rule.backend.as_ref().map(|backend| backend.service.clone()),
    }
}

/// A route as the status shows it.
fn route(shown: &RenderedRoute) -> Option<(CanonicalHost, Route)> {
    let RenderedRoute { host, path, service, exact, strip_prefix, client } = shown;
    let host = CanonicalHost::parse_shown(host).ok()?;
    let path =
        CanonicalPath::parse(path).ok().map(if *exact { PathMatch::exact } else { PathMatch::prefix })?;
    let (service, port) = service.rsplit_once(':')?;
    let port = port.parse().map_or_else(|_| Port::Name(port.to_owned()), Port::Number);
    let backend = Backend { service: service.to_owned(), port };
    Some((host, Route { path, backend, strip_prefix: *strip_prefix, client: *client }))
}

/// Why a route that nobody else has is not rendered.
fn why_not(service: &OrdersService) -> String {
    let status = service.status.as_ref();
    let is_current = status.and_then(|status| status.observed_generation) == service.metadata.generation;
    let conditions = status.map_or([].as_slice(), |status| &status.conditions);
    let failing = [ConditionType::Valid, ConditionType::Reconciled, ConditionType::IngressReady];
    let mut failing = failing.into_iter().filter_map(|kind| find_condition(conditions, kind));
    match failing.find(|condition| !is_true(condition)) {
        Some(failing) if is_current => format!("its condition {} says {}", failing.type_, failing.reason),
        _ => "the operator has not rendered it yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ingress(name: &str, year: u16, class: &str, host: &str) -> Value {
        let backend = json!({"service": {"name": name, "port": {"number": 80}}});
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {
                "name": name, "namespace": "shop", "creationTimestamp": format!("{year}-01-01T00:00:00Z"),
                "annotations": {"kubernetes.io/ingress.class": class}
            },
            "spec": {"rules": [
                {"host": host, "http": {"paths": [{"path": "/a", "pathType": "Prefix", "backend": backend}]}}
            ]}
        })
    }

    fn explained(ingresses: Vec<Value>) -> Explained {
        let routes = ClusterRoutes::new(&ClusterObjects { ingresses, ..ClusterObjects::default() });
        routes.explain(&RequestTarget::parse("a.example/a").unwrap()).unwrap()
    }

    #[test]
    fn a_class_with_line_breaks_forges_no_line() {
        let text = explained(vec![ingress("one", 2020, "x)\nnot rendered: \u{1b}[2J", "a.example")]).text;
        assert!(text.contains(" (class x)\\nnot rendered: \\u{1b}[2J)"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("not rendered")), "{text}");
    }

    #[test]
    fn whoever_takes_a_request_is_named_in_each_line_also_where_it_is_an_ingress_of_somebody_else() {
        let younger = ingress("a", 2022, "nginx", "a.example");
        let text = explained(vec![younger, ingress("b", 2020, "nginx", "a.example")]).text;
        assert!(
            text.contains("a.example/a (class nginx) goes where Ingress shop/b says by rule /a"),
            "{text}"
        );
        assert!(text.contains("where Ingress shop/b says: takes it"), "{text}");
        assert!(text.contains("where Ingress shop/a says: would take it, but comes later"), "{text}");
    }

    #[test]
    fn who_makes_regexes_of_all_paths_of_the_host_is_told_where_the_ingress_controller_heeds_it() {
        let text = |class: &str, value: &str, host: &str| {
            let mut old = ingress("old", 2020, class, host);
            old["metadata"]["annotations"]["nginx.ingress.kubernetes.io/use-regex"] = json!(value);
            old["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("/legacy/(a|b)");
            explained(vec![old, ingress("new", 2022, class, "a.example")]).text
        };
        let told = text("nginx", "true", "a.example");
        assert!(told.contains("as a regex") && told.contains("a.example by Ingress shop/old."), "{told}");
        assert!(
            text("public", "true", "a.example").contains("by Ingress shop/old."),
            "whose class it is, is not known"
        );
        for other in [
            text("nginx", "false", "a.example"),
            text("nginx", "true", "b.example"),
            text("traefik", "true", "a.example"),
        ] {
            assert!(!other.contains("as a regex"), "{other}");
        }
    }

    #[test]
    fn the_oldest_has_what_several_ask_for_whatever_its_name() {
        let younger = ingress("a", 2022, "nginx", "a.example");
        let takers = explained(vec![younger, ingress("b", 2020, "nginx", "a.example")]).takers;
        assert_eq!(takers.iter().map(|taker| &taker.owner).collect::<Vec<_>>(), ["Ingress shop/b"]);
    }

    #[test]
    fn an_exact_host_hides_the_wildcard_above_it_only_from_the_ingress_controller_that_has_it() {
        let takers = |class: &str| {
            let wildcard = ingress("wildcard", 2020, class, "*.example");
            explained(vec![wildcard, ingress("exact", 2020, "nginx", "a.example")]).takers.len()
        };
        assert_eq!((takers("nginx"), takers("other")), (1, 2));
    }
}
