//! The `OrdersService` custom resource: the spec that users write, the status that the controller and the
//! sweeper write, and the rules that the API server enforces at admission.
//!
//! ```text
//! defaults     the default values of fields
//! routes       hosts, routes and Services, as the Ingress and the Gateways share them
//! database     spec.database
//! events       spec.events
//! ingress      spec.ingress
//! gateway      spec.gateway
//! workload     the pods: number, image, resources, environment, disruption budget, autoscaling
//! containers   what else is in the pods: volumes, init containers, sidecars
//! pod_template  spec.podTemplate
//! schema       bounded schemas for the Kubernetes types in the spec
//! spec         the spec, and the custom resource itself
//! secret_refs  every reference of the spec to a Secret
//! status       the status
//! conditions   condition types and reasons
//! mismatch     what serde says of an object that does not match, without the values
//! apply        field managers, and the patch that writes a status
//! definition   the CustomResourceDefinition as YAML
//! ```
//!
//! The API server rejects by schema and CEL whatever these can decide, with a message that says what to
//! write instead. The controller validates everything again, because objects may have been stored under an
//! older schema.

mod apply;
mod conditions;
mod containers;
mod database;
mod defaults;
mod definition;
mod events;
mod gateway;
mod ingress;
mod mismatch;
mod pod_template;
mod routes;
mod schema;
#[cfg(test)]
mod schema_tests;
mod secret_refs;
mod spec;
mod status;
mod workload;

pub use apply::{
    ADOPT_ANNOTATION, CONTROLLER_MANAGER, SWEEPER_MANAGER, UPGRADE_ANNOTATION, UPGRADE_MANAGER, status_patch,
};
pub use conditions::{
    ConditionType, NewCondition, Reason, cannot_run, find_condition, has_any_of, is_true, set_condition,
};
pub use containers::{
    API_CONTAINER, CERTIFICATES_VOLUME, ContainerProbe, EmptyDir, FileOfKey, InitContainer, Medium, Mount,
    NamedFiles, OWN_FOLDER, PodVolume, Projected, RestartPolicy, SecretFiles, Source,
};
pub use database::{CaSecretRef, ClientCertificateSecretRef, Database, DatabaseTls, UriSecretRef};
pub use definition::{CrdError, crd_yaml};
pub use events::{EventsSpec, JetStream, Nats, NatsCredsSecretRef, NatsUrlSecretRef, SUBJECTS, Streaming};
pub use gateway::{GatewaySpec, ParentRef};
pub use ingress::{IngressSpec, IngressTlsSpec};
pub use mismatch::without_value;
pub use pod_template::{
    CHECKSUM_ANNOTATION, PodTemplate, REFUSED_ANNOTATIONS, RESERVED_ENV, RESERVED_LABELS,
};
pub use routes::{Backend, Host, RouteSpec};
pub use secret_refs::{SecretField, SecretRef};
pub use spec::{Auth, Expiration, JwtSecretRef, Mesh, OrdersService, OrdersServiceSpec};
pub use status::{ExpiryStatus, OrdersServiceStatus, RenderedRoute, UpgradeStatus};
pub use workload::{Autoscaling, DisruptionBudget, ExtraEnv, ImagePullPolicy, LocalSecret, Resources};
