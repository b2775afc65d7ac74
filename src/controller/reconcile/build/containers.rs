//! The containers that run before the API or beside it, and what holds for every container of the pods.

use k8s_openapi::api::core::v1::{Capabilities, Container, ResourceRequirements, SecurityContext};

use super::metadata::filled;
use crate::{controller::reconcile::validate::containers::ValidatedContainer, crd::Resources};

/// Every container's, as the *restricted* Pod Security Standard wants it.
pub(super) fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// The last lines of its log, where it wrote no message of its own: they are in the status if it ends.
pub(super) fn termination_message_policy() -> Option<String> {
    Some("FallbackToLogsOnError".into())
}

pub(super) fn init_container(container: &ValidatedContainer) -> Container {
    let Resources { requests, limits } = container.resources.clone();
    let listed = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    Container {
        name: container.name.clone(),
        image: Some(container.image.clone()),
        image_pull_policy: Some(container.image_pull_policy.as_str().into()),
        restart_policy: container.restart_policy.map(|policy| policy.as_str().into()),
        command: listed(&container.command),
        args: listed(&container.args),
        env: Some(container.env.clone()).filter(|env| !env.is_empty()),
        volume_mounts: Some(container.mounts.clone()).filter(|mounts| !mounts.is_empty()),
        resources: Some(ResourceRequirements {
            requests: filled(requests),
            limits: filled(limits),
            ..ResourceRequirements::default()
        })
        .filter(|resources| *resources != ResourceRequirements::default()),
        startup_probe: container.startup_probe.clone(),
        readiness_probe: container.readiness_probe.clone(),
        liveness_probe: container.liveness_probe.clone(),
        termination_message_policy: termination_message_policy(),
        security_context: Some(SecurityContext {
            run_as_user: container.run_as_user,
            read_only_root_filesystem: Some(container.read_only_root_filesystem),
            ..security_context()
        }),
        ..Container::default()
    }
}
