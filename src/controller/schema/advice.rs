//! What to write in place of what the schema refuses.

use serde_json::Value;

use super::Place;
use crate::controller::written::Written;

/// What is known of fields that people write, because Kubernetes or another version of the course has them so.
const OTHER_NAMES: [(&str, &str); 10] = [
    ("spec.ingress.ingressClassName", "className"),
    ("spec.ingress.host", "hosts"),
    ("spec.ingress.rules", "routes"),
    ("spec.ingress.paths", "routes"),
    ("spec.ingress.defaultBackend", "client"),
    ("routes[].serviceName", "service"),
    ("routes[].servicePort", "port"),
    ("routes[].backend", "service"),
    ("routes[].pathType", "exact"),
    ("routes[].host", "hosts"),
];

/// The patterns of the schema in words.
const FORMS: [(&str, &str); 12] = [
    ("^[-._a-zA-Z0-9]+$", "letters, digits, -, _ and ., such as MONGO_URI"),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "lower-case letters, digits, - and ., such as orders-mongo",
    ),
    (
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "lower-case letters, digits and -, with a letter or digit at both ends",
    ),
    ("^[a-z0-9]+(-[a-z0-9]+)*$", "a number, or the name of a port in lower case, such as http"),
    (
        "^[a-z]([-a-z0-9]*[a-z0-9])?$",
        "lower-case letters, digits and -, beginning with a letter, such as orders-srv",
    ),
    ("^[A-Za-z_][A-Za-z0-9_.-]*$", "letters, digits, _, - and ., such as LOG_LEVEL"),
    ("^[-_A-Za-z0-9]+$", "letters, digits, - and _"),
    ("^(100|[1-9]?[0-9])%$", "a number, or percent such as 25%"),
    (
        r"^[^$.*>,=\s][^.*>,=\s]*(\.[^.*>,=\s]+)*$",
        "a subject such as ticket:deleted, without spaces, *, >, commas and =",
    ),
    (r#"^[^/\\. "$*<>:|?]+$"#, r#"the name of a database, without / \ . " $ * < > : | ? and spaces"#),
    (
        r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$",
        "an amount such as 500m or 128Mi",
    ),
    (
        r"^\+?([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$",
        "an amount above 0 such as 64Mi",
    ),
];

/// A pattern in words.
pub(super) fn form(pattern: &str) -> &str {
    FORMS.iter().find(|(known, _)| *known == pattern).map_or("another value", |(_, form)| form)
}

/// What to say of a field without a value.
pub(super) fn of_nothing(schema: &Value, field: &str) -> String {
    let what = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => "an integer or a string",
        Some("string") => "a string",
        Some("boolean") => "true or false",
        Some("integer") => "an integer",
        Some("number") => "a number",
        Some("array") => "a list",
        _ => "its fields",
    };
    match of_empty_list(field) {
        _ if schema["type"] != "array" => format!("is empty: remove it, or write {what}"),
        every_host => format!("is empty: {every_host}, or write {what}"),
    }
}

/// What to do with a list that has no entries.
pub(super) fn of_empty_list(field: &str) -> &'static str {
    match field {
        "spec.ingress.hosts" | "spec.gateway.hostnames" => "for every host, omit it",
        "spec.gateway.parentRefs" => "name at least one Gateway",
        _ => "remove it",
    }
}

/// Where the rest of a list goes that is too long.
pub(super) fn of_rest(field: &str) -> &'static str {
    match field {
        "spec.ingress.hosts" => {
            ": write an Ingress of your own for the others (another OrdersService would be another orders API)"
        }
        "spec.ingress.routes" => {
            ": write an Ingress of your own for the others, with the same hosts, or give their Services a path in common"
        }
        "spec.gateway.hostnames" | "spec.gateway.routes" => {
            ": write an HTTPRoute of your own for the others (another OrdersService would be another orders API)"
        }
        _ => "",
    }
}

/// What to say of a field that there is not.
pub(super) fn of_unknown(field: &str, name: &str, known: &[&str]) -> String {
    if field == "spec.ingress.tls.hosts" {
        return format!(
            "unknown field {field}: remove it, since the certificate is for all hosts of spec.ingress.hosts"
        );
    }
    let is_listed = |other: &str| match other.strip_prefix("routes[].") {
        Some(other) => name == other && field.contains(".routes["),
        None => field == other,
    };
    let renamed = OTHER_NAMES.iter().find(|(other, _)| is_listed(other)).map(|(_, name)| *name);
    let near = || {
        let distance = |known: &str| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase());
        // A letter more or less, or two that are exchanged, in a word of some length.
        let is_near = |known: &&&str| distance(known) <= known.len().min(name.len()).div_ceil(4).min(2);
        known.iter().filter(is_near).min_by_key(|known| distance(known)).copied()
    };
    let meant = renamed.filter(|renamed| known.contains(renamed)).or_else(near);
    let meant = meant.map(|meant| format!("did you mean {meant}? The fields are ")).unwrap_or_default();
    let names = known.join(", ");
    match meant.as_str() {
        "" => format!("unknown field {field}: the fields are {names}"),
        _ => format!("unknown field {field}: {meant}{names}"),
    }
}

/// What to say of a value of another type. A password is told by its type alone.
pub(super) fn of_type(schema: &Value, expected: &str, value: &Value, place: &Place<'_>) -> String {
    let is_secret = place.may_be_secret();
    let of_ingress = |rest: &str| {
        place.field.starts_with("spec.ingress.annotations[") && place.field.ends_with(&format!("/{rest}\"]"))
    };
    match (schema["type"].as_str(), value) {
        // In quotes it would be refused as well.
        (Some("string"), Value::Bool(true)) if of_ingress("strip-path") => {
            "is true, with which ingress controllers rewrite the path for every Service, including the orders API: \
             remove it"
                .into()
        }
        (Some("string"), Value::Bool(true)) if of_ingress("use-regex") => {
            "is true, with which ingress controllers read paths as regexes: remove it; routes are plain prefixes, \
             with the client last"
                .into()
        }
        (Some("string"), Value::Bool(_)) => in_quotes(value, "", place.written.and_then(Written::text)),
        (Some("string"), Value::Number(_)) if is_secret => {
            "is a number, but must be a string: quote it".into()
        }
        (Some("string"), Value::Number(_)) => {
            in_quotes(value, "a number", place.written.and_then(Written::text))
        }
        _ => {
            let shown = match value {
                Value::Array(_) => "a list".into(),
                Value::Object(_) => "an object".into(),
                Value::String(_) if is_secret => "a string".into(),
                Value::Number(_) if is_secret => "a number".into(),
                Value::Bool(_) | Value::Number(_) => {
                    place.written.and_then(Written::text).map_or_else(|| value.to_string(), str::to_owned)
                }
                other => other.to_string(),
            };
            format!("is {shown}, but must be {expected}{}", hint(schema, value, place))
        }
    }
}

/// What is to be put in quotes: as it is written, since it may be read as something else.
fn in_quotes(value: &Value, read_as: &str, written: Option<&str>) -> String {
    let read = value.to_string();
    let read_as = if read_as.is_empty() { &read } else { read_as };
    match written {
        Some(written) if written == read => {
            format!("is {read}, but must be a string: quote it, \"{read}\"")
        }
        Some(written) => {
            format!(
                "is {written}, which YAML reads as {read_as}, but must be a string: quote it, \"{written}\""
            )
        }
        None => format!("is read as {read_as}, but must be a string: quote it"),
    }
}

/// What to write in place of a value of another type.
fn hint(schema: &Value, value: &Value, place: &Place<'_>) -> String {
    match (schema["type"].as_str(), value) {
        (Some("boolean"), Value::String(text)) if matches!(text.as_str(), "true" | "false") => {
            ": write it without quotes".into()
        }
        (Some("boolean"), _) => ": write true or false".into(),
        (Some("integer"), Value::String(text)) => of_number(text, place),
        (Some("integer"), Value::Number(number)) => match number.as_f64() {
            Some(number) if number.fract() == 0.0 => format!(": write {number}"),
            _ => String::new(),
        },
        (Some("object"), _) => of_map(schema, &place.field),
        (Some("array"), _) if place.field == "spec.events.nats.servers" => {
            ": write [\"nats://HOST:4222\"]; put a URL with a password in a Secret, see urlSecretRef".into()
        }
        (Some("array"), Value::String(_)) if place.may_be_secret() => {
            ": write [ before it and ] after it".into()
        }
        (Some("array"), Value::String(text)) => format!(": write [{text}]"),
        _ => String::new(),
    }
}

/// What to write for a text that is to be an integer: without quotes, and in the unit of the field.
fn of_number(text: &str, place: &Place<'_>) -> String {
    if text.parse::<i32>().is_ok() {
        return ": write it without quotes".into();
    }
    if !place.field.ends_with("Seconds") {
        return String::new();
    }
    let seconds = || -> Option<u64> {
        let unit = match text.chars().next_back()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        text.get(..text.len() - 1)?.parse::<u64>().ok()?.checked_mul(unit)
    };
    match seconds() {
        Some(seconds) => format!(" (seconds): write {seconds}"),
        None => " (seconds), such as 900 for 15 minutes".into(),
    }
}

/// What to write for an object.
fn of_map(schema: &Value, field: &str) -> String {
    match field {
        "spec.events.nats" => {
            return ": write {servers: [\"nats://HOST:4222\"]}, or {urlSecretRef: {name: NAME-OF-THE-SECRET}} for a URL with a \
                    password"
                .into();
        }
        _ if field.starts_with("spec.podTemplate.extraEnv[") => {
            return ": write {name: NAME, value: VALUE}".into();
        }
        _ => {}
    }
    if let Some(sample) = sample(schema, field) {
        return format!(": write {sample}");
    }
    let names: Vec<_> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(" with fields such as {}", names.join(", ")) }
}

/// A map with the fields that it must have, as it is written; none if it need not have any.
fn sample(schema: &Value, of: &str) -> Option<String> {
    let required = schema["required"].as_array().filter(|required| !required.is_empty())?;
    let of_field = |name: &str| {
        let below = &schema["properties"][name];
        let is_of_secret = name == "secretName" || name == "name" && of.ends_with("SecretRef");
        let value = match below["type"].as_str() {
            _ if is_of_secret => "NAME-OF-THE-SECRET".to_owned(),
            Some("array") => "[…]".to_owned(),
            Some("object") => sample(below, name).unwrap_or_else(|| "{…}".to_owned()),
            _ => name.to_uppercase(),
        };
        format!("{name}: {value}")
    };
    let fields: Vec<_> = required.iter().filter_map(Value::as_str).map(of_field).collect();
    Some(format!("{{{}}}", fields.join(", ")))
}
