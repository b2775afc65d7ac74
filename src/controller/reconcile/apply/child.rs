//! One child: whether it is in sync, and how it is applied or deleted.

use std::iter;

use k8s_openapi::{
    NamespaceResourceScope, api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{
    held::HeldDeployment,
    replicas::{self, Decision, HAND_OVER_MANAGER},
};
use crate::{
    controller::{
        api_server::RequestError,
        children::{
            fingerprint::Fingerprint,
            kind::{Child, ChildId, ChildKind},
            last_applied::{LastApplied, SyncState},
            numbered::Purpose,
            observed::{Observation, ObservedChild},
            owner::{Owner, controller_of},
            partial::Partial,
            rollout::Rollout,
        },
        context::Context,
        object_key::ObjectKey,
        problem::Problem,
        reconcile::validate::pods::Replicas,
    },
    crd::{ADOPT_ANNOTATION, CONTROLLER_MANAGER, Reason},
};

/// What the status must know of a kind of children.
#[derive(Debug, Default)]
pub(super) struct ChildOutcome {
    /// How far its rollout is, for the Deployment.
    pub(super) rollout: Option<Rollout>,
    /// What Gateways report against it, for HTTPRoutes.
    pub(super) route_problems: Vec<Problem>,
    /// Since when it has had no metrics, for the HorizontalPodAutoscaler.
    pub(super) unmeasured_since: Option<Timestamp>,
    /// Its hash, for a Deployment that was left as it is.
    pub(super) held: Option<String>,
}

/// Writes the children of one OrdersService.
pub(super) struct ChildWriter<'a> {
    pub(super) context: &'a Context,
    pub(super) owner: &'a Owner,
    /// Whether children that have lost their owner are taken over.
    pub(super) adopts: bool,
    /// Whether the Deployment is left as it is.
    pub(super) held: &'a HeldDeployment,
    /// The name that the second Service is to have; none if there is to be no second one.
    pub(super) second_service: Option<&'a str>,
    /// The children with other names than the OrdersService, as they are observed.
    pub(super) further: &'a [(ChildKind, String)],
}

impl ChildWriter<'_> {
    /// Whether objects of this kind can be written.
    pub(super) fn is_served(&self, kind: ChildKind) -> bool {
        match kind {
            ChildKind::HTTPRoute => self.context.gateway_api.is_served(),
            ChildKind::Middleware => self.context.middlewares.is_served(),
            _ => true,
        }
    }

    /// What the watches show of a child.
    pub(super) fn observed(&self, id: ChildId) -> Observation {
        self.context.observed.get(id.kind, &self.key(id))
    }

    /// Whether the watches show this child, and it is ours.
    pub(super) fn has(&self, id: ChildId) -> bool {
        matches!(self.observed(id), Observation::Present(child) if *child.owner == *self.owner && !child.is_deleting)
    }

    /// The Deployment that is left as it is, and its hash; none if it is to be made as it would be made now.
    pub(super) fn held_deployment(&self) -> Option<(ObservedChild, String)> {
        let id = ChildId::of::<Deployment>(0);
        let is_applied = || self.context.states.with(self.owner, |state| state.last_applied.has(id));
        if self.held.until_applied && is_applied() == Some(true) {
            return None;
        }
        let Observation::Present(child) = self.observed(id) else { return None };
        let hash = self.held.held(child.owned_fields).filter(|_| self.has(id))?;
        Some((child, hash))
    }

    /// Applies the children of one kind that are not in sync, and deletes those that are not desired.
    pub(super) async fn sync_kind<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let mut all = ChildOutcome::default();
        for index in 0..K::MAX {
            match children.get(index) {
                Some(child) => {
                    let outcome = self.sync(index, child).await?;
                    all.rollout = all.rollout.or(outcome.rollout);
                    all.route_problems.extend(outcome.route_problems);
                    all.unmeasured_since = all.unmeasured_since.or(outcome.unmeasured_since);
                }
                None => {
                    let id = ChildId::of::<K>(index);
                    // If the watch is behind and still shows our last apply, that must not count as an echo.
                    self.context.states.with(self.owner, |state| state.last_applied.remove(id));
                    self.delete_if_ours::<K>(&self.name(id)).await?;
                }
            }
        }
        Ok(all)
    }

    /// As [`Self::sync_kind`], for at most one child; an object of its name that is not ours is as good.
    pub(super) async fn sync_unless_there<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let is_ours = matches!(
            self.observed(ChildId::of::<K>(0)),
            Observation::Present(child) if child.owner.uid == self.owner.uid
        );
        if !children.is_empty()
            && !is_ours
            && let Some(live) = self.live_metadata::<K>(0).await?
            && !self.may_apply(&live)
        {
            return Ok(ChildOutcome::default());
        }
        self.sync_kind(children).await
    }

    /// As [`Self::sync_kind`], for the Services: second ones of former names are deleted, when the new one is there.
    pub(super) async fn sync_services<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let mut failed = None;
        for (index, child) in children.iter().enumerate() {
            if let Err(problem) = self.sync(index, child).await {
                failed.get_or_insert(problem);
            }
        }
        // A former name is served until there is the new one.
        if let Some(problem) = failed {
            return Err(problem);
        }
        if self.second_service.is_none() {
            let id = ChildId::of::<K>(1);
            self.context.states.with(self.owner, |state| state.last_applied.remove(id));
        }
        for former in self.further::<K>().filter(|name| Some(*name) != self.second_service) {
            self.delete_if_ours::<K>(former).await?;
        }
        Ok(ChildOutcome::default())
    }

    /// Applies Ingresses or Middlewares that are not in sync. The first comes last, so that what is no longer in it is in
    /// others before. Those that are not desired are left.
    pub(super) async fn sync_numbered<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        for child in children.iter().rev() {
            self.sync(child.number(0), child).await?;
        }
        Ok(ChildOutcome::default())
    }

    /// Deletes the Ingresses or the Middlewares that are not desired.
    pub(super) async fn delete_former<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let first = ChildId::of::<K>(Purpose::Plain.number());
        let further = self.further::<K>().map(|name| ChildId::of::<K>(Purpose::of_name(name).number()));
        for former in iter::once(first).chain(further) {
            if children.iter().all(|child| child.number(0) != former.index) {
                self.context.states.with(self.owner, |state| state.last_applied.remove(former));
                self.delete_if_ours::<K>(&self.name(former)).await?;
            }
        }
        Ok(ChildOutcome::default())
    }

    /// The names of children of this kind that are not that of the OrdersService.
    fn further<K: Child>(&self) -> impl Iterator<Item = &str> {
        let of_kind = self.further.iter().filter(|(kind, _)| *kind == K::KIND);
        of_kind.map(|(_, name)| name.as_str())
    }

    async fn sync<K: Child>(&self, index: usize, child: &K) -> Result<ChildOutcome, Problem> {
        let (id, fingerprint) = (ChildId::of::<K>(index), Fingerprint::of(child));
        let observed = self.observed(id);
        if let Some(outcome) = self.outcome_if_in_sync(id, fingerprint, &observed) {
            return Ok(outcome);
        }
        let response = self.send(index, child, observed).await?;
        Ok(self.record(index, fingerprint, &response))
    }

    /// As [`Self::sync_kind`], but what is sent of `replicas` also depends on the live Deployment.
    pub(super) async fn sync_deployment(
        &self,
        deployment: &Deployment,
        replicas: Replicas,
    ) -> Result<ChildOutcome, Problem> {
        let (id, fingerprint) = (ChildId::of::<Deployment>(0), Fingerprint::of(deployment));
        if let Some((child, hash)) = self.held_deployment() {
            self.context.states.with(self.owner, |state| state.last_applied.remove(id));
            return Ok(ChildOutcome {
                rollout: child.rollout.as_deref().cloned(),
                held: Some(hash),
                ..ChildOutcome::default()
            });
        }
        let observed = self.observed(id);
        if let Some(outcome) = self.outcome_if_in_sync(id, fingerprint, &observed) {
            return Ok(outcome);
        }
        let (response, decision) = match replicas {
            Replicas::Fixed(number) => (self.send(0, deployment, observed).await?, Decision::Send(number)),
            Replicas::Unset | Replicas::Autoscaled { .. } => {
                self.send_with_decided_replicas(deployment, replicas).await?
            }
        };
        // As long as the number has not passed to the autoscaler, the next reconcile must apply again.
        let is_final = !matches!(replicas, Replicas::Autoscaled { .. }) || decision == Decision::Leave;
        Ok(self.record(0, fingerprint.filter(|_| is_final), &response))
    }

    /// What the status must know of a child that is in sync; none if it must be applied.
    fn outcome_if_in_sync(
        &self,
        id: ChildId,
        desired: Option<Fingerprint>,
        observed: &Observation,
    ) -> Option<ChildOutcome> {
        let in_sync =
            |last: &LastApplied| match (last.sync_state(self.owner, id, desired, observed), observed) {
                // The watch may not have shown the response yet.
                (SyncState::Unchanged, Observation::Present(child)) => Some(ChildOutcome {
                    rollout: last.rollout().filter(|_| id.kind == ChildKind::Deployment).cloned(),
                    route_problems: last.route_problems(id).to_vec(),
                    unmeasured_since: child.unmeasured_since,
                    held: None,
                }),
                // A status update, most likely.
                (SyncState::OthersChanged, Observation::Present(child)) => Some(ChildOutcome {
                    rollout: child.rollout.as_deref().cloned(),
                    route_problems: child.route_problems.clone(),
                    unmeasured_since: child.unmeasured_since,
                    held: None,
                }),
                _ => None,
            };
        self.context.states.with(self.owner, |state| in_sync(&state.last_applied)).flatten()
    }

    /// Records that a child was applied; gives what the status must know of it.
    fn record<K: Child>(
        &self,
        index: usize,
        fingerprint: Option<Fingerprint>,
        response: &Partial<K>,
    ) -> ChildOutcome {
        self.context
            .states
            .with(self.owner, |state| state.last_applied.applied(index, fingerprint, response));
        ChildOutcome {
            rollout: K::rollout(response),
            route_problems: K::route_problems(response),
            unmeasured_since: K::unmeasured_since(response),
            held: None,
        }
    }

    /// Sends a Deployment of which the number of pods may be someone else's; gives what was decided about that.
    async fn send_with_decided_replicas(
        &self,
        deployment: &Deployment,
        replicas: Replicas,
    ) -> Result<(Partial<Deployment>, Decision), Problem> {
        let (api, name) = (self.api::<Deployment>(), self.owner.key.name());
        let kind = ChildKind::Deployment.as_str();
        let read = self.context.api.read(kind, "get", api.get_opt(name));
        let live = read.await.map_err(|error| read_failed::<Deployment>(name, &error))?;
        if let Some(live) = live.as_ref().filter(|live| !self.may_apply(&live.metadata)) {
            return Err(self.not_owned::<Deployment>(&live.metadata));
        }
        let apply_failed = |error: RequestError| write_failed::<Deployment>("apply", name, &error);
        let decision = replicas::decide(replicas, live.as_ref());
        let mut deployment = deployment.clone();
        deployment.spec.get_or_insert_default().replicas = match decision {
            Decision::Send(number) => Some(number),
            Decision::Leave => None,
            Decision::HandOver(number) => {
                let metadata = live.as_ref().map(|live| &live.metadata);
                let only_replicas = json!({
                    "apiVersion": Deployment::api_version(&()),
                    "kind": Deployment::kind(&()),
                    // If it was scaled since it was read, the API server refuses this, and the next reconcile reads again.
                    "metadata": {
                        "uid": metadata.and_then(|metadata| metadata.uid.as_ref()),
                        "resourceVersion": metadata.and_then(|metadata| metadata.resource_version.as_ref()),
                    },
                    "spec": {"replicas": number},
                });
                let params = PatchParams::apply(HAND_OVER_MANAGER).force();
                let patch = Patch::Apply(&only_replicas);
                let request = api.patch(name, &params, &patch);
                self.context.api.write(kind, "patch", request).await.map_err(apply_failed)?;
                None
            }
        };
        let response = match live {
            Some(live) => self.patch(0, &mut deployment, live.metadata.uid).await.map_err(apply_failed)?,
            None => self.create(0, &mut deployment).await?,
        };
        Ok((response, decision))
    }

    /// Applies `child` if there is no object of its name, or if that object is ours.
    async fn send<K: Child>(
        &self,
        index: usize,
        child: &K,
        observed: Observation,
    ) -> Result<Partial<K>, Problem> {
        let id = ChildId::of::<K>(index);
        let name = self.name(id);
        let apply_failed = |error: RequestError| write_failed::<K>("apply", &name, &error);
        let mut child = child.clone();
        if let Observation::Present(known) = observed
            && known.owner.uid == self.owner.uid
        {
            match self.patch(index, &mut child, Some(known.uid.into())).await {
                // The watch is behind: the object was deleted, or replaced by another.
                Err(RequestError::Refused { code: 404 | 409, .. }) => {}
                result => return result.map_err(apply_failed),
            }
        }
        let Some(_turn) = self.context.creating.begin(id.kind, self.key(id)) else {
            let kind = K::KIND.as_str();
            let message = format!(
                "another OrdersService is creating {kind} {name:?} at this moment: it is tried again, and left alone then"
            );
            return Err(Problem::new(Reason::ApplyFailed, message));
        };
        match self.live_metadata::<K>(index).await? {
            Some(live) if !self.may_apply(&live) => Err(self.not_owned::<K>(&live)),
            Some(live) => self.patch(index, &mut child, live.uid).await.map_err(apply_failed),
            None => self.create(index, &mut child).await,
        }
    }

    /// Applies `child` where there was nothing a moment ago.
    ///
    /// Server-side apply has no "only if it does not exist". So it is not forced, and if it turns out that someone else
    /// created an object of that name in the meantime, nothing of ours is left in it.
    async fn create<K: Child>(&self, index: usize, child: &mut K) -> Result<Partial<K>, Problem> {
        let name = self.name(ChildId::of::<K>(index));
        let apply_failed = |error: RequestError| write_failed::<K>("apply", &name, &error);
        match self.patch_with(index, child, None, &PatchParams::apply(CONTROLLER_MANAGER)).await {
            Ok(response) if !response.has_other_managers => return Ok(response),
            Ok(response) => self.release::<K>(index, response.metadata.uid).await.map_err(apply_failed)?,
            // Someone else owns a field that we would set.
            Err(RequestError::Refused { code: 409, .. }) => {}
            Err(error) => return Err(apply_failed(error)),
        }
        match self.live_metadata::<K>(index).await? {
            Some(live) => Err(self.not_owned::<K>(&live)),
            None => {
                let kind = K::KIND.as_str();
                let message =
                    format!("cannot apply {kind} {name:?}: it was created and deleted by someone else");
                Err(Problem::new(Reason::ApplyFailed, message))
            }
        }
    }

    /// Takes everything that we applied out of an object again.
    async fn release<K: Child>(&self, index: usize, uid: Option<String>) -> Result<(), RequestError> {
        let (api, name) = (self.api::<Partial<K>>(), self.name(ChildId::of::<K>(index)));
        let nothing = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"uid": uid},
        });
        let (params, patch) = (PatchParams::apply(CONTROLLER_MANAGER), Patch::Apply(&nothing));
        self.context.api.write(K::KIND.as_str(), "patch", api.patch(&name, &params, &patch)).await.map(drop)
    }

    /// Whether an object is ours to apply: this OrdersService controls it, or may adopt it.
    fn may_apply(&self, live: &ObjectMeta) -> bool {
        self.owner.controls(live) || (self.adopts && self.owner.has_orphan(live))
    }

    /// Applies `child` to the very object with this UID: if it was replaced by someone else's meanwhile, the API server
    /// refuses.
    async fn patch<K: Child>(
        &self,
        index: usize,
        child: &mut K,
        uid: Option<String>,
    ) -> Result<Partial<K>, RequestError> {
        self.patch_with(index, child, uid, &PatchParams::apply(CONTROLLER_MANAGER).force()).await
    }

    async fn patch_with<K: Child>(
        &self,
        index: usize,
        child: &mut K,
        uid: Option<String>,
        params: &PatchParams,
    ) -> Result<Partial<K>, RequestError> {
        child.meta_mut().uid = uid;
        let (api, name) = (self.api::<Partial<K>>(), self.name(ChildId::of::<K>(index)));
        let patch = Patch::Apply(&*child);
        self.context.api.write(K::KIND.as_str(), "patch", api.patch(&name, params, &patch)).await
    }

    /// Deletes a child that is switched off; an object that is not ours is left alone.
    async fn delete_if_ours<K: Child>(&self, name: &str) -> Result<(), Problem> {
        let key = ObjectKey::new(self.owner.key.namespace(), name);
        let uid = match self.context.observed.get(K::KIND, &key) {
            Observation::Absent => return Ok(()),
            Observation::Present(child) if child.owner.uid != self.owner.uid || child.is_deleting => {
                return Ok(());
            }
            Observation::Present(child) => Some(child.uid.into()),
            Observation::NotSynced => {
                let live = self.live_metadata_of::<K>(name).await?;
                let ours = live.filter(|live| self.owner.controls(live) && live.deletion_timestamp.is_none());
                let Some(ours) = ours else { return Ok(()) };
                ours.uid
            }
        };
        let (api, kind) = (self.api::<K>(), K::KIND.as_str());
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match self.context.api.write(kind, "delete", api.delete(key.name(), &params)).await {
            // 409: the object was replaced by another.
            Ok(_) | Err(RequestError::Refused { code: 404 | 409, .. }) => {
                tracing::info!(
                    kind,
                    namespace = key.namespace(),
                    name = key.name(),
                    "deleted: switched off in the spec"
                );
                Ok(())
            }
            Err(error) => Err(write_failed::<K>("delete", name, &error)),
        }
    }

    /// The metadata of the object with the name of a child, whoever owns it.
    async fn live_metadata<K: Child>(&self, index: usize) -> Result<Option<ObjectMeta>, Problem> {
        self.live_metadata_of::<K>(&self.name(ChildId::of::<K>(index))).await
    }

    async fn live_metadata_of<K: Child>(&self, name: &str) -> Result<Option<ObjectMeta>, Problem> {
        let api = self.api::<K>();
        let read = self.context.api.read(K::KIND.as_str(), "get", api.get_metadata_opt(name));
        let live = read.await.map_err(|error| read_failed::<K>(name, &error))?;
        Ok(live.map(|live| live.metadata))
    }

    fn key(&self, id: ChildId) -> ObjectKey {
        ObjectKey::new(self.owner.key.namespace(), &self.name(id))
    }

    fn name(&self, id: ChildId) -> String {
        match self.second_service {
            Some(name) if id == (ChildId { kind: ChildKind::Service, index: 1 }) => name.to_owned(),
            _ => id.name(self.owner.key.name()),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.context.api.client.clone(), self.owner.key.namespace())
    }

    fn not_owned<K: Child>(&self, live: &ObjectMeta) -> Problem {
        let kind = K::KIND.as_str();
        let whose = match controller_of(live) {
            Some(controller) => format!("belongs to {} {:?}", controller.kind, controller.name),
            None => "belongs to no OrdersService".to_owned(),
        };
        let adopt = if self.owner.has_orphan(live) {
            format!(
                "; it was applied by this operator before: to take it over, set the annotation {ADOPT_ANNOTATION}=true on \
                 the OrdersService"
            )
        } else {
            String::new()
        };
        let name = live.name.as_deref().unwrap_or_default();
        let is_second = K::KIND == ChildKind::Service && self.second_service == Some(name);
        // The second Service of another.
        let other = Owner::of(live).filter(|other| other.key != self.owner.key);
        let instead = match (is_second, controller_of(live), other) {
            (true, None, _) => {
                "delete it, and the operator makes its own at once; or remove spec.serviceName".to_owned()
            }
            // Its owner would make it again.
            (true, Some(_), _) => "write another name as spec.serviceName, or remove it".to_owned(),
            (false, _, Some(other)) => format!(
                "remove spec.serviceName from OrdersService {:?}, or give this OrdersService another name",
                other.key.name()
            ),
            (false, _, None) => "delete or rename it, or give this OrdersService another name".to_owned(),
        };
        let message =
            format!("{kind} {name:?} is there already and {whose}: it was left alone; {instead}{adopt}");
        Problem::new(Reason::NotOwned, message)
    }
}

fn write_failed<K: Child>(verb: &str, name: &str, error: &RequestError) -> Problem {
    let kind = K::KIND.as_str();
    if let RequestError::Refused { code: 422, message } = error {
        let message =
            format!("the API server rejects {kind} {name:?}: {message}; correct the spec accordingly");
        return Problem::new(Reason::InvalidSpec, message);
    }
    Problem::of_request(error.write_reason(), &format!("cannot {verb} {kind} {name:?}"), error)
}

fn read_failed<K: Child>(name: &str, error: &RequestError) -> Problem {
    Problem::of_request(error.read_reason(), &format!("cannot read {} {name:?}", K::KIND.as_str()), error)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use hyper::{Request, Response};
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::{Client, client::Body};
    use prometheus_client::registry::Registry;
    use serde_json::Value;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        controller::{
            api_server::ApiServer,
            children::{
                creating::Creating,
                observed::{ObservedChild, ObservedChildren},
                served::Served,
            },
            claims::registry::ClaimRegistry,
            fixture::{child, owner},
            known_services::KnownServices,
            metrics::Metrics,
            reconcile::apply::held::Hold,
            resource_state::ResourceStates,
            secrets::references::Secrets,
            services::OrdersServices,
            trigger::Trigger,
            upgrades::{Limits, Upgrades},
        },
        routing::HostPolicy,
        runtime::{cache_sync::CacheSyncBuilder, events::Events, lease::Leadership},
    };

    /// The requests that were sent, in order.
    type Requests = Arc<Mutex<Vec<(String, Value)>>>;

    /// An API server that gives these answers, one after the other, and keeps the requests: method, query and body. A
    /// real one cannot be made to create an object between two requests of ours.
    fn api_server(answers: Vec<(u16, Value)>) -> (Client, Requests) {
        let requests = Requests::default();
        let (log, answers) = (requests.clone(), Mutex::new(answers.into_iter()));
        let service = tower::service_fn(move |request: Request<Body>| {
            let what = format!("{} {}", request.method(), request.uri().query().unwrap_or_default());
            let (code, answer) = answers.lock().unwrap().next().unwrap();
            let log = log.clone();
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                log.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap_or_default()));
                let response =
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        (Client::new(service, "shop"), requests)
    }

    fn context(client: Client) -> Context {
        let metrics = Metrics::register(&mut Registry::default());
        Context {
            api: Arc::new(ApiServer::new(client.clone(), Leadership::alone(), metrics.clone(), 1)),
            services: OrdersServices::new(Vec::new()),
            observed: ObservedChildren::default(),
            creating: Creating::default(),
            states: ResourceStates::default(),
            claims: ClaimRegistry::new(HostPolicy::Shared),
            known_services: KnownServices::default(),
            secrets: Secrets::new(Duration::from_secs(300)),
            gateway_api: Served::default(),
            middlewares: Served::default(),
            initial_lists: CacheSyncBuilder::default().seal(),
            trigger: Trigger::new(&[None], metrics.clone()).0,
            events: Events::new(client, "test"),
            metrics,
            slots: Semaphore::new(1),
            shutdown: CancellationToken::new(),
            identity: "shop/lease".into(),
            awaits_sweeper: false,
            upgrades: Upgrades::new(None, Limits { concurrent: 1, pause: Duration::ZERO, failures: 1 }),
            user_from_cluster: false,
            traefik_safe_naming: false,
        }
    }

    #[tokio::test]
    async fn an_object_that_someone_else_creates_between_the_look_and_the_apply_is_left_as_it_was() {
        let status = |code: u16, reason: &str| json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "m"});
        let object = |managers: &[&str]| {
            let managers: Vec<_> = managers
                .iter()
                .map(|manager| json!({"manager": manager, "operation": "Apply", "fieldsV1": {}}))
                .collect();
            json!({"metadata": {"name": "orders", "namespace": "shop", "uid": "x", "managedFields": managers}})
        };
        let theirs = || object(&["kubectl"]);
        // It had no field in common with ours, so the API server merged both; or it had, and was refused.
        let merged = vec![
            (404, status(404, "NotFound")),
            (200, object(&["kubectl", CONTROLLER_MANAGER])),
            (200, theirs()),
            (200, theirs()),
        ];
        let conflict = vec![(404, status(404, "NotFound")), (409, status(409, "Conflict")), (200, theirs())];
        for (answers, released) in [(merged, true), (conflict, false)] {
            let (client, requests) = api_server(answers);
            let (context, owner) = (context(client), owner("u"));
            let held = HeldDeployment::default();
            let writer = ChildWriter {
                context: &context,
                owner: &owner,
                adopts: true,
                held: &held,
                second_service: None,
                further: &[],
            };
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some("orders".into()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            let problem = writer.sync_kind(&[account]).await.unwrap_err();
            assert_eq!(problem.reason, Reason::NotOwned, "{problem}");
            let requests = requests.lock().unwrap();
            assert!(requests.iter().all(|(what, _)| !what.contains("force")), "{requests:?}");
            let patches: Vec<_> = requests.iter().filter(|(what, _)| what.starts_with("PATCH")).collect();
            assert_eq!(patches.len(), if released { 2 } else { 1 });
            if released {
                let nothing = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"uid": "x"}});
                assert_eq!(patches[1].1, nothing);
            }
        }
    }

    #[tokio::test]
    async fn a_deployment_that_is_held_is_left_as_it_is_until_someone_changes_it_or_what_it_is_made_from() {
        let deployment: Deployment = serde_json::from_value(
            json!({"metadata": {"name": "orders"}, "spec": {"selector": {}, "template": {}}}),
        )
        .unwrap();
        let inputs = |generation: i64| Fingerprint::of(&generation);
        let fields = |field: &str| child::<Deployment>("9", field, "2026-01-01T00:00:00Z");
        let hash = |field: &str, generation| {
            let of = HeldDeployment { inputs: inputs(generation), ..HeldDeployment::default() };
            of.hash(fields(field).owned_fields).unwrap()
        };
        for (held, until_applied, is_left) in [
            (hash("f:a", 1), false, true),
            (hash("f:a", 1), true, true),
            // Someone else has taken a field over; the spec or a Secret has changed.
            (hash("f:b", 1), false, false),
            (hash("f:a", 2), false, false),
        ] {
            let (client, requests) = api_server(vec![(200, json!({"metadata": {"name": "orders"}}))]);
            let (context, owner) = (context(client), owner("u"));
            let mut live = fields("f:a");
            live.metadata.owner_references = Some(vec![serde_json::from_value(json!({
                "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "orders", "uid": "u",
                "controller": true
            }))
            .unwrap()]);
            let observed = ObservedChild::of(&live).unwrap();
            context.observed.put(ChildKind::Deployment, &owner.key, observed);
            let held = HeldDeployment { inputs: inputs(1), hold: Hold::While(held), until_applied };
            let writer = ChildWriter {
                context: &context,
                owner: &owner,
                adopts: false,
                held: &held,
                second_service: None,
                further: &[],
            };
            writer.sync_deployment(&deployment, Replicas::Fixed(1)).await.unwrap();
            assert_eq!(requests.lock().unwrap().is_empty(), is_left);
        }
    }
}
