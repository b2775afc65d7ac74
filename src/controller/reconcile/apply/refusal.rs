//! What is told of a child that cannot be written: it is not ours, or the API server refuses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::writer::ChildWriter;
use crate::{
    controller::{
        api_server::RequestError,
        children::{
            kind::{Child, ChildKind},
            owner::{Owner, controller_of},
        },
        problem::Problem,
    },
    crd::{ADOPT_ANNOTATION, Reason},
};

impl ChildWriter<'_> {
    /// Whose the object with the name of a child is, and what to do about it.
    pub(super) fn not_owned<K: Child>(&self, live: &ObjectMeta) -> Problem {
        let kind = K::KIND.as_str();
        let whose = match controller_of(live) {
            Some(controller) => format!("belongs to {} {:?}", controller.kind, controller.name),
            None => "is not owned by an OrdersService".to_owned(),
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
                "delete it so that the operator can create its own, or remove spec.serviceName".to_owned()
            }
            // Its owner would make it again.
            (true, Some(_), _) => "set spec.serviceName to another name, or remove it".to_owned(),
            (false, _, Some(other)) => format!(
                "remove spec.serviceName from OrdersService {:?}, or give this OrdersService another name",
                other.key.name()
            ),
            (false, _, None) => "delete or rename it, or give this OrdersService another name".to_owned(),
        };
        let message =
            format!("{kind} {name:?} already exists and {whose}: it was left unchanged; {instead}{adopt}");
        Problem::new(Reason::NotOwned, message)
    }
}

/// What it means that a child could not be applied or deleted.
pub(super) fn write_failed<K: Child>(verb: &str, name: &str, error: &RequestError) -> Problem {
    let kind = K::KIND.as_str();
    if let RequestError::Refused { code: 422, message } = error {
        let message =
            format!("the API server rejects {kind} {name:?}: {message}; correct the spec accordingly");
        return Problem::new(Reason::InvalidSpec, message);
    }
    Problem::of_request(error.write_reason(), &format!("cannot {verb} {kind} {name:?}"), error)
}

/// The same, of one that could not be read.
pub(super) fn read_failed<K: Child>(name: &str, error: &RequestError) -> Problem {
    Problem::of_request(error.read_reason(), &format!("cannot read {} {name:?}", K::KIND.as_str()), error)
}
