//! One reconcile: dereference, validate, build, apply, status.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{
    apply::{Children, Owner, apply},
    backoff::Backoff,
    build::build,
    claims::Claims,
    dereference::{References, dereference},
    metrics::{Metrics, Outcome as Counted},
    pods,
    problem::{CallError, Problem},
    refresh,
    rollout::Rollout,
    status::{self, Outcome},
    stored::Stored,
    underway::Next,
    validate::validate,
    wake::Wake,
};
use crate::{
    crd::{ConditionType, OrdersService, OrdersServiceStatus, Reason, find_condition, is_true},
    runtime::{
        events::{Events, News},
        traces,
    },
};

/// The longest wait for a Secret that is missing: no watch tells when it comes, and the person who creates
/// it is waiting.
pub const REFERENCE_RETRY: Duration = Duration::from_secs(15);

/// What events say was being done.
const ACTION: &str = "Reconcile";

/// What every reconcile uses.
pub struct Context {
    /// The children in the cluster.
    pub children: Children,
    /// What resources refer to.
    pub references: References,
    /// How old a copy of that may get.
    pub refresh: Duration,
    /// Who claims which routes.
    pub claims: Claims,
    /// The resources that are watched, by scope.
    pub services: Vec<Store<Stored>>,
    /// Has others reconciled.
    pub wake: Wake,
    /// How many reconciles may run at the same time, all scopes taken together.
    pub slots: Semaphore,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    /// The image of the controller itself, for resources that name none.
    pub default_image: Option<String>,
    /// Failures in a row, per object.
    pub backoff: Arc<Backoff>,
    /// Tells people through events.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
}

/// Why a reconcile failed; it is tried again with backoff.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The stored object does not match the schema of today.
    #[error("the stored object does not match the schema: {0}; correct it with kubectl edit or apply")]
    InvalidObject(String),
    /// The API server does not answer, or refuses.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Something that the resource needs is not there, or could not be written.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
}

impl ReconcileError {
    /// The category: log field, metric label, and reason of the event.
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidObject(_) => Reason::InvalidSpec,
            Self::Call(error) => error.reason(),
            Self::Problems(problems) => problems.first().map_or(Reason::ApplyFailed, |first| first.reason),
        }
    }
}

/// Reconciles one resource, and counts how it went.
///
/// # Errors
/// When it must be tried again: the API server failed, or something that is needed is missing. A
/// spec that can never work is no error: it is reported, and waits to be changed.
pub async fn reconcile(stored: Arc<Stored>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let leadership = &context.children.cluster.leadership;
    if !leadership.may_write() {
        // A standby waits here with its caches warm. When it takes over, it begins with what the cache
        // has then: the object at hand may be hours old.
        return tokio::select! {
            () = leadership.begins() => Ok(Action::requeue(Duration::ZERO)),
            () = context.shutdown.cancelled() => Ok(Action::await_change()),
        };
    }
    // Before, it could take what is another's, and would apply what is applied.
    tokio::select! {
        ((), ()) = async { tokio::join!(context.claims.settled(), context.children.watched.settled()) } => {}
        () = context.shutdown.cancelled() => return Ok(Action::await_change()),
    }
    // It is never closed; were it, one more reconcile would do no harm.
    let _slot = context.slots.acquire().await;
    // It may have changed while this waited for its turn.
    let reference = ObjectRef::from_obj(&*stored);
    let Some(stored) = context.services.iter().find_map(|services| services.get(&reference)) else {
        context.metrics.not_found(&reference);
        return Ok(Action::await_change());
    };
    if let Some((uid, version)) = stored.meta().uid.as_deref().zip(stored.meta().resource_version.as_deref())
    {
        context.children.memory.begins(uid, &version.into());
    }
    let timer = context.metrics.start(&ObjectRef::from_obj(&*stored));
    let result = match stored.read() {
        Ok(service) => {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let span = info_span!(
                target: traces::TARGET, "reconcile", k8s.namespace.name = namespace, name, reason = Empty,
                otel.status_code = Empty
            );
            // Boxed, since what is here is copied several times on the way to the runtime.
            let result = reconcile_valid(&service, &context).boxed().instrument(span.clone()).await;
            if result.is_err() {
                span.record("otel.status_code", "ERROR");
            }
            result
        }
        Err(invalid) => {
            let error = ReconcileError::InvalidObject(invalid);
            let (reason, note) = (error.reason().as_str(), error.to_string());
            let news = News { is_warning: true, reason, note: &note, action: ACTION };
            publish(&context, stored.as_ref(), &news).await;
            Err(error)
        }
    };
    match &result {
        Ok(_) => {
            context.backoff.forget(&stored.uid().unwrap_or_default());
            timer.stop(Counted::Ok);
        }
        Err(error) => timer.stop(Counted::Error(error.reason())),
    }
    result
}

async fn reconcile_valid(service: &OrdersService, context: &Context) -> Result<Action, ReconcileError> {
    let cluster = &context.children.cluster;
    if service.metadata.deletion_timestamp.is_some() {
        // The children are garbage-collected through their owner reference.
        return Ok(Action::await_change());
    }
    if service.spec.suspend {
        tell(context, service, &Outcome::Suspended).await?;
        return Ok(Action::await_change());
    }
    let namespace = service.namespace().unwrap_or_default();
    let references = &context.references;
    let closely = look_closely(service);
    let changed = |reference, secret: &str| {
        let key = (namespace.clone(), secret.to_owned());
        refresh::wake(context, reference, &key, service.metadata.uid.as_deref());
    };
    let dereferenced =
        dereference(cluster, references, &context.claims, service, &namespace, closely, changed);
    let found = match dereferenced.instrument(traces::step("dereference")).await {
        Ok(found) => found,
        Err(error) => {
            let problem =
                Problem::new(error.reason(), format!("cannot read what the spec refers to: {error}"));
            tell(context, service, &Outcome::Unread(&problem)).await?;
            return Err(error.into());
        }
    };
    let image = context.default_image.as_deref();
    let valid = match traces::step("validate").in_scope(|| validate(service, &found, image)) {
        Ok(valid) => valid,
        Err(problems) => {
            if let Some(first) = problems.first() {
                Span::current().record("reason", first.reason.as_str());
            }
            tell(context, service, &Outcome::Invalid(&problems)).await?;
            // A missing Secret may come at any time; a wrong spec waits for its change, which the watch tells.
            return if found.missing.is_empty() {
                Ok(Action::await_change())
            } else {
                Err(ReconcileError::Problems(problems))
            };
        }
    };
    let owner = Owner { uid: service.uid().unwrap_or_default(), name: valid.name.clone(), namespace };
    let prepared = traces::step("build").in_scope(|| build(&valid));
    let recorded = recorded(service);
    match apply(&context.children, &owner, prepared, recorded).instrument(traces::step("apply")).await {
        Ok(applied) => {
            let (trouble, again) =
                match context.children.underway.next(&owner.uid, &applied.rollout, Instant::now()) {
                    Next::Arrived => (None, None),
                    // It comes as an event of the Deployment.
                    Next::Answer(no_longer) => return Ok(Action::requeue(no_longer)),
                    Next::Wait(known, again) => (known, Some(again)),
                    Next::Look => look_at_pods(context, &owner, &applied.rollout).await,
                };
            tell(context, service, &Outcome::Applied(&valid, &applied, trouble.as_ref())).await?;
            // No watch shows the Secrets, nor the pods, which would be far too many. Spread, so that many resources
            // do not come round together.
            let missing =
                found.missing_certificate.map(|_| REFERENCE_RETRY.mul_f64(0.8 + 0.4 * fastrand::f64()));
            Ok(missing.into_iter().chain(again).min().map_or(Action::await_change(), Action::requeue))
        }
        Err(problems) => {
            tell(context, service, &Outcome::NotApplied(&valid, &problems)).await?;
            Err(ReconcileError::Problems(problems))
        }
    }
}

/// What the status says of the children, if it is about this spec.
fn recorded(service: &OrdersService) -> Option<&str> {
    let status = service.status.as_ref()?;
    status.applied.as_deref().filter(|_| status.observed_generation == service.metadata.generation)
}

/// Whether old copies of what the spec refers to will not do: it has just changed, or something was amiss.
fn look_closely(service: &OrdersService) -> bool {
    let status = service.status.as_ref();
    let reconciled = status.and_then(|status| find_condition(&status.conditions, ConditionType::Reconciled));
    status.and_then(|status| status.observed_generation) != service.metadata.generation
        || !reconciled.is_some_and(is_true)
}

/// What keeps the pods from running, and when to look again. Not to know it must not stand in the way of
/// all else.
async fn look_at_pods(
    context: &Context,
    owner: &Owner,
    rollout: &Rollout,
) -> (Option<Problem>, Option<Duration>) {
    let Children { cluster, underway, .. } = &context.children;
    let found = pods::trouble(cluster, &owner.namespace, &owner.name).await.unwrap_or_else(|error| {
        let (namespace, name) = (&owner.namespace, &owner.name);
        tracing::warn!(namespace, name, %error, "cannot look at the pods");
        underway.known(&owner.uid)
    });
    let now = Instant::now();
    underway.looked(&owner.uid, found, now);
    match underway.next(&owner.uid, rollout, now) {
        Next::Wait(found, again) => (found, Some(again)),
        Next::Arrived | Next::Answer(_) | Next::Look => (None, None),
    }
}

/// Writes the status, and an event when the resource stopped being ready or is so for another reason.
async fn tell(context: &Context, service: &OrdersService, outcome: &Outcome<'_>) -> Result<(), CallError> {
    let next = status::compute(service, outcome, Timestamp::now());
    let written = status::write(&context.children.cluster, service, &next);
    let Some(answer) = written.instrument(traces::step("status")).await? else { return Ok(()) };
    context.children.memory.told(&service.uid().unwrap_or_default(), &answer);
    let ready = |status: &OrdersServiceStatus| {
        find_condition(&status.conditions, ConditionType::Ready)
            .map(|ready| (is_true(ready), ready.reason.clone(), ready.message.clone()))
    };
    let (before, now) = (service.status.as_ref().and_then(ready), ready(&next));
    if let Some((is_ready, reason, message)) = now.filter(|now| before.as_ref() != Some(now)) {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        tracing::info!(namespace, name, ready = is_ready, reason, message, "status changed");
        let pods_on_their_way = reason == Reason::MinimumReplicasUnavailable.as_str();
        if !pods_on_their_way {
            let reason = if is_ready { "Ready" } else { &reason };
            let news = News { is_warning: !is_ready, reason, note: &message, action: ACTION };
            publish(context, service, &news).await;
        }
    }
    Ok(())
}

/// An event that cannot be written is logged: it must never stand in the way of the reconcile.
async fn publish<K: Resource<DynamicType = ()> + Sync>(context: &Context, object: &K, news: &News<'_>) {
    let request = context.events.tell(object, news);
    if let Err(error) = context.children.cluster.write("Event", "create", request).await {
        tracing::warn!(%error, reason = news.reason, "cannot write an event");
    }
}

/// When to try a failed object again.
pub fn on_error(object: Arc<Stored>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let mut delay = context.backoff.next(&object.uid().unwrap_or_default());
    if matches!(error.reason(), Reason::SecretNotFound | Reason::SecretKeyMissing) {
        delay = delay.min(REFERENCE_RETRY);
    }
    tracing::warn!(
        namespace = object.namespace().unwrap_or_default(),
        name = object.name_any(),
        reason = error.reason().as_str(),
        retry_in_seconds = delay.as_secs(),
        %error,
        "reconcile failed"
    );
    Action::requeue(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an async function gives.
    fn size<R>(_: impl FnOnce(Arc<Stored>, Arc<Context>) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_reconcile_is_small_enough_to_be_passed_on() {
        let bytes = size(reconcile);
        assert!(bytes < 8 * 1024, "{bytes}: is a call to the API server not boxed?");
    }
}
