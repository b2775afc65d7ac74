//! The Deployment: the pods of the orders API.
//!
//! They pass the *restricted* Pod Security Standard, roll without a dropped request (a new pod is
//! ready before an old one stops, and a stopping one goes on serving until its endpoint is gone),
//! and take Secrets by reference.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Affinity, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
            ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
            SeccompProfile, SecretKeySelector, TopologySpreadConstraint,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::certificates::Certificates;
use super::containers::{init_container, security_context, termination_message_policy};
use super::metadata::{filled, labels, metadata, selector_labels};
use crate::{
    controller::{
        claims::route_list::DEFAULT_PATH,
        reconcile::validate::{
            pods::Replicas,
            validated::{
                ADMIN_PORT, ADMIN_PORT_NAME, API_PORT, Broker, SecretKey, Servers, ValidatedEvents,
                ValidatedOrdersService,
            },
        },
    },
    crd::{API_CONTAINER, CHECKSUM_ANNOTATION},
};

/// Seconds that a stopping pod may take after the drain: 6 for requests that still come, 12 for those in flight, 4 for their events,
/// 2 for the admin port, 3 for traces, 1 for the log, and 3 to spare.
const FINISH_SECONDS: i64 = 31;

/// The user and the group of the pods, unless the cluster assigns them.
const USER: i64 = 65532;

pub(super) fn build_deployment(service: &ValidatedOrdersService) -> Deployment {
    let selector = selector_labels(&service.name);
    Deployment {
        metadata: metadata(service),
        spec: Some(DeploymentSpec {
            replicas: match service.replicas {
                // The autoscaler decides.
                Replicas::Autoscaled { .. } => None,
                Replicas::Fixed(_) | Replicas::Unset => Some(service.replicas.initial()),
            },
            selector: LabelSelector { match_labels: Some(selector.clone()), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(pod_metadata(service)),
                spec: Some(pod(service, selector)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The user's labels and annotations, then ours, which win.
fn pod_metadata(service: &ValidatedOrdersService) -> ObjectMeta {
    let mut all_labels = service.pods.labels.clone();
    all_labels.extend(labels(service));
    let mut annotations = service.pods.annotations.clone();
    annotations.extend(
        service.secrets_checksum.iter().map(|checksum| (CHECKSUM_ANNOTATION.to_owned(), checksum.clone())),
    );
    ObjectMeta { labels: Some(all_labels), annotations: filled(annotations), ..ObjectMeta::default() }
}

fn pod(service: &ValidatedOrdersService, selector: BTreeMap<String, String>) -> PodSpec {
    let pull_secrets: Vec<_> =
        service.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    let certificates = Certificates::of(service);
    let own_volume = certificates.iter().map(Certificates::volume);
    let volumes: Vec<_> = own_volume.chain(service.pods.volumes.iter().cloned()).collect();
    let init_containers: Vec<_> = service.pods.init_containers.iter().map(init_container).collect();
    let user = (!service.pods.user_from_cluster).then_some(USER);
    PodSpec {
        volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
        init_containers: Some(init_containers).filter(|containers| !containers.is_empty()),
        containers: vec![container(service, certificates.as_ref())],
        image_pull_secrets: Some(pull_secrets).filter(|secrets| !secrets.is_empty()),
        // The API calls no API server.
        automount_service_account_token: Some(false),
        // Variables such as ORDERS_PORT, made for each Service, could be taken for settings.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(service.drain_seconds) + FINISH_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(spread(service, selector)),
        node_selector: filled(service.pods.node_selector.clone()),
        tolerations: Some(service.pods.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
        affinity: service.pods.affinity.clone().filter(|affinity| *affinity != Affinity::default()),
        priority_class_name: service.pods.priority_class_name.clone(),
        service_account_name: service
            .pods
            .service_account_name
            .clone()
            .or_else(|| Some(service.name.clone())),
        ..PodSpec::default()
    }
}

/// The user's constraints; if there are none, an even spread over the nodes. A constraint without a selector is about our
/// pods.
fn spread(
    service: &ValidatedOrdersService,
    selector: BTreeMap<String, String>,
) -> Vec<TopologySpreadConstraint> {
    let ours = LabelSelector { match_labels: Some(selector), ..LabelSelector::default() };
    let mut constraints = service.pods.topology_spread_constraints.clone();
    if constraints.is_empty() {
        constraints.push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            ..TopologySpreadConstraint::default()
        });
    }
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| ours.clone());
    }
    constraints
}

fn container(service: &ValidatedOrdersService, certificates: Option<&Certificates>) -> Container {
    let mut env = vec![
        secret_env("JWT_KEY", &service.jwt_secret),
        secret_env("MONGO_URI", &service.uri_secret),
        plain_env("EXPIRATION_WINDOW_SECONDS", service.window_seconds.to_string()),
        plain_env("PAYMENT_GRACE_SECONDS", service.payment_grace_seconds.to_string()),
        plain_env("PORT", service.port.to_string()),
        plain_env("ADMIN_PORT", ADMIN_PORT.to_string()),
        plain_env("DRAIN_SECONDS", service.drain_seconds.to_string()),
    ];
    // Where it is the default nothing is said, so that nothing is rolled for it.
    let own_path = service.own_path().filter(|path| *path != DEFAULT_PATH);
    env.extend(own_path.map(|path| plain_env("BASE_PATH", path.to_owned())));
    env.extend(service.database.iter().map(|name| plain_env("MONGO_DATABASE", name.clone())));
    env.extend(service.events.iter().flat_map(events_env));
    env.extend(
        certificates
            .map_or(Vec::new(), |certificates| certificates.files())
            .into_iter()
            .map(|(name, path)| plain_env(name, path)),
    );
    env.extend(service.pods.extra_env.iter().cloned());
    let own_mount = certificates.map(Certificates::mount).into_iter();
    let mounts: Vec<_> = own_mount.chain(service.pods.volume_mounts.iter().cloned()).collect();
    Container {
        name: API_CONTAINER.into(),
        image: Some(service.image.clone()),
        image_pull_policy: Some(service.image_pull_policy.as_str().into()),
        args: Some(vec!["serve".into()]),
        env: Some(env),
        ports: Some(vec![
            container_port(API_PORT, service.port),
            container_port(ADMIN_PORT_NAME, ADMIN_PORT),
        ]),
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        // Up to a minute to start; from then on, liveness only fails when the process is stuck, so
        // that an unreachable database restarts no pod.
        startup_probe: Some(probe("/livez", 1, 60)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        termination_message_policy: termination_message_policy(),
        resources: Some(ResourceRequirements {
            requests: filled(service.pods.requests.clone()),
            limits: filled(service.pods.limits.clone()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context()),
        ..Container::default()
    }
}

/// The settings of events; the CA and the credentials are files.
fn events_env(events: &ValidatedEvents) -> Vec<EnvVar> {
    let mut env = vec![
        match &events.servers {
            Servers::Listed(servers) => plain_env("NATS_URL", servers.clone()),
            Servers::Secret(secret) => secret_env("NATS_URL", secret),
        },
        plain_env("NATS_DURABLE", events.durable.clone()),
    ];
    match &events.broker {
        Broker::JetStream { stream, replicas, max_age_seconds } => env.extend([
            plain_env("NATS_STREAM", stream.clone()),
            plain_env("NATS_STREAM_REPLICAS", replicas.to_string()),
            plain_env("NATS_STREAM_MAX_AGE_SECONDS", max_age_seconds.to_string()),
        ]),
        Broker::Streaming { cluster_id } => {
            env.extend([plain_env("NATS_CLUSTER_ID", cluster_id.clone()), pod_name_env("NATS_CLIENT_ID")]);
        }
    }
    let named = [
        ("NATS_SUBJECTS", &events.subjects),
        ("NATS_TICKET_DELETED", &events.ticket_deleted),
        ("NATS_PAYMENT_STARTED", &events.payment_started),
    ];
    env.extend(named.into_iter().filter_map(|(name, value)| Some(plain_env(name, value.clone()?))));
    env.push(plain_env("NATS_SETTINGS_MARK", events.mark.clone()));
    env
}

fn plain_env(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), ..EnvVar::default() }
}

/// The name of the pod itself.
fn pod_name_env(name: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: "metadata.name".into(), ..ObjectFieldSelector::default() };
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn secret_env(name: &str, secret: &SecretKey) -> EnvVar {
    let reference = SecretKeySelector { name: secret.name.clone(), key: secret.key.clone(), optional: None };
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource { secret_key_ref: Some(reference), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn container_port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(ADMIN_PORT_NAME.into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}
