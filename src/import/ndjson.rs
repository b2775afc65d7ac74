//! Tickets as lines of JSON, in our own format or in that of `mongoexport`.
//!
//! ```json
//! {"id":"65f0c1d2a3b4c5d6e7f80912","title":"concert","price":20,"version":0}
//! {"_id":{"$oid":"65f0c1d2a3b4c5d6e7f80912"},"title":"concert","price":{"$numberInt":"20"},"version":{"$numberInt":"0"}}
//! ```
//! Other fields are ignored. The reason why a line is bad says what to write instead.

use serde_json::{Map, Value};

use crate::order::{Ticket, TicketId, Version};

/// The ticket on one line, or what is wrong with it.
pub(super) fn ticket(line: &str) -> Result<Ticket, String> {
    let fields = match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Array(_)) => {
            return Err(
                "it is a JSON array; write one object per line (mongoexport without --jsonArray)".into()
            );
        }
        Ok(_) => return Err(format!("it is not a JSON object; write one such as {EXAMPLE}")),
        Err(error) => {
            // Its position is relative to this line, so its line number would mislead.
            let (what, column) = (error.to_string(), error.column());
            let what = what.split(" at line ").next().unwrap_or_default();
            return Err(format!(
                "it is not JSON ({what}, column {column}); write one object such as {EXAMPLE}"
            ));
        }
    };
    Ok(Ticket {
        id: id(&fields)?,
        title: title(&fields)?,
        price: price(&fields)?,
        version: version(&fields)?,
    })
}

const EXAMPLE: &str = r#"{"id":"65f0c1d2a3b4c5d6e7f80912","title":"concert","price":20,"version":0}"#;

fn id(fields: &Map<String, Value>) -> Result<TicketId, String> {
    let hint = "write the tickets service's own id, 24 hexadecimal digits";
    let value = fields.get("id").or_else(|| fields.get("_id"));
    let text = match value {
        None => return Err(format!("it has no \"id\"; {hint}")),
        Some(Value::Object(extended)) => extended.get("$oid").and_then(Value::as_str),
        Some(other) => other.as_str(),
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("its id is {}; {hint}", quoted(value)))
}

fn title(fields: &Map<String, Value>) -> Result<String, String> {
    let value = fields.get("title");
    let title = value.and_then(Value::as_str).filter(|title| !title.is_empty());
    let title = title.ok_or_else(|| format!("its title is {}; write a string", quoted(value)))?;
    if title.len() > Ticket::MAX_TITLE {
        return Err(format!("its title has {} bytes; write no more than {}", title.len(), Ticket::MAX_TITLE));
    }
    Ok(title.to_owned())
}

fn price(fields: &Map<String, Value>) -> Result<f64, String> {
    let value = fields.get("price");
    number(value)
        .filter(|price| price.is_finite() && *price >= 0.0)
        .ok_or_else(|| format!("its price is {}; write a number of at least 0", quoted(value)))
}

fn version(fields: &Map<String, Value>) -> Result<Version, String> {
    let value = fields.get("version");
    if value.is_none() {
        return Ok(Version(0));
    }
    number(value)
        .and_then(Version::from_number)
        .ok_or_else(|| format!("its version is {}; write a non-negative integer", quoted(value)))
}

/// A number, plain or in extended JSON, such as `{"$numberInt":"20"}`.
fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::Object(extended) if extended.len() == 1 => {
            let (kind, text) = extended.iter().next()?;
            ["$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"]
                .contains(&kind.as_str())
                .then(|| text.as_str()?.parse().ok())?
        }
        _ => None,
    }
}

/// A value as an error message quotes it, shortened, since it can be of any size.
fn quoted(value: Option<&Value>) -> String {
    const MAX: usize = 60;
    let Some(value) = value else { return "missing".into() };
    let text = value.to_string();
    if text.chars().count() <= MAX {
        return text;
    }
    text.chars().take(MAX).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "65f0c1d2a3b4c5d6e7f80912";

    fn concert(price: f64, version: u32) -> Ticket {
        Ticket { id: ID.parse().unwrap(), title: "concert".into(), price, version: Version(version) }
    }

    #[test]
    fn our_format_and_that_of_mongoexport_are_read() {
        assert_eq!(ticket(EXAMPLE), Ok(concert(20.0, 0)));
        for (line, wanted) in [
            (format!(r#"{{"_id":"{ID}","title":"concert","price":20.5,"version":3}}"#), concert(20.5, 3)),
            (
                format!(
                    r#"{{"_id":{{"$oid":"{ID}"}},"title":"concert","price":{{"$numberInt":"20"}},"version":{{"$numberLong":"1"}},"userId":"x","__v":0}}"#
                ),
                concert(20.0, 1),
            ),
            (
                format!(
                    r#"{{"_id":{{"$oid":"{ID}"}},"title":"concert","price":{{"$numberDouble":"20.5"}},"version":1.0}}"#
                ),
                concert(20.5, 1),
            ),
            (format!(r#"{{"id":"{ID}","title":"concert","price":20}}"#), concert(20.0, 0)),
        ] {
            assert_eq!(ticket(&line), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn a_bad_line_says_what_to_write() {
        let line = |id: &str, title: &str, price: &str, version: &str| {
            format!(r#"{{"id":{id},"title":{title},"price":{price},"version":{version}}}"#)
        };
        let id = format!("\"{ID}\"");
        for (line, wanted) in [
            ("{".to_owned(), "not JSON"),
            ("[{}]".to_owned(), "--jsonArray"),
            ("7".to_owned(), "not a JSON object"),
            ("{}".to_owned(), "24 hexadecimal digits"),
            (line("7", r#""t""#, "1", "0"), "its id is 7"),
            (line(r#""abcdefghijkl""#, r#""t""#, "1", "0"), "24 hexadecimal digits"),
            (line(&id, "7", "1", "0"), "its title is 7"),
            (line(&id, "\"\"", "1", "0"), "write a string"),
            (line(&id, &format!("\"{}\"", "x".repeat(10_001)), "1", "0"), "no more than 10000"),
            (line(&id, r#""t""#, "\"20\"", "0"), "write a number"),
            (line(&id, r#""t""#, "-1", "0"), "at least 0"),
            (line(&id, r#""t""#, r#"{"$numberDouble":"NaN"}"#, "0"), "NaN"),
            (line(&id, r#""t""#, "1", "0.5"), "non-negative integer"),
            (line(&id, r#""t""#, "1", "-1"), "its version is -1"),
        ] {
            let reason = ticket(&line).unwrap_err();
            assert!(reason.contains(wanted), "{line}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_every_reason_is_short(line in ".{0,200}") {
            if let Err(reason) = ticket(&line) {
                prop_assert!(reason.len() < 600);
            }
            let _ = ticket(&format!(r#"{{"id":{line}}}"#));
        }
    }
}
