//! An OrdersService as the watch shows it: parsed when it is reconciled, not before.
//!
//! Thousands are kept, and few are reconciled at a time, so spec and status are kept as the text in which they were
//! received, which is smaller than the parsed types. An object that does not match the current schema, having been
//! stored under another one, fails when it is parsed, and so does not affect the others.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use super::{
    children::{owner::Owner, partial::Metadata},
    object_key::ObjectKey,
    schema,
};
use crate::crd::{OrdersService, OrdersServiceSpec, OrdersServiceStatus, without_value};

/// An OrdersService of which only the metadata are parsed.
#[derive(Clone, Debug)]
pub struct RawOrdersService {
    metadata: ObjectMeta,
    /// Spec and status, as one JSON object.
    json: Box<str>,
    has_gateway: bool,
    strips_prefixes: bool,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

/// The field of a spec that must be known before it is parsed.
#[derive(Deserialize)]
struct GatewayField {
    gateway: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Content {
    spec: OrdersServiceSpec,
    status: Option<OrdersServiceStatus>,
}

impl RawOrdersService {
    /// Parses it.
    ///
    /// # Errors
    /// Which fields do not match the current schema, and why; without the values of those in which a password may be.
    pub fn parse(&self) -> Result<OrdersService, String> {
        match serde_json::from_str(&self.json) {
            Ok(Content { spec, status }) => {
                Ok(OrdersService { metadata: self.metadata.clone(), spec, status })
            }
            Err(error) => Err(self.mismatch(&error)),
        }
    }

    /// What does not match, by the schema, and else by the parser.
    fn mismatch(&self, error: &serde_json::Error) -> String {
        let object = serde_json::from_str::<Value>(&self.json).unwrap_or_default();
        let found: Vec<_> = schema::mismatches(&object, None).iter().map(ToString::to_string).collect();
        if !found.is_empty() {
            return found.join("; ");
        }
        // A second time, to name the field.
        match serde_path_to_error::deserialize::<_, Content>(&object) {
            Err(error) => format!("{} {}", error.path(), without_value(&error.inner().to_string())),
            Ok(_) => without_value(&error.to_string()),
        }
    }

    /// The part of spec and status that `T` has.
    ///
    /// # Errors
    /// When it does not match.
    pub fn glance<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.json)
    }

    /// Its namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.metadata)
    }

    /// This object as the owner of its children.
    pub fn as_owner(&self) -> Owner {
        Owner::from_metadata(&self.metadata)
    }

    /// Whether it asks for routes at Gateways.
    pub fn has_gateway(&self) -> bool {
        self.has_gateway
    }

    /// Whether a route of its Ingress or of its Gateways is to take its prefix off.
    pub fn strips_prefixes(&self) -> bool {
        self.strips_prefixes
    }
}

impl<'de> Deserialize<'de> for RawOrdersService {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let [spec, status] = [&spec, &status].map(|raw| raw.as_deref().map_or("null", RawValue::get));
        let has_gateway = serde_json::from_str(spec).is_ok_and(|spec: GatewayField| spec.gateway.is_some());
        // As the API server writes it; what is found in another field costs a look more.
        let strips_prefixes = spec.contains(r#""stripPrefix":true"#);
        let json = format!(r#"{{"spec":{spec},"status":{status}}}"#).into_boxed_str();
        Ok(Self { metadata: metadata.into(), json, has_gateway, strips_prefixes })
    }
}

impl Resource for RawOrdersService {
    type DynamicType = ();
    type Scope = <OrdersService as Resource>::Scope;

    fn kind(of: &()) -> Cow<'_, str> {
        OrdersService::kind(of)
    }

    fn group(of: &()) -> Cow<'_, str> {
        OrdersService::group(of)
    }

    fn version(of: &()) -> Cow<'_, str> {
        OrdersService::version(of)
    }

    fn plural(of: &()) -> Cow<'_, str> {
        OrdersService::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::fixture::service;

    fn raw(value: Value) -> RawOrdersService {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn it_is_parsed_into_what_was_stored() {
        let mut service = service(json!({"ingress": {"hosts": ["t.dev"]}}));
        service.status = Some(OrdersServiceStatus { replicas: Some(2), ..OrdersServiceStatus::default() });
        for status in [service.status.clone(), None] {
            service.status = status;
            let parsed = raw(serde_json::to_value(&service).unwrap()).parse().unwrap();
            assert_eq!(serde_json::to_value(&parsed).unwrap(), serde_json::to_value(&service).unwrap());
        }
    }

    #[test]
    fn of_one_that_does_not_match_the_schema_the_name_is_known_and_the_field_is_named() {
        let named = |spec: Value| raw(json!({"metadata": {"name": "orders"}, "spec": spec}));
        let wrong = named(json!({"auth": {"jwtSecretRef": 3}}));
        assert_eq!(wrong.metadata.name.as_deref(), Some("orders"));
        let error = wrong.parse().unwrap_err();
        assert_eq!(
            error,
            "spec.database is required; spec.auth.jwtSecretRef is a number, but must be an object: write {name: \
             NAME-OF-THE-SECRET}"
        );
        for patch in [
            json!({"auth": {"jwtSecretRef": "hunter2"}}),
            json!({"database": {"uriSecretRef": "mongodb://u:hunter2@m/o"}}),
            json!({"events": {"nats": {"servers": "nats://u:hunter2@n"}}}),
            json!({"podTemplate": {"extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": "hunter2"}}]}}),
        ] {
            let mut spec =
                json!({"auth": {"jwtSecretRef": {"name": "a"}}, "database": {"uriSecretRef": {"name": "b"}}});
            json_patch::merge(&mut spec, &patch);
            let error = named(spec).parse().unwrap_err();
            assert!(error.starts_with("spec.") && !error.contains("hunter2"), "{error}");
        }
        for spec in [json!("text"), json!(null), json!([]), json!({"gateway": 3})] {
            assert!(!named(spec.clone()).has_gateway() && named(spec).parse().is_err());
        }
        assert!(raw(json!({"metadata": {}})).parse().is_err());
    }

    #[test]
    fn whether_it_asks_for_gateways_is_known_before_it_is_parsed() {
        let gateway = json!({"parentRefs": [{"name": "public"}], "hostnames": ["t.dev"]});
        let with = |spec: Value| raw(serde_json::to_value(service(spec)).unwrap());
        assert!(with(json!({"gateway": gateway})).has_gateway());
        assert!(!with(json!({})).has_gateway());
    }
}
