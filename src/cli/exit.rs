//! How the program ends: what it prints last, and its exit code.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use crate::runtime::{telemetry, traces::Traces};

/// Prints to the standard output. A broken pipe is not an error: the reader, such as `head`, may have read enough.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints `text`; gives the code for that.
pub fn printed(text: &str) -> ExitCode {
    printed_with(text, 0)
}

/// Prints `text`; gives `code`, unless it could not be printed.
pub fn printed_with(text: &str, code: u8) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::from(code),
        Err(error) => failed(&error, 1),
    }
}

/// Success, or what `code` gives for the error, which is printed.
pub fn ended<E: Error>(result: Result<(), E>, code: impl FnOnce(&E) -> u8) -> ExitCode {
    result.map_or_else(|error| failed(&error, code(&error)), |()| ExitCode::SUCCESS)
}

/// Prints why the program fails, to the standard error; gives `code`.
pub fn failed(error: &dyn Error, code: u8) -> ExitCode {
    telemetry::print(&format!("orders-operator: {error}"));
    ExitCode::from(code)
}

/// Returns the exit code once the last traces are sent and the last log lines written. Tasks of the runtime send the
/// traces, so the wait must not block one of its threads.
pub async fn flush(code: ExitCode, traces: Option<Traces>) -> ExitCode {
    if let Some(traces) = traces
        && tokio::task::spawn_blocking(|| traces.flush()).await.is_err()
    {
        tracing::warn!("the last traces may not have been sent");
    }
    telemetry::flush();
    code
}
