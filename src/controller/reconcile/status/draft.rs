//! The status while it is written: what an outcome says, and what stays as it was.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;

use super::{availability::availability, ready, routes};
use crate::{
    controller::{
        children::{inspected::Inspected, rollout::Rollout},
        problem::Problem,
        reconcile::{
            outcome::{Completed, Stopped},
            pods::selector,
        },
    },
    crd::{
        ConditionType, NewCondition, OrdersService, OrdersServiceStatus, Reason, cannot_run, find_condition,
        set_condition,
    },
};

/// A status that is not complete yet.
pub(super) struct Draft<'a> {
    status: OrdersServiceStatus,
    /// The conditions on the object, also those of other managers.
    on_object: &'a [Condition],
    /// The generation that the conditions are about.
    generation: Option<i64>,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    /// One without conditions, of which all else stays as it was.
    pub(super) fn new(service: &'a OrdersService, operator: &str, now: Timestamp) -> Self {
        let generation = service.metadata.generation;
        let old = service.status.clone().unwrap_or_default();
        // Each field, so that of a new one it is decided whose it is.
        let status = OrdersServiceStatus {
            observed_generation: generation,
            selector: Some(selector(&service.name_any())),
            operator: Some(operator.to_owned()),
            replicas: old.replicas,
            ready_replicas: old.ready_replicas,
            ready_of_wanted: old.ready_of_wanted,
            image: old.image,
            deployment: old.deployment,
            url: old.url,
            routes: old.routes,
            // Only set while every child is in sync.
            applied: None,
            // Owned by the sweeper, and by who moves resources to another image.
            expiry: None,
            upgrade: None,
            conditions: Vec::new(),
        };
        let on_object = service.status.as_ref().map_or(&[][..], |status| &status.conditions);
        Self { status, on_object, generation, now }
    }

    fn set(&mut self, kind: ConditionType, status: bool, reason: Reason, message: impl Into<String>) {
        self.set_for(self.generation, kind, status, reason, message);
    }

    fn set_for(
        &mut self,
        generation: Option<i64>,
        kind: ConditionType,
        status: bool,
        reason: Reason,
        message: impl Into<String>,
    ) {
        let (reason, message) = (reason.as_str().into(), message.into());
        let new = NewCondition { kind, status, reason, message, generation };
        set_condition(&mut self.status.conditions, self.on_object, new, self.now);
    }

    fn set_valid(&mut self) {
        self.set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid");
    }

    fn set_not_reconciled(&mut self, reason: Reason, message: impl Into<String>) {
        self.set(ConditionType::Reconciled, false, reason, message);
    }

    /// What is said when every step was done.
    pub(super) fn completed(&mut self, completed: &Completed) {
        let Completed { valid, applied, pods, autoscaler_warning, .. } = completed;
        let rollout = applied.rollout();
        self.set_valid();
        self.set(ConditionType::Reconciled, true, Reason::AsExpected, "every child was applied");
        let (available, mut reason, mut message) = availability(rollout, pods);
        if let Some(warning) = autoscaler_warning.as_ref().filter(|_| available) {
            reason = warning.reason;
            message = format!("{message}; {}", warning.message);
        }
        self.set(ConditionType::Available, available, reason, message);
        if valid.ingress.is_some() || valid.gateway.is_some() {
            let (ready, reason, message) = routes::readiness(valid, applied.route_problems());
            self.set(ConditionType::IngressReady, ready, reason, message);
        }
        self.status.applied = applied.digest().map(str::to_owned);
        self.status.deployment = applied.deployment().map(str::to_owned);
        self.status.image = Some(valid.image.clone());
        self.count(rollout);
        if !applied.keeps_ingress() {
            routes::describe(&mut self.status, valid, applied.route_problems());
        }
    }

    /// What is said when a step could not be done, by this operator.
    pub(super) fn stopped(&mut self, stopped: &Stopped, operator: &str) {
        match stopped {
            Stopped::Invalid { problems, .. } => self.invalid(problems),
            Stopped::Suspended => self.set_not_reconciled(
                Reason::Suspended,
                "spec.suspend is true: the children are left as they are",
            ),
            Stopped::ReadFailed(error) => self.set_not_reconciled(
                error.read_reason(),
                format!("cannot read what the spec refers to: {}", error.remedy()),
            ),
            // The rollout is not observed yet: nothing is known of it.
            Stopped::AwaitObserved(_) => {}
            Stopped::AnotherOperator { identity, pause, .. } => self.set_not_reconciled(
                Reason::AnotherOperator,
                format!(
                    "another operator ({identity}) also manages this resource, with different settings: this one \
                     ({operator}) backs off for {} s; uninstall one of them, or have them watch different namespaces",
                    pause.as_secs()
                ),
            ),
            Stopped::Rejected(valid, failures) => {
                let problems = &failures.problems;
                let rejected = problems.iter().filter(|problem| problem.reason == Reason::InvalidSpec);
                let rejected = Problem::join(rejected);
                self.set(ConditionType::Valid, false, Reason::InvalidSpec, rejected);
                self.set_not_reconciled(Reason::InvalidSpec, Problem::join(problems));
                routes::describe_after(&mut self.status, valid, failures);
            }
            Stopped::NotApplied(valid, failures) => {
                let problems = &failures.problems;
                self.set_valid();
                let reason = problems.first().map_or(Reason::ApplyFailed, |first| first.reason);
                self.set_not_reconciled(reason, Problem::join(problems));
                routes::describe_after(&mut self.status, valid, failures);
            }
        }
    }

    /// A spec that is valid may refer to what is not there.
    fn invalid(&mut self, problems: &[Problem]) {
        let is_reference = |problem: &&Problem| problem.reason.is_missing_reference();
        let (references, spec): (Vec<_>, Vec<_>) = problems.iter().partition(is_reference);
        let Some(first) = spec.first() else {
            self.set_valid();
            let reason = references.first().map_or(Reason::ApplyFailed, |first| first.reason);
            return self.set_not_reconciled(reason, Problem::join(references.iter().copied()));
        };
        self.set(ConditionType::Valid, false, first.reason, Problem::join(spec.iter().copied()));
        self.set_not_reconciled(
            first.reason,
            "the spec is not valid (see the condition Valid): nothing was created, changed or deleted",
        );
    }

    /// What an outcome leaves open when a step could not be done: the pods are told of as they are observed, and other conditions
    /// stay as they were; but whether a former spec was valid says nothing about this one.
    pub(super) fn keep(&mut self, observed: Option<&Rollout>) {
        if let Some(rollout) = observed.filter(|rollout| rollout.is_observed) {
            let (available, reason, message) = availability(rollout, &Inspected::default());
            // The pods are of the generation that was applied last.
            let former = find_condition(self.on_object, ConditionType::Available);
            let generation = former.map_or(self.generation, |of| of.observed_generation);
            // Nobody has looked at the pods: what the last look has found stays until they serve.
            if available || !former.is_some_and(cannot_run) {
                self.set_for(generation, ConditionType::Available, available, reason, message);
            }
            self.count(rollout);
        }
        for kind in [ConditionType::Valid, ConditionType::Available, ConditionType::IngressReady] {
            let is_meant = |former: &&Condition| {
                kind != ConditionType::Valid || former.observed_generation == self.generation
            };
            if find_condition(&self.status.conditions, kind).is_none() {
                let former = find_condition(self.on_object, kind).filter(is_meant);
                self.status.conditions.extend(former.cloned());
            }
        }
    }

    /// Sets the numbers of pods.
    fn count(&mut self, rollout: &Rollout) {
        self.status.replicas = Some(rollout.replicas);
        self.status.ready_replicas = Some(rollout.ready);
        self.status.ready_of_wanted = Some(format!("{}/{}", rollout.ready, rollout.desired));
    }

    /// The status, with what follows from the other conditions.
    pub(super) fn finish(self, awaits_sweeper: bool, rollout: Option<&Rollout>) -> OrdersServiceStatus {
        let Self { mut status, on_object, generation, now } = self;
        ready::set(&mut status.conditions, on_object, generation, awaits_sweeper, rollout, now);
        status.conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
        status
    }
}
