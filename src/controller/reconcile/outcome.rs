//! How far the steps of a reconcile got.

use std::time::Duration;

use super::{
    apply::{Applied, Failures},
    validate::validated::ValidatedOrdersService,
};
use crate::controller::{api_server::RequestError, children::inspected::Inspected, problem::Problem};

/// The result of the steps.
pub type Outcome = Result<Completed, Stopped>;

/// Every step was done.
#[derive(Debug)]
pub struct Completed {
    /// The spec.
    pub valid: ValidatedOrdersService,
    /// What the API server made of the children.
    pub applied: Applied,
    /// What the last look at the pods has found.
    pub pods: Inspected,
    /// What is probably unintended about the autoscaler.
    pub autoscaler_warning: Option<Problem>,
    /// When to reconcile again if no watch event comes first.
    pub requeue_after: Option<Duration>,
}

/// A step could not be done; the later ones were not tried.
#[derive(Debug)]
pub enum Stopped {
    /// The resource is suspended.
    Suspended,
    /// What the spec refers to could not be read.
    ReadFailed(RequestError),
    /// The spec, or what it refers to, is not valid.
    Invalid {
        /// Every problem; there is at least one.
        problems: Vec<Problem>,
        /// Whether something that is missing may appear, so that it is worth trying again without a change of the spec.
        is_missing: bool,
    },
    /// Another operator writes to the resource too, and it is left alone for a while.
    AnotherOperator {
        /// Who the other is.
        identity: String,
        /// For how long.
        pause: Duration,
        /// Whether the other has said so in the status already.
        is_reported: bool,
    },
    /// The API server rejects children as the spec has them; all others were applied.
    Rejected(Box<ValidatedOrdersService>, Failures),
    /// Some children could not be applied.
    NotApplied(Box<ValidatedOrdersService>, Failures),
    /// The Deployment controller has not observed the change yet; the reconcile waits for it, for this long at most.
    AwaitObserved(Duration),
}
