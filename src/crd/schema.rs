//! Schemas of Kubernetes' own types, within bounds.
//!
//! Kubernetes leaves its lists and strings without limits; the API server would then take a resource
//! of any size, and refuse CEL rules over it as too dear.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// The longest string in a field of Kubernetes' own.
const MAX_LENGTH: u32 = 1024;

/// The most entries of a list or a map there.
const MAX_ITEMS: u32 = 64;

/// What a quantity looks like that is not negative: `500m`, `128Mi`, `2`, `1e3`.
const QUANTITY: &str = r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$";

/// The schema of `T`, every list, map and string in it bounded.
pub(super) fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    if let Some(fields) = schema.as_object_mut() {
        bound(fields);
    }
    schema
}

/// The schema of amounts by the names of resources.
pub(super) fn amounts(generator: &mut SchemaGenerator) -> Schema {
    let mut quantity = generator.subschema_for::<Quantity>();
    if let Some(fields) = quantity.as_object_mut() {
        fields.insert("description".into(), json!("An amount, such as 500m (half a core) or 128Mi (bytes)."));
        fields.insert("pattern".into(), json!(QUANTITY));
        fields.insert("maxLength".into(), json!(32));
    }
    json_schema!({"type": "object", "additionalProperties": quantity, "maxProperties": 16})
}

/// The schema of a count of pods, or a part of them in percent.
pub(super) fn count_or_percent(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<IntOrString>();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("minimum".into(), json!(0));
        fields.insert("maximum".into(), json!(1000));
        fields.insert("pattern".into(), json!("^(100|[1-9]?[0-9])%$"));
        fields.insert("maxLength".into(), json!(4));
    }
    schema
}

fn bound(fields: &mut Map<String, Value>) {
    let limit = |fields: &mut Map<String, Value>, name: &str, value: u32| {
        fields.entry(name).or_insert(json!(value));
    };
    if fields.contains_key("x-kubernetes-int-or-string") {
        limit(fields, "maxLength", MAX_LENGTH);
        // Kubernetes explains a quantity in fifty lines, wherever there is one.
        fields.insert("description".into(), json!("A whole number, or text such as 500m or 128Mi."));
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("string") if !fields.contains_key("enum") => limit(fields, "maxLength", MAX_LENGTH),
        Some("array") => limit(fields, "maxItems", MAX_ITEMS),
        Some("object") if fields.contains_key("additionalProperties") => {
            limit(fields, "maxProperties", MAX_ITEMS);
        }
        _ => {}
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name).and_then(Value::as_object_mut) {
            bound(inner);
        }
    }
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(|properties| properties.values_mut()) {
        if let Some(inner) = property.as_object_mut() {
            bound(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::Value;

    use crate::crd::OrdersService;

    /// Every list, map and free string below `schema` that has no bound.
    fn unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
        let lacks = |bound: &str| schema.get(bound).is_none();
        let free = lacks("enum") && lacks("format");
        let missing = match schema["type"].as_str() {
            Some("string") => free && lacks("maxLength"),
            Some("array") => lacks("maxItems"),
            Some("object") => !lacks("additionalProperties") && lacks("maxProperties"),
            Some("integer") => lacks("minimum") || lacks("maximum"),
            _ => schema["x-kubernetes-int-or-string"] == true && lacks("maxLength"),
        };
        if missing {
            found.push(path.to_owned());
        }
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(name) {
                unbounded(inner, &format!("{path}[]"), found);
            }
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(inner, &format!("{path}.{name}"), found);
        }
    }

    #[test]
    fn every_field_of_the_spec_has_a_bound_and_a_description() {
        let crd = serde_json::to_value(OrdersService::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut found = Vec::new();
        unbounded(spec, "spec", &mut found);
        // Of Kubernetes' own integers only these have no bounds: ports of nothing, seconds, weights.
        found.retain(|path| !path.contains("podTemplate.affinity") || !path.ends_with("weight"));
        found.retain(|path| {
            !["tolerationSeconds", "maxSkew", "minDomains"].iter().any(|own| path.ends_with(own))
        });
        assert!(found.is_empty(), "{found:#?}");
        for (name, field) in spec["properties"].as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{name}: {field}");
        }
    }
}
