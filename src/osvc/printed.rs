//! The answer as it is printed: text, JSON or YAML.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::error::OsvcError;
use crate::runtime::Escape;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
}

/// What a command prints, and the exit code.
#[derive(Debug)]
pub struct Printed {
    /// For the standard output.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

/// An answer in one of the forms for programs.
///
/// # Errors
/// When it cannot be written so.
pub(super) fn for_programs(answer: &impl Serialize, yaml: bool) -> Result<String, OsvcError> {
    let mut value = serde_json::to_value(answer)?;
    if yaml {
        escape(&mut value);
        let text = serde_saphyr::to_string(&value)?;
        return Ok(if text.ends_with('\n') { text } else { text + "\n" });
    }
    // What a terminal obeys is inside of strings only, where it may be written in this way too.
    let text = serde_json::to_string_pretty(&value)?;
    Ok(text.lines().map(|line| Escape::Json.line(line).into_owned() + "\n").collect())
}

/// Escapes what a terminal obeys. In YAML that changes the text, but for line breaks, which YAML itself writes.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = text.split('\n').map(|line| Escape::Text.line(line)).collect::<Vec<_>>().join("\n");
        }
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(fields) => fields.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_form_lets_a_terminal_obey_what_others_wrote_and_json_keeps_the_text() {
        let answer = json!({"message": "a\u{1b}[2J\u{9b}\u{202e}b\nc"});
        let json = for_programs(&answer, false).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), answer);
        let yaml = for_programs(&answer, true).unwrap();
        let read: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read["message"], "a\\u{1b}[2J\\u{9b}\\u{202e}b\nc");
        for text in [json, yaml] {
            assert!(text.lines().all(|line| !line.chars().any(char::is_control)), "{text:?}");
            assert!(!text.contains('\u{202e}'), "{text:?}");
        }
    }
}
