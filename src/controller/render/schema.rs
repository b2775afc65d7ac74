//! What the API server would refuse by the schema of the CustomResourceDefinition, its CEL rules included.
//!
//! The schema is that of `crds/`: there is no other list of what a field may be.

use std::{fmt, sync::LazyLock};

use kube::{
    CustomResourceExt,
    core::cel::{ErrorKind, Validator},
};
use regex::Regex;
use serde_json::{Map, Value};

use crate::crd::OrdersService;

/// The schema of an OrdersService, as the CRD has it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definition = serde_json::to_value(OrdersService::crd()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
});

/// A field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its path, such as `spec.ingress.routes[0].port`.
    pub(super) field: String,
    /// What is wrong, and what to write.
    pub(super) text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, text } = self;
        match field.as_str() {
            "" => formatter.write_str(text),
            // As the rest of the sentence, or as one of its own.
            _ if text.starts_with("is ") || text.starts_with("has ") => write!(formatter, "{field} {text}"),
            _ => write!(formatter, "{field}: {text}"),
        }
    }
}

/// Everything in an object that the API server would refuse. The rules are looked at only where all types are right, as
/// the API server does it.
pub(super) fn refusals(object: &Value) -> Vec<Refusal> {
    let mut found = Vec::new();
    check(&SCHEMA, object, "", &mut found);
    if found.is_empty()
        && let Err(errors) = Validator::new().validate(&SCHEMA, &without_nulls(object), None)
    {
        let failed = errors.into_vec().into_iter().filter(|error| error.kind == ErrorKind::ValidationFailure);
        found.extend(failed.map(|error| Refusal { field: error.field_path, text: error.message }));
    }
    found
}

/// The API server drops fields that are null, unless null is a value of theirs, which it is of none here.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Checks a value that is there, and what is in it.
fn check(schema: &Value, value: &Value, field: &str, found: &mut Vec<Refusal>) {
    if value.is_null() {
        return;
    }
    if let Some(expected) = mismatch(schema, value) {
        let text = format!("is {}, but must be {expected}{}", shown(value), hint(schema, value));
        found.push(Refusal { field: field.to_owned(), text });
        return;
    }
    let mut refuse = |text: String| found.push(Refusal { field: field.to_owned(), text });
    match value {
        Value::Number(number) => bounds(schema, number.as_f64().unwrap_or_default(), &mut refuse),
        Value::String(text) => text_bounds(schema, text, &mut refuse),
        Value::Array(items) => {
            count(schema, "Items", items.len(), "entries", &mut refuse);
            for (at, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{field}[{at}]"), found);
            }
        }
        Value::Object(fields) => {
            count(schema, "Properties", fields.len(), "entries", &mut refuse);
            check_fields(schema, fields, field, found);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, field: &str, found: &mut Vec<Refusal>) {
    let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            found.push(Refusal { field: below(name), text: "is not set, but must be".into() });
        }
    }
    let known = schema["properties"].as_object();
    for (name, value) in fields {
        let is_of_kubernetes =
            field.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
            (Some(of_field), _) => check(of_field, value, &below(name), found),
            (None, Some(of_each)) => check(of_each, value, &format!("{field}[{name:?}]"), found),
            // The API server would drop or refuse it: it is a mistake in any case.
            (None, None) if known.is_some() && !is_of_kubernetes => {
                let names: Vec<_> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let text = format!("there is no field {}: write one of {}", below(name), names.join(", "));
                found.push(Refusal { field: String::new(), text });
            }
            (None, None) => {}
        }
    }
}

/// What a value must be, if it is of another type.
fn mismatch(schema: &Value, value: &Value) -> Option<&'static str> {
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_i64() && !value.is_string()).then_some("a whole number or text");
    }
    let (is_right, expected) = match schema["type"].as_str()? {
        "string" => (value.is_string(), "text"),
        "boolean" => (value.is_boolean(), "true or false"),
        // As YAML and JSON have it, 3.0 is whole.
        "integer" => (value.as_f64().is_some_and(|number| number.fract() == 0.0), "a whole number"),
        "number" => (value.is_number(), "a number"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "a map of fields"),
        _ => return None,
    };
    (!is_right).then_some(expected)
}

/// A value in a sentence.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map of fields".into(),
        other => other.to_string(),
    }
}

/// What to write in place of a value of another type.
fn hint(schema: &Value, value: &Value) -> String {
    match (schema["type"].as_str(), value) {
        (Some("string"), Value::Bool(_) | Value::Number(_)) => format!(": write it in quotes, \"{value}\""),
        (Some("boolean"), Value::String(_)) => ": write it without quotes".into(),
        (Some("object"), _) => {
            let names: Vec<_> = schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            if names.is_empty() { String::new() } else { format!(", such as {}", names.join(", ")) }
        }
        (Some("array"), Value::String(text)) => format!(": write [{text}]"),
        _ => String::new(),
    }
}

fn bounds(schema: &Value, number: f64, refuse: &mut impl FnMut(String)) {
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let bound = |bound: Option<f64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
        refuse(format!("is {number}, but must be from {} to {}", bound(least), bound(most)));
    }
}

fn text_bounds(schema: &Value, text: &str, refuse: &mut impl FnMut(String)) {
    let length = text.chars().count();
    count(schema, "Length", length, "characters", refuse);
    let values: Option<Vec<_>> =
        schema["enum"].as_array().map(|values| values.iter().filter_map(Value::as_str).collect());
    if let Some(values) = values.filter(|values| !values.contains(&text)) {
        refuse(format!("is {text:?}, but must be one of {}", values.join(", ")));
    }
    // A pattern that this library cannot read is one for the API server alone.
    let pattern = schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        refuse(format!("is {text:?}, but must be of the form {pattern}"));
    }
}

/// Compares a size with its bounds, of which `of` is the name's end.
fn count(schema: &Value, of: &str, size: usize, what: &str, refuse: &mut impl FnMut(String)) {
    let bound = |name: &str| schema[format!("{name}{of}")].as_f64().map(|bound| bound as usize);
    if let Some(least) = bound("min").filter(|least| size < *least) {
        refuse(format!("has {size} {what}, but must have at least {least}"));
    }
    if let Some(most) = bound("max").filter(|most| size > *most) {
        refuse(format!("has {size} {what}, but may have at most {most}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(patch: Value) -> Vec<String> {
        let mut object = json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "orders"},
            "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                "database": {"uriSecretRef": {"name": "orders-mongo"}},
                "ingress": {"hosts": ["ticketing.dev"], "routes": [{"path": "/a", "service": "a-srv"}]}
            }
        });
        json_patch::merge(&mut object["spec"], &patch);
        refusals(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_is_not_refused_defaults_and_nulls_included() {
        for patch in [
            json!({}),
            json!({"ingress": null, "replicas": null}),
            json!({"replicas": 3.0, "autoscaling": null, "port": 80}),
            json!({"ingress": {"routes": [{"path": "/", "service": "s", "exact": true, "port": "http"}]}}),
            json!({"autoscaling": {"maxReplicas": 2}, "resources": {"requests": {"cpu": 1}}}),
        ] {
            assert_eq!(refused(patch.clone()), [""; 0], "{patch}");
        }
    }

    #[test]
    fn every_bound_and_type_of_the_schema_is_applied_and_the_field_is_named() {
        let hosts: Vec<_> = (0..9).map(|number| format!("h{number}.dev")).collect();
        let routes: Vec<_> =
            (0..70).map(|number| json!({"path": format!("/{number}"), "service": "s"})).collect();
        for (patch, expected) in [
            (
                json!({"ingress": {"hosts": hosts}}),
                "spec.ingress.hosts has 9 entries, but may have at most 8",
            ),
            (json!({"ingress": {"hosts": []}}), "spec.ingress.hosts has 0 entries, but must have at least 1"),
            (
                json!({"ingress": {"routes": routes}}),
                "spec.ingress.routes has 70 entries, but may have at most 64",
            ),
            (
                json!({"ingress": {"tls": [{"secretName": "x"}]}}),
                "spec.ingress.tls is a list, but must be a map of fields, such as secretName",
            ),
            (
                json!({"ingress": {"annotations": {"a/b": true}}}),
                "spec.ingress.annotations[\"a/b\"] is true, but must be text: write it in quotes, \"true\"",
            ),
            (
                json!({"ingress": {"hosts": "a.dev"}}),
                "spec.ingress.hosts is \"a.dev\", but must be a list: write [a.dev]",
            ),
            (
                json!({"ingress": {"client": {"service": "Auth_srv"}}}),
                "spec.ingress.client.service is \"Auth_srv\", but must be of the form",
            ),
            (json!({"ingress": {"routes": [{"path": "/a"}]}}), "spec.ingress.routes[0].service is not set"),
            (
                json!({"ingress": {"routes": [{"path": "/a", "service": "s", "port": 3.5}]}}),
                "spec.ingress.routes[0].port is 3.5, but must be a whole number or text",
            ),
            (json!({"replicas": "many"}), "spec.replicas is \"many\", but must be a whole number"),
            (json!({"replicas": -1}), "spec.replicas is -1, but must be from 0 to 1000"),
            (
                json!({"suspend": "true"}),
                "spec.suspend is \"true\", but must be true or false: write it without quotes",
            ),
            (
                json!({"imagePullPolicy": "always"}),
                "spec.imagePullPolicy is \"always\", but must be one of Always",
            ),
            (json!({"replica": 3}), "there is no field spec.replica: write one of auth, "),
        ] {
            let found = refused(patch.clone());
            assert!(found.iter().any(|text| text.starts_with(expected)), "{patch}: {found:?}");
        }
    }

    #[test]
    fn the_rules_are_applied_once_all_types_are_right() {
        let both = json!({"replicas": 2, "autoscaling": {"maxReplicas": 3}});
        let found = refused(both.clone());
        assert!(found.len() == 1 && found[0].contains("cannot be set together"), "{found:?}");
        let mut wrong = both;
        wrong["port"] = json!("x");
        let found = refused(wrong);
        assert!(found.len() == 1 && found[0].starts_with("spec.port is \"x\""), "{found:?}");
        let same =
            json!({"ingress": {"routes": [{"path": "/a", "service": "s"}, {"path": "/a", "service": "t"}]}});
        let found = refused(same);
        assert!(found.len() == 1 && found[0].starts_with("spec.ingress: two routes"), "{found:?}");
    }
}
