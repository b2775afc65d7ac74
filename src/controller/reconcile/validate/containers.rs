//! The containers that the spec adds to the pods, before the API and beside it, as the Pod API has them; and what holds for
//! every container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{EnvVar, ExecAction, HTTPGetAction, Probe, TCPSocketAction, VolumeMount},
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{
    quantity::Amount,
    volumes::{mounts, unique},
};
use crate::crd::{
    API_CONTAINER, ContainerProbe, ExtraEnv, ImagePullPolicy, InitContainer, PodTemplate, Resources,
    RestartPolicy,
};

/// A container that runs before the API, or beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Set for a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// Its command, if not the image's.
    pub command: Vec<String>,
    /// Its arguments, if not the image's.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// Its volumes.
    pub mounts: Vec<VolumeMount>,
    /// What it asks of its node, and the most that it may take, in canonical form.
    pub resources: Resources,
    /// Of a sidecar.
    pub startup_probe: Option<Probe>,
    /// Of a sidecar.
    pub readiness_probe: Option<Probe>,
    /// Of a sidecar.
    pub liveness_probe: Option<Probe>,
    /// Its user, if not that of the pod.
    pub run_as_user: Option<i64>,
    /// Whether its root file system is read-only.
    pub read_only_root_filesystem: bool,
}

const CONTAINERS: &str = "spec.podTemplate.initContainers";

/// The containers before and beside the API.
pub(super) fn init_containers(
    template: &PodTemplate,
    invalid: &mut impl FnMut(String),
) -> Vec<ValidatedContainer> {
    unique(CONTAINERS, template.init_containers.iter().map(|container| &container.name), invalid);
    template.init_containers.iter().map(|each| container(each, template, invalid)).collect()
}

fn container(
    container: &InitContainer,
    template: &PodTemplate,
    invalid: &mut impl FnMut(String),
) -> ValidatedContainer {
    let InitContainer {
        name,
        image,
        image_pull_policy,
        restart_policy,
        command,
        args,
        env,
        volume_mounts,
        resources,
        startup_probe,
        readiness_probe,
        liveness_probe,
        run_as_user,
        read_only_root_filesystem,
    } = container;
    let field = |name: &str| format!("{CONTAINERS}.{}.{name}", container.name);
    if name == API_CONTAINER {
        invalid(format!("{CONTAINERS} has {name:?}, which is the API itself: use another name"));
    }
    if image.trim().is_empty() {
        invalid(format!("{} is empty: name an image", field("image")));
    }
    if run_as_user.is_some_and(|user| !(1..=i64::from(i32::MAX)).contains(&user)) {
        invalid(format!("{} must be from 1 to {}: no container runs as root", field("runAsUser"), i32::MAX));
    }
    let probes = [startup_probe, readiness_probe, liveness_probe];
    if restart_policy.is_none() && probes.iter().any(|probe| probe.is_some()) {
        invalid(format!(
            "{CONTAINERS}: {name:?} has a probe, and ends before the API starts: remove the probe, or set restartPolicy to Always"
        ));
    }
    let mut probe = |given: &Option<ContainerProbe>, which: &str| {
        given.as_ref().map(|given| built_probe(given, &field(which), invalid))
    };
    let startup_probe = probe(startup_probe, "startupProbe");
    let readiness_probe = probe(readiness_probe, "readinessProbe");
    let liveness_probe = probe(liveness_probe, "livenessProbe");
    ValidatedContainer {
        name: name.clone(),
        image: image.trim().to_owned(),
        image_pull_policy: *image_pull_policy,
        restart_policy: *restart_policy,
        command: command.clone(),
        args: args.clone(),
        env: environment(&field("env"), env.clone(), invalid),
        mounts: mounts(&field("volumeMounts"), volume_mounts, template, invalid),
        resources: canonical(&field("resources"), resources, invalid),
        startup_probe,
        readiness_probe,
        liveness_probe,
        run_as_user: *run_as_user,
        read_only_root_filesystem: *read_only_root_filesystem,
    }
}

fn built_probe(probe: &ContainerProbe, field: &str, invalid: &mut impl FnMut(String)) -> Probe {
    let ContainerProbe { exec, http_get, tcp_socket, period_seconds, timeout_seconds, failure_threshold } =
        probe;
    let kinds = [exec.is_some(), http_get.is_some(), tcp_socket.is_some()];
    if kinds.iter().filter(|is_there| **is_there).count() != 1 {
        invalid(format!("{field} must be exactly one of exec, httpGet and tcpSocket"));
    }
    if exec.as_ref().is_some_and(|exec| exec.command.is_empty()) {
        invalid(format!("{field}.exec.command is empty: write the command"));
    }
    if http_get.as_ref().is_some_and(|request| !request.path.starts_with('/')) {
        invalid(format!("{field}.httpGet.path must begin with /"));
    }
    Probe {
        exec: exec.as_ref().map(|exec| ExecAction { command: Some(exec.command.clone()) }),
        http_get: http_get.as_ref().map(|request| HTTPGetAction {
            path: Some(request.path.clone()),
            port: IntOrString::Int(request.port),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        tcp_socket: tcp_socket
            .as_ref()
            .map(|socket| TCPSocketAction { port: IntOrString::Int(socket.port), host: None }),
        period_seconds: *period_seconds,
        timeout_seconds: *timeout_seconds,
        failure_threshold: *failure_threshold,
        ..Probe::default()
    }
}

/// The same amounts in canonical form; `path` is the field that they are in.
pub(super) fn canonical(path: &str, resources: &Resources, invalid: &mut impl FnMut(String)) -> Resources {
    let mut amounts = |field: &str, amounts: &BTreeMap<String, Quantity>| {
        let mut parsed = BTreeMap::new();
        for (name, quantity) in amounts {
            match Amount::parse(quantity) {
                Some(amount) => drop(parsed.insert(name.clone(), amount)),
                None => invalid(format!(
                    "{path}.{field}.{name} is {:?}: write an amount such as 500m or 128Mi",
                    quantity.0
                )),
            }
        }
        parsed
    };
    let requests = amounts("requests", &resources.requests);
    let limits = amounts("limits", &resources.limits);
    for (name, request) in &requests {
        if let Some(limit) = limits.get(name).filter(|limit| request.nanos() > limit.nanos()) {
            invalid(format!(
                "{path}.requests.{name} is {}, above its limit of {}: raise {path}.limits.{name}, or lower the request",
                request.canonical().0,
                limit.canonical().0
            ));
        }
    }
    let canonical = |amounts: BTreeMap<String, Amount>| {
        amounts.into_iter().map(|(name, amount)| (name, amount.canonical())).collect()
    };
    Resources { requests: canonical(requests), limits: canonical(limits) }
}

/// The variables as the Pod API has them; `path` is the field that they are in.
pub(super) fn environment(
    path: &str,
    variables: Vec<ExtraEnv>,
    invalid: &mut impl FnMut(String),
) -> Vec<EnvVar> {
    let mut names = BTreeSet::new();
    for variable in &variables {
        let name = variable.name.as_str();
        if !names.insert(name) {
            invalid(format!("{path} has {name:?} twice: remove one"));
        }
        if variable.value.is_some() && variable.value_from.is_some() {
            invalid(format!("{path} has {name:?} with value and valueFrom: remove one of them"));
        }
    }
    variables
        .into_iter()
        .map(|variable| EnvVar {
            name: variable.name,
            // The API server drops an empty value.
            value: variable.value.filter(|value| !value.is_empty()),
            value_from: variable.value_from,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::controller::{
        fixture::service,
        reconcile::{dereference::Dereferenced, validate::validate},
    };

    fn problems(template: Value) -> Vec<String> {
        let service = service(json!({"podTemplate": template}));
        match validate(&service, &Dereferenced::default(), Some("image:1")) {
            Ok(_) => Vec::new(),
            Err(found) => found.into_iter().map(|problem| problem.message).collect(),
        }
    }

    fn volume(source: Value) -> Value {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        json!({"volumes": [volume]})
    }

    fn container(patch: Value) -> Value {
        let mut container = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut container, &patch);
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [container]})
    }

    #[test]
    fn what_admission_refuses_is_refused_again() {
        let v = json!({"name": "v", "emptyDir": {}});
        let secret = |path: &str| {
            volume(json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": path}]}}))
        };
        for (template, expected) in [
            (volume(json!({})), "exactly one of emptyDir"),
            (volume(json!({"hostPath": {"path": "/"}})), "such as hostPath and csi, are not allowed"),
            (volume(json!({"emptyDir": {}, "secret": {"secretName": "s"}})), "exactly one of emptyDir"),
            (volume(json!({"emptyDir": {"sizeLimit": "much"}})), "\"much\": write an amount such as 64Mi"),
            (
                volume(json!({"emptyDir": {"sizeLimit": "0.0Ki"}})),
                "\"0.0Ki\": write an amount such as 64Mi, more than 0",
            ),
            (volume(json!({"name": "database-certificates", "emptyDir": {}})), "the operator's own"),
            (json!({"volumes": [v.clone(), v.clone()]}), "\"v\" twice"),
            (
                volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
                "the pods have no token",
            ),
            (secret("../x"), "must begin neither with / nor with .."),
            (secret("/x"), "must begin neither with / nor with .."),
            (
                json!({"extraVolumeMounts": [{"name": "v", "mountPath": "/x"}]}),
                "is not in spec.podTemplate.volumes",
            ),
            (
                json!({"volumes": [v.clone()], "extraVolumeMounts": [{"name": "v", "mountPath": "/etc/orders-operator/database"}]}),
                "the operator's own folder",
            ),
            (
                json!({"volumes": [v.clone()], "extraVolumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]}),
                "\"/x\" twice",
            ),
            (
                json!({"volumes": [v.clone()], "extraVolumeMounts": [{"name": "v", "mountPath": "x"}]}),
                "it must be absolute",
            ),
            (
                json!({"volumes": [v], "extraVolumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a/../.."}]}),
                "must begin neither with / nor with ..",
            ),
            (container(json!({"name": "orders-api"})), "which is the API itself"),
            (container(json!({"image": " "})), "initContainers.c.image is empty"),
            (container(json!({"runAsUser": 0})), "no container runs as root"),
            (
                container(
                    json!({"resources": {"requests": {"example.com/gpu": 2}, "limits": {"example.com/gpu": "1"}}}),
                ),
                "requests.example.com/gpu is 2, above its limit of 1",
            ),
            (container(json!({"startupProbe": {"tcpSocket": {"port": 1}}})), "ends before the API starts"),
            (
                container(json!({"restartPolicy": "Always", "livenessProbe": {}})),
                "initContainers.c.livenessProbe must be exactly one",
            ),
            (
                container(
                    json!({"restartPolicy": "Always", "livenessProbe": {"httpGet": {"path": "x", "port": 1}}}),
                ),
                "must begin with /",
            ),
            (
                container(json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}]})),
                "names the volume \"w\"",
            ),
            (
                container(json!({"env": [{"name": "A"}, {"name": "A"}]})),
                "initContainers.c.env has \"A\" twice",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": "lots"}}})),
                "initContainers.c.resources.limits.cpu",
            ),
        ] {
            let said = problems(template.clone());
            assert!(said.len() == 1 && said[0].contains(expected), "{template}: {said:?}");
        }
        let same = json!({"name": "c", "image": "i"});
        assert!(problems(json!({"initContainers": [same.clone(), same]}))[0].contains("\"c\" twice"));
        assert_eq!(
            problems(container(json!({"env": [{"name": "PORT", "value": "1"}]}))),
            [""; 0],
            "it is not the API's"
        );
    }
}
