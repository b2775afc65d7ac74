//! What keeps the pods from running: a message that names the pod, its image and the reason.
//!
//! Pods are listed, a few at a time, only while their Deployment is incomplete, and they are never watched. So if all
//! is well, none is ever read. Those of former templates are not read either: what becomes of them says nothing about what
//! was asked for.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt, api::ListParams};

use super::build::metadata::selector_labels;
use crate::{
    controller::{
        api_server::{ApiServer, RequestError},
        children::{
            inspected::{Inspected, Pods},
            replica_set::HASH_LABEL,
            rollout::Rollout,
        },
        pod_state::{cannot_start, containers, ended, is_ready, last_words, runs_unready, unscheduled},
        problem::Problem,
    },
    crd::{API_CONTAINER, Reason},
};

/// How many pods are listed. Those of one template mostly fail for one reason.
const MAX_PODS: u32 = 50;

/// How long a container may run before it is told that it is not ready.
const UNREADY_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// The most bytes of a container's own message that are passed on.
const MAX_MESSAGE: usize = 600;

/// Lists the pods of the current template of an OrdersService, counts them, and finds what keeps them from running.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn inspect(
    api_server: &ApiServer,
    namespace: &str,
    name: &str,
    rollout: &Rollout,
) -> Result<Inspected, RequestError> {
    if !rollout.is_observed {
        // All pods that there are have a former template.
        return Ok(Inspected::default());
    }
    let mut selector = selector(name);
    if let Some(hash) = &rollout.template_hash {
        selector.push_str(&format!(",{HASH_LABEL}={hash}"));
    }
    let pods = Api::<Pod>::namespaced(api_server.client.clone(), namespace);
    // Any version that the API server has in its cache will do: a consistent list takes some 50 ms with a busy etcd, and
    // what this one does not show yet is found the next time.
    let params = ListParams::default().labels(&selector).limit(MAX_PODS).match_any();
    let list = api_server.read("Pod", "list", pods.list(&params)).await?;
    Ok(Inspected {
        problem: diagnose(&list.items, Timestamp::now()),
        pods: rollout.template_hash.is_some().then(|| count(&list.items, rollout)),
    })
}

/// Counts pods as a Deployment does: neither those that end nor those that have ended.
fn count(pods: &[Pod], of: &Rollout) -> Pods {
    let mut counted = Pods { of: of.counts(), ..Pods::default() };
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        counted.all += 1;
        counted.ready += i32::from(pod.status.as_ref().is_some_and(is_ready));
    }
    counted
}

/// The label selector of the pods of the resource of this name.
pub fn selector(name: &str) -> String {
    let labels = selector_labels(name);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The most severe problem of any pod. Of several that are equal, that of the first pod by name, so that the message
/// stays the same while nothing changes.
fn diagnose(pods: &[Pod], now: Timestamp) -> Option<Problem> {
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.name_any();
        let Some(status) = &pod.status else { continue };
        if let Some((severity, problem)) =
            containers(status).find_map(|container| of_container(&name, container, now))
        {
            found.push((severity, name, problem));
        } else if let Some(problem) = unscheduled(status).map(|condition| without_node(&name, condition)) {
            found.push((Severity::Waiting, name, problem));
        }
    }
    found.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
    found.into_iter().next().map(|(_, _, problem)| problem)
}

/// The most severe comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Image,
    Crash,
    Waiting,
}

fn of_container(pod: &str, container: &ContainerStatus, now: Timestamp) -> Option<(Severity, Problem)> {
    if let Some(running) = runs_unready(container) {
        let since = running.started_at.as_ref().map_or(now, |started| started.0);
        return unready(pod, container, now.duration_since(since));
    }
    let (reason, words) = cannot_start(container)?;
    let image = &container.image;
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some((
            Severity::Image,
            Problem::new(
                Reason::ImagePullFailed,
                format!(
                    "pod {pod:?} cannot pull image {image:?}: {}: check its name, the registry, and spec.imagePullSecrets",
                    or(pull_error(words), reason)
                ),
            ),
        )),
        "CrashLoopBackOff" => Some((
            Severity::Crash,
            Problem::new(
                Reason::CrashLoopBackOff,
                format!(
                    "pod {pod:?} with image {image:?} keeps exiting{}: see kubectl logs {} --previous",
                    last_termination(container),
                    logs(pod, container)
                ),
            ),
        )),
        _ => Some((
            Severity::Waiting,
            Problem::new(
                Reason::MinimumReplicasUnavailable,
                format!("pod {pod:?} does not start: {reason}: {}", or(cut(words), "no reason given")),
            ),
        )),
    }
}

/// What is wrong with a container that runs and is not ready: nothing, if it has only just begun.
fn unready(pod: &str, container: &ContainerStatus, age: SignedDuration) -> Option<(Severity, Problem)> {
    let image = &container.image;
    if ended(container.last_state.as_ref()).is_some() {
        let message = format!(
            "pod {pod:?} with image {image:?} is not ready, and has exited before{}: see kubectl logs {} --previous",
            last_termination(container),
            logs(pod, container)
        );
        return Some((Severity::Crash, Problem::new(Reason::CrashLoopBackOff, message)));
    }
    let message = if container.name == API_CONTAINER {
        format!(
            "pod {pod:?} with image {image:?} runs, but its readiness probe fails: see kubectl describe pod {pod}, and its logs"
        )
    } else {
        let (name, logs) = (&container.name, logs(pod, container));
        format!(
            "pod {pod:?} waits for its container {name:?} with image {image:?} to finish or, if it is a sidecar, \
             to become ready: see kubectl logs {logs}"
        )
    };
    (age >= UNREADY_AFTER)
        .then(|| (Severity::Waiting, Problem::new(Reason::MinimumReplicasUnavailable, message)))
}

/// What `kubectl logs` is told of a container.
fn logs(pod: &str, container: &ContainerStatus) -> String {
    if container.name == API_CONTAINER { pod.to_owned() } else { format!("{pod} -c {}", container.name) }
}

/// The error of the last attempt. Between two attempts, the kubelet puts its own words before it.
fn pull_error(words: &str) -> &str {
    let rest = match words.strip_prefix("Back-off pulling image ") {
        Some(rest) => rest.split_once("\": ").map_or("", |(_, error)| error),
        None => words,
    };
    cut(rest.strip_prefix("ErrImagePull: ").unwrap_or(rest).trim())
}

/// How the container terminated last. Unlike the kubelet's message, in which the back-off grows, this stays the same
/// from one crash to the next.
fn last_termination(container: &ContainerStatus) -> String {
    ended(container.last_state.as_ref()).map_or(String::new(), |terminated| {
        let mut text = format!(", with exit code {}", terminated.exit_code);
        if let Some(reason) = terminated.reason.as_deref().filter(|reason| *reason != "Error") {
            text.push_str(&format!(" ({reason})"));
        }
        // What another program says may be anything, a password too, and more people read the status than logs.
        if let Some(words) = last_words(terminated).filter(|_| container.name == API_CONTAINER) {
            text.push_str(&format!(": {}", cut(words)));
        }
        text
    })
}

fn without_node(pod: &str, scheduled: &PodCondition) -> Problem {
    let why = scheduled.message.as_deref().or(scheduled.reason.as_deref()).unwrap_or_default();
    let message = format!("pod {pod:?} is not scheduled: {}", or(cut(why), "the scheduler gave no reason"));
    Problem::new(Reason::MinimumReplicasUnavailable, message)
}

fn cut(words: &str) -> &str {
    words.get(..words.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default()
}

fn or<'a>(words: &'a str, otherwise: &'a str) -> &'a str {
    if words.is_empty() { otherwise } else { words }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn diagnose(pods: &[Pod]) -> Option<Problem> {
        super::diagnose(pods, "2026-01-01T00:01:00Z".parse().unwrap())
    }

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
    fn pods_are_counted_without_those_that_end_or_have_ended() {
        let pod = |ready: &str, phase: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "deletionTimestamp": deleted},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
            }))
            .unwrap()
        };
        let of = Rollout { replicas: 5, ..Rollout::default() };
        let counted = count(
            &[
                pod("True", "Running", None),
                pod("True", "Running", Some("2026-01-01T00:00:00Z")),
                pod("False", "Failed", None),
                pod("False", "Pending", None),
            ],
            &of,
        );
        assert_eq!(counted, Pods { all: 2, ready: 1, of: of.counts() });
    }

    #[test]
    fn an_image_that_cannot_be_pulled_gives_the_same_message_during_and_between_attempts() {
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
    fn a_crash_is_described_by_how_it_terminated_and_not_by_its_back_off() {
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
    fn a_container_that_runs_and_is_not_ready_is_told_after_half_a_minute_or_when_it_has_ended_before() {
        let state = |started: &str| json!({"state": {"running": {"startedAt": started}}});
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let told = |container: Value| super::diagnose(&[pod("p", container)], now);
        assert_eq!(told(state("2026-01-01T00:00:31Z")), None);
        let slow = told(state("2026-01-01T00:00:30Z")).unwrap();
        assert_eq!(slow.reason, Reason::MinimumReplicasUnavailable);
        assert!(slow.message.contains("pod \"p\"") && slow.message.contains("readiness probe"), "{slow}");
        let mut again = state("2026-01-01T00:00:59Z");
        again["lastState"] = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let again_told = told(again.clone()).unwrap();
        assert_eq!(again_told.reason, Reason::CrashLoopBackOff);
        assert!(again_told.message.contains("with exit code 0 (Completed)"), "{again_told}");
        again["ready"] = json!(true);
        assert_eq!(told(again), None, "it serves now");
    }

    #[test]
    fn a_container_before_the_api_is_named_where_it_does_not_end_and_where_it_fails() {
        let told = |state: Value| {
            let mut pod = waiting("p", "PodInitializing", "");
            let mut container =
                json!({"name": "migrate", "image": "m:1", "imageID": "", "ready": false, "restartCount": 0});
            json_patch::merge(&mut container, &state);
            pod.status.as_mut().unwrap().init_container_statuses =
                serde_json::from_value(json!([container])).unwrap();
            diagnose(&[pod])
        };
        let slow = told(json!({"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})).unwrap();
        assert!(slow.message.contains("\"migrate\"") && slow.message.contains("to finish or"), "{slow}");
        let failed = json!({
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}
        });
        let failed = told(failed).unwrap();
        assert_eq!(failed.reason, Reason::CrashLoopBackOff);
        assert!(failed.message.ends_with("see kubectl logs p -c migrate --previous"), "{failed}");
        let done = json!({"ready": true, "state": {"terminated": {"exitCode": 0}}});
        assert_eq!(told(done), None);
    }

    #[test]
    fn the_most_severe_problem_is_reported_and_starting_pods_are_not() {
        let creating = waiting("a", "ContainerCreating", "");
        let running = pod("r", json!({"state": {"running": {"startedAt": "2026-01-01T00:00:59Z"}}}));
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
