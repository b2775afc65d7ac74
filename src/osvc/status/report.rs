//! What is told of an OrdersService.

use k8s_openapi::{
    api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt;
use serde::Serialize;

use super::events::EventView;
use crate::{
    controller::{
        pod_state::{self, cannot_start, ended, runs_unready},
        render::MissingRoute,
    },
    crd::{
        API_CONTAINER, ConditionType, EventsSpec, ExpiryStatus, OrdersService, RenderedRoute, find_condition,
        is_true,
    },
};

/// An OrdersService, and what is around it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it is ready, by the condition `Ready`, and as its spec is now.
    pub(super) ready: bool,
    /// Why, in a word.
    pub(super) reason: String,
    /// Why, and what to do.
    pub(super) message: String,
    /// Where the orders API is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// The image of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    /// Its conditions, the summary first.
    pub(super) conditions: Vec<ConditionView>,
    /// The routes as rendered, in the order in which they are tried.
    pub(super) routes: Vec<RenderedRoute>,
    /// What it asks for and does not have.
    pub(super) not_rendered: Vec<MissingRoute>,
    /// What others ask for and do not have, since this one has it.
    pub(super) kept_from_others: Vec<MissingRoute>,
    /// Its pods; none where they cannot be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pods: Option<Vec<PodView>>,
    /// The progress of the sweeper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiry: Option<ExpiryStatus>,
    /// The broker; none without `spec.events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker: Option<BrokerView>,
    /// What happened to it lately, the latest first; none where that cannot be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Vec<EventView>>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unknown: Vec<String>,
}

/// A condition.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConditionView {
    /// As the status has it.
    #[serde(flatten)]
    pub(super) condition: Condition,
    /// Whether it is about the spec as it is now.
    pub(super) current: bool,
}

/// A pod.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::osvc) struct PodView {
    /// Its name.
    pub(in crate::osvc) name: String,
    /// Whether it is ready.
    pub(in crate::osvc) ready: bool,
    /// Its phase; or that it is being deleted.
    pub(in crate::osvc) phase: String,
    /// How often its containers were started again, together.
    pub(in crate::osvc) restarts: i32,
    /// The image of the orders API.
    pub(in crate::osvc) image: String,
    /// Why a container waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::osvc) waits: Option<String>,
    /// How a container ended last, and what it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::osvc) last_words: Option<String>,
}

/// The broker to which events are published.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BrokerView {
    /// Which it is.
    pub(super) kind: &'static str,
    /// Where it is.
    pub(super) servers: String,
    /// Whether events flow; none before that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flowing: Option<bool>,
    /// Why, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Report {
    /// What the resource itself says.
    pub(super) fn of(service: &OrdersService) -> Self {
        let status = service.status.clone().unwrap_or_default();
        let generation = service.metadata.generation;
        let is_current = |condition: &Condition| condition.observed_generation == generation;
        let ready = find_condition(&status.conditions, ConditionType::Ready);
        let (is_ready, reason, message) = match ready {
            None => (false, "Unknown", "no operator has reported on it: see `kubectl osvc check`"),
            Some(ready) if !is_current(ready) => {
                (false, "Outdated", "the operator has not reported on the current spec yet")
            }
            Some(ready) => (is_true(ready), ready.reason.as_str(), ready.message.as_str()),
        };
        let broker = service
            .spec
            .events
            .as_ref()
            .map(|spec| broker(spec, find_condition(&status.conditions, ConditionType::EventsFlowing)));
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let order = [ConditionType::CONTROLLER.as_slice(), &ConditionType::SWEEPER].concat();
        let place = |condition: &Condition| order.iter().position(|kind| kind.as_str() == condition.type_);
        let mut conditions: Vec<_> = status
            .conditions
            .into_iter()
            .map(|condition| ConditionView { current: is_current(&condition), condition })
            .collect();
        conditions.sort_by_key(|view| place(&view.condition).unwrap_or(order.len()));
        Self {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
            ready: is_ready,
            reason,
            message,
            url: status.url,
            image: status.image,
            conditions,
            routes: status.routes,
            not_rendered: Vec::new(),
            kept_from_others: Vec::new(),
            pods: None,
            expiry: status.expiry,
            broker,
            events: None,
            unknown: Vec::new(),
        }
    }
}

fn broker(spec: &EventsSpec, flowing: Option<&Condition>) -> BrokerView {
    let secret = spec.nats.url_secret_ref.as_ref();
    BrokerView {
        kind: if spec.streaming.is_some() { "NATS Streaming" } else { "JetStream" },
        servers: secret.map_or_else(
            || spec.nats.servers.join(", "),
            |secret| format!("in the key {} of Secret {}", secret.key, secret.name),
        ),
        flowing: flowing.map(is_true),
        reason: flowing.map(|flowing| flowing.reason.clone()),
    }
}

impl From<&Pod> for PodView {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let containers: Vec<_> = pod_state::containers(&status).collect();
        let phase = match &pod.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => status.phase.clone().unwrap_or_else(|| "Unknown".into()),
        };
        let spec = pod.spec.as_ref();
        let image = spec.and_then(|spec| spec.containers.iter().find(|of| of.name == API_CONTAINER));
        Self {
            name: pod.name_any(),
            ready: pod_state::is_ready(&status),
            phase,
            restarts: containers.iter().map(|container| container.restart_count).sum(),
            image: image.and_then(|container| container.image.clone()).unwrap_or_default(),
            waits: keeps_waiting(&status)
                .or(pod_state::unscheduled(&status).and_then(|of| of.message.clone())),
            // What the orders API has said is mostly why the pod does not run, whatever is beside it.
            last_words: containers
                .iter()
                .filter(|container| container.name == API_CONTAINER)
                .chain(&containers)
                .find_map(|container| last_words(container)),
        }
    }
}

/// What keeps a pod from running: a container that cannot start, or else one before the API that does not end, or else one that
/// has yet to start. All that are behind the one that is to blame wait for their turn.
fn keeps_waiting(status: &PodStatus) -> Option<String> {
    if let Some(container) = pod_state::containers(status).find(|of| cannot_start(of).is_some()) {
        return waits(container);
    }
    let next = pod_state::containers(status).find(|of| waiting(of).is_some())?;
    match status.init_container_statuses.iter().flatten().find(|of| runs_unready(of).is_some()) {
        Some(running) => Some(format!(
            "{}: it has not finished or, if it is a sidecar, is not ready, and {} waits for it",
            running.name, next.name
        )),
        None => waits(next),
    }
}

fn waiting(container: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    container.state.as_ref()?.waiting.as_ref()
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let state = waiting(container)?;
    let reason = state.reason.as_deref().unwrap_or("no reason given");
    let words = state.message.as_deref().map_or_else(String::new, |message| format!(": {message}"));
    Some(format!("{}: {reason}{words}", container.name))
}

/// How a container ended: one that does not run again, or else the one before that which runs or waits.
fn last_words(container: &ContainerStatus) -> Option<String> {
    let last = ended(container.state.as_ref())
        .filter(|ended| ended.exit_code != 0)
        .or_else(|| ended(container.last_state.as_ref()))?;
    let reason = last.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let words = pod_state::last_words(last).map_or_else(String::new, |words| format!(": {words}"));
    Some(format!("{} exited with code {}{reason}{words}", container.name, last.exit_code))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(ready: Value) -> OrdersService {
        serde_json::from_value(json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": "orders", "namespace": "shop", "generation": 3},
            "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                "database": {"uriSecretRef": {"name": "orders-mongo"}},
                "events": {"nats": {"servers": ["nats://a:4222"]}}
            },
            "status": {"conditions": [
                {"type": "Valid", "status": "True", "reason": "AsExpected", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ready,
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn it_is_ready_only_by_a_condition_that_is_true_and_of_this_generation() {
        let ready = |status: &str, generation: i64| {
            json!({
                "type": "Ready", "status": status, "reason": "AsExpected", "message": "everything is in place",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"
            })
        };
        for (condition, expected) in [
            (ready("True", 3), (true, "AsExpected")),
            (ready("True", 2), (false, "Outdated")),
            (ready("False", 3), (false, "AsExpected")),
            (ready("Unknown", 3), (false, "AsExpected")),
        ] {
            let report = Report::of(&service(condition));
            assert_eq!((report.ready, report.reason.as_str()), expected);
            let order: Vec<_> = report.conditions.iter().map(|of| of.condition.type_.as_str()).collect();
            assert_eq!(order, ["Ready", "Valid"], "the summary is first");
            assert_eq!(report.broker.unwrap().servers, "nats://a:4222");
        }
        let mut never = service(ready("True", 3));
        never.status = None;
        let report = Report::of(&never);
        assert_eq!((report.ready, report.reason.as_str()), (false, "Unknown"));
    }

    #[test]
    fn what_a_pod_waits_for_is_the_container_that_is_to_blame_and_not_those_behind_it() {
        let told = |first: Value, api: Value| {
            let container = |(name, state): (&str, Value)| {
                let ready = state["terminated"]["exitCode"] == 0;
                json!({"name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": state})
            };
            let behind = json!({"waiting": {"reason": "PodInitializing"}});
            let before = [("first", first), ("second", behind)].map(container);
            let proxy = json!({"waiting": {"reason": "ContainerCreating"}});
            let beside = [("a-proxy", proxy), ("orders-api", api)].map(container);
            let status = json!({"initContainerStatuses": before, "containerStatuses": beside});
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
            PodView::from(&pod).waits.unwrap()
        };
        let behind = || json!({"waiting": {"reason": "PodInitializing"}});
        let failing = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
        assert_eq!(told(failing, behind()), "first: ErrImagePull: no such image");
        let running = told(json!({"running": {}}), behind());
        assert!(
            running.starts_with("first: it has not finished") && running.ends_with("second waits for it"),
            "{running}"
        );
        // What only starts comes before it, by name.
        let done = || json!({"terminated": {"exitCode": 0}});
        let config =
            json!({"waiting": {"reason": "CreateContainerConfigError", "message": "no such Secret"}});
        assert_eq!(told(done(), config), "orders-api: CreateContainerConfigError: no such Secret");
        assert_eq!(told(done(), behind()), "second: PodInitializing", "nothing is to blame");
    }

    #[test]
    fn of_a_pod_is_told_what_keeps_it_and_how_it_ended() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "orders-1"},
            "spec": {"containers": [{"name": "proxy", "image": "p:1"}, {"name": API_CONTAINER, "image": "orders:2"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
                {"name": "proxy", "image": "p:1", "imageID": "", "ready": true, "restartCount": 1, "state": {"running": {}},
                 "lastState": {"terminated": {"exitCode": 1}}},
                {"name": API_CONTAINER, "image": "orders:2", "imageID": "", "ready": false, "restartCount": 3,
                 "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                 "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": " no memory\n"}}},
            ]}
        }))
        .unwrap();
        let expected = PodView {
            name: "orders-1".into(),
            ready: false,
            phase: "Running".into(),
            restarts: 4,
            image: "orders:2".into(),
            waits: Some(format!("{API_CONTAINER}: CrashLoopBackOff: back-off")),
            last_words: Some(format!("{API_CONTAINER} exited with code 137 (OOMKilled): no memory")),
        };
        assert_eq!(PodView::from(&pod), expected);
        let done = json!({"exitCode": 0});
        let container = |state: &Value| {
            let status = json!({
                "name": "init", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": state}
            });
            last_words(&serde_json::from_value(status).unwrap())
        };
        assert_eq!(container(&done), None, "a first container that is done has nothing to say");
        assert!(container(&json!({"exitCode": 1})).is_some());
        let again = json!({
            "name": "api", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"terminated": {"exitCode": 2}}, "lastState": {"terminated": {"exitCode": 1}}
        });
        let words = last_words(&serde_json::from_value(again).unwrap());
        assert_eq!(words.as_deref(), Some("api exited with code 2"), "the last time is what counts");
    }
}
