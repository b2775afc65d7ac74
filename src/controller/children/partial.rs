//! Objects as they are read: the fields that the controller looks at, and no others.
//!
//! Most of an object in a watch event or in the response to a write is metadata, and most of that is `managedFields`.
//! Of these only a fingerprint is kept, so they stay text and are never parsed into a tree; other fields are skipped.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    api::{
        apps::v1::DeploymentStatus, autoscaling::v2::HorizontalPodAutoscalerCondition,
        networking::v1::IngressSpec,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    fingerprint::Fingerprint,
    httproute::{HTTPRouteSpec, HTTPRouteStatus},
};
use crate::crd::{CONTROLLER_MANAGER, OrdersService};

/// A type of objects of which a part is read.
pub trait Projection: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {
    /// What is read of the spec.
    type Spec: Content;
    /// What is read of the status.
    type Status: Content;
}

/// Of the response to a status update only the resourceVersion counts.
impl Projection for OrdersService {
    type Spec = Omitted;
    type Status = Omitted;
}

/// What is read of a spec or of a status.
pub trait Content: Clone + Debug + Default + DeserializeOwned + Send + Sync + 'static {
    /// Whether nothing is read. If this holds for both spec and status, only the metadata is requested from the API server.
    const IS_OMITTED: bool = false;
}

/// In place of a spec or a status that is not read.
#[derive(Clone, Debug, Default)]
pub struct Omitted;

impl Content for Omitted {
    const IS_OMITTED: bool = true;
}

impl<'de> Deserialize<'de> for Omitted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What is read of a Deployment's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Scale {
    /// How many pods there should be.
    pub replicas: Option<i32>,
}

/// What is read of a HorizontalPodAutoscaler's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Scaling {
    /// Its conditions.
    pub conditions: Option<Vec<HorizontalPodAutoscalerCondition>>,
}

impl Content for Scale {}
impl Content for DeploymentStatus {}
impl Content for Scaling {}
impl Content for IngressSpec {}
impl Content for HTTPRouteSpec {}
impl Content for HTTPRouteStatus {}

/// A part of an object of type `K`.
#[derive(Clone, Debug)]
pub struct Partial<K: Projection> {
    /// Its metadata, as far as [`Metadata`] has them.
    pub metadata: ObjectMeta,
    /// The fingerprint of the fields that the controller owns by its applies, and of the time at which an apply of its
    /// changed a value last.
    pub owned_fields: Option<Fingerprint>,
    /// Whether someone else owns fields too.
    pub has_other_managers: bool,
    /// A part of its spec.
    pub spec: K::Spec,
    /// A part of its status.
    pub status: K::Status,
}

#[derive(Deserialize)]
struct Wire<S, T> {
    #[serde(default)]
    metadata: Metadata,
    // As in kube's own types, null means the same as an absent field.
    spec: Option<S>,
    status: Option<T>,
}

impl<'de, K: Projection> Deserialize<'de> for Partial<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let (owned_fields, has_other_managers) = (metadata.owned_fields(), metadata.has_other_managers());
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        Ok(Self { metadata: metadata.into(), owned_fields, has_other_managers, spec, status })
    }
}

impl<K: Projection> Resource for Partial<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        K::Spec::IS_OMITTED && K::Status::IS_OMITTED
    }

    fn kind(of: &()) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &()) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &()) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &()) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The part of an object's metadata that is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    managed_fields: Option<Vec<ManagedFields>>,
}

/// The fields that one manager owns.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    manager: String,
    operation: String,
    subresource: String,
    time: Option<Time>,
    fields_v1: Option<Box<RawValue>>,
}

impl ManagedFields {
    fn is_ours(&self) -> bool {
        self.manager == CONTROLLER_MANAGER && self.operation == "Apply" && self.subresource.is_empty()
    }
}

impl Metadata {
    fn owned_fields(&self) -> Option<Fingerprint> {
        let ours = self.managed_fields.iter().flatten().find(|entry| entry.is_ours())?;
        Fingerprint::of(&(ours.fields_v1.as_ref()?, &ours.time))
    }

    fn has_other_managers(&self) -> bool {
        self.managed_fields.iter().flatten().any(|entry| !entry.is_ours())
    }
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            annotations: metadata.annotations,
            owner_references: metadata.owner_references,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
    use serde_json::json;

    use super::*;
    use crate::controller::fixture::child;

    #[test]
    fn a_lost_field_changes_the_fingerprint_and_so_does_a_value_that_was_changed_under_our_name() {
        let (then, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let fields = |field, applied| child::<Service>("9", field, applied).owned_fields.unwrap();
        assert_eq!(fields("f:a", then), fields("f:a", then));
        assert_ne!(fields("f:a", then), fields("f:b", then));
        assert_ne!(fields("f:a", then), fields("f:a", later));
    }

    #[test]
    fn an_object_that_we_never_applied_has_no_owned_fields() {
        let of = |entries| {
            let object = json!({"metadata": {"managedFields": entries}});
            serde_json::from_value::<Partial<Service>>(object).unwrap().owned_fields
        };
        assert_eq!(of(json!(null)), None);
        let other = |key: &str, value: &str| {
            let mut entry =
                json!({"manager": CONTROLLER_MANAGER, "operation": "Apply", "fieldsV1": {"f:a": {}}});
            assert!(of(json!([entry])).is_some());
            entry[key] = json!(value);
            of(json!([entry]))
        };
        for (key, value) in [("manager", "kubectl"), ("operation", "Update"), ("subresource", "status")] {
            assert_eq!(other(key, value), None, "{key}");
        }
    }

    #[test]
    fn omitted_parts_are_not_requested_and_may_have_any_content() {
        assert!(Partial::<Service>::metadata_api() && !Partial::<Deployment>::metadata_api());
        let anything =
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": ["x"], "status": 3, "other": {}});
        let service: Partial<Service> = serde_json::from_value(anything).unwrap();
        assert_eq!(service.metadata.name.as_deref(), Some("a"));
        let deployment = json!({"spec": {"replicas": 3, "template": {}}, "status": {"readyReplicas": 2}});
        let deployment: Partial<Deployment> = serde_json::from_value(deployment).unwrap();
        assert_eq!((deployment.spec.replicas, deployment.status.ready_replicas), (Some(3), Some(2)));
        let bare: Partial<Deployment> = serde_json::from_value(json!({"spec": null})).unwrap();
        assert_eq!((bare.spec.replicas, bare.status.ready_replicas), (None, None));
    }
}
