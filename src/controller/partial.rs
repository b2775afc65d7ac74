//! Objects as they are read: only what is looked at.
//!
//! Of every object that a watch shows or a write gives back, most is metadata, and most of that says which field
//! belongs to whom. Only a hash of it is wanted, so it stays text, and no tree of it is made; the rest is not read at
//! all.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    api::{apps::v1::DeploymentStatus, networking::v1::IngressSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    gateway::{HTTPRouteSpec, RouteStatus},
    print::Print,
};
use crate::crd::{CONTROLLER_MANAGER, OrdersService};

/// An object that is read in part.
pub trait Partly: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {
    /// What is read of its spec.
    type Spec: Content;
    /// What is read of its status.
    type Status: Content;
}

/// Of the answer to a status that was written only the version counts.
impl Partly for OrdersService {
    type Spec = Nothing;
    type Status = Nothing;
}

/// What is read of a spec or a status.
pub trait Content: Clone + Debug + Default + DeserializeOwned + Send + Sync + 'static {
    /// Whether that is nothing; then the API server need not send it.
    const IS_NOTHING: bool = false;
}

/// What is read of a spec or a status that nobody looks at.
#[derive(Clone, Debug, Default)]
pub struct Nothing;

impl Content for Nothing {
    const IS_NOTHING: bool = true;
}

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What is read of a Deployment's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Scale {
    /// How many pods are wanted.
    pub replicas: Option<i32>,
}

impl Content for Scale {}
impl Content for DeploymentStatus {}
impl Content for IngressSpec {}
impl Content for HTTPRouteSpec {}
impl Content for RouteStatus {}

/// An object of the kind of `K`, in part.
#[derive(Clone, Debug)]
pub struct Partial<K: Partly> {
    /// Its metadata, as far as [`Metadata`] has them.
    pub metadata: ObjectMeta,
    /// The hash of which of its fields are there because we applied them, and of when their values changed last by
    /// that.
    pub fields: Option<Print>,
    /// Its spec, in part.
    pub spec: K::Spec,
    /// Its status, in part.
    pub status: K::Status,
}

#[derive(Deserialize)]
struct Wire<S, T> {
    #[serde(default)]
    metadata: Metadata,
    // As in kube's own types, null is as good as nothing.
    spec: Option<S>,
    status: Option<T>,
}

impl<'de, K: Partly> Deserialize<'de> for Partial<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let fields = metadata.our_fields();
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        Ok(Self { metadata: metadata.into(), fields, spec, status })
    }
}

impl<K: Partly> Resource for Partial<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        K::Spec::IS_NOTHING && K::Status::IS_NOTHING
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

/// What is read of an object's metadata.
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
    managed_fields: Option<Vec<Managed>>,
}

/// Which fields belong to one manager.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Managed {
    manager: String,
    operation: String,
    subresource: String,
    time: Option<Time>,
    fields_v1: Option<Box<RawValue>>,
}

impl Metadata {
    fn our_fields(&self) -> Option<Print> {
        let ours = self.managed_fields.iter().flatten().find(|entry| {
            entry.manager == CONTROLLER_MANAGER && entry.operation == "Apply" && entry.subresource.is_empty()
        })?;
        Print::of(&(ours.fields_v1.as_ref()?, &ours.time))
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
    fn a_field_that_we_lost_shows_and_so_does_a_value_that_changed_under_our_own_name() {
        let (then, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let fields = |field, applied| child::<Service>("9", field, applied).fields.unwrap();
        assert_eq!(fields("f:a", then), fields("f:a", then));
        assert_ne!(fields("f:a", then), fields("f:b", then));
        assert_ne!(fields("f:a", then), fields("f:a", later));
    }

    #[test]
    fn of_an_object_that_others_made_alone_no_field_is_ours() {
        let of = |entries| {
            let object = json!({"metadata": {"managedFields": entries}});
            serde_json::from_value::<Partial<Service>>(object).unwrap().fields
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
    fn what_nobody_looks_at_is_not_even_asked_for_and_may_be_anything() {
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
