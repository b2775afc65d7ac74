//! How far a Deployment of the operator is, and in the cluster's words what holds it up. Pods of a former template that still
//! serve hide that those of the current one cannot start.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};

use super::report::Group;
use crate::{
    controller::{Rollout, pod_state},
    osvc::{cluster::Cluster, error::AskError, status::PodView},
};

/// The most pods of which is told why they are not ready. Those of one template mostly wait for one reason.
const MAX_PODS: usize = 3;

/// What holds a Deployment up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trouble {
    /// Whether it will not pass by waiting.
    is_stuck: bool,
    /// What the cluster says.
    words: Vec<String>,
}

/// How many pods of a Deployment are ready.
pub(super) fn ready_pods(deployment: &Deployment) -> i32 {
    Rollout::from(deployment).ready
}

/// Checks that as many pods as are wanted are ready, and that they are of the current template.
pub(super) async fn check(group: &mut Group, cluster: &Cluster, deployment: &Deployment) {
    let rollout = Rollout::from(deployment);
    let mut trouble = trouble_of(&rollout);
    if !is_rolled_out(&rollout) || rollout.ready < rollout.desired {
        match unready(cluster, deployment).await {
            Ok(unready) => {
                trouble.is_stuck |= unready.is_stuck;
                trouble.words.extend(unready.words);
            }
            Err(error) => group.unasked(&error),
        }
    }
    judge(group, deployment, &rollout, &trouble);
}

/// Whether all pods are of the current template, and none of a former one is left.
fn is_rolled_out(rollout: &Rollout) -> bool {
    rollout.is_of_this_generation() && rollout.updated >= rollout.desired
}

/// What the Deployment itself says.
fn trouble_of(rollout: &Rollout) -> Trouble {
    let words: Vec<_> = rollout.stalled.iter().chain(&rollout.creation_failure).cloned().collect();
    Trouble { is_stuck: !words.is_empty(), words }
}

/// What its pods say that are not ready.
async fn unready(cluster: &Cluster, deployment: &Deployment) -> Result<Trouble, AskError> {
    let namespace = deployment.namespace().unwrap_or_default();
    let selector = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
    let selector: Vec<_> =
        selector.unwrap_or_default().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &namespace);
    let params = ListParams::default().labels(&selector.join(","));
    Ok(trouble_of_pods(&cluster.list(&format!("list pods in namespace {namespace}"), &pods, params).await?))
}

fn trouble_of_pods(pods: &[Pod]) -> Trouble {
    let mut unready: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| (PodView::from(pod), pod))
        .filter(|(view, _)| !view.ready)
        .collect();
    // What will not start goes first.
    unready.sort_by_key(|(view, pod)| (!cannot_start(pod), view.name.clone()));
    let is_stuck = unready.first().is_some_and(|(_, pod)| cannot_start(pod));
    let mut words: Vec<_> = unready.iter().take(MAX_PODS).map(|(view, _)| told(view)).collect();
    if let Some(more @ 1..) = unready.len().checked_sub(MAX_PODS) {
        words.push(format!("{more} more are not ready"));
    }
    Trouble { is_stuck, words }
}

fn told(PodView { name, phase, waits, last_words, .. }: &PodView) -> String {
    let why: Vec<_> = waits.iter().chain(last_words).map(String::as_str).collect();
    let why = if why.is_empty() { format!("is not ready ({phase})") } else { why.join("; ") };
    format!("pod {name}: {why}")
}

/// Whether a container waits for something else than its turn.
fn cannot_start(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|status| pod_state::containers(status).any(|of| pod_state::cannot_start(of).is_some()))
}

fn judge(group: &mut Group, deployment: &Deployment, rollout: &Rollout, trouble: &Trouble) {
    let Rollout { desired, ready, updated, .. } = *rollout;
    let (namespace, short) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    let name = format!("{namespace}/{short}");
    let words: String = trouble.words.iter().map(|words| format!("; {words}")).collect();
    let why =
        format!("`kubectl -n {namespace} describe deployment {short}` and the logs of its pods say why");
    if ready == 0 && desired > 0 {
        return group.failure(format!("Deployment {name}: 0 of {desired} pods are ready{words}"), why);
    }
    if !is_rolled_out(rollout) {
        let told = format!(
            "Deployment {name}: {ready} pods are ready, but its last change is not rolled out: {updated} of \
             {desired} pods have it{words}"
        );
        return if trouble.is_stuck {
            let todo = format!(
                "old pods still serve: fix what the cluster reports (for an image: image.repository, image.tag and \
                 imagePullSecrets of the chart), or revert the change with `helm rollback` or `kubectl -n \
                 {namespace} rollout undo deployment/{short}`"
            );
            group.failure(told, todo)
        } else {
            let wait = format!(
                "wait until `kubectl -n {namespace} rollout status deployment/{short}` says that it is"
            );
            group.warning(told, wait)
        };
    }
    let told = format!("Deployment {name}: {ready} of {desired} pods are ready{words}");
    if ready < desired { group.warning(told, why) } else { group.ok(told) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(status: Value) -> Deployment {
        let mut whole =
            json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2});
        json_patch::merge(&mut whole, &status);
        serde_json::from_value(json!({
            "metadata": {"name": "operator", "namespace": "ops", "generation": 3},
            "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": whole
        }))
        .unwrap()
    }

    fn pod(name: &str, ready: &str, state: Value) -> Pod {
        let container = json!({
            "name": "controller", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state
        });
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {
                "phase": "Pending", "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [container]
            }
        }))
        .unwrap()
    }

    /// The level and the text of the only line.
    fn line(status: Value, pods: &[Pod]) -> (String, String) {
        let deployment = deployment(status);
        let (mut group, of_pods) = (Group::new(""), trouble_of_pods(pods));
        let rollout = Rollout::from(&deployment);
        let mut trouble = trouble_of(&rollout);
        trouble.is_stuck |= of_pods.is_stuck;
        trouble.words.extend(of_pods.words);
        judge(&mut group, &deployment, &rollout, &trouble);
        let group = serde_json::to_value(&group).unwrap();
        let [line] = group["lines"].as_array().unwrap().as_slice() else { panic!("{group}") };
        assert_eq!(line["level"] == "ok", line["todo"].is_null());
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (text("level"), format!("{} | {}", text("text"), text("todo")))
    }

    #[test]
    fn no_ready_pod_fails_and_too_few_are_a_warning() {
        assert_eq!(line(json!({"readyReplicas": 0}), &[]).0, "failure");
        assert_eq!(line(json!({"readyReplicas": 1}), &[]).0, "warning");
        let (level, text) = line(json!({}), &[]);
        assert_eq!(
            (level.as_str(), text.as_str()),
            ("ok", "Deployment ops/operator: 2 of 2 pods are ready | ")
        );
    }

    #[test]
    fn a_rollout_whose_pods_cannot_start_fails_by_the_words_of_the_cluster_while_former_pods_are_ready() {
        let under_way = json!({"replicas": 3, "updatedReplicas": 1});
        let starts = pod("new", "False", json!({"waiting": {"reason": "ContainerCreating"}}));
        let (level, text) = line(under_way.clone(), &[starts]);
        assert_eq!(level, "warning");
        assert!(text.contains("1 of 2 pods have it") && text.contains("rollout status"), "{text}");
        let back_off =
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x:1\""}});
        let pods = [pod("old", "True", json!({"running": {}})), pod("new", "False", back_off)];
        let (level, text) = line(under_way.clone(), &pods);
        assert_eq!(level, "failure");
        for expected in [
            "ops/operator: 2 pods are ready, but its last change is not rolled out",
            "pod new: controller: ImagePullBackOff: Back-off pulling image \"x:1\"",
            "imagePullSecrets",
            "rollout undo deployment/operator",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("pod old"), "{text}");
        // The condition alone suffices, where pods may not be listed or there are none.
        let mut late = under_way;
        late["conditions"] = json!([{
            "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"
        }]);
        let (level, text) = line(late, &[]);
        assert!(level == "failure" && text.contains("timed out"), "{level} {text}");
        let quota = json!({"replicas": 2, "updatedReplicas": 0, "conditions": [{
            "type": "ReplicaFailure", "status": "True", "message": "exceeded quota"
        }]});
        let (level, text) = line(quota, &[]);
        assert!(level == "failure" && text.contains("exceeded quota"), "{level} {text}");
        // What the Deployment controller has not seen yet is not rolled out.
        let (level, text) = line(json!({"observedGeneration": 2}), &[]);
        assert!(level == "warning" && text.contains("0 of 2 pods have it"), "{level} {text}");
    }

    #[test]
    fn of_many_pods_those_that_will_not_start_are_told_first() {
        let starts = json!({"waiting": {"reason": "PodInitializing"}});
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let pods = ["a", "b", "c", "d"]
            .map(|name| pod(name, "False", if name == "d" { crash.clone() } else { starts.clone() }));
        let Trouble { is_stuck, words } = trouble_of_pods(&pods);
        assert!(is_stuck && words[0].starts_with("pod d: controller: CrashLoopBackOff"), "{words:?}");
        assert_eq!(words[3], "1 more are not ready");
    }
}
