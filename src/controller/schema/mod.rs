//! What the API server would refuse by the schema of the CustomResourceDefinition, its CEL rules included.
//!
//! The schema is that of `crds/`: there is no other list of what a field may be. No message has a value of a field in which
//! a password may be.
//!
//! ```text
//! advice  what to write in place of a value
//! ```

mod advice;

use std::{fmt, sync::LazyLock};

use kube::{
    CustomResourceExt,
    core::cel::{ErrorKind, Validator},
};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::written::Written;
use crate::crd::OrdersService;

/// The schema of an OrdersService, as the CRD has it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definition = serde_json::to_value(OrdersService::crd()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
});

/// The schema of the metadata that people write, which is Kubernetes' own. It has further fields.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let texts = json!({"type": "object", "nullable": true, "additionalProperties": {"type": "string"}});
    let text = json!({"type": "string", "nullable": true});
    json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "name": text, "namespace": text, "generateName": text, "labels": texts, "annotations": texts
        }
    })
});

/// A field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its path, such as `spec.ingress.routes[0].port`; empty for one that there is not.
    pub field: String,
    /// What is wrong, and what to write.
    pub text: String,
    /// Whether a CEL rule says so, and not the type of the field or its bounds.
    pub is_by_rule: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, text, .. } = self;
        match field.as_str() {
            "" => formatter.write_str(text),
            // As the rest of the sentence, or as one of its own.
            _ if text.starts_with("is ") || text.starts_with("has ") => write!(formatter, "{field} {text}"),
            _ => write!(formatter, "{field}: {text}"),
        }
    }
}

/// Everything in an object that the API server would refuse. The rules are looked at only where all types are right, as
/// the API server does it. How the object is written need not be known.
pub fn refusals(object: &Value, written: Option<&Written>) -> Vec<Refusal> {
    let mut found = mismatches(object, written);
    if found.is_empty()
        && let Err(errors) = Validator::new().validate(&SCHEMA, &without_nulls(object), None)
    {
        let failed = errors.into_vec().into_iter().filter(|error| error.kind == ErrorKind::ValidationFailure);
        found.extend(failed.map(|error| Refusal {
            field: error.field_path,
            text: error.message,
            is_by_rule: true,
        }));
    }
    found
}

/// Every field of another type than the schema has, outside of its bounds, missing or unknown.
pub fn mismatches(object: &Value, written: Option<&Written>) -> Vec<Refusal> {
    let mut found = Vec::new();
    let metadata = Place { field: "metadata".into(), written: written.and_then(|all| all.field("metadata")) };
    check(&METADATA, &object["metadata"], &metadata, &mut found);
    check(&SCHEMA, object, &Place { field: String::new(), written }, &mut found);
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

/// A field, and how its value is written.
struct Place<'a> {
    field: String,
    written: Option<&'a Written>,
}

impl Place<'_> {
    fn refuse(&self, text: String, found: &mut Vec<Refusal>) {
        found.push(Refusal { field: self.field.clone(), text, is_by_rule: false });
    }

    /// Whether a password may be here: where one belongs in a Secret, and people write the password itself.
    fn may_be_secret(&self) -> bool {
        const FIELDS: [&str; 7] = [
            "spec.auth",
            "spec.database",
            "spec.events",
            "spec.podTemplate.extraEnv",
            "spec.podTemplate.initContainers",
            "spec.podTemplate.annotations",
            "spec.ingress.annotations",
        ];
        let is_in = |of: &str| {
            self.field.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        FIELDS.into_iter().any(is_in) || is_in("metadata.annotations")
    }
}

/// Checks a value that is there, and what is in it.
fn check(schema: &Value, value: &Value, place: &Place<'_>, found: &mut Vec<Refusal>) {
    if value.is_null() {
        // The API server takes the default, but nobody writes a field with nothing behind it to have that.
        let is_meant = schema["nullable"] == true
            || schema["type"] != "array"
                && schema.get("default").is_none()
                && schema.get("additionalProperties").is_none();
        if !is_meant {
            place.refuse(advice::of_nothing(schema, &place.field), found);
        }
        return;
    }
    if let Some(expected) = mismatch(schema, value) {
        return place.refuse(advice::of_type(schema, expected, value, place), found);
    }
    let mut refuse = |text: String| place.refuse(text, found);
    match value {
        Value::Number(number) => bounds(schema, number.as_f64().unwrap_or_default(), &mut refuse),
        Value::String(text) => text_bounds(schema, text, place, &mut refuse),
        Value::Array(items) => {
            count(schema, "Items", items.len(), "entries", &place.field, &mut refuse);
            for (at, item) in items.iter().enumerate() {
                let written = place.written.and_then(|list| list.item(at));
                check_part(&schema["items"], item, format!("{}[{at}]", place.field), written, found);
            }
        }
        Value::Object(fields) => {
            count(schema, "Properties", fields.len(), "entries", &place.field, &mut refuse);
            check_fields(schema, fields, place, found);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Checks an item of a list or a value of a map, which must not be null.
fn check_part(
    schema: &Value,
    value: &Value,
    field: String,
    written: Option<&Written>,
    found: &mut Vec<Refusal>,
) {
    let place = Place { field, written };
    if value.is_null() {
        return place.refuse(advice::of_nothing(schema, &place.field), found);
    }
    check(schema, value, &place, found);
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, place: &Place<'_>, found: &mut Vec<Refusal>) {
    let field = &place.field;
    let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for name in &required {
        if fields.get(*name).is_none_or(Value::is_null) {
            let text = "is required".into();
            found.push(Refusal { field: below(name), text, is_by_rule: false });
        }
    }
    let known = schema["properties"].as_object();
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    for (name, value) in fields {
        let written = place.written.and_then(|map| map.field(name));
        let is_of_kubernetes =
            field.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
            _ if is_of_kubernetes || value.is_null() && required.contains(&name.as_str()) => {}
            (Some(of_field), _) => check(of_field, value, &Place { field: below(name), written }, found),
            (None, Some(of_each)) => check_part(of_each, value, format!("{field}[{name:?}]"), written, found),
            // The API server would drop or refuse it: it is a mistake in any case.
            (None, None) if known.is_some() && !is_open => {
                let names: Vec<_> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let text = advice::of_unknown(&below(name), name, &names);
                found.push(Refusal { field: String::new(), text, is_by_rule: false });
            }
            (None, None) => {}
        }
    }
}

/// What a value must be, if it is of another type.
fn mismatch(schema: &Value, value: &Value) -> Option<&'static str> {
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_i64() && !value.is_string()).then_some("an integer or a string");
    }
    let (is_right, expected) = match schema["type"].as_str()? {
        "string" => (value.is_string(), "a string"),
        "boolean" => (value.is_boolean(), "a boolean"),
        "integer" => (value.is_i64() || value.is_u64(), "an integer"),
        "number" => (value.is_number(), "a number"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "an object"),
        _ => return None,
    };
    (!is_right).then_some(expected)
}

fn bounds(schema: &Value, number: f64, refuse: &mut impl FnMut(String)) {
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let bound = |bound: Option<f64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
        refuse(format!("is {number}, but must be from {} to {}", bound(least), bound(most)));
    }
}

fn text_bounds(schema: &Value, text: &str, place: &Place<'_>, refuse: &mut impl FnMut(String)) {
    let length = text.chars().count();
    if length == 0 && schema["minLength"].as_u64().is_some_and(|least| least > 0) {
        // Neither a pattern nor a list of values has more to say.
        return refuse("is empty: set it, or remove it".into());
    }
    count(schema, "Length", length, "characters", &place.field, refuse);
    let shown = if place.may_be_secret() { "(hidden)".to_owned() } else { format!("{text:?}") };
    let values: Option<Vec<_>> =
        schema["enum"].as_array().map(|values| values.iter().filter_map(Value::as_str).collect());
    if let Some(values) = values.filter(|values| !values.contains(&text)) {
        refuse(format!("is {shown}, but must be one of {}", values.join(", ")));
    }
    // A pattern that this library cannot read is one for the API server alone.
    let pattern = schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        let form = advice::form(pattern.as_str());
        refuse(format!("is {shown}, which is not valid: use {form}"));
    }
}

/// Compares a size with its bounds, of which `of` is the name's end.
fn count(schema: &Value, of: &str, size: usize, what: &str, field: &str, refuse: &mut impl FnMut(String)) {
    let bound = |name: &str| schema[format!("{name}{of}")].as_f64().map(|bound| bound as usize);
    if let Some(least) = bound("min").filter(|least| size < *least) {
        refuse(match size {
            0 => format!("is empty: {}", advice::of_empty_list(field)),
            _ => format!("has {size} {what}, but must have at least {least}"),
        });
    }
    if let Some(most) = bound("max").filter(|most| size > *most) {
        let rest = advice::of_rest(field);
        refuse(format!("has {size} {what}, but may have at most {most}{rest}"));
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
        refusals(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_is_not_refused_defaults_and_nulls_included() {
        for patch in [
            json!({}),
            json!({"ingress": null, "replicas": null}),
            json!({"replicas": 3, "autoscaling": null, "port": 80}),
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
                "spec.ingress.hosts has 9 entries, but may have at most 8: write an Ingress of your own for the others",
            ),
            (json!({"ingress": {"hosts": []}}), "spec.ingress.hosts is empty: for every host, omit it"),
            (
                json!({"ingress": {"routes": routes}}),
                "spec.ingress.routes has 70 entries, but may have at most 64: write an Ingress of your own",
            ),
            (
                json!({"ingress": {"tls": [{"secretName": "x"}]}}),
                "spec.ingress.tls is a list, but must be an object: write {secretName: NAME-OF-THE-SECRET}",
            ),
            (
                json!({"ingress": {"annotations": {"a/b": true}}}),
                "spec.ingress.annotations[\"a/b\"] is read as true, but must be a string: quote it",
            ),
            (
                json!({"ingress": {"hosts": "a.dev"}}),
                "spec.ingress.hosts is \"a.dev\", but must be a list: write [a.dev]",
            ),
            (
                json!({"ingress": {"client": {"service": "Auth_srv"}}}),
                "spec.ingress.client.service is \"Auth_srv\", which is not valid: use lower-case letters, digits \
                 and -, beginning",
            ),
            (json!({"ingress": {"routes": [{"path": "/a"}]}}), "spec.ingress.routes[0].service is required"),
            (
                json!({"ingress": {"routes": [{"path": "/a", "service": "s", "port": 3.5}]}}),
                "spec.ingress.routes[0].port is 3.5, but must be an integer or a string",
            ),
            (json!({"replicas": "many"}), "spec.replicas is \"many\", but must be an integer"),
            (json!({"replicas": -1}), "spec.replicas is -1, but must be from 0 to 1000"),
            (
                json!({"suspend": "true"}),
                "spec.suspend is \"true\", but must be a boolean: write it without quotes",
            ),
            (
                json!({"imagePullPolicy": "always"}),
                "spec.imagePullPolicy is \"always\", but must be one of Always",
            ),
            (
                json!({"replica": 3}),
                "unknown field spec.replica: did you mean replicas? The fields are auth, ",
            ),
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

    #[test]
    fn no_value_is_told_of_a_field_in_which_a_password_may_be() {
        let secret = "nats://u:hunter2@nats:4222";
        let is_map = |of: &str| format!("is a string, but must be an object: write {of}");
        for (patch, field, said) in [
            (json!({"auth": secret}), "spec.auth", is_map("{jwtSecretRef: {name: NAME-OF-THE-SECRET}}")),
            (json!({"auth": {"jwtSecretRef": secret}}), "spec.auth.jwtSecretRef", is_map("{name: NAME-OF-THE-SECRET}")),
            (
                json!({"auth": {"jwtSecretRef": {"key": secret}}}),
                "spec.auth.jwtSecretRef.key",
                "is (hidden), which is not valid: use letters, digits, -, _ and ., such as MONGO_URI".into(),
            ),
            (json!({"database": secret}), "spec.database", is_map("{uriSecretRef: {name: NAME-OF-THE-SECRET}}")),
            (
                json!({"database": {"uriSecretRef": {"name": secret}}}),
                "spec.database.uriSecretRef.name",
                "is (hidden), which is not valid: use lower-case letters, digits, - and ., such as \
                 orders-mongo".into(),
            ),
            (
                json!({"events": {"nats": secret}}),
                "spec.events.nats",
                is_map("{servers: [\"nats://HOST:4222\"]}, or {urlSecretRef: {name: NAME-OF-THE-SECRET}} for a URL with a password"),
            ),
            (
                json!({"events": {"nats": {"servers": secret}}}),
                "spec.events.nats.servers",
                "is a string, but must be a list: write [\"nats://HOST:4222\"]; put a URL with a password in a \
                 Secret, see urlSecretRef"
                    .into(),
            ),
            (
                json!({"podTemplate": {"extraEnv": [format!("STRIPE_KEY={secret}")]}}),
                "spec.podTemplate.extraEnv[0]",
                is_map("{name: NAME, value: VALUE}"),
            ),
            (
                json!({"podTemplate": {"extraEnv": [{"name": "STRIPE_KEY", "value": 4_711_081_500_i64}]}}),
                "spec.podTemplate.extraEnv[0].value",
                "is a number, but must be a string: quote it".into(),
            ),
            (
                json!({"podTemplate": {"extraEnv": [{"name": format!("STRIPE_KEY={secret}")}]}}),
                "spec.podTemplate.extraEnv[0].name",
                "is (hidden), which is not valid: use letters, digits, _, - and ., such as LOG_LEVEL".into(),
            ),
            (
                json!({"ingress": {"annotations": {"auth-secret": 4_711_081_500_i64}}}),
                "spec.ingress.annotations[\"auth-secret\"]",
                "is a number, but must be a string: quote it".into(),
            ),
            (
                json!({"podTemplate": {"annotations": secret}}),
                "spec.podTemplate.annotations",
                "is a string, but must be an object".into(),
            ),
        ] {
            let found = refused(patch.clone());
            assert_eq!(found, [format!("{field} {said}")], "{patch}");
        }
    }

    #[test]
    fn what_is_to_be_put_in_quotes_is_what_is_written_and_not_what_is_read() {
        let good = "auth: {jwtSecretRef: {name: jwt}}\n  database: {uriSecretRef: {name: mongo}}";
        for (line, expected) in [
            (
                "ingress: {routes: [{path: /a, service: y}]}",
                "spec.ingress.routes[0].service is y, which YAML reads as true, but must be a string: quote it, \
                 \"y\"",
            ),
            (
                "podTemplate: {extraEnv: [{name: A, value: on}]}",
                "spec.podTemplate.extraEnv[0].value is on, which YAML reads as true, but must be a string: quote \
                 it, \"on\"",
            ),
            (
                "podTemplate: {extraEnv: [{name: A, value: 0644}]}",
                "spec.podTemplate.extraEnv[0].value is a number, but must be a string: quote it",
            ),
            (
                "image: 1.20",
                "spec.image is 1.20, which YAML reads as a number, but must be a string: quote it, \"1.20\"",
            ),
            ("mesh: true", "spec.mesh is true, but must be a string: quote it, \"true\""),
        ] {
            let text = format!("metadata: {{name: orders}}\nspec:\n  {good}\n  {line}\n");
            let object: Value = serde_saphyr::from_str(&text).unwrap();
            let written = Written::documents(&text);
            let found: Vec<_> = refusals(&object, written.first()).iter().map(ToString::to_string).collect();
            assert_eq!(found, [expected], "{line}");
        }
    }

    #[test]
    fn what_is_empty_or_in_another_unit_is_told_with_what_to_write() {
        for (patch, expected) in [
            (
                json!({"expiration": {"windowSeconds": "15m"}}),
                "spec.expiration.windowSeconds is \"15m\", but must be an integer (seconds): write 900",
            ),
            (
                json!({"expiration": {"windowSeconds": "900"}}),
                "spec.expiration.windowSeconds is \"900\", but must be an integer: write it without quotes",
            ),
            (
                json!({"expiration": {"windowSeconds": 900.0}}),
                "spec.expiration.windowSeconds is 900.0, but must be an integer: write 900",
            ),
            (
                json!({"drainSeconds": "soon"}),
                "spec.drainSeconds is \"soon\", but must be an integer (seconds), such as 900 for 15 minutes",
            ),
            (
                json!({"resources": {"limits": {"memory": "64MB"}}}),
                "spec.resources.limits[\"memory\"] is \"64MB\", which is not valid: use an amount such as 500m or \
                 128Mi",
            ),
            (
                json!({"ingress": {"tls": {"secretName": "a", "hosts": ["a.dev"]}}}),
                "unknown field spec.ingress.tls.hosts: remove it, since the certificate is for all hosts of \
                 spec.ingress.hosts",
            ),
            (
                json!({"ingress": {"ingressClassName": "nginx"}}),
                "unknown field spec.ingress.ingressClassName: did you mean className? The fields are annotations, \
                 className, client, hosts, path, pathHosts, routes, tls",
            ),
            (json!({"Ingress": {}}), "unknown field spec.Ingress: did you mean ingress? The fields are "),
            (
                json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/use-regex": true}}}),
                "spec.ingress.annotations[\"nginx.ingress.kubernetes.io/use-regex\"] is true, with which ingress \
                 controllers read paths as regexes: remove it",
            ),
            (json!({"image": ""}), "spec.image is empty: set it, or remove it"),
        ] {
            let found = refused(patch.clone());
            assert!(found.len() == 1 && found[0].starts_with(expected), "{patch}: {found:?}");
        }
        let object = |metadata: Value, spec: Value| {
            let mut object = json!({"metadata": metadata, "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}}, "database": {"uriSecretRef": {"name": "orders-mongo"}}
            }});
            for (name, value) in spec.as_object().unwrap() {
                object["spec"][name] = value.clone();
            }
            mismatches(&object, None).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let named = || json!({"name": "orders"});
        for (metadata, spec, expected) in [
            (
                named(),
                json!({"expiration": {"windowSeconds": null}}),
                "spec.expiration.windowSeconds is empty: remove it, or write an integer",
            ),
            (
                named(),
                json!({"ingress": {"hosts": null}}),
                "spec.ingress.hosts is empty: for every host, omit it, or write a list",
            ),
            (
                named(),
                json!({"ingress": {"routes": null}}),
                "spec.ingress.routes is empty: remove it, or write a list",
            ),
            (
                named(),
                json!({"ingress": {"hosts": [null]}}),
                "spec.ingress.hosts[0] is empty: remove it, or write a string",
            ),
            (
                named(),
                json!({"ingress": {"annotations": {"a": null}}}),
                "spec.ingress.annotations[\"a\"] is empty: remove it, or write a string",
            ),
            (
                json!({"name": 123}),
                json!({}),
                "metadata.name is read as a number, but must be a string: quote it",
            ),
            (
                json!({"labels": {"a": true}}),
                json!({}),
                "metadata.labels[\"a\"] is read as true, but must be a string: quote it",
            ),
            (
                json!("orders"),
                json!({}),
                "metadata is \"orders\", but must be an object with fields such as annotations, generateName, \
                 labels, name, namespace",
            ),
        ] {
            assert_eq!(object(metadata, spec.clone()), [expected], "{spec}");
        }
        let of_cluster =
            json!({"name": "orders", "creationTimestamp": null, "annotations": null, "uid": "1"});
        assert_eq!(object(of_cluster, json!({"replicas": null, "autoscaling": null})), [""; 0]);
    }

    #[test]
    fn every_pattern_of_the_schema_is_told_in_words() {
        fn patterns(schema: &Value, found: &mut Vec<String>) {
            match schema {
                Value::Object(fields) => {
                    found.extend(fields.get("pattern").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|below| patterns(below, found));
                }
                Value::Array(items) => items.iter().for_each(|below| patterns(below, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        patterns(&SCHEMA, &mut found);
        let untold: Vec<_> =
            found.iter().filter(|pattern| advice::form(pattern) == "another value").collect();
        assert!(!found.is_empty() && untold.is_empty(), "{untold:?}");
    }
}
