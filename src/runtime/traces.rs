//! Traces by OpenTelemetry, for whoever runs a collector: off unless an endpoint is given.
//!
//! Spans of traces have a target of their own, so that log lines stay as they are, and no span is made
//! where nobody takes it. A collector that is slow or away costs nothing but its traces.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use opentelemetry::{propagation::TextMapPropagator, trace::TracerProvider};
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig, WithTonicConfig, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter as Exporter},
};
use tracing::{Span, Subscriber, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// The target of every span that is part of a trace.
pub const TARGET: &str = "orders_operator::traces";

/// How long the end of the process waits for the last traces to be taken.
const FLUSH: Duration = Duration::from_secs(2);

/// What sends the traces away; to be flushed at the end of the process.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Traces to the collector at `endpoint`, by gRPC, in the name of `service` unless
    /// `OTEL_SERVICE_NAME` says another.
    ///
    /// Sampling, resource attributes, headers and batches are set by OpenTelemetry's own variables.
    ///
    /// # Errors
    /// When the endpoint is not usable; the message says why.
    pub fn to(endpoint: &str, service: &'static str) -> Result<Self, opentelemetry_otlp::ExporterBuildError> {
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https:") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        let exporter = Telling { exporter: exporter.build()?, failing: AtomicBool::new(false) };
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build());
        Ok(Self(provider.with_batch_exporter(exporter).build()))
    }

    /// Takes the spans of traces from the subscriber.
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

    /// Sends what is left, for a bounded time.
    pub fn flush(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

/// Says when the collector goes away and when it is back, and not at each batch.
struct Telling {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl Exporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed => tracing::warn!(%error, "traces are lost until the collector takes them"),
            Ok(()) if failed => tracing::info!("the collector takes traces again"),
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

/// The span of a request that is served, part of the caller's trace if it sent a `traceparent`.
/// The attributes' names are OpenTelemetry's for HTTP.
#[must_use]
pub fn request(method: &Method, uri: &Uri, route: &'static str, id: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.as_str(),
        http.route = route,
        http.request.header.x_request_id = id,
        http.response.status_code = Empty,
        url.path = uri.path(),
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{method} {route}"));
        let carried: HashMap<String, String> = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned())))
            .collect();
        if !carried.is_empty() {
            // It can only fail once the span has begun.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&carried));
        }
    }
    span
}

/// Notes how a request's span ended.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A step of what the current span is about; none where nothing is traced.
#[must_use]
pub fn step(name: &'static str) -> Span {
    let inside = Span::current().metadata().is_some_and(|metadata| metadata.target() == TARGET);
    if inside { root(name) } else { Span::none() }
}

/// A piece of work that nothing else asked for.
#[must_use]
pub fn root(name: &'static str) -> Span {
    info_span!(target: TARGET, "step", otel.name = name)
}
