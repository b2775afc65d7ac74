//! The watches: on the resources themselves, and on every kind of child.
//!
//! Each has a backoff of its own, and its errors are counted by kind: one that fails neither slows the
//! others down nor hides among them. What they show becomes names of resources to be reconciled.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::{apply::Children, backoff::Backoff, kind::Kind, metrics::Metrics, watched::Watch};
use crate::{
    crd::OrdersService,
    runtime::watch::{self, WatchArgs},
};

/// A resource, even one that is not as the schema of today has it.
pub type Guarded = DeserializeGuard<OrdersService>;

/// The resources of one namespace, or of all.
pub struct Scope {
    /// What the watch shows.
    pub services: Store<Guarded>,
    /// Has a resource reconciled that no watch would.
    pub wake: UnboundedSender<ObjectRef<Guarded>>,
}

/// The watches on `namespace`, or on all, and the controller that they drive.
pub fn follow(
    client: &Client,
    namespace: Option<&str>,
    watch: &WatchArgs,
    children: &Children,
    backoff: Arc<Backoff>,
) -> (Scope, Controller<Guarded>) {
    let config = watch.config();
    let metrics = children.cluster.metrics.clone();
    let (services, writer) = reflector::store();
    let events = watcher(watch::api::<Guarded>(client, namespace), config.clone())
        .backoff(watch::Pauses::default())
        .modify(spare);
    let mut known = Known::default();
    let of_services = services.clone();
    let (memory, underway) = (children.memory.clone(), children.underway.clone());
    let services_changed = counted(events.reflect(writer), "OrdersService", metrics).flat_map(move |event| {
        let (changed, gone) = known.take(&event);
        for uid in gone {
            memory.forget(&uid);
            underway.forget(&uid);
            backoff.forget(&uid);
        }
        let changed = match changed {
            Changed::All => of_services.state().iter().map(|found| ObjectRef::from_obj(&**found)).collect(),
            Changed::This(object) => vec![ObjectRef::from_obj(object)],
            Changed::None => Vec::new(),
        };
        stream::iter(changed)
    });
    let (wake, mut woken) = mpsc::unbounded_channel();
    let triggers: Vec<BoxStream<'static, ObjectRef<Guarded>>> = vec![
        services_changed.boxed(),
        stream::poll_fn(move |context| woken.poll_recv(context)).boxed(),
        owners::<Deployment>(Kind::Deployment, client, namespace, &config, children),
        owners::<PartialObjectMeta<Service>>(Kind::Service, client, namespace, &config, children),
        owners::<PartialObjectMeta<Ingress>>(Kind::Ingress, client, namespace, &config, children),
        owners::<PartialObjectMeta<HorizontalPodAutoscaler>>(
            Kind::HorizontalPodAutoscaler,
            client,
            namespace,
            &config,
            children,
        ),
        owners::<PartialObjectMeta<PodDisruptionBudget>>(
            Kind::PodDisruptionBudget,
            client,
            namespace,
            &config,
            children,
        ),
        owners::<PartialObjectMeta<ServiceAccount>>(
            Kind::ServiceAccount,
            client,
            namespace,
            &config,
            children,
        ),
        owners::<PartialObjectMeta<NetworkPolicy>>(Kind::NetworkPolicy, client, namespace, &config, children),
    ];
    let metrics = children.cluster.metrics.clone();
    let queued = stream::select_all(triggers).inspect(move |object| metrics.queued(object));
    let controller = Controller::for_stream(stream::pending(), services.clone()).reconcile_on(queued);
    (Scope { services, wake }, controller)
}

/// The owners of the children of one kind, whenever one changes or goes.
fn owners<K>(
    kind: Kind,
    client: &Client,
    namespace: Option<&str>,
    config: &watcher::Config,
    children: &Children,
) -> BoxStream<'static, ObjectRef<Guarded>>
where
    K: Watch<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let mut feed = children.watched.feed(kind, namespace);
    let events =
        watcher(watch::api::<K>(client, namespace), config.clone()).backoff(watch::Pauses::default());
    counted(events, kind.as_str(), children.cluster.metrics.clone())
        .flat_map(move |event| {
            let owners = feed.take(event).into_iter();
            stream::iter(owners.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)))
        })
        .boxed()
}

/// Takes from a resource what is never looked at, and would be most of the memory of many.
fn spare(service: &mut Guarded) {
    service.managed_fields_mut().clear();
    service.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// The events; errors are counted and logged, and no one else's business.
fn counted<K: Debug + Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    kind: &'static str,
    metrics: Metrics,
) -> impl Stream<Item = Event<K>> + Send {
    events.filter_map(move |event| {
        let event = event.inspect_err(|error| {
            metrics.watch_failed(kind);
            tracing::warn!(kind, %error, "a watch failed; it is begun again");
        });
        std::future::ready(event.ok())
    })
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
