//! The translation: objects in, an OrdersService, Secrets and findings out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use kube::Resource;
use serde_json::{Map, Value, json};

use super::{
    connections::{self, NewSecret},
    documents::Object,
    environment::Environment,
    fields::Fields,
    finding::{Findings, Kind, Notes, Whom},
    judge, ports,
    routes::{self, Around, Translated},
    skaffold,
    system::{System, SystemError, carries_routes},
    workload,
};
use crate::crd::OrdersService;

/// What the command line says of a translation.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// The Service of the orders, if it cannot be found.
    pub(super) orders: Option<String>,
    /// The name of the OrdersService.
    pub(super) name: Option<String>,
    /// The namespace of the system.
    pub(super) namespace: Option<String>,
    /// Hosts in place of those that there are.
    pub(super) hosts: Vec<String>,
    /// Whether the new pods are to run beside the old ones, and leave what concerns both to these.
    pub(super) passive: bool,
}

/// A translation.
#[derive(Debug)]
pub(super) struct Migration {
    /// The OrdersService.
    pub(super) service: Value,
    /// The Secrets that it needs and that are not there yet.
    pub(super) secrets: Vec<NewSecret>,
    /// What is to be said.
    pub(super) findings: Findings,
    /// The namespace, if the objects name one.
    pub(super) namespace: Option<String>,
    /// The name of the old Service, where the new one has another.
    pub(super) former_service: Option<String>,
}

/// Translates a system.
///
/// # Errors
/// When no orders service is there, or more than one.
pub(super) fn migrate(
    objects: Vec<Object>,
    mut findings: Findings,
    options: &Options,
) -> Result<Migration, SystemError> {
    // What is missing may be in what could not be read, of which a line is there already.
    let inputs = if findings.is_anything_left() { "what could be read" } else { "the inputs" };
    let mut system =
        System::find(objects, options.orders.as_deref(), options.namespace.as_deref(), &mut findings)?;
    let name = options.name.clone().unwrap_or_else(|| free_name(&system));
    let label = format!("OrdersService {name}");
    about_name(&name, &label, &system, options, &mut findings);
    let around = Around { orders: &system.orders, hosts: &options.hosts, name: &name };

    let image = system.workload.as_ref().and_then(workload::image);
    let old_workload = system.workload.as_ref().map(|object| (object.kind.clone(), object.name.clone()));
    let connections = match system.workload.take() {
        Some(object) => workload::read(object, &name, options.passive, &system.stores, &mut findings),
        None => {
            let mut notes = Notes::about(format!("Service {}", system.orders), &mut findings);
            notes.left(
                Whom::Pods,
                format!("no Deployment with its pods is among {inputs}, so nothing is known of their environment: add its file"),
            );
            connections::read(Environment::default(), &name, options.passive, &system.stores, &mut notes)
        }
    };
    let (mut spec, secrets) = (connections.spec, connections.secrets);
    let mut old_ports = Vec::new();
    if let Some((object, service)) = system.service.take() {
        old_ports.clone_from(&service.ports);
        let port = workload::of_orders(&object, service, &name, options.passive, &mut findings);
        spec.extend(port.map(|port| ("port".to_owned(), json!(port))));
    }
    let Translated { ingress, to_orders, is_beside } = if system.ingresses.is_empty() {
        let told = format!(
            "no Ingress is among {inputs}: the OrdersService has no spec.ingress, and nobody outside reaches it"
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", told);
        Translated::default()
    } else {
        ports::check(&system.ingresses, &system.services, &system.orders, &mut findings);
        routes::translate(&system.ingresses, &around, &mut findings)
    };
    spec.extend(ingress.map(|ingress| ("ingress".to_owned(), ingress)));
    if is_beside {
        findings.add(Kind::Left, Whom::You, &label, on_one_database(&spec, &secrets));
    }
    for autoscaler in std::mem::take(&mut system.autoscalers) {
        scale(autoscaler, old_workload.as_ref(), &name, &mut spec, &mut findings);
    }
    for object in std::mem::take(&mut system.skaffold) {
        skaffold::read(object, image.as_deref(), &mut findings);
    }
    let port = spec.get("port").and_then(Value::as_i64).unwrap_or(3000);
    let other_port = old_ports.iter().any(|old| i64::from(*old) != port).then_some(port);
    retire(&system, old_workload, &name, other_port, &to_orders, &mut findings);
    if options.passive {
        passive(&label, &mut spec, &mut findings);
    }

    let mut metadata = Map::from_iter([("name".to_owned(), json!(name))]);
    metadata.extend(system.namespace.clone().map(|namespace| ("namespace".to_owned(), json!(namespace))));
    let service = json!({
        "apiVersion": OrdersService::api_version(&()), "kind": OrdersService::kind(&()), "metadata": metadata, "spec": spec,
    });
    for problem in judge::of_whole(&service) {
        let told = format!("cannot be applied as it is: {problem}");
        findings.add(Kind::Left, Whom::You, &label, told);
    }
    let former_service = Some(system.orders).filter(|orders| *orders != name && !options.passive);
    Ok(Migration { service, secrets, findings, namespace: system.namespace, former_service })
}

/// Says when the name is taken, or another than the usual one.
fn about_name(name: &str, label: &str, system: &System, options: &Options, findings: &mut Findings) {
    if options.name.is_some() {
        if let Some(other) = system.taken.get(name) {
            let told = format!(
                "{other} has this name already, under which the operator makes its own objects: give another with --name, such as {}",
                free_name(system)
            );
            findings.add(Kind::Left, Whom::You, label, told);
        }
    } else if let Some(other) = system.taken.get(USUAL_NAME) {
        let told = format!(
            "has this name because {other} already has the name {USUAL_NAME}, under which the operator would \
             create its own objects; choose another with --name"
        );
        findings.add(Kind::Changed, Whom::You, label, told);
    }
}

/// Says of pods beside the old system what they leave to it, and has them leave it.
fn passive(label: &str, spec: &mut Map<String, Value>, findings: &mut Findings) {
    // The old system goes on: whoever follows these lines would stop it.
    findings.forget(Kind::Later);
    let told = "nothing of the old system is to be stopped or deleted yet; the output without --passive says \
         what, and when";
    findings.add(Kind::Later, Whom::You, label, told);
    // In the queue group of the old pods the new ones would take messages from them; and the sweeper would end
    // reservations that the old system ends.
    spec.insert("expiration".into(), json!({"suspend": true}));
    let told = "has no events and a suspended sweeper, because of --passive: the old system keeps both";
    findings.add(Kind::Changed, Whom::Services, label, told);
}

/// What is to be done about the database of new pods at hosts of their own, which is that of the old ones.
fn on_one_database(spec: &Map<String, Value>, secrets: &[NewSecret]) -> String {
    let named = spec.get("database").and_then(|database| database.pointer("/uriSecretRef/name"));
    let secret = named.and_then(Value::as_str).unwrap_or_default();
    let how = if secrets.iter().any(|new| new.name == secret) {
        format!("write the connection string of a copy in Secret {secret:?} below")
    } else {
        format!(
            "make a Secret with the connection string of a copy, and name it in spec.database.uriSecretRef in place of {secret:?}, which \
             is that of the old pods"
        )
    };
    format!(
        "has other hosts than the old system, and the database of the old pods: both would work on the same orders; for a trial, {how}; \
         if it is to take the place of the old pods, leave it"
    )
}

/// How an OrdersService is called where nothing else is.
const USUAL_NAME: &str = "orders";

/// A name under which no object of another is.
fn free_name(system: &System) -> String {
    let names = [USUAL_NAME.to_owned(), "orders-api".to_owned()].into_iter();
    let numbered = (2..100).map(|number| format!("orders-{number}"));
    names.chain(numbered).find(|name| !system.taken.contains_key(name)).unwrap_or_else(|| USUAL_NAME.into())
}

/// What an autoscaler of the old pods says of `spec.autoscaling`.
fn scale(
    object: Object,
    workload: Option<&(String, String)>,
    new: &str,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let mut notes = Notes::about(object.label(), findings);
    let notes = &mut notes;
    let mut fields = object.fields;
    let mut wanted = fields.below("spec", notes);
    let mut of = wanted.below("scaleTargetRef", notes);
    let (kind, name) = (of.text("kind", notes), of.text("name", notes));
    if kind.zip(name).as_ref() != workload {
        return notes.stays(Whom::You, "scales other pods");
    }
    let mut scaling = Map::new();
    for field in ["minReplicas", "maxReplicas"] {
        let number = wanted.number(field, notes);
        scaling.extend(number.map(|number| (field.to_owned(), json!(number))));
    }
    let mut percent = wanted.number("targetCPUUtilizationPercentage", notes);
    for metric in wanted.items("metrics", notes) {
        match cpu(metric.clone()) {
            Some(number) => percent = Some(number),
            // An autoscaler of the operator's beside theirs would scale the same pods, against it.
            None => return notes.left(Whom::Pods, "it scales by something else than CPU, which spec.autoscaling cannot: keep an autoscaler of your own, for the OrdersService, and set spec.replicas"),
        }
    }
    scaling.extend(percent.map(|percent| ("targetCPUUtilizationPercentage".to_owned(), json!(percent))));
    let has_behavior = wanted.take("behavior").is_some();
    wanted.done(notes);
    let minimal = json!({
        "auth": {"jwtSecretRef": {"name": "a"}}, "database": {"uriSecretRef": {"name": "a"}}, "autoscaling": scaling,
    });
    match judge::of(minimal).into_iter().next() {
        Some(problem) => notes.left(Whom::Pods, format!("spec.autoscaling cannot have it: {problem}")),
        None => {
            spec.remove("replicas");
            spec.insert("autoscaling".into(), Value::Object(scaling));
            notes.changed(Whom::Pods, "the new pods are scaled by spec.autoscaling, in percent of spec.resources.requests.cpu (50m)");
            if has_behavior {
                notes.left(Whom::Pods, "spec.behavior was left out: spec.autoscaling has none, and the new pods are scaled as is usual in Kubernetes; if they must not be, take spec.autoscaling out, keep an autoscaler of your own, for the OrdersService, and set spec.replicas");
            }
            if object.name != new {
                notes.later(format!(
                    "goes with the old pods: kubectl delete horizontalpodautoscaler {}",
                    object.name
                ));
            }
        }
    }
}

/// The percentage of a metric of CPU; none for any other.
fn cpu(mut metric: Fields) -> Option<i64> {
    let mut ignored = Findings::default();
    let mut notes = Notes::about("", &mut ignored);
    let mut resource = metric.below("resource", &mut notes);
    let is_cpu = resource.text("name", &mut notes).as_deref() == Some("cpu");
    let old = resource.number("targetAverageUtilization", &mut notes);
    let mut target = resource.below("target", &mut notes);
    old.or_else(|| target.number("averageUtilization", &mut notes)).filter(|_| is_cpu)
}

/// What is to be deleted after the switch, and what stays. Nothing is to be deleted that has the name of the new objects, or to
/// which something goes on leading.
fn retire(
    system: &System,
    workload: Option<(String, String)>,
    new: &str,
    // The port of the new Service, where the old one has another.
    other_port: Option<i64>,
    to_orders: &BTreeSet<String>,
    findings: &mut Findings,
) {
    let led_to = to_orders.iter().cloned().collect::<Vec<_>>().join(", ");
    let (once, when) = if to_orders.is_empty() {
        ("once the new pods have its requests,".to_owned(), String::new())
    } else {
        let until = format!("keep it until nothing routes to it any more ({led_to})");
        (format!("{until}, and the new pods have all its requests; then"), format!("{until}; "))
    };
    if let Some((kind, name)) = workload.filter(|(_, name)| name != new) {
        let told = if kind == "DaemonSet" {
            format!(
                "{once} delete it, since it cannot be scaled, and keep its file to go back: kubectl delete daemonset {name}"
            )
        } else {
            format!(
                "{once} stop it: kubectl scale {} {name} --replicas=0; and delete it once you will not go back",
                kind.to_lowercase()
            )
        };
        findings.add(Kind::Later, Whom::You, &format!("{kind} {name}"), told);
    }
    if system.orders != new {
        let at = other_port.map(|port| format!("; it then has port {port} only")).unwrap_or_default();
        let told = format!(
            "{when}delete it once nothing calls it, not even from within the cluster: kubectl delete service {0}; \
             or, for the operator to take over its name, set spec.serviceName: {0}, and then delete it \
             (docs/migration.md){at}",
            system.orders
        );
        findings.add(Kind::Later, Whom::You, &format!("Service {}", system.orders), told);
    }
    let mut stay = BTreeMap::<&str, Vec<&str>>::new();
    for object in &system.others {
        match fate(object) {
            Some((kind, whom, told)) => findings.add(kind, whom, &object.label(), told),
            None => stay.entry(&object.kind).or_default().push(&object.name),
        }
    }
    for name in system.services.keys().filter(|name| **name != system.orders) {
        if is_of_expiration(name) {
            let told = format!(
                "belongs to expiration; delete it once you are sure not to go back: kubectl delete \
                 service {name}"
            );
            findings.add(Kind::Later, Whom::You, &format!("Service {name}"), told);
        } else {
            stay.entry("Service").or_default().push(name);
        }
    }
    for (kind, names) in stay.into_iter().filter(|(_, names)| !names.is_empty()) {
        let shown: Vec<_> =
            names.iter().take(20).copied().chain((names.len() > 20).then_some("...")).collect();
        findings.add(Kind::Stays, Whom::You, kind, format!("not touched: {}", shown.join(", ")));
    }
}

/// What is to be said of an object that is not read; `None` if it is left alone.
fn fate(object: &Object) -> Option<(Kind, Whom, String)> {
    let (kind, name) = (object.kind.as_str(), &object.name);
    if kind == "Kustomization" || object.group.starts_with("kustomize") {
        let told = "is Kustomize's, and was not read: render it first, kubectl kustomize FOLDER | orders-operator migrate -";
        return Some((Kind::Left, Whom::You, told.into()));
    }
    if kind == "Ingress" {
        let told = format!(
            "is of API group {:?}, which has no Ingress, and was not read: write networking.k8s.io/v1",
            object.group
        );
        return Some((Kind::Left, Whom::Users, told));
    }
    if carries_routes(object) {
        let told = "may have routes to the orders, and is not read: write its paths in spec.ingress.routes or spec.gateway yourself";
        return Some((Kind::Left, Whom::Users, told.into()));
    }
    if is_of_expiration(name) && ["Deployment", "StatefulSet"].contains(&kind) {
        let kind = kind.to_lowercase();
        let told = if name.contains("redis") {
            format!(
                "belongs to expiration; delete it once you are sure not to go back: kubectl delete {kind} {name}"
            )
        } else {
            format!(
                "the operator's sweeper ends reservations instead: stop it with the old pods, before you apply the \
                 OrdersService with its events (docs/migration.md), kubectl scale {kind} {name} --replicas=0; and \
                 delete it once you will not go back"
            )
        };
        return Some((Kind::Later, Whom::You, told));
    }
    let told = "stays, and does not concern the new pods unless it selects app.kubernetes.io/instance";
    ["NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PodMonitor"]
        .contains(&kind)
        .then(|| (Kind::Stays, Whom::You, told.into()))
}

/// Whether an object is of the course's service that ends reservations, or of its Redis.
fn is_of_expiration(name: &str) -> bool {
    name.starts_with("expiration")
}

/// The documents to apply, in the order in which they are needed.
pub(super) fn documents(migration: &Migration) -> impl Iterator<Item = (Option<String>, Value)> + '_ {
    let secrets = migration.secrets.iter().map(|secret| {
        let mut metadata = Map::from_iter([("name".to_owned(), json!(secret.name))]);
        metadata.extend(migration.namespace.clone().map(|namespace| ("namespace".to_owned(), json!(namespace))));
        let document = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {secret.key.as_str(): secret.value},
        });
        let word = format!(
            "{} was a literal: keep this value out of your repository, as by kubectl create secret",
            secret.from
        );
        (Some(word), document)
    });
    secrets.chain(iter::once((None, migration.service.clone())))
}
