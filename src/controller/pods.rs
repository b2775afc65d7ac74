//! What keeps the pods from running, in words that name the pod, its image and the reason.
//!
//! Pods are listed only while their Deployment is not where it should be, a few at a time, and are
//! never watched: in a cluster where all is well, none is ever read.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    build::selector_labels,
    problem::{CallError, Cluster, Problem},
};
use crate::crd::Reason;

/// How many pods are looked at: those of one template fail alike.
const A_FEW: u32 = 50;

/// The most of a container's own words that is passed on.
const WORDS: usize = 600;

/// Looks for what keeps the pods of the resource from running.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn trouble(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Problem>, CallError> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    // From the API server's cache: a list that must be the newest waits until that has caught up with
    // the database, some 50 ms on a busy one. What it does not show yet, the next look finds.
    let params = ListParams::default().labels(&selector(name)).limit(A_FEW).match_any();
    let found = cluster.read("Pod", "list", pods.list(&params)).await?;
    Ok(diagnose(&found.items))
}

/// The label selector of the pods of the resource of this name.
pub fn selector(name: &str) -> String {
    let labels = selector_labels(name);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The worst that keeps any of them from running. Of equals, the first by name, so that the answer stays
/// the same while nothing changes.
fn diagnose(pods: &[Pod]) -> Option<Problem> {
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.name_any();
        let Some(status) = &pod.status else { continue };
        let containers = status.container_statuses.iter().flatten();
        if let Some((rank, problem)) =
            containers.filter_map(|container| of_container(&name, container)).next()
        {
            found.push((rank, name, problem));
        } else if let Some(problem) = unscheduled(&name, status) {
            found.push((Rank::Waits, name, problem));
        }
    }
    found.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
    found.into_iter().next().map(|(_, _, problem)| problem)
}

/// What is told first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Image,
    Crash,
    Waits,
}

fn of_container(pod: &str, container: &ContainerStatus) -> Option<(Rank, Problem)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let words = waiting.message.as_deref().unwrap_or_default();
    let image = &container.image;
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some((
            Rank::Image,
            Problem::new(
                Reason::ImagePullFailed,
                format!(
                    "pod {pod:?} cannot pull image {image:?}: {}: check its name, the registry, and spec.imagePullSecrets",
                    or(pull_error(words), reason)
                ),
            ),
        )),
        "CrashLoopBackOff" => Some((
            Rank::Crash,
            Problem::new(
                Reason::CrashLoopBackOff,
                format!(
                    "pod {pod:?} with image {image:?} ends again and again{}: see kubectl logs {pod} --previous",
                    last_end(container)
                ),
            ),
        )),
        "ContainerCreating" | "PodInitializing" => None,
        _ => Some((
            Rank::Waits,
            Problem::new(
                Reason::MinimumReplicasUnavailable,
                format!("pod {pod:?} does not start: {reason}: {}", or(cut(words), "it does not say why")),
            ),
        )),
    }
}

/// The error of the last attempt: between two, the kubelet puts other words before it.
fn pull_error(words: &str) -> &str {
    let rest = match words.strip_prefix("Back-off pulling image ") {
        Some(rest) => rest.split_once("\": ").map_or("", |(_, error)| error),
        None => words,
    };
    cut(rest.strip_prefix("ErrImagePull: ").unwrap_or(rest).trim())
}

/// How the container ended the last time. The kubelet's own message has a pause that grows; this does not
/// change from one crash to the next.
fn last_end(container: &ContainerStatus) -> String {
    let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.map_or(String::new(), |ended| {
        let mut text = format!(", with exit code {}", ended.exit_code);
        if let Some(reason) = ended.reason.as_deref().filter(|reason| *reason != "Error") {
            text.push_str(&format!(" ({reason})"));
        }
        if let Some(words) = ended.message.as_deref().map(str::trim).filter(|words| !words.is_empty()) {
            text.push_str(&format!(": {}", cut(words)));
        }
        text
    })
}

fn unscheduled(pod: &str, status: &PodStatus) -> Option<Problem> {
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
    (scheduled.status == "False").then(|| {
        let why = scheduled.message.as_deref().or(scheduled.reason.as_deref()).unwrap_or_default();
        let message = format!("pod {pod:?} has no node: {}", or(cut(why), "the scheduler does not say why"));
        Problem::new(Reason::MinimumReplicasUnavailable, message)
    })
}

fn cut(words: &str) -> &str {
    words.get(..words.floor_char_boundary(WORDS)).unwrap_or_default()
}

fn or<'a>(words: &'a str, otherwise: &'a str) -> &'a str {
    if words.is_empty() { otherwise } else { words }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, container: Value) -> Pod {
        let mut status = json!({"name": "orders-api", "image": "registry/x:1", "imageID": "", "ready": false, "restartCount": 3});
        json_patch::merge(&mut status, &container);
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"containerStatuses": [status]}}))
            .unwrap()
    }

    fn waiting(name: &str, reason: &str, message: &str) -> Pod {
        pod(name, json!({"state": {"waiting": {"reason": reason, "message": message}}}))
    }

    #[test]
    fn an_image_that_cannot_be_pulled_reads_the_same_during_and_between_the_attempts() {
        let error =
            "rpc error: code = NotFound desc = failed to pull and unpack image \"registry/x:1\": not found";
        let during = diagnose(&[waiting("a", "ErrImagePull", error)]).unwrap();
        let between = format!("Back-off pulling image \"registry/x:1\": ErrImagePull: {error}");
        assert_eq!(diagnose(&[waiting("a", "ImagePullBackOff", &between)]).unwrap(), during);
        assert_eq!(during.reason, Reason::ImagePullFailed);
        for expected in ["pod \"a\"", "image \"registry/x:1\"", "not found", "spec.imagePullSecrets"] {
            assert!(during.message.contains(expected), "{}", during.message);
        }
        let terse = diagnose(&[waiting("a", "ImagePullBackOff", "Back-off pulling image \"registry/x:1\"")]);
        assert!(terse.unwrap().message.contains("image \"registry/x:1\": ImagePullBackOff: check"));
    }

    #[test]
    fn a_crash_names_how_it_ended_and_not_how_long_the_pause_is() {
        let crash = |pause: &str| {
            pod(
                "b",
                json!({
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": format!("back-off {pause} restarting")}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": " no memory\n"}},
                }),
            )
        };
        let problem = diagnose(&[crash("10s")]).unwrap();
        assert_eq!(problem.reason, Reason::CrashLoopBackOff);
        assert!(
            problem.message.contains("exit code 137 (OOMKilled): no memory: see kubectl logs b"),
            "{problem}"
        );
        assert_eq!(diagnose(&[crash("20s")]).unwrap(), problem);
    }

    #[test]
    fn the_worst_of_many_is_told_and_pods_on_their_way_are_not() {
        let creating = waiting("a", "ContainerCreating", "");
        let running = pod("r", json!({"state": {"running": {}}}));
        assert_eq!(diagnose(&[creating.clone(), running]), None);
        let unscheduled: Pod = serde_json::from_value(json!({
            "metadata": {"name": "u"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}
        }))
        .unwrap();
        let config = waiting("c", "CreateContainerConfigError", "secret \"x\" not found");
        let problem = diagnose(&[unscheduled.clone(), config.clone()]).unwrap();
        assert!(problem.message.contains("CreateContainerConfigError: secret \"x\" not found"), "{problem}");
        assert_eq!(problem.reason, Reason::MinimumReplicasUnavailable);
        let image = waiting("z", "ErrImagePull", "no");
        let mut deleted = waiting("0", "ErrImagePull", "no");
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let all = [creating, unscheduled, config, image, waiting("y", "CrashLoopBackOff", ""), deleted];
        assert!(diagnose(&all).unwrap().message.starts_with("pod \"z\" cannot pull"));
    }
}
