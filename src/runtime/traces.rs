//! OpenTelemetry traces, exported by OTLP; off unless an endpoint is configured.
//!
//! Spans of traces have a tracing target of their own: log lines do not include them, and they are disabled while
//! nothing is exported. A collector that is slow or unavailable loses traces, and slows nothing down.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use opentelemetry::{propagation::TextMapPropagator, trace::TracerProvider};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter as Exporter},
};
use thiserror::Error;
use tracing::{Span, Subscriber, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use webpki_roots::TLS_SERVER_ROOTS;

/// The target of every span that is part of a trace.
pub const TARGET: &str = "orders_operator::traces";

/// The most bytes that a span or a log line has of a text which a client chooses. Thousands of spans may wait until they are sent.
const MAX_TEXT: usize = 512;

/// How long the shutdown waits for the last traces to be exported. A pod of the API has 31 s after its drain, of which all else
/// may take 25.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why traces cannot be exported.
#[derive(Debug, Error)]
pub enum TracesError {
    /// The endpoint is not usable.
    #[error("the OTLP endpoint is not usable: {0}")]
    Endpoint(#[from] ExporterBuildError),
    /// The file of the collector's CA cannot be read.
    #[error("cannot read {0}, the CA of the OTLP endpoint: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It has no certificate.
    #[error("{0}, the CA of the OTLP endpoint, has no certificate in PEM")]
    NoCertificate(PathBuf),
}

/// The trace exporter, to be flushed at the end of the process.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports traces to the collector at `endpoint` by gRPC. Its certificate must be signed by a CA of the file `ca`, or
    /// else by a public one. The service name is `service`, unless `OTEL_SERVICE_NAME` sets another.
    ///
    /// Sampling, resource attributes, headers and batches are configured by OpenTelemetry's environment variables.
    ///
    /// # Errors
    /// When the endpoint or the CA is not usable.
    pub fn export_to(endpoint: &str, ca: Option<&Path>, service: &'static str) -> Result<Self, TracesError> {
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https:") {
            exporter = exporter.with_tls_config(tls(ca)?);
        }
        let exporter = LoggingExporter { exporter: exporter.build()?, failing: AtomicBool::new(false) };
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build());
        Ok(Self(provider.with_batch_exporter(exporter).build()))
    }

    /// The subscriber layer that exports the spans of traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("orders-operator"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Exports the spans that are left, within a timeout.
    pub fn flush(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

/// TLS to a collector. The public CAs are those of the program, since its image has none.
fn tls(ca: Option<&Path>) -> Result<ClientTlsConfig, TracesError> {
    let Some(path) = ca else {
        return Ok(ClientTlsConfig::new().trust_anchors(TLS_SERVER_ROOTS.iter().cloned()));
    };
    let text = fs::read(path).map_err(|error| TracesError::Unreadable(path.to_owned(), error))?;
    let blocks = pem::parse_many(&text).unwrap_or_default();
    if !blocks.iter().any(|block| block.tag() == "CERTIFICATE") {
        return Err(TracesError::NoCertificate(path.to_owned()));
    }
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(text)))
}

/// Logs when exports begin to fail and when they succeed again, and not for each batch.
struct LoggingExporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl fmt::Debug for LoggingExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl Exporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed => {
                tracing::warn!(%error, "cannot export traces; they are lost until the collector is available")
            }
            Ok(()) if failed => tracing::info!("traces are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The server span of a request, which continues the caller's trace if the request has a `traceparent`. The attributes
/// follow OpenTelemetry's conventions for HTTP.
#[must_use]
pub fn request(method: &Method, uri: &Uri, route: &'static str, id: &str, headers: &HeaderMap) -> Span {
    let method = known(method);
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.request.header.x_request_id = id,
        http.response.status_code = Empty,
        url.path = beginning(uri.path()),
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{method} {route}"));
        let carried: HashMap<String, String> = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| Some((name, headers.get(name)?.to_str().ok()?)))
            .filter(|(_, value)| value.len() <= MAX_TEXT)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if !carried.is_empty() {
            // It fails only for a span that has already been entered.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&carried));
        }
    }
    span
}

/// The name of a method, if it is one of HTTP's, as OpenTelemetry's conventions have it.
fn known(method: &Method) -> &'static str {
    let all = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    all.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// As much of a text that a client chooses as a span or a log line has.
#[must_use]
pub fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

/// Records the response status in a request's span.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A child span of the current one; disabled if that is not part of a trace.
#[must_use]
pub fn step(name: &'static str) -> Span {
    let inside = Span::current().metadata().is_some_and(|metadata| metadata.target() == TARGET);
    if inside { root(name) } else { Span::none() }
}

/// The root span of work that no request has caused.
#[must_use]
pub fn root(name: &'static str) -> Span {
    info_span!(target: TARGET, "step", otel.name = name)
}
