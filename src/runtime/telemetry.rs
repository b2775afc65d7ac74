//! Logs to standard error, as text or as JSON, and traces if an endpoint is configured.

use std::{
    io, panic,
    path::PathBuf,
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use axum::http::Uri;
use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{
    colour::has_colours,
    escape::Escape,
    log_writer::LogWriter,
    traces::{self, Traces},
};

/// How long the end of the process waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of this process, once there is one.
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Lines that were dropped.
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event; colour only on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The logging flags of every long-running subcommand.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines are written
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, help_heading = "Logging")]
    pub log_format: LogFormat,

    /// Which events are logged: a level (error, warn, info, debug, trace), or directives such as
    /// "info,orders_operator=debug"
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = parse_filter, help_heading = "Logging")]
    pub log_level: String,

    /// OTLP (gRPC) endpoint to send traces to, such as http://otel-collector:4317. Default: no traces
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = parse_endpoint, help_heading = "Tracing")]
    pub otlp_endpoint: Option<String>,

    /// PEM file with the CA that the certificate of an https:// endpoint must be signed by. Default: the public CAs
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE", value_parser = path_or_nothing(), help_heading = "Tracing")]
    pub otlp_certificate: Option<PathBuf>,
}

/// Rejects on the command line what the subscriber would reject later.
fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write a level such as \"info\""))
}

/// A path, which may be empty as an environment variable may be, and then is none.
pub fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// An empty value, such as that of an empty environment variable, means no endpoint.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let uri = text.parse::<Uri>().map_err(|error| error.to_string());
    match uri {
        _ if text.is_empty() => Ok(String::new()),
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => Ok(text.to_owned()),
        Ok(_) => Err("write http://HOST:PORT or https://HOST:PORT".into()),
        Err(error) => Err(format!("{error}; write http://HOST:PORT or https://HOST:PORT")),
    }
}

/// Installs the process's log subscriber, and traces for the service name `service` if an endpoint is configured; both
/// must be flushed at the end of the process. A second call has no effect.
///
/// # Errors
/// When the thread that writes the log cannot be started.
pub fn init(args: &LogArgs, service: &'static str) -> io::Result<Option<Traces>> {
    // clap has already parsed the value; the fallback is for callers that construct it themselves.
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    // The spans of traces would be added to log lines. And the SOCKS5 library tells of each connection of the MongoDB
    // driver, at `debug` with the password.
    let unwanted = |target: &str| target == traces::TARGET || target.starts_with("fast_socks5");
    // The NATS client tells at `info` whatever a server says, each message that it drops included; what matters of that, we tell.
    let is_client_wanted = args.log_level.contains("async_nats");
    let is_chatter = move |metadata: &Metadata<'_>| {
        !is_client_wanted && metadata.target().starts_with("async_nats") && *metadata.level() > Level::WARN
    };
    let filter = filter.and(filter_fn(move |metadata| !unwanted(metadata.target()) && !is_chatter(metadata)));
    let colour = has_colours(&io::stderr());
    let escape = match args.log_format {
        LogFormat::Text if colour => Escape::ColouredText,
        LogFormat::Text => Escape::Text,
        LogFormat::Json => Escape::Json,
    };
    let log = LogWriter::start(io::stderr(), escape, DROPPED.clone())?;
    let lines = fmt::layer().with_writer(LOG.get_or_init(|| log).clone()).with_ansi(colour);
    // Its default would write to standard error by itself, and wait for whoever reads that.
    panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        // It waits, and the other threads have more to do than the task that has panicked.
        if std::thread::current().name() == Some("main") {
            flush();
        }
    }));
    let lines = match args.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let endpoint = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let ca = args.otlp_certificate.as_deref().filter(|path| !path.as_os_str().is_empty());
    let exporting = endpoint.map(|endpoint| Traces::export_to(endpoint, ca, service)).transpose();
    let (traces, unusable) = match exporting {
        Ok(traces) => (traces, None),
        Err(error) => (None, Some(error)),
    };
    let layer = traces.as_ref().map(Traces::layer);
    if tracing_subscriber::registry().with(lines.with_filter(filter)).with(layer).try_init().is_err() {
        tracing::debug!("a log subscriber is already installed");
    }
    if let Some(error) = unusable {
        tracing::warn!(%error, "traces are off");
    }
    Ok(traces)
}

/// Writes an error after the lines of the log, on one line; without a log, to standard error.
pub fn print(error: &str) {
    match LOG.get() {
        Some(log) => log.push(error.as_bytes()),
        None => error.lines().for_each(|line| eprintln!("{}", Escape::Text.line(line))),
    }
}

/// Waits until the last lines are written, but not for ever.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_TIMEOUT);
    }
}

/// Registers what is counted of the log.
pub(super) fn register(registry: &mut Registry) {
    registry.register(
        "orders_operator_log_lines_dropped",
        "Log lines dropped because the log reader is too slow",
        DROPPED.clone(),
    );
}
