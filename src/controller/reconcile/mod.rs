//! One reconcile, in five steps.
//!
//! ```text
//! dereference  1  reads what the spec refers to
//! validate/    2  turns the spec into one that can be built, or names every problem
//! build/       3  builds the children
//! apply/       4  applies the children that are not in sync
//! status/      5  computes and writes the status
//! outcome         how far the steps got
//! pods            what keeps pods from running
//! ```

pub mod apply;
pub mod build;
pub mod dereference;
pub mod outcome;
pub mod pods;
pub mod status;
pub mod validate;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt, runtime::controller::Action};
use thiserror::Error;
use tokio::sync::SemaphorePermit;
use tracing::{Instrument, Span, field::Empty, info_span};

use self::{
    apply::{
        Applied, Failures, apply,
        held::{HeldDeployment, Hold},
    },
    build::build,
    dereference::{deployed_image, dereference, may_need_another_value_since},
    outcome::{Completed, Outcome, Stopped},
    status::update::update_status,
    validate::{validate, validated::ValidatedOrdersService},
};
use super::{
    api_server::RequestError,
    children::{
        fingerprint::Fingerprint, inspected::Inspected, kind::ChildKind, observed::Observation, owner::Owner,
        rollout::Rollout, rollout_tracker::RolloutStep,
    },
    context::Context,
    metrics::ReconcileResult,
    problem::Problem,
    raw_orders_service::RawOrdersService,
    resource_state::ResourceState,
    secrets::refresh::RETRY_INTERVAL,
};
use crate::{
    crd::{
        ADOPT_ANNOTATION, ConditionType, OrdersService, OrdersServiceStatus, Reason, find_condition, is_true,
    },
    runtime::{events::EventContent, traces},
};

/// The `action` of the Kubernetes events.
const ACTION: &str = "Reconcile";

/// Why a reconcile failed; it is tried again with backoff.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The stored object does not match the current schema.
    #[error("the stored object does not match the schema: {0}; correct it with kubectl edit or apply")]
    InvalidObject(String),
    /// A read from the API server failed, or the status could not be written.
    #[error("{error}")]
    Request {
        /// Why not.
        error: RequestError,
        /// The category.
        reason: Reason,
    },
    /// Another operator writes to the resource too.
    #[error("another operator, {identity}, also manages this resource: backing off for {} s", .pause.as_secs())]
    AnotherOperator {
        /// Who that is.
        identity: String,
        /// For how long.
        pause: Duration,
    },
    /// Something that the resource needs is missing, or could not be applied.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
}

impl ReconcileError {
    /// The category: log field, metric label, and reason of the Kubernetes event.
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidObject(_) => Reason::InvalidSpec,
            Self::Request { reason, .. } => *reason,
            Self::AnotherOperator { .. } => Reason::AnotherOperator,
            Self::Problems(problems) => {
                // Whatever else is wrong, it is tried again for what is missing.
                let missing = problems.iter().find(|problem| problem.reason.is_missing_reference());
                missing.or(problems.first()).map_or(Reason::ApplyFailed, |problem| problem.reason)
            }
        }
    }
}

/// Reconciles one resource, and counts the result.
///
/// # Errors
/// When it must be tried again: the API server failed, or something that is needed is missing. A spec that can never
/// work is no error: it is reported in the status, and waits for its next change.
pub async fn reconcile(raw: Arc<RawOrdersService>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let (raw, _slot) = match start(&raw, &context).await {
        Start::With(raw, slot) => (raw, slot),
        Start::Instead(action) => return Ok(action),
    };
    let timer = context.metrics.reconcile_started(&raw.key());
    let result = match raw.parse() {
        Ok(service) => {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let span = info_span!(
                target: traces::TARGET, "reconcile", k8s.namespace.name = namespace, name, reason = Empty,
                otel.status_code = Empty
            );
            // Boxed, since the future of this function is moved several times on its way to the runtime.
            let result = reconcile_parsed(&service, &context).boxed().instrument(span.clone()).await;
            if result.is_err() {
                span.record("otel.status_code", "ERROR");
            }
            result
        }
        Err(mismatch) => {
            let error = ReconcileError::InvalidObject(mismatch);
            let (reason, note) = (error.reason().as_str(), error.to_string());
            let event = EventContent { is_warning: true, reason, note: &note, action: ACTION };
            publish_event(&context, raw.as_ref(), &event).await;
            Err(error)
        }
    };
    match &result {
        Ok(_) => {
            context.states.with(&raw.as_owner(), |state| state.backoff.reset());
            timer.stop(ReconcileResult::Ok);
        }
        Err(error) => timer.stop(ReconcileResult::Error(error.reason())),
    }
    result
}

/// Whether a reconcile can start.
enum Start<'a> {
    /// With the newest version of the resource, and one of the slots.
    With(Arc<RawOrdersService>, Option<SemaphorePermit<'a>>),
    /// Not now; kube's `Controller` is to do this instead.
    Instead(Action),
}

/// Waits until a reconcile may start: this process leads, the caches are synced, and a slot is free.
async fn start<'a>(raw: &RawOrdersService, context: &'a Context) -> Start<'a> {
    let leadership = &context.api.leadership;
    if !leadership.may_write() {
        // A standby waits here with its caches warm. Once it leads it starts from the cache, since the object at hand
        // may be hours old.
        return tokio::select! {
            () = leadership.begins() => Start::Instead(Action::requeue(Duration::ZERO)),
            () = context.shutdown.cancelled() => Start::Instead(Action::await_change()),
        };
    }
    // Before every list is complete it could take routes that another object holds, and would apply children that are in
    // sync.
    tokio::select! {
        () = context.initial_lists.synced() => {}
        () = context.shutdown.cancelled() => return Start::Instead(Action::await_change()),
    }
    // The semaphore is never closed; if it were, one reconcile too many would do no harm.
    let slot = context.slots.acquire().await.ok();
    // The resource may have changed, or gone, since it was queued.
    let key = raw.key();
    let Some(raw) = context.services.get(&key) else {
        context.metrics.not_found(&key);
        return Start::Instead(Action::await_change());
    };
    if let Some(version) = raw.meta().resource_version.as_deref() {
        context.states.with(&raw.as_owner(), |state| state.reconcile_starts(&version.into()));
    }
    Start::With(raw, slot)
}

async fn reconcile_parsed(service: &OrdersService, context: &Context) -> Result<Action, ReconcileError> {
    if service.metadata.deletion_timestamp.is_some() {
        // The children are garbage-collected through their owner references.
        return Ok(Action::await_change());
    }
    if let Some(left) = context
        .states
        .with(&Owner::from_metadata(&service.metadata), |state| state.paused(Instant::now()))
        .flatten()
    {
        return Ok(Action::requeue(left));
    }
    let outcome = run_steps(context, service).await;
    if let Err(Stopped::AwaitObserved(at_most)) = outcome {
        // The Deployment's watch event will requeue us; this is in case none comes.
        return Ok(Action::requeue(at_most));
    }
    let mut reads_secrets_again = None;
    if !matches!(outcome, Err(Stopped::AnotherOperator { is_reported: true, .. })) {
        let next = report(context, service, &outcome).await.map_err(|error| {
            let reason = error.write_reason();
            ReconcileError::Request { error, reason }
        })?;
        let sweepers = service.status.iter().flat_map(|status| &status.conditions);
        let conditions: Vec<_> = next.conditions.iter().chain(sweepers).cloned().collect();
        reads_secrets_again = may_need_another_value_since(&conditions)
            .map(|since| with_jitter(until_secrets_are_read(since, Timestamp::now())));
    }
    match outcome {
        Ok(completed) => {
            let again = completed.requeue_after.into_iter().chain(reads_secrets_again).min();
            Ok(again.map_or(Action::await_change(), Action::requeue))
        }
        Err(Stopped::ReadFailed(error)) => {
            let reason = error.read_reason();
            Err(ReconcileError::Request { error, reason })
        }
        Err(Stopped::AnotherOperator { identity, pause, .. }) => {
            Err(ReconcileError::AnotherOperator { identity, pause })
        }
        Err(Stopped::Invalid { problems, is_missing: true }) => Err(ReconcileError::Problems(problems)),
        Err(Stopped::NotApplied(_, failures)) => Err(ReconcileError::Problems(failures.problems)),
        // Only a change of the spec can help, and its watch event requeues us.
        Err(
            Stopped::Suspended | Stopped::Invalid { .. } | Stopped::Rejected(..) | Stopped::AwaitObserved(_),
        ) => Ok(Action::await_change()),
    }
}

/// The steps, up to the status.
async fn run_steps(context: &Context, service: &OrdersService) -> Outcome {
    // First, since two operators would write that it is suspended in turns.
    leave_to_another_operator(context, service)?;
    if service.spec.suspend {
        return Err(Stopped::Suspended);
    }
    let found = dereference(context, service)
        .instrument(traces::step("dereference"))
        .await
        .map_err(Stopped::ReadFailed)?;

    let deployed = deployed_image(context, service).await.map_err(Stopped::ReadFailed)?;
    let (image, keeps_image) = context.upgrades.image_for(service, deployed.as_deref());
    let valid = traces::step("validate").in_scope(|| validate(service, &found, image.as_deref())).map_err(
        |problems| {
            if let Some(first) = problems.first() {
                Span::current().record("reason", first.reason.as_str());
            }
            Stopped::Invalid { problems, is_missing: !found.missing.is_empty() }
        },
    )?;

    let prepared = traces::step("build").in_scope(|| build(&valid));

    let owner = Owner::from_metadata(&service.metadata);
    let held = held(service, &valid, found.user_from_cluster, keeps_image);
    let applied = apply(context, &owner, adopts(service), &prepared, recorded_digest(service), &held);
    let applied = match applied.instrument(traces::step("apply")).await {
        Ok(applied) => applied,
        Err(failures) => return Err(not_applied(valid, failures)),
    };

    let (pods, requeue_after) = follow_rollout(context, service, &owner, applied.rollout()).await?;
    // One for the certificate is missing.
    let retry_certificate = found.missing_certificate.map(|_| with_jitter(RETRY_INTERVAL));
    let (autoscaler_warning, judge_again) = autoscaler_warning(&applied);
    let requeue_after = requeue_after.into_iter().chain(retry_certificate).chain(judge_again).min();
    Ok(Completed { valid, applied, pods, autoscaler_warning, requeue_after })
}

/// Warns of an autoscaler that has had no metrics for long; or gives when to judge that. Those of new pods take a while.
fn autoscaler_warning(applied: &Applied) -> (Option<Problem>, Option<Duration>) {
    const MEASURED_WITHIN: Duration = Duration::from_secs(90);
    let Some(since) = applied.unmeasured_since() else { return (None, None) };
    let elapsed = elapsed(since, Timestamp::now());
    if elapsed < MEASURED_WITHIN {
        return (None, Some(MEASURED_WITHIN - elapsed));
    }
    let message = "the autoscaler has no metrics, so the number of pods does not change: see kubectl describe \
         hpa, and check that the cluster has a metrics server";
    (Some(Problem::new(Reason::AutoscalerWithoutMetrics, message)), None)
}

/// When to read Secrets again of which a value may be mended, since no watch shows it: soon at first, since someone is
/// waiting, and less and less often while the same stays amiss.
fn until_secrets_are_read(amiss_since: Timestamp, now: Timestamp) -> Duration {
    const MAX_INTERVAL: Duration = Duration::from_secs(300);
    (elapsed(amiss_since, now) / 4).clamp(RETRY_INTERVAL, MAX_INTERVAL)
}

/// A little less, so that many resources do not ask together.
fn with_jitter(interval: Duration) -> Duration {
    interval.mul_f64(0.75 + 0.25 * fastrand::f64())
}

/// What became of children that could not all be applied. Only if every problem is one of the spec is there nothing to
/// try again before that changes.
fn not_applied(valid: ValidatedOrdersService, failures: Failures) -> Stopped {
    let is_rejected = failures.problems.iter().all(|problem| problem.reason == Reason::InvalidSpec);
    let stopped = if is_rejected { Stopped::Rejected } else { Stopped::NotApplied };
    stopped(Box::new(valid), failures)
}

/// Whether children that have lost their owner are taken over, with the consent of whoever wrote the resource.
fn adopts(service: &OrdersService) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(ADOPT_ANNOTATION)).is_some_and(|adopt| adopt == "true")
}

/// Stops if another operator has written the status after us, several times within a minute.
fn leave_to_another_operator(context: &Context, service: &OrdersService) -> Result<(), Stopped> {
    let Some((status, identity)) = status_of_another(service, &context.identity) else { return Ok(()) };
    let version = service.metadata.resource_version.as_deref().unwrap_or_default().into();
    let is_reported = find_condition(&status.conditions, ConditionType::Reconciled)
        .is_some_and(|condition| condition.reason == Reason::AnotherOperator.as_str());
    let lost = |state: &mut ResourceState| state.written_by_another(&version, is_reported, Instant::now());
    match context.states.with(&Owner::from_metadata(&service.metadata), lost).flatten() {
        Some(pause) => Err(Stopped::AnotherOperator { identity: identity.to_owned(), pause, is_reported }),
        None => Ok(()),
    }
}

/// The status, if another operator wrote it, and who that is. One that does not say who wrote it counts as ours: an older
/// CRD, which another installation may have applied, drops that field.
fn status_of_another<'a>(
    service: &'a OrdersService,
    ours: &str,
) -> Option<(&'a OrdersServiceStatus, &'a str)> {
    let status = service.status.as_ref()?;
    let identity = status.operator.as_deref().filter(|identity| *identity != ours)?;
    Some((status, identity))
}

/// How the Deployment is left as it is: until it is the turn of a resource that waits for another image; and until something
/// of it changes, if the resource names an image, which a new version of the operator must not roll.
fn held(
    service: &OrdersService,
    valid: &ValidatedOrdersService,
    user_from_cluster: bool,
    keeps_image: bool,
) -> HeldDeployment {
    let is_pinned = service.spec.image.is_some();
    // What the operator was told about the cluster holds at once for one that waits for no turn.
    let of_operator = is_pinned && user_from_cluster;
    let inputs = Fingerprint::of(&(service.metadata.generation, &valid.secrets_checksum, of_operator));
    let hold = if keeps_image || is_pinned { hold(service, is_pinned) } else { Hold::No };
    HeldDeployment { inputs, hold, until_applied: is_pinned }
}

fn hold(service: &OrdersService, is_pinned: bool) -> Hold {
    let Some(status) = &service.status else { return Hold::No };
    // For one that waits for no turn, what could not be applied must not be taken for what was.
    let is_applied = || find_condition(&status.conditions, ConditionType::Reconciled).is_some_and(is_true);
    match &status.deployment {
        Some(hash) => Hold::While(hash.clone()),
        None if status.image.is_none()
            && status.observed_generation == service.metadata.generation
            && (!is_pinned || is_applied()) =>
        {
            Hold::AsFound
        }
        None => Hold::No,
    }
}

/// The digest in the status of what was applied, if that is about the current generation.
fn recorded_digest(service: &OrdersService) -> Option<&str> {
    let status = service.status.as_ref()?;
    status.applied.as_deref().filter(|_| status.observed_generation == service.metadata.generation)
}

/// For how long the pods have not served by the status.
fn unavailable_for(service: &OrdersService, now: Timestamp) -> Duration {
    let status = service.status.as_ref();
    let available = status.and_then(|status| find_condition(&status.conditions, ConditionType::Available));
    let unavailable = available.filter(|available| !is_true(available));
    unavailable.map_or(Duration::ZERO, |available| elapsed(available.last_transition_time.0, now))
}

/// How long ago that was; 0 if the clock of the machine that says so is ahead.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// What the last look at the pods has found, and when to look again.
async fn follow_rollout(
    context: &Context,
    service: &OrdersService,
    owner: &Owner,
    rollout: &Rollout,
) -> Result<(Inspected, Option<Duration>), Stopped> {
    let unavailable = unavailable_for(service, Timestamp::now());
    let next = |now| context.states.with(owner, |state| state.rollout.next(rollout, unavailable, now));
    let step = match next(Instant::now()) {
        Some(RolloutStep::InspectPods) => {
            let found = pods::inspect(&context.api, owner.key.namespace(), owner.key.name(), rollout).await;
            let now = Instant::now();
            context.states.with(owner, |state| {
                // A failure to list the pods must not fail the reconcile.
                let found = found.unwrap_or_else(|error| {
                    tracing::warn!(resource = %owner.key, %error, "cannot list the pods");
                    state.rollout.last_found().cloned().unwrap_or_default()
                });
                state.rollout.inspected(found, now);
            });
            next(now)
        }
        step => step,
    };
    match step {
        Some(RolloutStep::AwaitObserved(at_most)) => Err(Stopped::AwaitObserved(at_most)),
        Some(RolloutStep::Wait(found, again)) => Ok((found, Some(again))),
        // None: the resource is gone.
        Some(RolloutStep::Complete | RolloutStep::InspectPods) | None => Ok((Inspected::default(), None)),
    }
}

/// How far the Deployment is, as the watches show it; none if that is not known, or if there never was one.
fn observed_rollout(context: &Context, service: &OrdersService) -> Option<Rollout> {
    let owner = Owner::from_metadata(&service.metadata);
    match context.observed.get(ChildKind::Deployment, &owner.key) {
        Observation::NotSynced => None,
        Observation::Present(child) if *child.owner == owner && !child.is_deleting => {
            child.rollout.as_deref().cloned()
        }
        Observation::Present(_) | Observation::Absent => {
            let conditions = &service.status.as_ref()?.conditions;
            find_condition(conditions, ConditionType::Available)?;
            Some(Rollout { is_observed: true, ..Rollout::default() })
        }
    }
}

/// Writes the status, and an event if `Ready` has changed. Gives the status.
async fn report(
    context: &Context,
    service: &OrdersService,
    outcome: &Outcome,
) -> Result<OrdersServiceStatus, RequestError> {
    let observed = observed_rollout(context, service);
    let author = status::Author { operator: &context.identity, awaits_sweeper: context.awaits_sweeper };
    let next = status::compute(service, outcome, observed.as_ref(), author, Timestamp::now());
    let update = update_status(&context.api, service, &next).instrument(traces::step("status"));
    let Some(response) = update.await? else { return Ok(next) };
    if let Some(version) = response.metadata.resource_version.as_deref() {
        context
            .states
            .with(&Owner::from_metadata(&service.metadata), |state| state.status_updated(version.into()));
    }
    let written = OrdersService { status: Some(next.clone()), ..service.clone() };
    context.claims.status_written(&written).iter().for_each(|key| context.trigger.requeue(key));
    let ready = |status: &OrdersServiceStatus| {
        find_condition(&status.conditions, ConditionType::Ready)
            .map(|ready| (is_true(ready), ready.reason.clone(), ready.message.clone()))
    };
    let (before, now) = (service.status.as_ref().and_then(ready), ready(&next));
    if let Some((is_ready, reason, message)) = now.filter(|now| before.as_ref() != Some(now)) {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        tracing::info!(namespace, name, ready = is_ready, reason, message, "status changed");
        let is_any_of = |reasons: &[Reason]| reasons.iter().any(|expected| reason == expected.as_str());
        let is_rolling_out = is_any_of(&[
            Reason::MinimumReplicasUnavailable,
            Reason::RolloutInProgress,
            Reason::AwaitingSweeper,
            Reason::DatabasePending,
        ]);
        let is_all_well = is_ready && is_any_of(&[Reason::AsExpected]);
        // The words of a warning may change, and it is still the same.
        let is_told = before.is_some_and(|(was_ready, former, _)| is_ready && was_ready && former == reason);
        if !is_rolling_out && !is_told {
            let reason = if is_all_well { "Ready" } else { &reason };
            let event = EventContent { is_warning: !is_all_well, reason, note: &message, action: ACTION };
            publish_event(context, service, &event).await;
        }
    }
    Ok(next)
}

/// Publishes a Kubernetes event. A failure is only logged: it must not fail the reconcile.
async fn publish_event<K: Resource<DynamicType = ()> + Sync>(
    context: &Context,
    object: &K,
    event: &EventContent<'_>,
) {
    let request = || context.events.publish(object, event);
    if let Err(error) = context.api.write_again("Event", "create", request).boxed().await {
        tracing::warn!(%error, reason = event.reason, "cannot write an event");
    }
}

/// The error policy: when to try a failed object again.
pub fn error_policy(raw: Arc<RawOrdersService>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let backoff = context.states.with(&raw.as_owner(), |state| state.backoff.next());
    let Some(mut delay) = backoff else {
        // It was deleted meanwhile.
        return Action::await_change();
    };
    if let ReconcileError::AnotherOperator { pause, .. } = error {
        delay = *pause;
    }
    if error.reason().is_missing_reference() {
        delay = delay.min(RETRY_INTERVAL);
    }
    tracing::warn!(
        namespace = raw.namespace().unwrap_or_default(),
        name = raw.name_any(),
        reason = error.reason().as_str(),
        retry_in_seconds = delay.as_secs(),
        %error,
        "reconcile failed"
    );
    Action::requeue(delay)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::{apply::RoutesAfter, *};

    /// The size of what an async function returns.
    fn size<R>(_: impl FnOnce(Arc<RawOrdersService>, Arc<Context>) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn only_a_status_that_names_another_operator_is_another_s() {
        let mut service = crate::controller::fixture::service(serde_json::json!({}));
        assert!(status_of_another(&service, "a/b").is_none());
        for (operator, expected) in [(None, None), (Some("a/b"), None), (Some("c/d"), Some("c/d"))] {
            let operator = operator.map(str::to_owned);
            service.status = Some(OrdersServiceStatus { operator, ..OrdersServiceStatus::default() });
            assert_eq!(status_of_another(&service, "a/b").map(|(_, identity)| identity), expected);
        }
    }

    #[test]
    fn secrets_are_read_soon_at_first_and_less_and_less_often_while_the_same_stays_amiss() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, expected) in
            [(-60, 15), (0, 15), (60, 15), (64, 16), (600, 150), (1200, 300), (86_400, 300)]
        {
            let now = since + SignedDuration::from_secs(seconds);
            assert_eq!(until_secrets_are_read(since, now).as_secs(), expected, "after {seconds} s");
        }
        assert!((0..1000).map(|_| with_jitter(RETRY_INTERVAL)).all(|jittered| jittered <= RETRY_INTERVAL));
    }

    #[test]
    fn a_deployment_of_a_version_that_noted_no_hash_is_left_as_found_unless_the_spec_has_changed_since() {
        let mut service = crate::controller::fixture::service(serde_json::json!({}));
        assert_eq!(hold(&service, false), Hold::No, "there was no status");
        let is_reconciled = serde_json::json!([{"type": "Reconciled", "status": "True", "reason": "Applied",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        for (status, expected, of_pinned) in [
            (serde_json::json!({"observedGeneration": 1}), Hold::AsFound, Hold::No),
            (
                serde_json::json!({"observedGeneration": 1, "conditions": is_reconciled}),
                Hold::AsFound,
                Hold::AsFound,
            ),
            (serde_json::json!({"observedGeneration": 0, "conditions": is_reconciled}), Hold::No, Hold::No),
            (serde_json::json!({"observedGeneration": 1, "image": "i"}), Hold::No, Hold::No),
            (
                serde_json::json!({"image": "i", "deployment": "d"}),
                Hold::While("d".into()),
                Hold::While("d".into()),
            ),
        ] {
            service.status = serde_json::from_value(status.clone()).unwrap();
            assert_eq!(hold(&service, false), expected, "{status}");
            assert_eq!(hold(&service, true), of_pinned, "with an image of its own: {status}");
        }
    }

    #[test]
    fn a_child_that_is_rejected_does_not_keep_the_others_from_being_tried_again() {
        let service = crate::controller::fixture::service(serde_json::json!({}));
        let valid = validate(&service, &dereference::Dereferenced::default(), Some("i")).unwrap();
        let stopped = |reasons: &[Reason]| {
            let problems = reasons.iter().map(|reason| Problem::new(*reason, "m")).collect();
            let failures = Failures { problems, route_problems: Vec::new(), routes: RoutesAfter::Wanted };
            not_applied(valid.clone(), failures)
        };
        for (reasons, waits_for_the_spec) in [
            (&[Reason::InvalidSpec][..], true),
            (&[Reason::InvalidSpec, Reason::InvalidSpec], true),
            (&[Reason::InvalidSpec, Reason::Forbidden], false),
            (&[Reason::ApplyFailed, Reason::InvalidSpec], false),
            (&[Reason::ApplyFailed], false),
        ] {
            let stopped = stopped(reasons);
            assert_eq!(matches!(stopped, Stopped::Rejected(..)), waits_for_the_spec, "{reasons:?}");
        }
    }

    #[test]
    fn what_waits_for_a_missing_secret_counts_as_that_whatever_else_is_wrong() {
        let counted = |reasons: &[Reason]| {
            let problems = reasons.iter().map(|reason| Problem::new(*reason, "m")).collect();
            ReconcileError::Problems(problems).reason()
        };
        assert_eq!(counted(&[Reason::InvalidSpec, Reason::SecretNotFound]), Reason::SecretNotFound);
        assert_eq!(counted(&[Reason::SecretKeyMissing]), Reason::SecretKeyMissing);
        assert_eq!(counted(&[Reason::NotOwned, Reason::ApplyFailed]), Reason::NotOwned);
    }

    #[test]
    fn a_reconcile_is_small_enough_to_be_moved() {
        let bytes = size(reconcile);
        assert!(bytes < 8 * 1024, "{bytes}: is a request to the API server not boxed?");
    }
}
