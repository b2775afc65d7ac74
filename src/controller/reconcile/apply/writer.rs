//! Who writes the children of one OrdersService, and what the others here need of it: names, clients, and what is observed.

use k8s_openapi::{NamespaceResourceScope, jiff::Timestamp};
use kube::{Api, Resource};

use super::held::HeldDeployment;
use crate::controller::{
    children::{
        kind::{ChildId, ChildKind},
        observed::Observation,
        owner::Owner,
        rollout::Rollout,
    },
    context::Context,
    object_key::ObjectKey,
    problem::Problem,
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

    /// The namespace and name of a child.
    pub(super) fn key(&self, id: ChildId) -> ObjectKey {
        ObjectKey::new(self.owner.key.namespace(), &self.name(id))
    }

    /// The name of a child.
    pub(super) fn name(&self, id: ChildId) -> String {
        match self.second_service {
            Some(name) if id == (ChildId { kind: ChildKind::Service, index: 1 }) => name.to_owned(),
            _ => id.name(self.owner.key.name()),
        }
    }

    /// How children of this kind are asked for.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.context.api.client.clone(), self.owner.key.namespace())
    }
}
