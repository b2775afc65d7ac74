//! Who claims which routes, as the watches show it.
//!
//! An OrdersService claims what its spec asks for, and what its status says that it has: so a route that
//! it gives up goes to the next only when it is no longer rendered, and one whose spec cannot be rendered
//! (suspended, or not valid) keeps what its Ingress still serves. Of other Ingresses every path counts
//! that is a prefix. Whoever a change concerns is woken, and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::networking::v1::{HTTPIngressPath, Ingress, IngressClass},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, runtime::watcher::Event};

use super::{
    lists::{List, Lists},
    partial::Partial,
    routes::{Wanted, at_gateway, wanted},
    wake::Wake,
    watched::is_child,
};
use crate::{
    crd::OrdersService,
    routing::{
        CanonicalHost, CanonicalPath, Claim, ClaimIndex, Claimant, ClaimantId, ClaimantKind, Entrance,
        HostPolicy, Site, Verdict,
    },
};

/// Names the class of an Ingress where its spec does not, as was usual before Kubernetes 1.18.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Marks the class of Ingresses that name none.
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// What others have of an OrdersService's routes, by host.
pub type Verdicts = BTreeMap<Site, Verdict>;

/// All claims. Clones share one state.
#[derive(Clone)]
pub struct Claims {
    state: Arc<Mutex<State>>,
    lists: Lists,
    wake: Wake,
}

struct State {
    index: ClaimIndex,
    /// The IngressClasses by name, and when the default ones were created; none before they are known.
    classes: Option<BTreeMap<String, Option<i64>>>,
}

impl Claims {
    /// Before `lists` lists have come in.
    pub fn new(policy: HostPolicy, lists: usize, wake: Wake) -> Self {
        let state = State { index: ClaimIndex::new(policy), classes: None };
        Self { state: Arc::new(Mutex::new(state)), lists: Lists::new(lists), wake }
    }

    /// Waits until every list has come in, or was refused: to judge before would be to take what is another's.
    pub async fn settled(&self) {
        self.lists.settled().await;
    }

    /// What others have of what `service` asks for.
    pub fn judge(&self, service: &OrdersService) -> Verdicts {
        let me = claimant(&service.metadata, ClaimantKind::OrdersService);
        let state = self.lock();
        let wanted = wanted(service).ok().flatten();
        wanted.iter().flat_map(|wanted| verdicts(&state.index, &me, wanted)).collect()
    }

    /// Whether there is an IngressClass of this name; none when they cannot be seen.
    pub fn has_class(&self, name: &str) -> Option<bool> {
        self.lock().classes.as_ref().map(|classes| classes.contains_key(name))
    }

    /// The feed of a watch on OrdersServices or on Ingresses.
    pub fn feed(&self, kind: ClaimantKind) -> Feed {
        Feed {
            claims: self.clone(),
            kind,
            list: self.lists.list(),
            known: HashSet::new(),
            arriving: HashSet::new(),
        }
    }

    /// The feed of the watch on IngressClasses.
    pub fn class_feed(&self) -> ClassFeed {
        ClassFeed { claims: self.clone(), list: self.lists.list(), arriving: BTreeMap::new() }
    }

    fn wake(&self, concerned: BTreeSet<Arc<Claimant>>) {
        for claimant in concerned {
            self.wake.wake(&claimant.id.namespace, &claimant.id.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an object claims.
pub enum Claimed {
    /// This.
    These(BTreeSet<Claim>),
    /// Nothing: another claims for it.
    ByAnother,
    /// It cannot be read, and so keeps what it claimed before.
    Unknown,
}

/// What others have of what `me` wants.
pub fn verdicts(index: &ClaimIndex, me: &Claimant, wanted: &Wanted) -> Verdicts {
    let prefixes = || wanted.routes.iter().map(|route| &route.path);
    wanted.sites().map(|site| (site.clone(), index.judge(me, &site, prefixes()))).collect()
}

/// Takes the events of one watch on objects that make claims.
pub struct Feed {
    claims: Claims,
    kind: ClaimantKind,
    /// The list with which the watch begins.
    pub list: List,
    /// What this watch has shown.
    known: HashSet<ClaimantId>,
    /// What the list that is coming in has.
    arriving: HashSet<ClaimantId>,
}

impl Feed {
    /// Takes one event.
    pub fn take<K: Resource>(&mut self, event: &Event<K>, claimed: impl Fn(&K) -> Claimed) {
        match event {
            Event::Init => self.arriving.clear(),
            Event::InitApply(object) => {
                self.arriving.insert(claimant(object.meta(), self.kind).id);
                self.put(claimant(object.meta(), self.kind), claimed(object));
            }
            Event::InitDone => {
                let arrived = std::mem::take(&mut self.arriving);
                let gone: Vec<_> = self.known.difference(&arrived).cloned().collect();
                gone.iter().for_each(|id| self.remove(id));
                self.list.settle();
            }
            Event::Apply(object) => self.put(claimant(object.meta(), self.kind), claimed(object)),
            Event::Delete(object) => self.remove(&claimant(object.meta(), self.kind).id),
        }
    }

    fn put(&mut self, claimant: Claimant, claimed: Claimed) {
        match claimed {
            Claimed::These(claims) => {
                self.known.insert(claimant.id.clone());
                let concerned = self.claims.lock().index.put(claimant, claims);
                self.claims.wake(concerned);
            }
            Claimed::ByAnother => self.remove(&claimant.id),
            Claimed::Unknown => {}
        }
    }

    fn remove(&mut self, id: &ClaimantId) {
        if self.known.remove(id) {
            let concerned = self.claims.lock().index.remove(id);
            self.claims.wake(concerned);
        }
    }
}

/// Takes the events of the watch on IngressClasses.
pub struct ClassFeed {
    claims: Claims,
    /// The list with which the watch begins.
    pub list: List,
    arriving: BTreeMap<String, Option<i64>>,
}

impl ClassFeed {
    /// Takes one event.
    pub fn take(&mut self, event: Event<IngressClass>) {
        match event {
            Event::Init => self.arriving.clear(),
            Event::InitApply(class) => {
                let (name, default) = class_of(&class);
                self.arriving.insert(name, default);
            }
            Event::InitDone => {
                let arrived = std::mem::take(&mut self.arriving);
                self.change(|classes| *classes = arrived);
                self.list.settle();
            }
            Event::Apply(class) => {
                let (name, default) = class_of(&class);
                self.change(|classes| {
                    classes.insert(name, default);
                });
            }
            Event::Delete(class) => {
                let (name, _) = class_of(&class);
                self.change(|classes| {
                    classes.remove(&name);
                });
            }
        }
    }

    /// Those are woken who name a class that came or went, and those whom another default concerns.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Option<i64>>)) {
        let mut state = self.claims.lock();
        let before = state.classes.clone().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        // As the API server chooses: the newest, then the first by name.
        let defaults =
            after.iter().filter_map(|(name, default)| Some((std::cmp::Reverse((*default)?), name)));
        let default = defaults.min().map(|(_, name)| name.as_str().into());
        let mut concerned = state.index.set_default_class(default);
        for name in before.keys().chain(after.keys()) {
            if before.contains_key(name) != after.contains_key(name) {
                concerned.extend(state.index.at(&Entrance::Class(Some(name.as_str().into()))));
            }
        }
        state.classes = Some(after);
        drop(state);
        self.claims.wake(concerned);
    }
}

fn class_of(class: &IngressClass) -> (String, Option<i64>) {
    let metadata = &class.metadata;
    let mark = metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION));
    let default = mark.is_some_and(|mark| mark == "true").then(|| created(metadata));
    (metadata.name.clone().unwrap_or_default(), default)
}

fn created(object: &ObjectMeta) -> i64 {
    // What is in no cluster yet is younger than all that is.
    object.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

/// The object as one that makes claims.
pub fn claimant(object: &ObjectMeta, kind: ClaimantKind) -> Claimant {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let id = ClaimantId { namespace: text(&object.namespace), name: text(&object.name), kind };
    Claimant { created: created(object), id }
}

/// What an OrdersService asks for, and what it has.
pub fn of_service(service: &OrdersService) -> Claimed {
    let mut claims = BTreeSet::new();
    if let Ok(Some(wanted)) = wanted(service) {
        claims.extend(claims_to(&wanted));
    }
    if let Some(ingress) = &service.spec.ingress {
        let entrance = Entrance::Class(ingress.class_name.as_deref().map(Into::into));
        // A host that Gateways have says nothing of the Ingress.
        let at_gateway = at_gateway(service).ok().flatten().map_or(Vec::new(), |gateway| gateway.hosts);
        for route in service.status.iter().flat_map(|status| &status.routes) {
            let host = CanonicalHost::parse(&route.host).ok().filter(|host| !at_gateway.contains(host));
            if let Some((host, prefix)) = host.zip(CanonicalPath::parse(&route.path).ok()) {
                let site = Site { entrance: entrance.clone(), host };
                claims.insert(Claim { site, prefix: Some(prefix) });
            }
        }
    }
    Claimed::These(claims)
}

/// The claims by which someone gets what is wanted.
pub fn claims_to(wanted: &Wanted) -> impl Iterator<Item = Claim> {
    wanted.sites().flat_map(|site| {
        wanted.routes.iter().map(move |route| Claim { site: site.clone(), prefix: Some(route.path.clone()) })
    })
}

/// What an Ingress claims; nothing, when it is the child of an OrdersService, which then does.
pub fn of_ingress(ingress: &Partial<Ingress>) -> Claimed {
    let Partial { metadata, spec, .. } = ingress;
    if is_child(metadata) {
        return Claimed::ByAnother;
    }
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let entrance =
        Entrance::Class(spec.ingress_class_name.as_ref().or(annotation).map(|class| class.as_str().into()));
    let mut claims = BTreeSet::new();
    for rule in spec.rules.iter().flatten() {
        let Some(Ok(host)) = rule.host.as_deref().map(CanonicalHost::parse) else { continue };
        let site = Site { entrance: entrance.clone(), host };
        let claim = |prefix| Claim { site: site.clone(), prefix };
        match &rule.http {
            Some(http) => claims.extend(http.paths.iter().map(|path| claim(prefix_of(path)))),
            // All of the host goes to the default backend.
            None => drop(claims.insert(claim(Some(CanonicalPath::root())))),
        }
    }
    Claimed::These(claims)
}

/// The prefix that a path takes whole; none for an exact path, or a regex that is no prefix.
fn prefix_of(path: &HTTPIngressPath) -> Option<CanonicalPath> {
    let text = path.path.as_deref().unwrap_or("/");
    (path.path_type != "Exact").then(|| CanonicalPath::parse(text).ok()).flatten()
}

#[cfg(test)]
mod tests;
