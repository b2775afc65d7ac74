//! From the Deployment and the Service of the Node.js service to what an OrdersService says of its pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    connections::{self, Connections},
    documents::Object,
    environment::{Environment, Stores},
    fields::Fields,
    finding::{Findings, Notes, Whom},
    judge,
};
use crate::crd::PodTemplate;

/// Fields of a pod that are copied into `spec.podTemplate`.
const COPIED: [&str; 6] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "serviceAccountName",
];

/// Fields of a Deployment that the operator sets itself.
const OF_THE_DEPLOYMENT: [&str; 6] = [
    "strategy",
    "updateStrategy",
    "minReadySeconds",
    "progressDeadlineSeconds",
    "revisionHistoryLimit",
    "paused",
];

/// Fields of a pod that the operator sets itself.
const OF_THE_POD: [&str; 6] = [
    "terminationGracePeriodSeconds",
    "securityContext",
    "automountServiceAccountToken",
    "priority",
    "preemptionPolicy",
    "nodeName",
];

/// Fields of a container that the operator sets itself.
const OF_THE_CONTAINER: [&str; 10] = [
    "command",
    "args",
    "workingDir",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "securityContext",
    "stdin",
    "tty",
];

/// Reads the workload; `name` is that of the OrdersService, which has no events if it `is_passive`.
pub(super) fn read(
    object: Object,
    name: &str,
    is_passive: bool,
    stores: &Stores,
    findings: &mut Findings,
) -> Connections {
    let mut notes = Notes::about(object.label(), findings);
    let notes = &mut notes;
    let mut fields = object.fields;
    let mut spec = fields.below("spec", notes);
    let replicas = spec.number("replicas", notes);
    spec.ignore(&["selector"]);
    own(spec.forget(&OF_THE_DEPLOYMENT), "", notes);
    let mut template = spec.below("template", notes);
    spec.done(notes);
    fields.done(notes);
    let mut metadata = template.below("metadata", notes);
    labels(metadata.texts("labels", notes), notes);
    for annotation in metadata.texts("annotations", notes).into_keys().filter(|name| !is_of_tools(name)) {
        notes.left(
            Whom::Pods,
            format!("annotation {annotation} of the pods: copy it to spec.podTemplate.annotations if the new pods need it"),
        );
    }
    metadata.ignore(&["name", "namespace", "creationTimestamp"]);
    metadata.done(notes);
    let mut pod = template.below("spec", notes);
    template.done(notes);

    let containers = pod.items("containers", notes);
    let mut read = match the_container(containers, notes) {
        Some(container) => container_of(container, name, is_passive, stores, notes),
        None => {
            notes.left(Whom::Pods, "has no container, so nothing is known of the database and the sessions");
            connections::read(Environment::default(), name, is_passive, stores, notes)
        }
    };
    let replicas = replicas.and_then(|replicas| number_of_pods(replicas, notes));
    read.spec.extend(replicas.map(|replicas| ("replicas".to_owned(), json!(replicas))));
    let template = pod_template(&mut pod, notes);
    read.spec.extend(template.map(|template| ("podTemplate".to_owned(), template)));
    without_a_place(pod, notes);
    read
}

/// The number of pods, if an OrdersService can have it.
fn number_of_pods(replicas: i64, notes: &mut Notes<'_>) -> Option<i64> {
    if !(0..=1000).contains(&replicas) {
        notes.left(Whom::Pods, format!("spec.replicas is {replicas}: write 0 to 1000"));
        return None;
    }
    if replicas == 1 {
        notes.changed(
            Whom::Users,
            "there is one pod, as before: with spec.replicas: 2 no request is lost when its node is drained",
        );
    }
    Some(replicas)
}

/// What `spec.podTemplate` takes over, if there is any of it.
fn pod_template(pod: &mut Fields, notes: &mut Notes<'_>) -> Option<Value> {
    let mut copied = Map::new();
    for field in COPIED {
        let Some(value) = pod.take(field) else { continue };
        match unreadable(field, &value) {
            None => drop(copied.insert(field.into(), value)),
            Some(why) => {
                notes.left(Whom::Pods, format!("{field} of the pods: spec.podTemplate cannot have it: {why}"))
            }
        }
    }
    if copied.is_empty() {
        return None;
    }
    let names: Vec<_> = copied.keys().cloned().collect();
    let are = if names.len() == 1 { "is" } else { "are" };
    notes.changed(Whom::Pods, format!("{} {are} in spec.podTemplate now", names.join(", ")));
    Some(Value::Object(copied))
}

/// Says of the other fields of the pods what becomes of them.
fn without_a_place(mut pod: Fields, notes: &mut Notes<'_>) {
    if pod.take("imagePullSecrets").is_some() {
        notes.dropped(
            Whom::Pods,
            "imagePullSecrets: name them in spec.imagePullSecrets if the operator's image needs them",
        );
    }
    for field in ["volumes", "initContainers"] {
        let Some(written) = pod.take(field) else { continue };
        let problems = judge::of_pod_template(json!({field: written}));
        if problems.is_empty() {
            notes.left(
                Whom::Pods,
                format!(
                    "{field} of the pods: if the new pods need them, write them in spec.podTemplate.{field}"
                ),
            );
        }
        for problem in problems {
            notes.left(
                Whom::Pods,
                format!(
                    "{field} of the pods: an OrdersService cannot have them as they are (docs/children.md): {problem}; if the new pods need \
                     them, write others"
                ),
            );
        }
    }
    // What the API server fills in.
    for (field, usual) in [("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler")] {
        if pod.text(field, notes).is_some_and(|value| value != usual) {
            notes.left(
                Whom::Pods,
                format!(
                    "{field} of the pods: spec.podTemplate cannot have it, and the new pods have {usual}"
                ),
            );
        }
    }
    pod.ignore(&["restartPolicy", "serviceAccount", "enableServiceLinks"]);
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.take(field).is_some_and(|value| value != json!(false)) {
            notes.left(
                Whom::Pods,
                format!(
                    "{field} of the pods: an OrdersService cannot have it, and the new pods are in no namespace of their node; see that \
                     nothing calls the old ones by the address of a node"
                ),
            );
        }
    }
    own(pod.forget(&OF_THE_POD), " of the pods", notes);
    pod.done(notes);
}

/// Says of which fields the operator has its own.
fn own(names: Vec<String>, of: &str, notes: &mut Notes<'_>) {
    if !names.is_empty() {
        notes.dropped(Whom::Pods, format!("{}{of}: the operator sets its own", names.join(", ")));
    }
}

/// Why a field cannot be one of `spec.podTemplate`.
fn unreadable(field: &str, value: &Value) -> Option<String> {
    let mut unknown = Vec::new();
    let template = json!({field: value});
    let read: Result<PodTemplate, _> =
        serde_ignored::deserialize(template, |path| unknown.push(path.to_string()));
    match read {
        Err(error) => Some(error.to_string()),
        Ok(_) => unknown.into_iter().next().map(|path| format!("unknown field {}", path.replace(".?", ""))),
    }
}

/// The container of the service: the only one, or the one that is named after orders, or the first.
fn the_container(containers: Vec<Fields>, notes: &mut Notes<'_>) -> Option<Fields> {
    let mut named: Vec<(String, Fields)> = Vec::new();
    for container in containers {
        let name = container.clone().text("name", notes).unwrap_or_default();
        named.push((name, container));
    }
    let at = named.iter().position(|(name, _)| name.contains("order")).unwrap_or_default();
    if named.is_empty() {
        return None;
    }
    let (_, container) = named.remove(at);
    for (name, _) in named {
        notes.left(
            Whom::Pods,
            format!(
                "container {name:?} beside the service: if the new pods need it, write it in spec.podTemplate.initContainers with \
                 restartPolicy: Always"
            ),
        );
    }
    Some(container)
}

fn container_of(
    mut container: Fields,
    name: &str,
    is_passive: bool,
    stores: &Stores,
    notes: &mut Notes<'_>,
) -> Connections {
    if let Some(image) = container.text("image", notes) {
        notes.changed(Whom::Pods, format!("image {image}: the pods run the operator's image instead"));
    }
    if container.take("resources").is_some() {
        notes.dropped(
            Whom::Pods,
            "resources: those of Node.js are more than is needed; without spec.resources a pod requests 50m and 32Mi, and may use \
             128Mi",
        );
    }
    if container.take("volumeMounts").is_some() {
        notes.left(
            Whom::Pods,
            "volumeMounts of the container: if the new pods need them, write them in spec.podTemplate.extraVolumeMounts",
        );
    }
    let environment = Environment::take(&mut container, stores, notes);
    container.ignore(&[
        "name",
        "ports",
        "imagePullPolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
    own(container.forget(&OF_THE_CONTAINER), " of the container", notes);
    container.done(notes);
    connections::read(environment, name, is_passive, stores, notes)
}

fn labels(labels: BTreeMap<String, String>, notes: &mut Notes<'_>) {
    if labels.is_empty() {
        return;
    }
    let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    notes.changed(
        Whom::Services,
        format!(
            "the new pods do not have the labels {}: what selects the old pods by them (Services, NetworkPolicies, monitors) does \
             not select the new ones, whose label is app.kubernetes.io/instance",
            all.join(", ")
        ),
    );
}

/// What is read of a Service: the labels of its pods, and its ports.
#[derive(Clone, Debug, Default)]
pub(super) struct OldService {
    /// The labels that its pods must have.
    pub(super) selector: BTreeMap<String, String>,
    /// Its ports.
    pub(super) ports: Vec<i32>,
    /// The names of these, where they have some.
    pub(super) port_names: Vec<String>,
    kind: Option<String>,
    /// Whether it has no address of its own, but gives those of its pods.
    is_headless: bool,
    /// Whether requests of one client go to one pod.
    has_affinity: bool,
    /// Whether requests from within the cluster stay on their node.
    stays_on_node: bool,
    rest: Fields,
}

/// Reads any Service. What is not understood counts only for that of the orders: see [`of_orders`].
pub(super) fn service(object: &Object) -> OldService {
    let mut ignored = Findings::default();
    let mut notes = Notes::about("", &mut ignored);
    let mut fields = object.fields.clone();
    let mut spec = fields.below("spec", &mut notes);
    let selector = spec.texts("selector", &mut notes);
    let (mut ports, mut port_names) = (Vec::new(), Vec::new());
    for mut port in spec.items("ports", &mut notes) {
        let Some(number) = port.number("port", &mut notes).and_then(|number| i32::try_from(number).ok())
        else {
            continue;
        };
        ports.push(number);
        port_names.extend(port.text("name", &mut notes));
    }
    let kind = spec.text("type", &mut notes);
    let mut is = |field: &str, value: &str| spec.text(field, &mut notes).as_deref() == Some(value);
    let is_headless = is("clusterIP", "None");
    let has_affinity = is("sessionAffinity", "ClientIP");
    let stays_on_node = is("internalTrafficPolicy", "Local");
    spec.ignore(&["clusterIPs", "ipFamilies", "ipFamilyPolicy", "sessionAffinityConfig"]);
    OldService { selector, ports, port_names, kind, is_headless, has_affinity, stays_on_node, rest: spec }
}

/// What the Service of the orders says of `spec.port`, and what changes with it. As long as the new pods are passive, whoever
/// calls the old Service goes on doing so.
pub(super) fn of_orders(
    object: &Object,
    service: OldService,
    name: &str,
    is_passive: bool,
    findings: &mut Findings,
) -> Option<i32> {
    let mut notes = Notes::about(object.label(), findings);
    if let Some(kind) = service.kind.filter(|kind| kind != "ClusterIP") {
        notes.left(
            Whom::Users,
            format!(
                "its type is {kind}, but the new Service is ClusterIP: clients that bypass the Ingress no longer \
                 reach the orders API; if they must, create a Service of your own that selects \
                 app.kubernetes.io/instance: {name}"
            ),
        );
    }
    if service.is_headless {
        notes.left(
            Whom::Services,
            format!(
                "its clusterIP is None, but the new Service is not headless: for callers that need the addresses \
                 of the pods, create a Service of your own that selects app.kubernetes.io/instance: {name}"
            ),
        );
    }
    if service.has_affinity {
        notes.dropped(
            Whom::Services,
            "sessionAffinity: the new Service has none; the pods keep nothing of a client between its requests",
        );
    }
    if service.stays_on_node {
        notes.changed(
            Whom::Services,
            "internalTrafficPolicy is Cluster in the new Service: it leads to the pods on every node",
        );
    }
    service.rest.done(&mut notes);
    for annotation in object.annotations.keys().filter(|name| !is_of_tools(name)) {
        notes.dropped(Whom::You, format!("annotation {annotation}: the new Service has none"));
    }
    let port = match service.ports.as_slice() {
        [] => None,
        [port, others @ ..] => {
            for other in others {
                notes.left(
                    Whom::Services,
                    format!("port {other} beside {port}: the new Service has one port"),
                );
            }
            Some(*port)
        }
    };
    // The pods serve at the same number, and may not have one that only root may have.
    let taken = port.filter(|port| *port >= 1024 && judge::of_port(*port).is_empty());
    let new = taken.unwrap_or(3000);
    if let Some(port) = port.filter(|port| *port != new && !is_passive) {
        notes.changed(
            Whom::Services,
            format!(
                "port {port} is {new} in the new Service: who calls it within the cluster must write {new}"
            ),
        );
    }
    if object.name != name && !is_passive {
        let has_another = service.ports.iter().any(|port| *port != new);
        let at = if has_another { format!(", at port {new}") } else { String::new() };
        notes.changed(
            Whom::Services,
            format!(
                "the new Service is named {name}: what calls http://{} within the cluster must call http://{name}:{new}, before you \
                 delete the old one, unless spec.serviceName keeps its name{at}",
                object.name
            ),
        );
    }
    taken.filter(|port| *port != 3000)
}

/// Whether tools keep their own notes in this annotation.
pub(super) fn is_of_tools(name: &str) -> bool {
    let prefix = name.split('/').next().unwrap_or_default();
    [
        "kubectl.kubernetes.io",
        "deployment.kubernetes.io",
        "meta.helm.sh",
        "field.cattle.io",
        "argocd.argoproj.io",
    ]
    .contains(&prefix)
        || prefix.ends_with("skaffold.dev")
}

/// The labels of the pods of a workload.
pub(super) fn labels_of_pods(object: &Object) -> BTreeMap<String, String> {
    let mut ignored = Findings::default();
    let mut notes = Notes::about("", &mut ignored);
    let mut fields = object.fields.clone();
    let mut template = fields.below("spec", &mut notes).below("template", &mut notes);
    template.below("metadata", &mut notes).texts("labels", &mut notes)
}

/// The image of the first container of a workload.
pub(super) fn image(object: &Object) -> Option<String> {
    let mut ignored = Findings::default();
    let mut notes = Notes::about("", &mut ignored);
    let mut fields = object.fields.clone();
    let mut template = fields.below("spec", &mut notes).below("template", &mut notes);
    let containers = template.below("spec", &mut notes).items("containers", &mut notes);
    containers.into_iter().find_map(|mut container| container.text("image", &mut notes))
}
