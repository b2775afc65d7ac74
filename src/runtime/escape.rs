//! Escapes what a terminal obeys, or what makes one line look like several.
//!
//! Much of what is logged and printed was written by others: tenants, databases, clients. A line break in it could forge a
//! line of the log, and an escape sequence could hide one, or make the terminal of whoever reads it do worse.

use std::borrow::Cow;

/// How a character is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As in Rust, for people: `\n`, `\u{1b}`.
    Text,
    /// The same, but the colours that the log itself uses stay.
    ColouredText,
    /// As in JSON, in whose strings alone such characters are: `\n`, `\u001b`.
    Json,
}

impl Escape {
    /// The line with every character escaped that does more than to be shown.
    pub fn line(self, line: &str) -> Cow<'_, str> {
        // Nearly every line.
        if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !line.chars().any(is_active) {
            return Cow::Borrowed(line);
        }
        let mut escaped = String::with_capacity(line.len() + 16);
        let mut rest = line;
        while let Some(found) = rest.find(is_active) {
            let (shown, active) = rest.split_at(found);
            escaped.push_str(shown);
            let colour = if self == Self::ColouredText { colour(active) } else { "" };
            escaped.push_str(colour);
            rest = active.get(colour.len()..).unwrap_or_default();
            if colour.is_empty() {
                let mut characters = rest.chars();
                characters.next().into_iter().for_each(|character| self.push(&mut escaped, character));
                rest = characters.as_str();
            }
        }
        escaped.push_str(rest);
        Cow::Owned(escaped)
    }

    fn push(self, text: &mut String, character: char) {
        match (self, character) {
            (_, '\n') => text.push_str("\\n"),
            (_, '\r') => text.push_str("\\r"),
            (_, '\t') => text.push_str("\\t"),
            // None of them needs two units of UTF-16.
            (Self::Json, _) => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.extend(character.escape_unicode()),
        }
    }
}

/// Whether a character does more than to be shown: control characters, line separators, and those that change the direction
/// of what follows.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The colour at the beginning of `text`, if it has one: bold, dimmed, italic, one of the colours of levels, or their end.
fn colour(text: &str) -> &str {
    let rest = text.strip_prefix("\u{1b}[").unwrap_or_default();
    let Some((code, _)) = rest.split_once('m') else { return "" };
    match code {
        "0" | "1" | "2" | "3" | "31" | "32" | "33" | "34" | "35" | "36" => {
            text.get(.."\u{1b}[m".len() + code.len()).unwrap_or_default()
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_everything_else_stays() {
        for (line, text, json) in [
            ("", "", ""),
            ("plain \"é\" \\n ß 🎫", "plain \"é\" \\n ß 🎫", "plain \"é\" \\n ß 🎫"),
            ("a\nb\r\tc", "a\\nb\\r\\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}", "\\u001b[2J\\u0007"),
            ("\u{7f}\u{9b}31m\u{85}", "\\u{7f}\\u{9b}31m\\u{85}", "\\u007f\\u009b31m\\u0085"),
            ("\u{202e}x\u{2028}", "\\u{202e}x\\u{2028}", "\\u202ex\\u2028"),
        ] {
            assert_eq!(Escape::Text.line(line), text);
            assert_eq!(Escape::Json.line(line), json);
        }
    }

    #[test]
    fn on_a_terminal_the_colours_of_the_log_stay_and_no_other_sequence() {
        let line = "\u{1b}[2mnow\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m told";
        assert_eq!(Escape::ColouredText.line(line), line);
        assert_ne!(Escape::Text.line(line), line);
        for sequence in ["\u{1b}[8mhidden", "\u{1b}[30m", "\u{1b}[2J", "\u{1b}]0;m", "\u{1b}[", "\u{1b}"] {
            let escaped = Escape::ColouredText.line(sequence);
            assert!(!escaped.contains('\u{1b}'), "{escaped}");
        }
    }
}
