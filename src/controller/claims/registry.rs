//! All claims in the cluster, as the watches show them, and who wins them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Resource;

use super::{
    claimed::{
        Claims, Verdicts, claimant, created, of_http_route, of_ingress, of_service, requested_of, verdicts_on,
    },
    controllers::IngressController,
};
use crate::{
    controller::{
        children::{httproute::HTTPRoute, partial::Partial},
        index::Index,
        object_key::ObjectKey,
        raw_orders_service::RawOrdersService,
    },
    crd::OrdersService,
    routing::{AllowedHosts, ClaimIndex, Claimant, ClaimantId, ClaimantKind, EntryPoint, HostPolicy},
};

/// Marks the class of Ingresses that name none.
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whether Ingresses that name no class are of this one; if several are marked so, of the newest.
pub fn is_default_class(class: &IngressClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION)).is_some_and(|mark| mark == "true")
}

/// All claims. Clones share one state.
#[derive(Clone)]
pub struct ClaimRegistry(Arc<Mutex<State>>);

struct State {
    index: ClaimIndex,
    /// The IngressClasses by name.
    classes: BTreeMap<String, Class>,
    /// Whether the list of IngressClasses is complete; it never is without the right to read it.
    classes_synced: bool,
}

/// What is known of an IngressClass.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Class {
    /// When it was created, if it is marked as the default.
    default_since: Option<i64>,
    controller: IngressController,
}

impl ClaimRegistry {
    /// Without any claim.
    pub fn new(policy: HostPolicy) -> Self {
        let index = ClaimIndex::new(policy);
        Self(Arc::new(Mutex::new(State { index, classes: BTreeMap::new(), classes_synced: false })))
    }

    /// Which of the routes that `service` requests other objects hold.
    pub fn judge(&self, service: &OrdersService) -> Verdicts {
        // What a spec of many routes requests takes long to read: nobody is to wait for that at the lock.
        let me = claimant(&service.metadata, ClaimantKind::OrdersService);
        let requested = requested_of(service);
        verdicts_on(&self.lock().index, &me, &requested)
    }

    /// The status of `service` was written just now. Its watch event may take long, and until then the routes would count
    /// as only requested. Gives the other OrdersServices that this concerns.
    pub fn status_written(&self, service: &OrdersService) -> Vec<ObjectKey> {
        let me = claimant(&service.metadata, ClaimantKind::OrdersService);
        match of_service(service) {
            Claims::These(claims) => keys(self.lock().index.update(me, claims)),
            Claims::OfOwner | Claims::Unknown => Vec::new(),
        }
    }

    /// Sets the hosts that each namespace may have; gives the OrdersServices that this concerns.
    pub fn set_allowed(&self, allowed: AllowedHosts) -> Vec<ObjectKey> {
        keys(self.lock().index.set_allowed(allowed))
    }

    /// Whether there is an IngressClass of this name; none when they cannot be read.
    pub fn has_class(&self, name: &str) -> Option<bool> {
        let state = self.lock();
        state.classes_synced.then(|| state.classes.contains_key(name))
    }

    /// Whether the cluster has a default IngressClass; none when they cannot be read.
    pub fn has_default_class(&self) -> Option<bool> {
        let state = self.lock();
        state.classes_synced.then(|| state.classes.values().any(|class| class.default_since.is_some()))
    }

    /// The name of the cluster's default IngressClass, as far as that is known.
    pub fn default_class(&self) -> Option<String> {
        self.lock().index.default_class().map(str::to_owned)
    }

    /// Which ingress controller serves a class, or the default one; none if that is not known.
    pub fn controller_of(&self, class: Option<&str>) -> Option<IngressController> {
        let state = self.lock();
        let name = class.or(state.index.default_class())?;
        state.classes.get(name).map(|class| class.controller).or_else(|| IngressController::named(name))
    }

    /// Drops the claims of every HTTPRoute, since there are none any more; gives the OrdersServices that this concerns.
    pub fn http_routes_gone(&self) -> Vec<ObjectKey> {
        Claimants::new(self, ClaimantKind::HTTPRoute, None).retain(&HashSet::new())
    }

    /// The index for the watch on OrdersServices in `namespace`, or in all.
    pub fn of_services(&self, namespace: Option<&str>) -> ServiceClaims {
        ServiceClaims(Claimants::new(self, ClaimantKind::OrdersService, namespace))
    }

    /// The index for the watch on Ingresses in `namespace`, or in all.
    pub fn of_ingresses(&self, namespace: Option<&str>) -> IngressClaims {
        IngressClaims(Claimants::new(self, ClaimantKind::Ingress, namespace))
    }

    /// The index for the watch on HTTPRoutes in `namespace`, or in all.
    pub fn of_http_routes(&self, namespace: Option<&str>) -> HTTPRouteClaims {
        HTTPRouteClaims(Claimants::new(self, ClaimantKind::HTTPRoute, namespace))
    }

    /// The index for the watch on IngressClasses.
    pub fn classes(&self) -> IngressClasses {
        IngressClasses(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claimants of one kind, in one namespace or in all.
struct Claimants {
    registry: ClaimRegistry,
    kind: ClaimantKind,
    namespace: Option<String>,
}

impl Claimants {
    fn new(registry: &ClaimRegistry, kind: ClaimantKind, namespace: Option<&str>) -> Self {
        Self { registry: registry.clone(), kind, namespace: namespace.map(str::to_owned) }
    }

    fn apply(&self, claimant: Claimant, claims: Claims) -> Vec<ObjectKey> {
        let index = &mut self.registry.lock().index;
        keys(match claims {
            Claims::These(claims) => index.put(claimant, claims),
            Claims::OfOwner => index.remove(&claimant.id),
            Claims::Unknown => return Vec::new(),
        })
    }

    fn delete(&self, key: &ObjectKey) -> Vec<ObjectKey> {
        let (namespace, name) = (key.namespace().into(), key.name().into());
        keys(self.registry.lock().index.remove(&ClaimantId { namespace, name, kind: self.kind }))
    }

    fn retain(&self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let index = &mut self.registry.lock().index;
        let is_gone = |id: &&ClaimantId| {
            id.kind == self.kind
                && self.namespace.as_deref().is_none_or(|namespace| namespace == &*id.namespace)
                && !listed.contains(&ObjectKey::new(&id.namespace, &id.name))
        };
        let gone: Vec<_> = index.claimants().filter(is_gone).cloned().collect();
        gone.iter().flat_map(|id| keys(index.remove(id))).collect()
    }
}

fn keys(claimants: BTreeSet<Arc<Claimant>>) -> Vec<ObjectKey> {
    claimants.iter().map(|claimant| ObjectKey::new(&claimant.id.namespace, &claimant.id.name)).collect()
}

/// The claims of the OrdersServices of one watch.
pub struct ServiceClaims(Claimants);

impl Index<RawOrdersService> for ServiceClaims {
    fn apply(&mut self, service: &RawOrdersService) -> Vec<ObjectKey> {
        let claims = service.parse().map_or(Claims::Unknown, |service| of_service(&service));
        self.0.apply(claimant(service.meta(), ClaimantKind::OrdersService), claims)
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.0.delete(key)
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.0.retain(listed)
    }
}

/// The claims of the Ingresses of one watch, except those that belong to OrdersServices.
pub struct IngressClaims(Claimants);

impl Index<Partial<Ingress>> for IngressClaims {
    fn apply(&mut self, ingress: &Partial<Ingress>) -> Vec<ObjectKey> {
        self.0.apply(claimant(&ingress.metadata, ClaimantKind::Ingress), of_ingress(ingress))
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.0.delete(key)
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.0.retain(listed)
    }
}

/// The claims of the HTTPRoutes of one watch, those of OrdersServices aside.
pub struct HTTPRouteClaims(Claimants);

impl Index<Partial<HTTPRoute>> for HTTPRouteClaims {
    fn apply(&mut self, route: &Partial<HTTPRoute>) -> Vec<ObjectKey> {
        self.0.apply(claimant(&route.metadata, ClaimantKind::HTTPRoute), of_http_route(route))
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.0.delete(key)
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.0.retain(listed)
    }
}

/// The IngressClasses. A change concerns the OrdersServices that name a class which came or went, and those for which
/// another class is the default now.
pub struct IngressClasses(ClaimRegistry);

impl IngressClasses {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Class>)) -> Vec<ObjectKey> {
        let mut state = self.0.lock();
        let before = state.classes.clone();
        change(&mut state.classes);
        // As the API server chooses: the newest, then the first by name.
        let defaults =
            state.classes.iter().filter_map(|(name, class)| Some((Reverse(class.default_since?), name)));
        let default = defaults.min().map(|(_, name)| name.as_str().into());
        let mut concerned = state.index.set_default_class(default);
        for name in before.keys().chain(state.classes.keys()) {
            if before.contains_key(name) != state.classes.contains_key(name) {
                concerned.extend(state.index.at(&EntryPoint::Class(Some(name.as_str().into()))));
            }
        }
        keys(concerned)
    }
}

impl Index<IngressClass> for IngressClasses {
    fn apply(&mut self, class: &IngressClass) -> Vec<ObjectKey> {
        let metadata = &class.metadata;
        let default_since = is_default_class(class).then(|| created(metadata));
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
        let controller = IngressController::of_class(controller.unwrap_or_default());
        self.change(|classes| {
            classes.insert(metadata.name.clone().unwrap_or_default(), Class { default_since, controller });
        })
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.change(|classes| {
            classes.remove(key.name());
        })
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut concerned =
            self.change(|classes| classes.retain(|name, _| listed.contains(&ObjectKey::new("", name))));
        let mut state = self.0.lock();
        if !std::mem::replace(&mut state.classes_synced, true) {
            // Until now no class was checked, for want of the right to read them.
            concerned.extend(keys(state.index.at_classes()));
        }
        concerned
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;
    use crate::{
        controller::fixture::service,
        routing::{CanonicalHost, Site},
    };

    fn resource(namespace: &str, created: i64) -> OrdersService {
        let mut resource = service(json!({"ingress": {"hosts": ["t.dev"], "routes": [], "client": null}}));
        resource.metadata.namespace = Some(namespace.into());
        resource.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
        resource
    }

    fn raw(service: &OrdersService) -> RawOrdersService {
        serde_json::from_value(serde_json::to_value(service).unwrap()).unwrap()
    }

    #[test]
    fn what_was_written_counts_before_the_watch_shows_it_and_not_once_the_resource_is_gone() {
        let registry = ClaimRegistry::new(HostPolicy::Namespace);
        let mut watch = registry.of_services(None);
        let (old, mut young) = (resource("a", 1), resource("b", 2));
        watch.apply(&raw(&young));
        let host = CanonicalHost::parse("t.dev").unwrap();
        let site = Site { entry_point: EntryPoint::Class(None), host };
        let is_refused = |service: &OrdersService| registry.judge(service)[&site].refused.is_some();
        let routes = json!({"routes": [{"host": "t.dev", "path": "/api/orders", "service": "s:1"}]});
        young.status = Some(serde_json::from_value(routes).unwrap());
        assert_eq!(registry.status_written(&young), []);
        watch.apply(&raw(&old));
        assert!(is_refused(&old) && !is_refused(&young));
        watch.delete(&ObjectKey::of(&young.metadata));
        assert_eq!(registry.status_written(&young), []);
        assert!(!is_refused(&old), "it is gone");
    }

    #[test]
    fn once_the_classes_can_be_read_every_resource_with_an_ingress_is_checked_again() {
        let registry = ClaimRegistry::new(HostPolicy::Shared);
        let mut watch = registry.of_services(None);
        let (classless, mut named, mut at_gateway) = (resource("a", 1), resource("b", 2), resource("c", 3));
        named.spec.ingress.as_mut().unwrap().class_name = Some("missing".into());
        let gateway = json!({"hostnames": ["g.dev"], "parentRefs": [{"name": "public"}]});
        at_gateway.spec.ingress = None;
        at_gateway.spec.gateway = Some(serde_json::from_value(gateway).unwrap());
        for service in [&classless, &named, &at_gateway] {
            watch.apply(&raw(service));
        }
        assert_eq!((registry.has_class("missing"), registry.has_default_class()), (None, None));
        let mut classes = registry.classes();
        let with_ingress = [ObjectKey::of(&classless.metadata), ObjectKey::of(&named.metadata)];
        assert_eq!(classes.retain(&HashSet::new()), with_ingress);
        assert_eq!((registry.has_class("missing"), registry.has_default_class()), (Some(false), Some(false)));
        assert_eq!(classes.retain(&HashSet::new()), [], "nothing has changed");
        let class = json!({
            "metadata": {"name": "public", "annotations": {DEFAULT_CLASS_ANNOTATION: "true"}},
            "spec": {"controller": "k8s.io/ingress-nginx"}
        });
        assert_eq!(registry.controller_of(None), None);
        classes.apply(&serde_json::from_value(class).unwrap());
        let nginx = Some(IngressController::IngressNginx);
        assert_eq!((registry.controller_of(None), registry.controller_of(Some("public"))), (nginx, nginx));
        assert_eq!((registry.controller_of(Some("nginx")), registry.controller_of(Some("x"))), (nginx, None));
    }
}
