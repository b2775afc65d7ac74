//! `tickets import`: loads replicas of tickets, for orders that come to a system which has tickets already.
//!
//! It may be run again, at any time, with any file: an older version never overwrites a newer one.
//! It needs the memory of one batch, however long the file is.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use thiserror::Error;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
};

use super::{ConnectOptions, Store, StoreError, ndjson};
use crate::order::Ticket;

/// Tickets per command: large enough to make the way to the server not count, small enough to be
/// far from the limits of a command and from the store's deadline.
const BATCH: usize = 500;

/// A longer line is bad, so that a file without line ends needs no more memory than one with.
const LONGEST_LINE: usize = 64 * 1024;

/// How often the progress is told, and when first.
const PROGRESS: Duration = Duration::from_secs(2);

/// Loads tickets from lines of JSON, such as {"id":"65f0c1d2a3b4c5d6e7f80912","title":"concert","price":20,"version":0}
#[derive(Args, Clone)]
pub struct TicketsImportArgs {
    /// The file to read, or - for the standard input; mongoexport's files will do
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where the orders are: mongodb://HOST/DATABASE (required)
    #[arg(long, env = "MONGO_URI", hide_env_values = true)]
    pub mongo_uri: Option<String>,

    /// The database's name [default: the URI's, else "orders"]
    #[arg(long, env = "MONGO_DATABASE")]
    pub database: Option<String>,

    /// What to do at a line that is no ticket
    #[arg(long, value_enum, default_value_t)]
    pub on_error: OnError,
}

/// What to do at a line that is no ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Stop there; the lines before it are imported.
    #[default]
    Stop,
    /// Say so, and go on.
    Skip,
}

/// What an import did. Its text is the command's last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Tickets that are new here, or newer than what was here.
    pub imported: u64,
    /// Tickets that were here already, in the same or a newer version.
    pub unchanged: u64,
    /// Lines that are no tickets.
    pub bad: u64,
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { imported, unchanged, bad } = self;
        write!(f, "imported {imported}, unchanged {unchanged}, bad {bad}")
    }
}

/// Why an import ended before its file did.
#[derive(Debug, Error)]
pub enum ImportError {
    /// No database was named.
    #[error(
        "MONGO_URI is not set: give the database's connection string in the environment, or by --mongo-uri"
    )]
    MissingUri,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file's name.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no ticket.
    #[error(
        "line {number} is bad: {reason}\nstopped there ({before}); correct the line and run the import again, or skip bad lines by --on-error skip"
    )]
    BadLine {
        /// Its number; the first is 1.
        number: u64,
        /// What is wrong, and what to write.
        reason: String,
        /// What was done before.
        before: ImportSummary,
    },
    /// The database failed.
    #[error("{source} ({before} before); run the import again, it goes on from what is there")]
    Store {
        /// How.
        source: StoreError,
        /// What was done before.
        before: ImportSummary,
    },
}

impl ImportError {
    /// 2 for what the command line or the environment has wrong, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::MissingUri => 2,
            Self::Store { source, .. } if source.is_misconfigured() => 2,
            Self::Read { .. } | Self::BadLine { .. } | Self::Store { .. } => 1,
        }
    }
}

/// Imports the file that `args` name. Bad lines and progress go to the standard error.
///
/// # Errors
/// When the file cannot be read, the database fails, or a line is bad and bad lines stop it.
pub async fn import(args: TicketsImportArgs) -> Result<ImportSummary, ImportError> {
    let uri =
        args.mongo_uri.as_deref().filter(|uri| !uri.trim().is_empty()).ok_or(ImportError::MissingUri)?;
    let options = ConnectOptions { uri, database: args.database.as_deref(), namespace: None };
    let nothing = ImportSummary::default();
    let store =
        Store::connect(options).await.map_err(|source| ImportError::Store { source, before: nothing })?;
    let mut import = Import::new(&store, &args);
    if args.file == Path::new("-") {
        import.run(BufReader::new(tokio::io::stdin())).await?;
    } else {
        let file = File::open(&args.file).await.map_err(|source| import.unreadable(source))?;
        import.run(BufReader::new(file)).await?;
    }
    Ok(import.summary)
}

struct Import<'a> {
    store: &'a Store,
    file: &'a Path,
    on_error: OnError,
    summary: ImportSummary,
    batch: Vec<Ticket>,
    told: Instant,
}

impl<'a> Import<'a> {
    fn new(store: &'a Store, args: &'a TicketsImportArgs) -> Self {
        Self {
            store,
            file: &args.file,
            on_error: args.on_error,
            summary: ImportSummary::default(),
            batch: Vec::with_capacity(BATCH),
            told: Instant::now(),
        }
    }

    async fn run(&mut self, mut reader: impl AsyncBufRead + Unpin) -> Result<(), ImportError> {
        let mut line = Line::default();
        let mut number = 0;
        while line.read(&mut reader).await.map_err(|source| self.unreadable(source))? {
            number += 1;
            match line.ticket(number) {
                None => {}
                Some(Ok(ticket)) => self.batch.push(ticket),
                Some(Err(reason)) => self.bad(number, reason).await?,
            }
            if self.batch.len() >= BATCH {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    async fn bad(&mut self, number: u64, reason: String) -> Result<(), ImportError> {
        if self.on_error == OnError::Stop {
            self.flush().await?;
            return Err(ImportError::BadLine { number, reason, before: self.summary });
        }
        self.summary.bad += 1;
        eprintln!("line {number} is bad: {reason}");
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        let before = self.summary;
        let done = self
            .store
            .upsert_tickets(&self.batch)
            .await
            .map_err(|source| ImportError::Store { source, before })?;
        self.batch.clear();
        self.summary.imported += done.written;
        self.summary.unchanged += done.unchanged;
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            eprintln!("{} so far", self.summary);
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> ImportError {
        ImportError::Read { file: self.file.to_owned(), source }
    }
}

/// One line, of which no more is kept than a ticket needs.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    overlong: bool,
}

impl Line {
    /// Reads the next line; false when there is none.
    async fn read(&mut self, reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<bool> {
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
            if self.bytes.len() + part.len() <= LONGEST_LINE {
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

    /// The ticket in it, or what is wrong with it; `None` when it is blank.
    fn ticket(&self, number: u64) -> Option<Result<Ticket, String>> {
        if self.overlong {
            return Some(Err(format!("it is longer than {LONGEST_LINE} bytes; write one ticket per line")));
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
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_counted_with_or_without_a_last_line_end() {
        let long = "x".repeat(LONGEST_LINE + 1);
        let text = format!("\u{feff}{{}}\r\n\n{long}\nlast");
        // A reader of little pieces, so that lines lie across them.
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
        assert!(line.bytes.capacity() <= 2 * LONGEST_LINE);
    }
}
