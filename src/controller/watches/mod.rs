//! The watches: on OrdersServices, on every kind of their children, and on IngressClasses.
//!
//! Each has a backoff of its own, and its errors are counted by kind, so a failing one neither slows the others down
//! nor goes unnoticed among them. Each hands its events to an index, and requeues the OrdersServices that the index gives.
//!
//! ```text
//! orders_service  the index of OrdersServices
//! child_feed      the index of one kind of children
//! optional_api    whether HTTPRoutes and Middlewares are served at all
//! refusals        for how long the API server has refused something
//! ```

mod child_feed;
pub mod optional_api;
mod orders_service;
mod refusals;

use std::pin::pin;

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};

use self::{child_feed::ChildFeed, orders_service::OrdersServiceIndex, refusals::Refusals};
use super::{
    api_server::ApiServer,
    children::{
        httproute::HTTPRoute,
        kind::{Child, ChildKind, KindVisitor},
        middleware::Middleware,
        observed::ObservedChildren,
        partial::Partial,
        served::{Served, ServedTo},
    },
    claims::registry::ClaimRegistry,
    index::{Index, Indexer},
    known_services::KnownServices,
    metrics::Metrics,
    raw_orders_service::RawOrdersService,
    resource_state::ResourceStates,
    trigger::Trigger,
};
use crate::runtime::{
    cache_sync::{CacheSync, CacheSyncBuilder, InitialList},
    watch,
};

/// What the watches read from and write to.
pub struct Watches<'a> {
    /// How to watch.
    pub config: watcher::Config,
    /// The API server.
    pub api: &'a ApiServer,
    /// What the watches show of the children.
    pub observed: &'a ObservedChildren,
    /// What is remembered of each OrdersService.
    pub states: &'a ResourceStates,
    /// Who claims which routes.
    pub claims: &'a ClaimRegistry,
    /// Which Services there are.
    pub known_services: &'a KnownServices,
    /// Whether HTTPRoutes are served.
    pub gateway_api: &'a Served,
    /// Whether Middlewares are served.
    pub middlewares: &'a Served,
    /// Whether to watch IngressClasses.
    pub ingress_classes: bool,
    /// Requeues OrdersServices.
    pub trigger: &'a Trigger,
    /// Counts.
    pub metrics: &'a Metrics,
}

/// The watches, once they are built.
pub struct Started {
    /// The OrdersServices, a store for each namespace or one for all.
    pub stores: Vec<Store<RawOrdersService>>,
    /// Synced when every list that the controller cannot do without is complete.
    pub required_lists: CacheSync,
    /// Synced when every list is complete or was refused, so that there is nothing left to wait for.
    pub initial_lists: CacheSync,
    /// Runs the watches, without end.
    pub run: BoxFuture<'static, ()>,
}

/// The initial lists to wait for.
#[derive(Default)]
struct Lists {
    required: CacheSyncBuilder,
    all: CacheSyncBuilder,
}

/// The initial list of one watch.
#[derive(Clone, Default)]
struct WatchLists {
    required: Option<InitialList>,
    any: Option<InitialList>,
    /// Whether its objects claim routes. Nothing may be reconciled without knowing all claims, or a host could change hands
    /// for good.
    has_claims: bool,
}

impl Lists {
    fn required(&mut self, name: &'static str) -> WatchLists {
        WatchLists { required: Some(self.required.register(name)), ..self.optional(name) }
    }

    /// A list that the controller can do without if it is refused.
    fn optional(&mut self, name: &'static str) -> WatchLists {
        WatchLists { any: Some(self.all.register(name)), ..WatchLists::default() }
    }
}

impl WatchLists {
    fn complete(&self) {
        self.required.iter().chain(&self.any).for_each(InitialList::settle);
    }

    /// The list of objects that claim routes.
    fn of_claims(self) -> Self {
        Self { has_claims: true, ..self }
    }

    /// The list was refused, and that has lasted.
    fn refused(&self) {
        if !self.has_claims {
            self.any.iter().for_each(InitialList::settle);
        }
    }
}

impl Watches<'_> {
    /// Builds the watches in these namespaces, or in all where that is none.
    pub fn start(&self, namespaces: &[Option<String>]) -> Started {
        let (mut lists, mut stores) = (Lists::default(), Vec::new());
        let mut watches = Vec::new();
        if self.ingress_classes {
            watches.push(self.ingress_classes(&mut lists));
        }
        for namespace in namespaces {
            let namespace = namespace.as_deref();
            let (store, watch) = self.orders_services(namespace, &mut lists);
            stores.push(store);
            watches.push(watch);
            // Every kind, by its type: there is no list of watches in which one could be forgotten.
            watches.extend(
                ChildKind::ALL
                    .map(|kind| kind.visit(WatchChildren { watches: self, namespace, lists: &mut lists })),
            );
        }
        Started {
            stores,
            required_lists: lists.required.seal(),
            initial_lists: lists.all.seal(),
            run: join_all(watches).map(drop).boxed(),
        }
    }

    fn orders_services(
        &self,
        namespace: Option<&str>,
        lists: &mut Lists,
    ) -> (Store<RawOrdersService>, BoxFuture<'static, ()>) {
        let kind = "OrdersService";
        let (store, writer) = reflector::store();
        let api = watch::api::<RawOrdersService>(&self.api.client, namespace);
        let events =
            watch::events(api, self.config.clone()).modify(watch::strip_unused_metadata).reflect(writer);
        let claims = self.claims.of_services(namespace);
        let index = OrdersServiceIndex::new(self.states, self.known_services, self.metrics, namespace);
        let watch = self.watch(kind, lists.required(kind).of_claims(), (claims, index));
        (store, watch.run(events).boxed())
    }

    /// The Ingresses are watched for their owners, and because those of others claim routes.
    fn ingresses(&self, namespace: Option<&str>, lists: &mut Lists) -> BoxFuture<'static, ()> {
        let kind = ChildKind::Ingress.as_str();
        let api = watch::api::<Partial<Ingress>>(&self.api.client, namespace);
        let claims = self.claims.of_ingresses(namespace);
        let index = (claims, ChildFeed::new(self.observed, self.states, namespace));
        let lists = lists.required(kind).of_claims();
        self.watch(kind, lists, index).run(watch::events(api, self.config.clone())).boxed()
    }

    /// The Services are watched for their owners, and because routes go to those of others.
    fn services(&self, namespace: Option<&str>, lists: &mut Lists) -> BoxFuture<'static, ()> {
        let kind = ChildKind::Service.as_str();
        let api = watch::api::<Partial<Service>>(&self.api.client, namespace);
        let names = self.known_services.index(namespace);
        let index = (names, ChildFeed::new(self.observed, self.states, namespace));
        self.watch(kind, lists.required(kind), index).run(watch::events(api, self.config.clone())).boxed()
    }

    /// The HTTPRoutes are watched likewise, while they are served. Their initial list is complete at once where they are
    /// not.
    fn http_routes(&self, namespace: Option<&str>, lists: &mut Lists) -> BoxFuture<'static, ()> {
        let kind = ChildKind::HTTPRoute.as_str();
        let api = watch::api::<Partial<HTTPRoute>>(&self.api.client, namespace);
        let (crd, config) = (self.gateway_api.watch(), self.config.clone());
        let claims = self.claims.of_http_routes(namespace);
        let index = (claims, ChildFeed::new(self.observed, self.states, namespace));
        let lists = lists.optional(kind).of_claims();
        let watch = Watch { crd: Some(crd.clone()), ..self.watch(kind, lists, index) };
        watch.run_while_served(crd, move || watch::events(api.clone(), config.clone())).boxed()
    }

    /// The Middlewares are watched for their owners, while they are served.
    fn middlewares(&self, namespace: Option<&str>, lists: &mut Lists) -> BoxFuture<'static, ()> {
        let kind = ChildKind::Middleware.as_str();
        let api = watch::api::<Partial<Middleware>>(&self.api.client, namespace);
        let (crd, config) = (self.middlewares.watch(), self.config.clone());
        let feed = ChildFeed::new(self.observed, self.states, namespace);
        let watch = Watch { crd: Some(crd.clone()), ..self.watch(kind, lists.optional(kind), feed) };
        watch.run_while_served(crd, move || watch::events(api.clone(), config.clone())).boxed()
    }

    fn ingress_classes(&self, lists: &mut Lists) -> BoxFuture<'static, ()> {
        let kind = "IngressClass";
        let events = watch::events(Api::<IngressClass>::all(self.api.client.clone()), self.config.clone());
        self.watch(kind, lists.optional(kind), self.claims.classes()).run(events).boxed()
    }

    fn watch<I>(&self, kind: &'static str, lists: WatchLists, index: I) -> Watch<I> {
        let (trigger, metrics) = (self.trigger.clone(), self.metrics.clone());
        metrics.watch_begins(kind);
        let (indexer, refusals) = (Indexer::new(index), Refusals::default());
        Watch { kind, lists, refusals, indexer, crd: None, trigger, metrics }
    }
}

/// Builds the watch on one kind of children.
struct WatchChildren<'a> {
    watches: &'a Watches<'a>,
    namespace: Option<&'a str>,
    lists: &'a mut Lists,
}

impl KindVisitor for WatchChildren<'_> {
    type Output = BoxFuture<'static, ()>;

    fn visit<K: Child>(self) -> Self::Output {
        let Self { watches, namespace, lists } = self;
        let kind = K::KIND.as_str();
        let api = watch::api::<Partial<K>>(&watches.api.client, namespace);
        let config = watches.config.clone();
        let feed = ChildFeed::new(watches.observed, watches.states, namespace);
        match K::KIND {
            ChildKind::Ingress => watches.ingresses(namespace, lists),
            ChildKind::HTTPRoute => watches.http_routes(namespace, lists),
            ChildKind::Middleware => watches.middlewares(namespace, lists),
            ChildKind::Service => watches.services(namespace, lists),
            ChildKind::Deployment
            | ChildKind::HorizontalPodAutoscaler
            | ChildKind::PodDisruptionBudget
            | ChildKind::ServiceAccount
            | ChildKind::NetworkPolicy => {
                watches.watch(kind, lists.required(kind), feed).run(watch::events(api, config)).boxed()
            }
        }
    }
}

/// One watch.
struct Watch<I> {
    kind: &'static str,
    lists: WatchLists,
    refusals: Refusals,
    indexer: Indexer<I>,
    /// Whether its kind is served, if that depends on a CRD of others.
    crd: Option<ServedTo>,
    trigger: Trigger,
    metrics: Metrics,
}

impl<I> Watch<I> {
    /// Handles events, without end: an error is counted and logged, and the stream restarts the watch.
    async fn run<K: Resource>(mut self, events: impl Stream<Item = watcher::Result<Event<K>>> + Send)
    where
        I: Index<K>,
    {
        self.handle(events).await;
    }

    /// Handles the events of one watch after the other, each from when the kind is served until it is not.
    async fn run_while_served<K: Resource, E: Stream<Item = watcher::Result<Event<K>>> + Send>(
        mut self,
        crd: ServedTo,
        events: impl Fn() -> E,
    ) where
        I: Index<K>,
    {
        loop {
            tokio::select! {
                () = crd.wait_until(true) => {}
                () = crd.wait_until(false) => self.lists.complete(),
            }
            crd.wait_until(true).await;
            tokio::select! {
                () = self.handle(events()) => {}
                () = crd.wait_until(false) => {}
            }
        }
    }

    async fn handle<K: Resource>(&mut self, events: impl Stream<Item = watcher::Result<Event<K>>> + Send)
    where
        I: Index<K>,
    {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    self.indexer.handle(&event).iter().for_each(|key| self.trigger.requeue(key));
                    if matches!(event, Event::InitDone) {
                        self.crd.iter().for_each(ServedTo::listed);
                        self.lists.complete();
                    }
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        let code = status_code(error);
        if let (Some(404), Some(crd)) = (code, &self.crd) {
            // Its CRD was removed, which is not a failure.
            crd.gone();
            return;
        }
        self.metrics.watch_failed(self.kind);
        tracing::warn!(kind = self.kind, %error, "a watch failed; it is started again");
        // Without the right, or without the kind, the list will not come: there is no point in waiting for it. But a refusal may
        // last for a moment only.
        match code {
            Some(403 | 404) if self.refusals.refused() => {
                self.lists.refused();
                // What has no claims can be written without a list.
                self.crd.iter().filter(|_| !self.lists.has_claims).for_each(ServedTo::listed);
            }
            Some(403 | 404) => {}
            _ => self.refusals.ended(),
        }
    }
}

fn status_code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::*;
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => Some(status.code),
        WatchError(status) => Some(status.code),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use futures::stream;
    use k8s_openapi::api::networking::v1::IngressClass;
    use kube::core::Status;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::controller::object_key::ObjectKey;

    /// Of objects that concern nobody.
    struct Nobody;

    impl Index<IngressClass> for Nobody {
        fn apply(&mut self, _: &IngressClass) -> Vec<ObjectKey> {
            Vec::new()
        }

        fn delete(&mut self, _: &ObjectKey) -> Vec<ObjectKey> {
            Vec::new()
        }

        fn retain(&mut self, _: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
            Vec::new()
        }
    }

    /// Whether everything is there to begin with, after one more refusal in each of these many seconds, and after a list
    /// that comes at last.
    async fn begins(of_claims: bool, seconds: u32) -> (bool, bool) {
        let mut lists = Lists::default();
        let list =
            if of_claims { lists.required("Ingress").of_claims() } else { lists.optional("IngressClass") };
        let all = lists.all.seal();
        let metrics = Metrics::register(&mut Registry::default());
        let (trigger, _queues) = Trigger::new(&[None], metrics.clone());
        let (indexer, refusals) = (Indexer::new(Nobody), Refusals::default());
        let mut watch = Watch { kind: "x", lists: list, refusals, indexer, crd: None, trigger, metrics };
        let refused = stream::iter(0..seconds).then(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let status = Status { code: 403, ..Status::default() };
            Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        });
        watch.handle::<IngressClass>(refused).await;
        let after_refusals = all.is_synced();
        watch.handle(stream::iter([Ok(Event::<IngressClass>::Init), Ok(Event::InitDone)])).await;
        (after_refusals, all.is_synced())
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_refused_is_waited_for_for_a_while_and_one_of_claims_as_long_as_it_takes() {
        assert_eq!(begins(false, 5).await, (false, true));
        assert_eq!(begins(false, 60).await, (true, true));
        assert_eq!(begins(true, 5).await, (false, true));
        assert_eq!(begins(true, 600).await, (false, true));
    }
}
