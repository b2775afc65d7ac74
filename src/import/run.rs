//! Reads the file and writes its tickets in batches.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    fs::File,
    io::{AsyncBufRead, BufReader},
};

use super::{
    args::{OnError, TicketsImportArgs},
    error::ImportError,
    line::Line,
    summary::ImportSummary,
};
use crate::{
    order::Ticket,
    runtime::Escape,
    store::{ConnectOptions, Store},
};

/// Tickets per command: enough that round trips do not dominate, few enough to stay far below the server's limits
/// for one command and the store's deadline.
const BATCH: usize = 500;

/// The most bytes of titles per command, and one more title.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How often progress is reported.
const PROGRESS: Duration = Duration::from_secs(2);

/// Imports the file that `args` name. Bad lines and progress are reported on standard error.
///
/// # Errors
/// When the file cannot be read, the database fails, or a line is bad and `--on-error` is `stop`.
pub async fn run(args: TicketsImportArgs) -> Result<ImportSummary, ImportError> {
    let uri =
        args.mongo_uri.as_deref().filter(|uri| !uri.trim().is_empty()).ok_or(ImportError::MissingUri)?;
    let failed = |source| ImportError::Store { source, before: ImportSummary::default() };
    let tls = args.tls.read().map_err(failed)?;
    let options =
        ConnectOptions { tls: tls.as_ref(), database: args.database.as_deref(), ..ConnectOptions::new(uri) };
    for warning in options.startup_warnings().map_err(failed)? {
        eprintln!("warning: {warning}");
    }
    let store = Store::connect(options).await.map_err(failed)?;
    let imported = import(&store, &args).await;
    store.shutdown().await;
    imported
}

async fn import(store: &Store, args: &TicketsImportArgs) -> Result<ImportSummary, ImportError> {
    let failed = |source| ImportError::Store { source, before: ImportSummary::default() };
    let mut import = Import::new(store, args);
    if args.file == Path::new("-") {
        store.check_choice().await.map_err(failed)?;
        import.run(BufReader::new(tokio::io::stdin())).await?;
    } else {
        let file = File::open(&args.file).await.map_err(|source| import.unreadable(source))?;
        store.check_choice().await.map_err(failed)?;
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
    /// How long the titles of the batch are.
    bytes: usize,
    last_progress: Instant,
}

impl<'a> Import<'a> {
    fn new(store: &'a Store, args: &'a TicketsImportArgs) -> Self {
        Self {
            store,
            file: &args.file,
            on_error: args.on_error,
            summary: ImportSummary::default(),
            batch: Vec::with_capacity(BATCH),
            bytes: 0,
            last_progress: Instant::now(),
        }
    }

    async fn run(&mut self, mut reader: impl AsyncBufRead + Unpin) -> Result<(), ImportError> {
        let mut line = Line::default();
        let mut number = 0;
        while line.read(&mut reader).await.map_err(|source| self.unreadable(source))? {
            number += 1;
            match line.ticket(number) {
                None => {}
                Some(Ok(ticket)) => {
                    self.bytes += ticket.title.len();
                    self.batch.push(ticket);
                }
                Some(Err(reason)) => self.bad(number, reason).await?,
            }
            if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
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
        eprintln!("line {number} is bad: {}", Escape::Text.line(&reason));
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
        self.bytes = 0;
        self.summary.imported += done.written;
        self.summary.unchanged += done.unchanged;
        if self.last_progress.elapsed() >= PROGRESS {
            self.last_progress = Instant::now();
            eprintln!("{} so far", self.summary);
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> ImportError {
        ImportError::Read { file: self.file.to_owned(), source }
    }
}
