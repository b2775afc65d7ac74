//! What `spec.podTemplate` may add to the pods: volumes, and containers that run before the API or beside it.
//!
//! An allow-list, so that pods stay within the restricted Pod Security Standard in every namespace: nothing of the node,
//! no privileges, no token of a ServiceAccount.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults, schema,
    workload::{ExtraEnv, ImagePullPolicy, Resources},
};

/// The volume with the certificates of the database and of the broker.
pub const CERTIFICATES_VOLUME: &str = "database-certificates";

/// The container of the orders API.
pub const API_CONTAINER: &str = "orders-api";

/// The folder of the API's container that is the operator's.
pub const OWN_FOLDER: &str = "/etc/orders-operator";

/// A volume of the pods: a folder that their containers mount.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.emptyDir), has(self.configMap), has(self.secret), has(self.projected)].filter(kind, kind).size() == 1")
    .message("a volume is exactly one of emptyDir, configMap, secret and projected; other kinds, such as hostPath and csi, are not allowed"))]
#[serde(rename_all = "camelCase")]
pub struct PodVolume {
    /// Name of the volume, by which containers mount it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self != 'database-certificates'").message("database-certificates is the \
         operator's own volume: use another name"))]
    pub name: String,

    /// A directory that is empty when a pod starts, and is deleted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,

    /// The keys of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<NamedFiles>,

    /// The keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretFiles>,

    /// Files of several ConfigMaps, Secrets and fields of the pod in one folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<Projected>,
}

/// A folder that is empty when a pod starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// Where it is: Memory, which counts as memory of the pod. Default: on the disk of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,

    /// Maximum size, above 0; a pod that exceeds it is evicted. Default: 64Mi.
    #[serde(default = "defaults::size_limit")]
    #[schemars(schema_with = "schema::positive_amount")]
    pub size_limit: Quantity,
}

/// Where a folder is that is empty when a pod starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Medium {
    /// In memory.
    Memory,
}

/// Files from a ConfigMap, or from a Secret among other sources.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedFiles {
    /// Name of the object, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,

    /// Keys to show, and as which files. Default: every key, as a file of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub items: Vec<FileOfKey>,

    /// Whether pods start without the object. Default: false.
    #[serde(default)]
    pub optional: bool,
}

/// Files from a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFiles {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub secret_name: String,

    /// Keys to show, and as which files. Default: every key, as a file of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub items: Vec<FileOfKey>,

    /// Whether pods start without the Secret. Default: false.
    #[serde(default)]
    pub optional: bool,
}

/// A key as a file.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOfKey {
    /// Key of the ConfigMap or of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,

    /// Path of the file within the volume.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!self.matches('^/|^[.][.]|/[.][.](/|$)')").message("a path within a volume begins neither with / nor with .., and has no .."))]
    pub path: String,
}

/// Files of several sources.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projected {
    /// The sources.
    #[schemars(length(min = 1, max = 16))]
    pub sources: Vec<Source>,
}

/// One source of files.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.configMap), has(self.secret), has(self.downwardAPI)].filter(kind, kind).size() == 1")
    .message("a source is exactly one of configMap, secret and downwardAPI; serviceAccountToken is not allowed, since the pods have no token"))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The keys of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<NamedFiles>,

    /// The keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<NamedFiles>,

    /// Fields of the pod as files.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "downwardAPI")]
    pub downward_api: Option<PodFields>,
}

/// Fields of the pod as files.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFields {
    /// The fields.
    #[schemars(length(min = 1, max = 16))]
    pub items: Vec<FileOfField>,
}

/// A field of the pod as a file.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileOfField {
    /// Path of the file within the volume.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!self.matches('^/|^[.][.]|/[.][.](/|$)')").message("a path within a volume begins neither with / nor with .., and has no .."))]
    pub path: String,

    /// The field.
    pub field_ref: FieldRef,
}

/// A field of the pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Path of the field, such as metadata.labels or metadata.name.
    #[schemars(length(min = 1, max = 253))]
    pub field_path: String,
}

/// Where a container has a volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Name of a volume of podTemplate.volumes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Path of the folder, or of the file, in the container.
    #[schemars(length(min = 2, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^(/[^/:]+)+$') && !self.matches('/[.][.]?(/|$)')").message("mountPath must be absolute, such as /var/cache, and have no :, no . or .. between slashes, and no slash at its end"))]
    pub mount_path: String,

    /// Path within the volume. Default: the whole volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!self.matches('^/|(^|/)[.][.](/|$)')").message("a path within a volume does not begin with / and has no .."))]
    pub sub_path: Option<String>,

    /// Whether the container may not write to it. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

/// A container that ends before the API starts; or, with restartPolicy Always, a sidecar that starts before it and runs as
/// long. It has no capabilities and no privileges.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.restartPolicy) || !(has(self.startupProbe) || has(self.readinessProbe) || has(self.livenessProbe))")
    .message("a container that ends before the API starts has no probes: remove them, or set restartPolicy to Always to make it a sidecar"))]
#[serde(rename_all = "camelCase")]
pub struct InitContainer {
    /// Name of the container.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self != 'orders-api'").message("orders-api is the container of the API \
         itself: use another name"))]
    pub name: String,

    /// Image of the container.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// When the kubelet pulls the image: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Always for a sidecar: it starts before the API, is restarted whenever it ends, and stops after the API. Default:
    /// it must end before the API starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,

    /// Command, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::words")]
    pub command: Vec<String>,

    /// Arguments, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::words")]
    pub args: Vec<String>,

    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<ExtraEnv>,

    /// Volumes of podTemplate.volumes that the container has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<Mount>,

    /// Resource requests and limits. Default: requests of cpu 50m and memory 32Mi, and a limit of memory 128Mi. A
    /// value replaces the whole default.
    #[serde(default)]
    pub resources: Resources,

    /// For sidecars: the API starts once it succeeds. Default: once the sidecar runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<ContainerProbe>,

    /// For sidecars: the pod is ready only while it succeeds. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<ContainerProbe>,

    /// For sidecars: it is restarted when it fails. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<ContainerProbe>,

    /// Id of the user that it runs as, other than 0. Default: that of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,

    /// Whether its root file system is read-only. Default: true.
    #[serde(default = "defaults::read_only_root_filesystem")]
    pub read_only_root_filesystem: bool,
}

/// Whether a container is a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RestartPolicy {
    /// It is.
    Always,
}

impl RestartPolicy {
    /// The value as the Pod API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
        }
    }
}

/// How the kubelet finds out how a container is. Always in the container itself, never at another host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.exec), has(self.httpGet), has(self.tcpSocket)].filter(kind, kind).size() == 1")
    .message("a probe is exactly one of exec, httpGet and tcpSocket"))]
#[serde(rename_all = "camelCase")]
pub struct ContainerProbe {
    /// A command in the container, which must exit with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ProbeCommand>,

    /// A request to the pod, which must be answered by 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<ProbeRequest>,

    /// A port of the pod, which must accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<ProbePort>,

    /// Seconds between two probes. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,

    /// Seconds until a probe that is not answered counts as failed. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<i32>,

    /// How many probes must fail in a row. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: Option<i32>,
}

/// A command in the container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCommand {
    /// The command and its arguments.
    #[schemars(schema_with = "schema::words")]
    pub command: Vec<String>,
}

/// A request to the pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.path.startsWith('/')").message("the path of a probe must begin with /"))]
pub struct ProbeRequest {
    /// Path of the request. Default: /.
    #[serde(default = "defaults::root_path")]
    #[schemars(length(min = 1, max = 253))]
    pub path: String,

    /// Number of the port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A port of the pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbePort {
    /// Number of the port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}
