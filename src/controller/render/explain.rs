//! Which rule a request takes, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use super::{
    conflicts::AllClaims,
    files::{OtherInFile, ServiceInFile},
};
use crate::{
    controller::{
        claims::requested::{gateway, gateways, ingress_class},
        reconcile::validate::misread::made_regexes,
    },
    routing::{
        Backend, CanonicalHost, Claim, Claimant, EntryPoint, PathMatch, RequestTarget, Route, RouteTable,
    },
    runtime::Escape,
};

/// A rule, and the object that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it takes.
    pub(super) path: PathMatch,
    /// Where it leads; none for the rule of an object that is no OrdersService.
    pub(super) backend: Option<Backend>,
    /// Whether the backend gets requests without the path.
    pub(super) strip_prefix: bool,
    /// Whether it is the rule of the client.
    pub(super) client: bool,
    /// The object.
    pub(super) owner: Claimant,
}

impl Rule {
    /// A route of an OrdersService.
    pub(super) fn new(route: &Route, owner: Claimant) -> Self {
        let Route { path, backend, strip_prefix, client } = route.clone();
        Self { path, backend: Some(backend), strip_prefix, client, owner }
    }

    /// Where it leads, as far as that is known here.
    fn target(&self) -> String {
        let Self { backend, owner, .. } = self;
        backend.as_ref().map_or_else(|| format!("where {owner} says"), |backend| format!("to {backend}"))
    }
}

/// The rules of each host, by what serves it: an ingress class, or a Gateway.
#[derive(Default)]
pub(super) struct Sites(BTreeMap<(CanonicalHost, String), Vec<Rule>>);

/// What becomes of a request at one of the things that serve its host.
pub(super) struct Answer<'a> {
    /// The host of the rules.
    pub(super) host: &'a CanonicalHost,
    /// What serves it, as it is written after the host.
    pub(super) entry_point: &'a str,
    rules: Vec<&'a Rule>,
    taken: Option<usize>,
}

impl Answer<'_> {
    /// The rule that takes it.
    pub(super) fn taker(&self) -> Option<&Rule> {
        self.taken.and_then(|at| self.rules.get(at)).copied()
    }
}

impl Sites {
    /// The rules of OrdersServices in files, and of the Ingresses and HTTPRoutes beside them.
    fn of_files(services: &[ServiceInFile], others: &[OtherInFile]) -> Self {
        let mut sites = Self::default();
        let listeners = Listeners::of(services);
        let text = |entry_point: &EntryPoint| listeners.text(entry_point);
        for OtherInFile { claimant, claims, .. } in others {
            sites.add_claims(claimant, claims, &text);
        }
        for found in services {
            let (valid, owner) = (&found.valid, found.claimant());
            let mut add = |host: &CanonicalHost, entry_point: &EntryPoint, routes: &RouteTable| {
                let rules = routes.iter().map(|route| Rule::new(route, owner.clone()));
                sites.add(host.clone(), text(entry_point), rules);
            };
            if let (Some(ingress), Some(spec)) = (&valid.ingress, &found.service.spec.ingress) {
                let class = ingress_class(spec);
                ingress.hosts.iter().for_each(|of| add(&of.host, &class, &of.routes));
            }
            for entry_point in gateways(&found.service) {
                let hosts = valid.gateway.iter().flat_map(|gateway| &gateway.hosts);
                hosts.for_each(|of| add(&of.host, &entry_point, &of.routes));
            }
        }
        sites
    }

    /// Adds the rules of an object that is no OrdersService; `entry_point` says how what serves them is written.
    pub(super) fn add_claims(
        &mut self,
        owner: &Claimant,
        claims: &BTreeSet<Claim>,
        entry_point: &dyn Fn(&EntryPoint) -> String,
    ) {
        for Claim { site, path, .. } in claims {
            let Some(path) = path.clone() else { continue };
            let rule = Rule { path, backend: None, strip_prefix: false, client: false, owner: owner.clone() };
            self.add(site.host.clone(), entry_point(&site.entry_point), [rule]);
        }
    }

    /// Adds rules of a host at what serves it, such as ` (class nginx)`.
    pub(super) fn add(
        &mut self,
        host: CanonicalHost,
        entry_point: String,
        rules: impl IntoIterator<Item = Rule>,
    ) {
        self.0.entry((host, entry_point)).or_default().extend(rules);
    }

    /// The answer for every host that the request may be for. The rules are in rendered order, whosever they are.
    pub(super) fn answers(&self, request: &RequestTarget) -> Vec<Answer<'_>> {
        let mut answers = Vec::new();
        for ((host, entry_point), rules) in
            self.0.iter().filter(|((host, entry_point), _)| self.is_for(request, host, entry_point))
        {
            let mut rules: Vec<_> = rules.iter().collect();
            // The oldest has what several ask for.
            rules.sort_by(|left, right| (&left.path, &left.owner).cmp(&(&right.path, &right.owner)));
            let taken = rules.iter().position(|rule| rule.path.takes(&request.path));
            answers.push(Answer { host, entry_point, rules, taken });
        }
        answers
    }

    /// An exact host goes before the wildcard above it, and that before every host; none falls through to the next. That is
    /// so at each thing that serves hosts, for itself: none knows the hosts of another.
    fn is_for(&self, request: &RequestTarget, host: &CanonicalHost, entry_point: &str) -> bool {
        let Some(wanted) = &request.host else { return true };
        let above = [Some(wanted.clone()), wanted.wildcard_above(), Some(CanonicalHost::any())];
        let is_here = |above: &CanonicalHost| self.0.contains_key(&(above.clone(), entry_point.to_owned()));
        let first = above.into_iter().flatten().find(is_here);
        first.as_ref() == Some(host)
    }

    /// The answers as text.
    pub(super) fn explain(&self, request: &RequestTarget) -> Result<String, fmt::Error> {
        let mut text = String::new();
        for answer in self.answers(request) {
            write_answer(&mut text, request, &answer)?;
        }
        if text.is_empty() {
            // A host may have several sites: an ingress class, and Gateways.
            let mut hosts: Vec<_> = self.0.keys().map(|(host, _)| host.to_string()).collect();
            hosts.dedup();
            match &request.host {
                Some(host) => {
                    writeln!(text, "no rule has host {host}: there are rules for {}", listed(&hosts))?;
                }
                None => {
                    writeln!(text, "there are no rules: no OrdersService has spec.ingress or spec.gateway")?;
                }
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
}

/// The answer for what is in files, for every host that the request may be for.
pub(super) fn explain(
    services: &[ServiceInFile],
    others: &[OtherInFile],
    claims: &AllClaims<'_>,
    request: &RequestTarget,
) -> Result<String, fmt::Error> {
    let sites = Sites::of_files(services, others);
    let mut text = sites.explain(request)?;
    let mut regexes = claims.hosts_of_regexes(services);
    let answers = sites.answers(request);
    regexes.retain(|host, _| answers.iter().any(|answer| answer.host == host));
    if !regexes.is_empty() {
        writeln!(text, "note: the rules may mean something else: {}", made_regexes(&regexes))?;
    }
    Ok(text)
}

/// What serves a host, as it is written after it. `default_class` is that of the cluster, if it is known.
pub(super) fn after_host(of: &EntryPoint, default_class: Option<&str>) -> String {
    match of {
        EntryPoint::Gateway(gateway) => format!(" (Gateway {})", Escape::Text.line(gateway)),
        EntryPoint::Class(class) => {
            let class = class.as_deref().or(default_class);
            // An annotation may have it, with line breaks; the text is divided into lines before those are escaped.
            class.map_or_else(String::new, |class| format!(" (class {})", Escape::Text.line(class)))
        }
    }
}

/// The listeners that OrdersServices name, of each Gateway.
struct Listeners<'a>(BTreeMap<EntryPoint, BTreeSet<&'a str>>);

impl<'a> Listeners<'a> {
    fn of(services: &'a [ServiceInFile]) -> Self {
        let mut named = BTreeMap::<_, BTreeSet<_>>::new();
        for found in services {
            for parent in found.valid.gateway.iter().flat_map(|gateway| &gateway.parents) {
                let of_gateway = named.entry(gateway(parent, &found.valid.namespace)).or_default();
                of_gateway.extend(parent.section_name.as_deref());
            }
        }
        Self(named)
    }

    /// What serves a host, with its listeners. Whatever they are, a Gateway has one list of rules for a host.
    fn text(&self, of: &EntryPoint) -> String {
        let text = after_host(of, None);
        let named: Vec<_> = self.0.get(of).into_iter().flatten().copied().collect();
        match named.as_slice() {
            [] => text,
            named => {
                let listeners = if named.len() == 1 { "listener" } else { "listeners" };
                format!("{}, {listeners} {})", text.trim_end_matches(')'), named.join(", "))
            }
        }
    }
}

fn listed(hosts: &[String]) -> String {
    if hosts.is_empty() { "none".into() } else { hosts.join(", ") }
}

fn write_answer(text: &mut String, request: &RequestTarget, answer: &Answer<'_>) -> fmt::Result {
    let path = &request.path;
    let Answer { host, entry_point, rules, taken } = answer;
    match answer.taker() {
        Some(rule) => {
            let (target, owner) = (rule.target(), &rule.owner);
            writeln!(text, "{host}{path}{entry_point} goes {target} by rule {} of {owner}:", rule.path)?;
            if rule.strip_prefix {
                writeln!(text, "  the Service gets it as {}", stripped(rule, path))?;
            }
            if rule.client {
                writeln!(text, "  no other rule matches, so the client gets it")?;
            } else if rule.path.is_exact() {
                writeln!(text, "  it matches exactly this path, and such rules come first")?;
            } else {
                writeln!(text, "  of the matching rules it has the most segments, so it comes first")?;
            }
        }
        None => {
            writeln!(text, "{host}{path}{entry_point} is not served: no rule matches, and no client is set")?
        }
    }
    for (at, rule) in rules.iter().enumerate() {
        let verdict = match (rule.path.takes(path), *taken) {
            (true, Some(taken)) if at == taken => "takes it".to_owned(),
            (true, _) => "would take it, but comes later".to_owned(),
            (false, _) => why_not(rule, path),
        };
        let mark = if *taken == Some(at) { '>' } else { ' ' };
        let (class, path) = (class_of(rule), rule.path.to_string());
        let (segments, bytes) = (rule.path.path().segments(), path.len());
        writeln!(
            text,
            "{mark} {:>2}. {path:<24} {class}, {segments} segments, {bytes} bytes, {}: {verdict}",
            at + 1,
            rule.target()
        )?;
    }
    Ok(())
}

fn class_of(rule: &Rule) -> &'static str {
    match rule {
        Rule { client: true, .. } => "client",
        Rule { path, .. } if path.is_exact() => "exact",
        _ => "prefix",
    }
}

/// The path that the Service gets of a route that takes its prefix off.
fn stripped<'a>(rule: &Rule, path: &'a str) -> &'a str {
    path.strip_prefix(rule.path.as_str()).filter(|rest| !rest.is_empty()).unwrap_or("/")
}

fn why_not(rule: &Rule, path: &str) -> String {
    let (is_exact, rule) = (rule.path.is_exact(), rule.path.as_str());
    if is_exact && path.starts_with(rule) {
        return format!("no: it matches only {rule}");
    }
    if path.to_ascii_lowercase().starts_with(&rule.to_ascii_lowercase()) && !path.starts_with(rule) {
        return "no: upper and lower case differ".into();
    }
    if path.starts_with(rule) {
        return format!("no: a prefix matches whole segments, and {path} is not below {rule}/");
    }
    "no".into()
}
