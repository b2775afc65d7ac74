//! Why a text is not YAML, told without any value of it: a Secret may be in the same file.

use serde_saphyr::Error;

/// Where in a text an error is, as ` at line 3, column 5`; nothing where that is not known.
pub fn place(error: &Error) -> String {
    error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column())).unwrap_or_default()
}

/// What is wrong with a text, where, and what to do.
pub fn cause(error: &Error) -> String {
    let place = place(error);
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. }
            if matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "spec") =>
        {
            format!("{key} is written twice in one document{place}: is a line --- missing before it?")
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().filter(|key| is_name(key)).unwrap_or("a field");
            format!("{key} is written twice{place}: remove one of the two")
        }
        Error::UnknownAnchor { .. } => {
            format!(
                "a word that begins with *{place} stands for another (&name), which there is not: write it in quotes"
            )
        }
        // These quote a value.
        Error::NonFiniteFloat { .. }
        | Error::QuotingRequired { .. }
        | Error::SerdeInvalidType { .. }
        | Error::SerdeInvalidValue { .. }
        | Error::SerdeUnknownVariant { .. }
        | Error::TaggedEnumMismatch { .. }
        | Error::AliasError { .. } => format!("a value cannot be read{place}"),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Whether a key is the name of a field, and not a value that has slipped.
fn is_name(key: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    (1..=63).contains(&key.len()) && key.bytes().all(is_allowed)
}
