//! What serde says of an object that does not match the schema, without the values: one at the wrong place may be a password.

/// What must be there, by an error of serde, which quotes what is there in its place.
pub fn without_value(error: &str) -> String {
    // What is expected comes last, so it is no part of a value.
    let is_quoting = ["invalid ", "unknown "].iter().any(|beginning| error.starts_with(beginning));
    if is_quoting && let Some((_, expected)) = error.rsplit_once(", expected ") {
        let expected = expected.split(" at line ").next().unwrap_or_default();
        return format!("must be {}", named(expected));
    }
    let missing = error.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    missing.map_or_else(|| "has an unexpected value".to_owned(), |field| format!("must have {field}"))
}

/// A type in the words of the other messages.
fn named(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "i32" | "i64" | "u32" | "u64" => "an integer",
        _ if expected.starts_with("struct ") => "an object",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::OrdersService;

    #[test]
    fn what_is_expected_is_told_and_what_is_there_is_not() {
        let secret = "hunter2, expected hunter3 at line 7";
        let spec = |patch: Value| {
            let mut object = json!({"metadata": {"name": "orders"}, "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}}
            }});
            json_patch::merge(&mut object["spec"], &patch);
            object
        };
        for (patch, expected) in [
            (json!({"auth": secret}), "must be an object"),
            (json!({"database": {"uriSecretRef": secret}}), "must be an object"),
            (json!({"events": {"nats": {"servers": secret}}}), "must be a list"),
            (json!({"replicas": secret}), "must be an integer"),
            (json!({"suspend": secret}), "must be a boolean"),
            (json!({"imagePullPolicy": secret}), "must be one of `Always`, `IfNotPresent`, `Never`"),
            (json!({"podTemplate": {"extraEnv": [{"name": "A", "value": 4711}]}}), "must be a string"),
            (json!({"auth": {"jwtSecretRef": null}}), "must have jwtSecretRef"),
        ] {
            let object = spec(patch).to_string();
            for error in [
                serde_json::from_str::<OrdersService>(&object).unwrap_err(),
                serde_json::from_value::<OrdersService>(serde_json::from_str(&object).unwrap()).unwrap_err(),
            ] {
                assert_eq!(without_value(&error.to_string()), expected, "{error}");
            }
        }
        assert_eq!(without_value("hunter2 is no time, expected hunter3"), "has an unexpected value");
    }
}
