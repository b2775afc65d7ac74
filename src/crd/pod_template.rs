//! `spec.podTemplate`: what is added to the pods, and where they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    containers::{InitContainer, Mount, PodVolume},
    schema,
    workload::ExtraEnv,
};

/// Labels that the operator sets on the pods; the Deployment selects its pods by them.
pub const RESERVED_LABELS: [&str; 5] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
];

/// Annotation that the operator sets on the pods: a checksum of the Secrets that they read when they start, so a change
/// of a Secret rolls the Deployment.
pub const CHECKSUM_ANNOTATION: &str = "ticketing.dev/secrets-checksum";

/// Annotations by which a pod would get other rights or other containers than the operator gives it: what they begin with.
pub const REFUSED_ANNOTATIONS: [&str; 4] = [
    "container.apparmor.security.beta.kubernetes.io/",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/proxyImage",
    "inject.istio.io/templates",
];

/// Environment variables that the operator sets on the pods, from other fields of the spec.
pub const RESERVED_ENV: [&str; 25] = [
    "JWT_KEY",
    "MONGO_URI",
    "MONGO_DATABASE",
    "MONGO_TLS_CA_FILE",
    "MONGO_TLS_CERT_FILE",
    "MONGO_TLS_KEY_FILE",
    "EXPIRATION_WINDOW_SECONDS",
    "PAYMENT_GRACE_SECONDS",
    "PORT",
    "BASE_PATH",
    "ADMIN_PORT",
    "DRAIN_SECONDS",
    "NATS_URL",
    "NATS_CA_FILE",
    "NATS_CLUSTER_ID",
    "NATS_CLIENT_ID",
    "NATS_STREAM",
    "NATS_DURABLE",
    "NATS_STREAM_REPLICAS",
    "NATS_STREAM_MAX_AGE_SECONDS",
    "NATS_SUBJECTS",
    "NATS_CREDS_FILE",
    "NATS_TICKET_DELETED",
    "NATS_PAYMENT_STARTED",
    "NATS_SETTINGS_MARK",
];

/// What to add to the pods, and where they run.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.extraVolumeMounts) || self.extraVolumeMounts.all(mount, has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name))")
    .message("podTemplate.extraVolumeMounts names a volume that is not in podTemplate.volumes: add it there"))]
#[x_kube(validation = Rule::new("!has(self.initContainers) || self.initContainers.all(container, !has(container.volumeMounts) || container.volumeMounts.all(mount, has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name)))")
    .message("podTemplate.initContainers mounts a volume that is not in podTemplate.volumes: add it there"))]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Additional labels of the pods. Those that the operator sets itself are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/component', 'app.kubernetes.io/part-of', 'app.kubernetes.io/managed-by'])")
        .message("podTemplate.labels has a label that the operator sets itself (app.kubernetes.io/name, instance, component, part-of, managed-by): remove it"))]
    pub labels: BTreeMap<String, String>,

    /// Additional annotations of the pods. Those that the operator sets itself are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("!('ticketing.dev/secrets-checksum' in self)")
        .message("podTemplate.annotations has ticketing.dev/secrets-checksum, which the operator sets itself: remove it"))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('container.apparmor.security.beta.kubernetes.io/') || k.startsWith('sidecar.istio.io/userVolume') || k == 'sidecar.istio.io/proxyImage' || k == 'inject.istio.io/templates')")
        .message("podTemplate.annotations has one that changes what containers may do, or adds others (AppArmor profiles, sidecar.istio.io/userVolume, userVolumeMount and proxyImage, inject.istio.io/templates): remove it"))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<Toleration>>")]
    pub tolerations: Vec<Toleration>,

    /// Rules about the nodes that the pods run on, and about which pods they share them with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How the pods are spread. Default: evenly over the nodes, if possible. A constraint without a labelSelector
    /// applies to the pods of this OrdersService.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bounded::<Vec<TopologySpreadConstraint>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Name of the PriorityClass of the pods. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub priority_class_name: Option<String>,

    /// Name of the ServiceAccount that the pods run as, in the namespace of this resource. Its token is not mounted,
    /// but its image pull secrets and its workload identity are used. Default: one that the operator creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,

    /// Additional environment variables of the pods, such as LOG_LEVEL. Those that the operator sets itself are
    /// rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("!self.exists(e, e.name in ['JWT_KEY', 'MONGO_URI', 'MONGO_DATABASE', 'MONGO_TLS_CA_FILE', 'MONGO_TLS_CERT_FILE', 'MONGO_TLS_KEY_FILE', 'EXPIRATION_WINDOW_SECONDS', 'PAYMENT_GRACE_SECONDS', 'PORT', 'BASE_PATH', 'ADMIN_PORT', 'DRAIN_SECONDS', 'NATS_URL', 'NATS_CA_FILE', 'NATS_CLUSTER_ID', 'NATS_CLIENT_ID', 'NATS_STREAM', 'NATS_DURABLE', 'NATS_STREAM_REPLICAS', 'NATS_STREAM_MAX_AGE_SECONDS', 'NATS_SUBJECTS', 'NATS_CREDS_FILE', 'NATS_TICKET_DELETED', 'NATS_PAYMENT_STARTED', 'NATS_SETTINGS_MARK'])")
        .message("podTemplate.extraEnv has a variable that the operator sets itself, from spec.auth, database, events, expiration, port and ingress.path or gateway.path: use those fields"))]
    pub extra_env: Vec<ExtraEnv>,

    /// Volumes for extraVolumeMounts and for initContainers: emptyDir, configMap, secret or projected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<PodVolume>,

    /// Volumes that the container of the API has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    #[x_kube(validation = Rule::new("!self.exists(mount, mount.mountPath == '/etc' || mount.mountPath == '/etc/orders-operator' || mount.mountPath.startsWith('/etc/orders-operator/'))")
        .message("podTemplate.extraVolumeMounts: /etc/orders-operator is the operator's own folder, and /etc has it: choose another mountPath"))]
    pub extra_volume_mounts: Vec<Mount>,

    /// Containers that must end before the API starts, in this order, such as a migration; and sidecars, with restartPolicy
    /// Always, which run as long as the API does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub init_containers: Vec<InitContainer>,

    /// Whether to leave the user and group of the pods unset, so that the cluster assigns them, as OpenShift's
    /// restricted-v2 requires. Default: the operator's setting for all resources, or else user and group 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_from_cluster: Option<bool>,
}
