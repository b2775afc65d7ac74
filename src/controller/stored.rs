//! An OrdersService as the watch shows it, in few bytes: thousands are kept, and few are looked at at a time.
//!
//! The spec and the status stay the text that they came as, and are read when they are needed. So it also
//! comes to light only then, and for this one alone, that an object is not as the schema of today has it: it
//! may have been stored under another one. The text is kept compressed: most of it is what all of them have.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, value::RawValue};

use super::partial::Metadata;
use crate::crd::{OrdersService, OrdersServiceSpec, OrdersServiceStatus};

/// An OrdersService, even one that is not as the schema of today has it.
#[derive(Clone, Debug)]
pub struct Stored {
    metadata: ObjectMeta,
    /// The spec and the status as JSON, compressed.
    text: Box<[u8]>,
    at_gateway: bool,
}

/// What all of them have: where a text has the same, a reference to it is kept.
const SAMPLE: &[u8] = include_bytes!("stored.sample.json");

/// What it comes as, whatever that says.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

/// What is to be known of a spec unread.
#[derive(Deserialize)]
struct Glance {
    gateway: Option<Map<String, Value>>,
}

/// The same as the schema of today has it.
#[derive(Deserialize)]
struct Content {
    spec: OrdersServiceSpec,
    status: Option<OrdersServiceStatus>,
}

impl Stored {
    /// Reads it.
    ///
    /// # Errors
    /// Which field does not match the schema of today, and why.
    pub fn read(&self) -> Result<OrdersService, String> {
        let text =
            decompress_size_prepended_with_dict(&self.text, SAMPLE).map_err(|error| error.to_string())?;
        let Content { spec, status } = match serde_json::from_slice(&text) {
            Ok(content) => content,
            // Once more, for the field: to follow where one is costs as much as to read it.
            Err(_) => serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text))
                .map_err(|error| error.to_string())?,
        };
        Ok(OrdersService { metadata: self.metadata.clone(), spec, status })
    }

    /// Whether Gateways are asked to serve it.
    pub fn is_at_gateway(&self) -> bool {
        self.at_gateway
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let [spec, status] = [&spec, &status].map(|text| text.as_deref().map_or("null", RawValue::get));
        let at_gateway = serde_json::from_str(spec).is_ok_and(|glance: Glance| glance.gateway.is_some());
        let text = format!(r#"{{"spec":{spec},"status":{status}}}"#);
        let text = compress_prepend_size_with_dict(text.as_bytes(), SAMPLE).into_boxed_slice();
        Ok(Self { metadata: metadata.into(), text, at_gateway })
    }
}

impl Resource for Stored {
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
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::controller::{
        apply::Applied,
        dereference::Dereferenced,
        fixture::service,
        rollout::Rollout,
        status::{self, Outcome},
        validate::validate,
    };

    fn stored(value: Value) -> Stored {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn it_is_read_as_it_was_stored() {
        let mut service = service(json!({"ingress": {"hosts": ["t.dev"]}}));
        service.status = Some(OrdersServiceStatus { replicas: Some(2), ..OrdersServiceStatus::default() });
        for status in [service.status.clone(), None] {
            service.status = status;
            let read = stored(serde_json::to_value(&service).unwrap()).read().unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&service).unwrap());
        }
    }

    #[test]
    fn of_one_that_no_schema_lets_through_the_name_is_known_and_the_field_is_told() {
        let named = |spec: Value| stored(json!({"metadata": {"name": "orders"}, "spec": spec}));
        let wrong = named(json!({"auth": {"jwtSecretRef": 3}}));
        assert_eq!(wrong.metadata.name.as_deref(), Some("orders"));
        let error = wrong.read().unwrap_err();
        assert!(error.starts_with("spec.auth.jwtSecretRef: invalid type: integer"), "{error}");
        for spec in [json!("text"), json!(null), json!([]), json!({"gateway": 3})] {
            assert!(!named(spec.clone()).is_at_gateway() && named(spec).read().is_err());
        }
        assert!(stored(json!({"metadata": {}})).read().is_err());
    }

    #[test]
    fn what_all_of_them_have_takes_little_room() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("registry.example/orders:2")).unwrap();
        let applied = Applied { rollout: Rollout::default(), gateway: Vec::new(), record: Some("r".into()) };
        service.status =
            Some(status::compute(&service, &Outcome::Applied(&valid, &applied, None), Timestamp::UNIX_EPOCH));
        let value = serde_json::to_value(&service).unwrap();
        let text = json!({"spec": value["spec"], "status": value["status"]}).to_string();
        let kept = stored(value).text.len();
        assert!(kept < text.len() / 2, "{kept} of {}: is the sample stale?", text.len());
    }

    #[test]
    fn which_ask_for_gateways_is_known_unread() {
        let gateway = json!({"parentRefs": [{"name": "public"}], "hostnames": ["t.dev"]});
        let with = |spec: Value| stored(serde_json::to_value(service(spec)).unwrap());
        assert!(with(json!({"gateway": gateway})).is_at_gateway());
        assert!(!with(json!({})).is_at_gateway());
    }
}
