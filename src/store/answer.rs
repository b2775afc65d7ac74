//! What a server answers, bounded. A server is whatever a connection string names, so it may answer anything: more
//! documents than were asked for, or a text that is no use to whoever reads the log.

use futures::{Stream, StreamExt, TryStreamExt};
use mongodb::error::Result as DriverResult;

/// The most characters of a server's text that are kept.
const MAX_TEXT: usize = 1000;

/// The documents of a query with this limit. A server that has more gets no further request.
pub(super) async fn at_most<T>(
    limit: u32,
    found: impl Stream<Item = DriverResult<T>>,
) -> DriverResult<Vec<T>> {
    found.take(usize::try_from(limit).unwrap_or(usize::MAX)).try_collect().await
}

/// A text on one line, without control characters, which a terminal would obey, and cut if it is long.
pub(super) fn on_one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let (mut line, mut left) = (String::new(), MAX_TEXT);
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(left));
        let length = word.chars().take(left + 1).count();
        if length > left {
            line.push('…');
            break;
        }
        left -= length;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_put_on_one_line_and_its_beginning_is_kept() {
        for (text, line) in [
            ("", ""),
            ("not primary", "not primary"),
            (" two\r\n\tlines ", "two lines"),
            ("\u{1b}[2Jred\u{7}\u{85}\u{9b}31m", "[2Jred 31m"),
        ] {
            assert_eq!(on_one_line(text), line);
        }
        let (word, words) = ("ü".repeat(MAX_TEXT), "ü ".repeat(MAX_TEXT));
        assert_eq!(on_one_line(&word), word);
        assert_eq!(on_one_line(&words), words.trim());
        assert_eq!(on_one_line(&format!("{word}!")), format!("{word}…"));
        assert_eq!(on_one_line(&format!("{word} more")), format!("{word} …"));
        assert!(on_one_line(&"x y\n".repeat(1_000_000)).chars().count() <= 2 * MAX_TEXT + 1);
    }
}
