//! Step 4: applies the children. Each is applied server-side under one field manager; a child that is switched off is
//! deleted, if it is ours; an object that is not ours is left alone.
//!
//! ```text
//! writer      who writes the children of one OrdersService, and what is observed of them
//! sync        the children of one kind: which are in sync, applied or deleted
//! deployment  the Deployment, which others may scale, and which may be left as it is
//! held        a Deployment that is left as it is
//! replicas    who sets the Deployment's number of pods
//! send        one child is applied
//! delete      one child is deleted
//! refusal     what is told of one that cannot be written
//! ```

mod delete;
mod deployment;
#[cfg(test)]
mod fixture;
pub mod held;
mod refusal;
mod replicas;
mod send;
mod sync;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::{
    api::{apps::v1::Deployment, networking::v1::Ingress},
    jiff::Timestamp,
};

use self::{
    held::HeldDeployment,
    writer::{ChildOutcome, ChildWriter},
};
use super::build::prepared::{Prepared, PreparedVisitor};
use crate::{
    controller::{
        children::{
            fingerprint::Fingerprint,
            kind::{Child, ChildId, ChildKind},
            last_applied::DesiredChild,
            owner::Owner,
            rollout::Rollout,
        },
        context::Context,
        problem::Problem,
        resource_state::ResourceState,
    },
    crd::Reason,
};

/// What the API server made of the children. Only [`apply`] can make one, so the status can only be computed from what
/// was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    rollout: Rollout,
    route_problems: Vec<Problem>,
    unmeasured_since: Option<Timestamp>,
    keeps_ingress: bool,
    digest: Option<String>,
    deployment: Option<String>,
}

impl Applied {
    /// How far the rollout of the Deployment is.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Why Gateways do not serve the routes.
    pub fn route_problems(&self) -> &[Problem] {
        &self.route_problems
    }

    /// Since when the autoscaler has had no metrics.
    pub fn unmeasured_since(&self) -> Option<Timestamp> {
        self.unmeasured_since
    }

    /// Whether the Ingress was left as it is, so that the routes of before are served.
    pub fn keeps_ingress(&self) -> bool {
        self.keeps_ingress
    }

    /// The digest of what was applied, for the controller that starts next.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The hash of the Deployment, and of what it was made from.
    pub fn deployment(&self) -> Option<&str> {
        self.deployment.as_deref()
    }

    /// What [`apply`] would give.
    #[cfg(test)]
    pub(crate) fn for_test(rollout: Rollout, route_problems: Vec<Problem>) -> Self {
        let digest = Some("digest".into());
        Self {
            rollout,
            route_problems,
            unmeasured_since: None,
            keeps_ingress: false,
            digest,
            deployment: None,
        }
    }
}

/// Children that could not be applied or deleted.
#[derive(Clone, Debug)]
pub struct Failures {
    /// Why not; of each child, and of the Deployment first.
    pub problems: Vec<Problem>,
    /// Why Gateways do not serve the routes that were applied.
    pub route_problems: Vec<Problem>,
    /// Which routes are served now.
    pub routes: RoutesAfter,
}

/// Which routes are served after an attempt to apply the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutesAfter {
    /// Those that are wanted.
    Wanted,
    /// Those of before.
    Former,
    /// Those of before, or those that are wanted, or some of each: of Ingress and HTTPRoutes not all were applied, and of a
    /// write without an answer nobody knows what became of it.
    Either,
}

impl RoutesAfter {
    fn of(prepared: &Prepared, outcomes: &[(ChildKind, Result<ChildOutcome, Problem>)]) -> Self {
        let failure = |kind| {
            outcomes.iter().find(|(of, _)| *of == kind).and_then(|(_, outcome)| outcome.as_ref().err())
        };
        let is_refused = |problem: &Problem| {
            matches!(problem.reason, Reason::InvalidSpec | Reason::NotOwned | Reason::Forbidden)
        };
        match (failure(ChildKind::Ingress), failure(ChildKind::HTTPRoute)) {
            (None, None) => Self::Wanted,
            (Some(problem), None) if prepared.routes.is_empty() && is_refused(problem) => Self::Former,
            _ => Self::Either,
        }
    }
}

/// Applies every child that is not in sync, and deletes those that are switched off. One child's failure does not keep
/// the others from being applied.
///
/// `recorded` is the digest in the status, if it is about this very generation: if it matches what is observed, a
/// controller that has just started sends nothing. A Deployment that is `held` is left as it is. With `adopts`, children
/// that have lost their owner are taken over. Second Services of former names are deleted.
///
/// # Errors
/// Every child that could not be applied or deleted.
pub async fn apply(
    context: &Context,
    owner: &Owner,
    adopts: bool,
    prepared: &Prepared,
    recorded: Option<&str>,
    held: &HeldDeployment,
) -> Result<Applied, Failures> {
    let second = prepared.services.get(1).and_then(|second| second.metadata.name.as_deref());
    let further = context.observed.further(owner);
    let writer = ChildWriter { context, owner, adopts, held, second_service: second, further: &further };
    if let Some(recorded) = recorded {
        restore(&writer, prepared, recorded);
    }
    let keeps_ingress = prepared.keeps_ingress && writer.has(ChildId::of::<Ingress>(0));
    let keeps_middlewares = AtomicBool::new(keeps_ingress);
    let mut plan = Plan {
        writer: &writer,
        prepared,
        keeps_ingress,
        keeps_middlewares: &keeps_middlewares,
        phases: Default::default(),
    };
    prepared.visit(&mut plan);
    let mut outcomes = Vec::new();
    for phase in plan.phases {
        outcomes.extend(join_all(phase).await);
    }
    // Of several problems the Deployment's comes first: it is what the others are for.
    outcomes.sort_by_key(|(kind, _)| *kind != ChildKind::Deployment);
    let routes = RoutesAfter::of(prepared, &outcomes);
    let (mut rollout, mut route_problems, mut problems) = (None, Vec::new(), Vec::new());
    let (mut unmeasured_since, mut deployment) = (None, None);
    for (_, outcome) in outcomes {
        match outcome {
            Ok(outcome) => {
                rollout = rollout.or(outcome.rollout);
                route_problems.extend(outcome.route_problems);
                unmeasured_since = unmeasured_since.or(outcome.unmeasured_since);
                deployment = deployment.or(outcome.held);
            }
            Err(problem) => problems.push(problem),
        }
    }
    match rollout {
        Some(rollout) if problems.is_empty() => {
            let digest = context.states.with(owner, |state| state.last_applied.digest()).flatten();
            let id = ChildId::of::<Deployment>(0);
            let owned = context.states.with(owner, |state| state.last_applied.owned_fields(id)).flatten();
            let deployment = deployment.or_else(|| held.hash(owned));
            Ok(Applied { rollout, route_problems, unmeasured_since, keeps_ingress, digest, deployment })
        }
        _ => Err(Failures { problems, route_problems, routes }),
    }
}

/// Treats the children as applied if they are observed as `recorded`, and nothing is known of them yet.
fn restore(writer: &ChildWriter<'_>, prepared: &Prepared, recorded: &str) {
    let ChildWriter { context, owner, held, .. } = writer;
    if context.states.with(owner, |state| state.last_applied.is_empty()) != Some(true) {
        return;
    }
    // One that is left as it is was not applied either, unless what was applied is just what would be made now.
    let possible: &[bool] = match writer.held_deployment() {
        None => &[false],
        Some(_) if held.until_applied => &[false, true],
        Some(_) => &[true],
    };
    for &leaves_deployment in possible {
        let mut desired = Desired { writer, leaves_deployment, children: Vec::new() };
        prepared.visit(&mut desired);
        let restored = |state: &mut ResourceState| {
            state.last_applied.restore(owner, recorded, &desired.children);
            !state.last_applied.is_empty()
        };
        if context.states.with(owner, restored) != Some(false) {
            return;
        }
    }
}

/// The children as they are desired and observed.
struct Desired<'a> {
    writer: &'a ChildWriter<'a>,
    /// Whether the Deployment is none of them.
    leaves_deployment: bool,
    children: Vec<DesiredChild>,
}

impl<'a> PreparedVisitor<'a> for Desired<'_> {
    fn visit<K: Child>(&mut self, children: &'a [K]) {
        let is_left = K::KIND == ChildKind::Deployment && self.leaves_deployment;
        if is_left || !self.writer.is_served(K::KIND) {
            return;
        }
        self.children.extend(children.iter().enumerate().map(|(place, child)| {
            let id = ChildId::of::<K>(child.number(place));
            DesiredChild { id, fingerprint: Fingerprint::of(child), observed: self.writer.observed(id) }
        }));
    }
}

/// What is done for one kind.
type SyncKind<'a> = BoxFuture<'a, (ChildKind, Result<ChildOutcome, Problem>)>;

/// What is to be done for each kind, in phases. What is in one phase is done at the same time.
struct Plan<'a> {
    writer: &'a ChildWriter<'a>,
    prepared: &'a Prepared,
    /// Whether the Ingress is left as it is.
    keeps_ingress: bool,
    /// Whether no Middleware is to be deleted, since an Ingress of before may name it; known after the second phase.
    keeps_middlewares: &'a AtomicBool,
    phases: [Vec<SyncKind<'a>>; 3],
}

impl<'a> PreparedVisitor<'a> for Plan<'a> {
    fn visit<K: Child>(&mut self, children: &'a [K]) {
        let Self { writer, prepared, keeps_ingress, keeps_middlewares, .. } = *self;
        if K::KIND == ChildKind::Middleware {
            self.middlewares(children);
            return;
        }
        let sync = async move {
            let outcome = match K::KIND {
                ChildKind::Deployment => {
                    writer.sync_deployment(&prepared.deployment, prepared.replicas).await
                }
                ChildKind::Ingress if keeps_ingress => Ok(ChildOutcome::default()),
                ChildKind::Ingress => {
                    let synced = sync_ingresses(writer, children, keeps_middlewares).await;
                    keeps_middlewares.fetch_or(synced.is_err(), Ordering::Relaxed);
                    synced
                }
                kind if !writer.is_served(kind) && children.is_empty() => Ok(ChildOutcome::default()),
                kind if !writer.is_served(kind) => Ok(not_served(kind, !prepared.ingresses.is_empty())),
                ChildKind::ServiceAccount if prepared.account_is_named => {
                    writer.sync_unless_there(children).await
                }
                ChildKind::Service => writer.sync_services(children).await,
                ChildKind::HTTPRoute => writer.sync_routes(children).await,
                _ => writer.sync_kind(children).await,
            };
            (K::KIND, outcome)
        };
        let phase = match K::KIND {
            // Pods cannot be created without their account, and should never run without their policy.
            ChildKind::ServiceAccount if !children.is_empty() => 0,
            ChildKind::NetworkPolicy => 0,
            // An account that is switched off goes only when no new pod needs it.
            ChildKind::ServiceAccount => 2,
            ChildKind::Deployment
            | ChildKind::Service
            | ChildKind::Ingress
            | ChildKind::HorizontalPodAutoscaler
            | ChildKind::PodDisruptionBudget
            | ChildKind::HTTPRoute
            | ChildKind::Middleware => 1,
        };
        if let Some(phase) = self.phases.get_mut(phase) {
            phase.push(sync.boxed());
        }
    }
}

impl<'a> Plan<'a> {
    /// Middlewares are there before an Ingress names them, and go when none does any more.
    fn middlewares<K: Child>(&mut self, children: &'a [K]) {
        let Self { writer, keeps_middlewares, .. } = *self;
        if !writer.is_served(K::KIND) && children.is_empty() {
            return;
        }
        let apply = async move {
            let applied = writer.sync_numbered(children).await;
            keeps_middlewares.fetch_or(applied.is_err(), Ordering::Relaxed);
            (K::KIND, applied)
        };
        let delete = async move {
            let keeps = keeps_middlewares.load(Ordering::Relaxed);
            let deleted =
                if keeps { Ok(ChildOutcome::default()) } else { writer.delete_former(children).await };
            (K::KIND, deleted)
        };
        let [before, _, after] = &mut self.phases;
        before.push(apply.boxed());
        after.push(delete.boxed());
    }
}

/// Applies the Ingresses, and then deletes former ones; unless a Middleware could not be applied, which one may name.
async fn sync_ingresses<K: Child>(
    writer: &ChildWriter<'_>,
    children: &[K],
    lacks_middleware: &AtomicBool,
) -> Result<ChildOutcome, Problem> {
    if lacks_middleware.load(Ordering::Relaxed) {
        let message =
            "the Ingresses were left as they are, since a Middleware that they need could not be applied";
        return Err(Problem::new(Reason::ApplyFailed, message));
    }
    writer.sync_numbered(children).await?;
    writer.delete_former(children).await
}

/// What the status must know of a kind that is desired, but that the API server does not serve.
fn not_served(kind: ChildKind, has_ingress: bool) -> ChildOutcome {
    match kind {
        ChildKind::HTTPRoute => {
            let instead = if has_ingress {
                "remove spec.gateway: spec.ingress serves the same routes"
            } else {
                "use spec.ingress in its place, for the same routes at an ingress controller"
            };
            let message = format!(
                "spec.gateway is set, but this cluster has no Gateway API (HTTPRoute of gateway.networking.k8s.io/v1): install \
                 its CRDs and a controller for them (this operator need not be restarted), or {instead}"
            );
            let problem = Problem::new(Reason::GatewayApiMissing, message);
            ChildOutcome { route_problems: vec![problem], ..ChildOutcome::default() }
        }
        // Every API server serves these, but for the last.
        ChildKind::Deployment
        | ChildKind::Service
        | ChildKind::Ingress
        | ChildKind::HorizontalPodAutoscaler
        | ChildKind::PodDisruptionBudget
        | ChildKind::ServiceAccount
        | ChildKind::NetworkPolicy
        // Validation refuses what needs Middlewares where they are not served.
        | ChildKind::Middleware => ChildOutcome::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::{
        fixture::service,
        reconcile::{build::build, dereference::Dereferenced, validate::validate},
    };

    #[test]
    fn where_there_is_no_gateway_api_spec_ingress_is_proposed_only_if_it_is_not_set() {
        let advice =
            |has_ingress| not_served(ChildKind::HTTPRoute, has_ingress).route_problems.remove(0).message;
        let [alone, beside] = [false, true].map(advice);
        assert!(
            alone.contains("install its CRDs")
                && alone.ends_with(
                    "or use spec.ingress in its place, for the same routes at an ingress controller"
                )
        );
        assert!(
            beside.contains("install its CRDs")
                && beside.ends_with("or remove spec.gateway: spec.ingress serves the same routes")
        );
    }

    #[test]
    fn the_routes_that_are_wanted_are_served_only_if_ingress_and_http_routes_were_applied() {
        let prepared = |gateway: Value| {
            let service = service(json!({"gateway": gateway}));
            build(&validate(&service, &Dereferenced::default(), Some("i")).unwrap())
        };
        let ingress_only = prepared(Value::Null);
        let both = prepared(json!({"hostnames": ["a.dev"], "parentRefs": [{"name": "g"}]}));
        let failed = |kind: ChildKind, reason: Reason| (kind, Err(Problem::new(reason, "m")));
        let applied = |kind: ChildKind| (kind, Ok(ChildOutcome::default()));
        use ChildKind::{Deployment, HTTPRoute, Ingress};
        for (prepared, outcomes, expected) in [
            (
                &both,
                [failed(Deployment, Reason::ApplyFailed), applied(Ingress), applied(HTTPRoute)],
                RoutesAfter::Wanted,
            ),
            (
                &both,
                [applied(Deployment), failed(Ingress, Reason::InvalidSpec), applied(HTTPRoute)],
                RoutesAfter::Either,
            ),
            (
                &both,
                [applied(Deployment), applied(Ingress), failed(HTTPRoute, Reason::Forbidden)],
                RoutesAfter::Either,
            ),
            // Nobody knows what became of a write that timed out.
            (
                &ingress_only,
                [applied(Deployment), failed(Ingress, Reason::ApplyFailed), applied(HTTPRoute)],
                RoutesAfter::Either,
            ),
            (
                &ingress_only,
                [applied(Deployment), failed(Ingress, Reason::InvalidSpec), applied(HTTPRoute)],
                RoutesAfter::Former,
            ),
        ] {
            assert_eq!(RoutesAfter::of(prepared, &outcomes), expected);
        }
    }
}
