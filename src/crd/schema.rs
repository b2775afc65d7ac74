//! Schemas of the Kubernetes types in the spec, with bounds.
//!
//! Kubernetes' own types have no limits on lists and strings. The API server estimates the cost of CEL rules
//! from these limits and rejects rules that may be too expensive.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Maximum length of strings in Kubernetes types.
const MAX_LENGTH: u32 = 1024;

/// Maximum number of entries of lists and maps in Kubernetes types.
const MAX_ITEMS: u32 = 64;

/// A quantity that is not negative, such as `500m`, `128Mi`, `2` or `1e3`.
const QUANTITY: &str = r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$";

/// The same with a digit other than 0.
const POSITIVE_QUANTITY: &str = r"^\+?([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$";

/// The schema of `T`, with a bound on every list, map and string.
pub(super) fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    if let Some(fields) = schema.as_object_mut() {
        bound(fields);
    }
    schema
}

/// The schema of a quantity.
pub(super) fn amount(generator: &mut SchemaGenerator) -> Schema {
    let mut quantity = generator.subschema_for::<Quantity>();
    if let Some(fields) = quantity.as_object_mut() {
        fields.insert("description".into(), json!("An amount, such as 500m (half a core) or 128Mi (bytes)."));
        fields.insert("pattern".into(), json!(QUANTITY));
        fields.insert("maxLength".into(), json!(32));
    }
    quantity
}

/// The schema of a quantity that is not 0: by its pattern, as a CEL rule would cost too much before Kubernetes 1.34.
pub(super) fn positive_amount(generator: &mut SchemaGenerator) -> Schema {
    let mut quantity = amount(generator);
    if let Some(fields) = quantity.as_object_mut() {
        fields.insert("pattern".into(), json!(POSITIVE_QUANTITY));
        fields.insert("minimum".into(), json!(1));
    }
    quantity
}

/// The schema of a map from resource names to quantities.
pub(super) fn amounts(generator: &mut SchemaGenerator) -> Schema {
    let quantity = amount(generator);
    json_schema!({"type": "object", "additionalProperties": quantity, "maxProperties": 16})
}

/// The schema of a command, or of its arguments.
pub(super) fn words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "maxLength": 4096}, "maxItems": MAX_ITEMS})
}

/// The schema of a number of pods, or of a percentage of them.
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

/// The schema of the port of a Service: a number, as text too, or a name.
pub(super) fn port(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<IntOrString>();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("minimum".into(), json!(1));
        fields.insert("maximum".into(), json!(65535));
        fields.insert("pattern".into(), json!("^[a-z0-9]+(-[a-z0-9]+)*$"));
        fields.insert("maxLength".into(), json!(15));
    }
    schema
}

fn bound(fields: &mut Map<String, Value>) {
    let limit = |fields: &mut Map<String, Value>, name: &str, value: u32| {
        fields.entry(name).or_insert(json!(value));
    };
    if fields.contains_key("x-kubernetes-int-or-string") {
        limit(fields, "maxLength", MAX_LENGTH);
        // Replaces Kubernetes' own description of a quantity, which has fifty lines.
        fields.insert("description".into(), json!("An integer, or a string such as 500m or 128Mi."));
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
