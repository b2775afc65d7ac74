//! Reads a file line by line in bounded memory.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::ndjson;
use crate::order::Ticket;

/// The longest line that is accepted, so that a file without line breaks needs no more memory than any other.
const MAX_LINE: usize = 64 * 1024;

/// The current line, or as much of it as fits into [`MAX_LINE`].
#[derive(Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    overlong: bool,
}

impl Line {
    /// Reads the next line; false at the end of the file.
    pub(super) async fn read(&mut self, reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<bool> {
        self.bytes.clear();
        self.overlong = false;
        let mut any = false;
        loop {
            let available = reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            if self.bytes.len() + part.len() <= MAX_LINE {
                self.bytes.extend_from_slice(part);
            } else {
                self.overlong = true;
            }
            let used = part.len() + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// The ticket on this line, or what is wrong with it; `None` for a blank line.
    pub(super) fn ticket(&self, number: u64) -> Option<Result<Ticket, String>> {
        if self.overlong {
            return Some(Err(format!("it is longer than {MAX_LINE} bytes; write one ticket per line")));
        }
        let bytes = match number {
            1 => self.bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.bytes),
            _ => &self.bytes,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(ndjson::ticket(text.trim())),
            Err(_) => Some(Err("it is not UTF-8; save the file as UTF-8".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_the_last_one_needs_no_line_break() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!("\u{feff}{{}}\r\n\n{long}\nlast");
        // A tiny buffer, so that lines span several reads.
        let mut reader = BufReader::with_capacity(7, text.as_bytes());
        let (mut line, mut seen) = (Line::default(), Vec::new());
        while line.read(&mut reader).await.unwrap() {
            seen.push(line.ticket(seen.len() as u64 + 1).map(|result| result.unwrap_err()));
        }
        assert_eq!(seen.len(), 4);
        assert!(seen[0].as_ref().unwrap().contains("no \"id\""));
        assert_eq!(seen[1], None);
        assert!(seen[2].as_ref().unwrap().contains("longer than"));
        assert!(seen[3].as_ref().unwrap().contains("not JSON"));
        assert!(line.bytes.capacity() <= 2 * MAX_LINE);
    }
}
