//! A translation as YAML: what is to be said as comments, then the Secrets and the OrdersService.

use serde_json::Value;

use super::{
    finding::{Finding, Kind},
    plan::{Migration, documents},
};
use crate::runtime::Escape;

/// How long the lines of comments are.
const WIDTH: usize = 110;

/// The YAML.
///
/// # Errors
/// When a document cannot be written as YAML.
pub(super) fn yaml(migration: &Migration) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    comment(
        &mut text,
        "",
        "Written by `orders-operator migrate`. Read it, then go on as docs/migration.md says.",
    );
    for kind in Kind::ALL {
        let (listed, more) = migration.findings.of(kind);
        let mut is_first = true;
        for Finding { whom, object, text: said, .. } in listed {
            if std::mem::take(&mut is_first) {
                comment(&mut text, "", "");
                comment(&mut text, "", &format!("{}.", kind.heading()));
            }
            comment(&mut text, "  ", &format!("- {object} (for {}): {said}", whom.as_str()));
        }
        if more > 0 {
            comment(&mut text, "  ", &format!("- and {more} more"));
        }
    }
    for (word, document) in documents(migration) {
        text.push_str("---\n");
        if let Some(word) = word {
            comment(&mut text, "", &word);
        }
        let document = document_text(&document)?;
        match &migration.former_service {
            Some(name) => text.push_str(&with_former_name(&document, name)),
            None => text.push_str(&document),
        }
    }
    Ok(text)
}

/// The document, with the name of the old Service as a comment in its spec: while that Service is there, no other can have it.
fn with_former_name(document: &str, name: &str) -> String {
    // One line, however long: without its first # it is a field.
    let name = Escape::Text.line(name);
    let line = format!("# serviceName: {name}  # to keep this name, when Service {name} is deleted");
    document.replacen("\nspec:\n", &format!("\nspec:\n  {line}\n"), 1)
}

fn document_text(document: &Value) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(document).map(|text| if text.ends_with('\n') { text } else { text + "\n" })
}

/// Adds comment lines. The text has no line breaks of its own: whoever has written it could otherwise go on in YAML.
fn comment(text: &mut String, indent: &str, said: &str) {
    let said = &Escape::Text.line(said);
    let mut line = String::new();
    let mut lines = Vec::new();
    for word in said.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() + indent.len() + 3 > WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    for (at, line) in lines.iter().enumerate() {
        let hanging = if at > 0 && said.starts_with("- ") { "  " } else { "" };
        text.push_str(format!("# {indent}{hanging}{line}").trim_end());
        text.push('\n');
    }
}
