//! The watches: on the resources themselves, and on every kind of child.
//!
//! Each has a backoff of its own, and its errors are counted by kind: one that fails neither slows the
//! others down nor hides among them. What they show becomes names of resources to be reconciled.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    networking::v1::{Ingress, IngressClass, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event},
    },
};

use super::{
    apply::Children,
    backoff::Backoff,
    claims::{self, Claimed, Claims},
    gateway::HTTPRoute,
    kind::Kind,
    lists::List,
    memory::Memory,
    metrics::Metrics,
    partial::Partial,
    stored::Stored,
    wake::Woken,
    watched::{Key, Watch},
};
use crate::{routing::ClaimantKind, runtime::watch};

/// What the watches tell of.
pub struct Followed<'a> {
    /// How to watch.
    pub config: watcher::Config,
    /// The children.
    pub children: &'a Children,
    /// Who claims which routes.
    pub claims: &'a Claims,
    /// Failures in a row, which end with the resource.
    pub backoff: &'a Arc<Backoff>,
}

/// The watches on `namespace`, or on all: the resources that they show, and the controller that they drive.
pub fn follow(
    namespace: Option<&str>,
    followed: &Followed<'_>,
    mut woken: Woken,
) -> (Store<Stored>, Controller<Stored>) {
    let Followed { config, children, claims, backoff } = followed;
    let (client, metrics) = (&children.cluster.client, children.cluster.metrics.clone());
    let (services, writer) = reflector::store();
    let events = watch::events(watch::api::<Stored>(client, namespace), config.clone()).modify(watch::spare);
    let mut known = Known::default();
    let (of_services, backoff) = (services.clone(), (*backoff).clone());
    let (memory, underway) = (children.memory.clone(), children.underway.clone());
    let mut feed = claims.feed(ClaimantKind::OrdersService);
    let list = feed.list.clone();
    let counting = metrics.clone();
    let counted = counted(events.reflect(writer), "OrdersService", metrics, move || list.settle());
    let services_changed = counted.flat_map(move |event| {
        feed.take(&event, |stored| {
            stored.read().map_or(Claimed::Unknown, |service| claims::of_service(&service))
        });
        let before = known.uids.len();
        let (changed, gone) = known.take(&event);
        counting.came(known.uids.len() as i64 - before as i64);
        for uid in gone {
            memory.forget(&uid);
            underway.forget(&uid);
            backoff.forget(&uid);
        }
        let changed = match changed {
            Changed::All => of_services.state().iter().map(|stored| reference(key(stored))).collect(),
            Changed::This(object) if is_told(&memory, object) => Vec::new(),
            Changed::This(object) => vec![reference(key(object))],
            Changed::None => Vec::new(),
        };
        stream::iter(changed)
    });
    let triggers: Vec<BoxStream<'static, ObjectRef<Stored>>> = vec![
        services_changed.boxed(),
        stream::poll_fn(move |context| woken.poll_recv(context)).boxed(),
        owners::<Deployment>(namespace, config, children),
        owners::<Service>(namespace, config, children),
        ingresses(namespace, followed),
        owners::<HorizontalPodAutoscaler>(namespace, config, children),
        owners::<PodDisruptionBudget>(namespace, config, children),
        owners::<ServiceAccount>(namespace, config, children),
        owners::<NetworkPolicy>(namespace, config, children),
        routes(namespace, followed),
    ];
    let metrics = children.cluster.metrics.clone();
    let queued = stream::select_all(triggers).inspect(move |object| metrics.queued(object));
    let controller = Controller::for_stream(stream::pending(), services.clone()).reconcile_on(queued);
    (services, controller)
}

/// Follows the IngressClasses, for ever; they are of no namespace.
pub async fn follow_classes(client: &Client, config: watcher::Config, claims: &Claims, metrics: Metrics) {
    let mut feed = claims.class_feed();
    let list = feed.list.clone();
    let api = Api::<IngressClass>::all(client.clone());
    let events = watch::events(api, config);
    let events = counted(events, "IngressClass", metrics, move || list.settle());
    events
        .for_each(|event| {
            feed.take(event);
            std::future::ready(())
        })
        .await;
}

/// The owners of the children of one kind, whenever one changes or goes.
fn owners<K: Watch>(
    namespace: Option<&str>,
    config: &watcher::Config,
    children: &Children,
) -> BoxStream<'static, ObjectRef<Stored>> {
    let kind = K::KIND;
    let mut feed = children.watched.feed(kind, namespace, &children.memory);
    let list = feed.list.clone();
    let cluster = &children.cluster;
    let api = watch::api::<Partial<K>>(&cluster.client, namespace);
    let events = watch::events(api, config.clone());
    let gateways = children.gateways.clone();
    // Its CRD may be removed: that is no failure.
    let events = events.filter(move |event| {
        let is_gone = !kind.is_everywhere() && event.as_ref().is_err_and(is_unknown);
        if is_gone {
            gateways.lost();
        }
        std::future::ready(!is_gone)
    });
    counted(events, kind.as_str(), cluster.metrics.clone(), move || list.settle())
        .flat_map(move |event| stream::iter(feed.take(event).into_iter().map(reference)))
        .boxed()
}

/// The same for Ingresses, which are read whole: others' claim routes.
fn ingresses(namespace: Option<&str>, followed: &Followed<'_>) -> BoxStream<'static, ObjectRef<Stored>> {
    let Followed { config, children, claims, .. } = followed;
    let mut feed = children.watched.feed(Kind::Ingress, namespace, &children.memory);
    let mut of_claims = claims.feed(ClaimantKind::Ingress);
    let lists = [of_claims.list.clone(), feed.list.clone()];
    let cluster = &children.cluster;
    let api = watch::api::<Partial<Ingress>>(&cluster.client, namespace);
    let events = watch::events(api, config.clone());
    let refused = move || lists.iter().for_each(List::settle);
    counted(events, Kind::Ingress.as_str(), cluster.metrics.clone(), refused)
        .flat_map(move |event| {
            of_claims.take(&event, claims::of_ingress);
            stream::iter(feed.take(event).into_iter().map(reference))
        })
        .boxed()
}

/// The same for HTTPRoutes, from when they are served until they are not.
fn routes(namespace: Option<&str>, followed: &Followed<'_>) -> BoxStream<'static, ObjectRef<Stored>> {
    let (config, namespace) = (followed.config.clone(), namespace.map(str::to_owned));
    let children = followed.children.clone();
    let watches = stream::unfold((), move |()| {
        let (config, children, namespace) = (config.clone(), children.clone(), namespace.clone());
        async move {
            children.gateways.until(true).await;
            let gateways = children.gateways.clone();
            let ended = async move { gateways.until(false).await };
            let owners = owners::<HTTPRoute>(namespace.as_deref(), &config, &children);
            Some((owners.take_until(ended.boxed()), ()))
        }
    });
    watches.flatten().boxed()
}

/// Whether whoever wrote the status has seen all of it.
fn is_told(memory: &Memory, stored: &Stored) -> bool {
    let metadata = stored.meta();
    metadata
        .uid
        .as_deref()
        .zip(metadata.resource_version.as_deref())
        .is_some_and(|(uid, version)| memory.is_told(uid, &version.into()))
}

fn key(stored: &Stored) -> Key {
    (stored.namespace().unwrap_or_default(), stored.name_any())
}

/// Without UID and version, of which the queue would keep copies and knows no use.
fn reference((namespace, name): Key) -> ObjectRef<Stored> {
    ObjectRef::new(&name).within(&namespace)
}

/// The events; errors are counted and logged, and no one else's business, but that nobody waits for what is
/// `refused` or not served.
fn counted<K: Debug + Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    kind: &'static str,
    metrics: Metrics,
    refused: impl Fn() + Send,
) -> impl Stream<Item = Event<K>> + Send {
    events.filter_map(move |event| {
        let event = event.inspect_err(|error| {
            metrics.watch_failed(kind);
            tracing::warn!(kind, %error, "a watch failed; it is begun again");
            if is_refusal(error) || is_unknown(error) {
                refused();
            }
        });
        std::future::ready(event.ok())
    })
}

/// Whether the right is missing: that will last.
fn is_refusal(error: &watcher::Error) -> bool {
    code(error) == Some(403)
}

/// Whether the API server does not serve such objects.
fn is_unknown(error: &watcher::Error) -> bool {
    code(error) == Some(404)
}

fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::*;
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => Some(status.code),
        WatchError(status) => Some(status.code),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

/// UIDs of the resources that there are, to tell which went while no watch was there.
#[derive(Default)]
struct Known {
    uids: HashSet<String>,
    arriving: HashSet<String>,
}

/// Which resources an event is about.
enum Changed<'a, K> {
    /// All that there are: a list came to its end. Before, the store has not its content.
    All,
    This(&'a K),
    None,
}

impl Known {
    /// Takes one event: what it is about, and the UIDs of resources that are gone.
    fn take<'a, K: Resource>(&mut self, event: &'a Event<K>) -> (Changed<'a, K>, Vec<String>) {
        match event {
            Event::Init => {
                self.arriving.clear();
                (Changed::None, Vec::new())
            }
            Event::InitApply(object) => {
                self.arriving.extend(object.uid());
                (Changed::None, Vec::new())
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.uids, std::mem::take(&mut self.arriving));
                (Changed::All, before.difference(&self.uids).cloned().collect())
            }
            Event::Apply(object) => {
                self.uids.extend(object.uid());
                (Changed::This(object), Vec::new())
            }
            Event::Delete(object) => {
                let gone = object.uid().filter(|uid| self.uids.remove(uid));
                (Changed::None, gone.into_iter().collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_is_gone_is_forgotten_also_when_no_watch_told() {
        let named = |uid: &str| {
            let mut service = Service::default();
            service.metadata.uid = Some(uid.into());
            service
        };
        let mut known = Known::default();
        known.take(&Event::<Service>::Init);
        known.take(&Event::InitApply(named("a")));
        known.take(&Event::InitApply(named("b")));
        let end = Event::<Service>::InitDone;
        let (changed, gone) = known.take(&end);
        assert!(matches!(changed, Changed::All) && gone.is_empty());
        known.take(&Event::Apply(named("c")));
        assert_eq!(known.take(&Event::Delete(named("b"))).1, ["b"]);
        known.take(&Event::<Service>::Init);
        known.take(&Event::InitApply(named("c")));
        assert_eq!(known.take(&end).1, ["a"]);
    }
}
