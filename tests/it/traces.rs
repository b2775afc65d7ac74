//! Traces by OTLP, received by a collector in the test.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use mongodb::bson::{DateTime, doc};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use crate::{
    api_process::Process,
    cluster::{PATIENCE, TestNamespace, eventually},
    machine::Container,
    mongo::{TestDatabase, answer, uri},
    pki::Pki,
};

/// A collector: the spans that it received, each with the name of its service.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = attribute(&resource.resource.unwrap().attributes, "service.name");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.lock().unwrap().push((service.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        Self::start_at("127.0.0.1:0", None).await
    }

    /// Starts one at this address; by TLS, if there is a CA.
    async fn start_at(address: &str, pki: Option<&Pki>) -> (Self, String) {
        let (collector, listener) = (Self::default(), TcpListener::bind(address).await.unwrap());
        let scheme = if pki.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let mut server = Server::builder();
        if let Some(pki) = pki {
            let identity = Identity::from_pem(pki.pem("server.crt"), pki.pem("server.key"));
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let server = server.add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, endpoint)
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|a| a.value.clone());
    match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

/// Has spans exported as soon as they have ended, so that none is left for the end of the process, which waits for seconds
/// only.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_request_continues_its_callers_trace_and_has_child_spans_of_the_store() {
    let database = TestDatabase::bare().await;
    let (collector, endpoint) = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), AT_ONCE];
    let mut process = Process::start(&uri(), &database.name, &settings);
    process.wait_until_ready(true).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body = json!({ "ticketId": database.ticket().await.to_string() });
    let request = process
        .by("a-user", Method::POST, "/api/orders")
        .header("traceparent", format!("00-{trace}-{parent}-01"))
        .header("x-request-id", "r-1");
    assert_eq!(answer(request.json(&body)).await.0, StatusCode::CREATED);
    // A request without traceparent starts a new trace.
    answer(process.by("a-user", Method::GET, "/api/nothing")).await;
    let spans = eventually("all is exported", || async {
        let spans = collector.spans();
        let wanted = ["POST /api/orders", "reserving a ticket", "reading a ticket", "GET other"];
        let is_there = |name: &&str| spans.iter().any(|(_, span)| span.name == **name);
        wanted.iter().all(is_there).then_some(spans)
    })
    .await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(spans.iter().all(|(service, _)| service == "orders-operator-serve"), "{spans:?}");
    let (ours, others): (Vec<Span>, Vec<Span>) =
        spans.into_iter().map(|(_, span)| span).partition(|span| hex(&span.trace_id) == trace);
    let server = ours.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap();
    assert_eq!((server.name.as_str(), hex(&server.parent_span_id).as_str()), ("POST /api/orders", parent));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/orders"),
        ("http.response.status_code", "201"),
        ("url.path", "/api/orders"),
        ("http.request.header.x_request_id", "r-1"),
    ] {
        assert_eq!(attribute(&server.attributes, key), value, "{key}");
    }
    let reserving = ours.iter().find(|span| span.name == "reserving a ticket").unwrap();
    assert_eq!(reserving.parent_span_id, server.span_id);
    let reading = ours.iter().find(|span| span.name == "reading a ticket").unwrap();
    assert_eq!(reading.parent_span_id, reserving.span_id);
    assert!(
        others.iter().any(|span| span.name == "GET other" && span.parent_span_id.is_empty()),
        "{others:?}"
    );
    assert!(!format!("{ours:?}").contains("a-user"), "a trace says nothing of who it was");
}

#[tokio::test]
async fn what_has_not_been_exported_at_the_end_is_exported_then() {
    let database = TestDatabase::bare().await;
    let (collector, endpoint) = Collector::start().await;
    // Never by itself.
    let settings =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let mut process = Process::start(&uri(), &database.name, &settings);
    process.wait_until_ready(true).await;
    assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await.0, StatusCode::OK);
    assert!(collector.spans().is_empty());
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    // It does not wait for ever, and on a loaded machine the time may be too short: then it says so.
    let said =
        |line: String| line.contains("the last traces are lost") || line.contains("cannot export traces");
    let is_exported = collector.spans().iter().any(|(_, span)| span.name == "GET /api/orders");
    assert!(is_exported || process.lines.iter().any(said), "lost without a word");
}

#[tokio::test]
async fn what_a_client_chooses_takes_little_of_a_span() {
    let database = TestDatabase::bare().await;
    let (collector, endpoint) = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), AT_ONCE];
    let mut process = Process::start(&uri(), &database.name, &settings);
    process.wait_until_ready(true).await;
    let long = "x".repeat(10_000);
    let method = Method::from_bytes(long.as_bytes()).unwrap();
    let request = process.request(method, &format!("/api/{long}")).header("tracestate", format!("a={long}"));
    let request = request.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(answer(request).await.0, StatusCode::NOT_FOUND);
    let server = eventually("it is exported", || async {
        let mut spans = collector.spans().into_iter().map(|(_, span)| span);
        spans.find(|span| span.kind == SpanKind::Server as i32)
    })
    .await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    assert_eq!(attribute(&server.attributes, "http.request.method"), "_OTHER");
    assert_eq!(attribute(&server.attributes, "url.path").len(), 512);
    assert!(format!("{server:?}").len() < 4_000, "{server:?}");
}

#[tokio::test]
async fn an_unavailable_collector_delays_nothing_and_is_logged_once() {
    let database = TestDatabase::bare().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let refusing = "http://127.0.0.1:1".to_owned();
    for endpoint in [silent, refusing.clone()] {
        let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), AT_ONCE];
        let mut process = Process::start(&uri(), &database.name, &settings);
        process.wait_until_ready(true).await;
        let started = Instant::now();
        for _ in 0..50 {
            assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await.0, StatusCode::OK);
        }
        assert!(started.elapsed() < PATIENCE / 3, "{:?}", started.elapsed());
        let (said, logged) = (|line: &String| line.contains("cannot export traces"), Mutex::new(0));
        if endpoint == refusing {
            eventually("it is logged", || async {
                *logged.lock().unwrap() += process.lines.try_iter().filter(said).count();
                (*logged.lock().unwrap() > 0).then_some(())
            })
            .await;
        }
        // The other endpoint accepts connections, so its exports may not time out before the end.
        process.terminate();
        assert_eq!(process.ended().await.code(), Some(0));
        let logged = logged.into_inner().unwrap() + process.lines.iter().filter(said).count();
        assert!(logged <= 1, "{logged}");
    }
}

/// The log of an API pod in a container, which has answered requests until `is_enough` of what it has logged, and ended.
async fn traced(
    container: &Container,
    endpoint: &str,
    ca: &str,
    is_enough: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let database = TestDatabase::bare().await;
    let settings =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca), AT_ONCE];
    let mut process = Process::start_under(&container.command(), &uri(), &database.name, &settings);
    process.wait_until_ready(true).await;
    let log = Mutex::new(Vec::new());
    eventually("enough has happened", || async {
        assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await.0, StatusCode::OK);
        let mut log = log.lock().unwrap();
        log.extend(process.lines.try_iter());
        is_enough(&log).then_some(())
    })
    .await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    let mut log = log.into_inner().unwrap();
    log.extend(process.lines.iter());
    log
}

#[tokio::test]
async fn a_collector_with_a_ca_of_its_own_is_reached_from_our_image_by_ipv4_and_by_ipv6() {
    let pki = Pki::new();
    let container = Container::with(pki.folder());
    let ca = pki.path("ca.crt").display().to_string();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (collector, endpoint) = Collector::start_at(address, Some(&pki)).await;
        traced(&container, &endpoint, &ca, |_| !collector.spans().is_empty()).await;
        // The public CAs are in the program, and this is none of theirs.
        let (collector, endpoint) = Collector::start_at(address, Some(&pki)).await;
        let is_told = |log: &[String]| log.iter().any(|line| line.contains("cannot export traces"));
        let log = traced(&container, &endpoint, "", is_told).await;
        assert!(collector.spans().is_empty());
        assert!(!log.iter().any(|line| line.contains("traces are off")), "{log:#?}");
    }
}

#[test]
fn a_ca_of_the_collector_that_cannot_be_read_is_named_and_ends_nothing() {
    let pki = Pki::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (file, why) in [("nowhere.crt", "No such file"), ("server.ext", "has no certificate in PEM")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"))
            .args(["serve", "--jwt-key", "k", "--mongo-uri", "mongodb://127.0.0.1:1/orders", "--port", &port])
            .args(["--listen-address", "127.0.0.1", "--otlp-endpoint", "https://127.0.0.1:1"])
            .arg("--otlp-certificate")
            .arg(pki.path(file))
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let said = |line: &&str| line.contains("traces are off") && line.contains(file);
        assert!(log.lines().find(said).is_some_and(|line| line.contains(why)), "{log}");
        assert!(log.contains("cannot listen on"), "it went on: {log}");
    }
}

#[test]
fn an_invalid_endpoint_is_rejected() {
    let run = |endpoint: &str| {
        let program = env!("CARGO_BIN_EXE_orders-operator");
        let mut command = std::process::Command::new(program);
        command.args(["serve", "--otlp-endpoint", endpoint]).env_clear().output().unwrap()
    };
    for wrong in ["otel-collector:4317", "ftp://otel-collector", "http://"] {
        let output = run(wrong);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {text}");
        assert!(text.contains("write http://HOST:PORT"), "{text}");
    }
    // An empty variable counts as unset, so the error is about another setting.
    assert!(String::from_utf8(run("").stderr).unwrap().contains("JWT_KEY is not set"));
}

#[tokio::test]
async fn a_reconcile_has_a_child_span_for_each_of_its_five_steps() {
    let namespace = TestNamespace::create("traces").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let (collector, endpoint) = Collector::start().await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let _controller = namespace.run_with("controller", &["--otlp-endpoint", &endpoint]).await;
    namespace.ready("orders").await;
    let steps = eventually("a whole reconcile is traced", || async {
        let spans = collector.spans();
        let reconciles = spans.iter().filter(|(_, span)| span.name == "reconcile");
        let steps_of = |parent: &Span| {
            let beneath = spans.iter().filter(|(_, span)| span.parent_span_id == parent.span_id);
            beneath.map(|(_, span)| span.name.clone()).collect::<Vec<_>>()
        };
        let whole = reconciles.map(|reconcile| (reconcile, steps_of(&reconcile.1)));
        whole
            .filter(|(_, steps)| steps.len() == 5)
            .map(|((service, reconcile), steps)| {
                assert_eq!(service, "orders-operator-controller");
                assert_eq!(attribute(&reconcile.attributes, "k8s.namespace.name"), namespace.name);
                assert_eq!(attribute(&reconcile.attributes, "name"), "orders");
                steps
            })
            .next()
    });
    let mut steps = steps.await;
    steps.sort_unstable();
    assert_eq!(steps, ["apply", "build", "dereference", "status", "validate"]);
    // The same path written in two ways, which the schema cannot detect.
    let routes = json!([{"path": "/a", "service": "b"}, {"path": "/a/?(.*)", "service": "c"}]);
    namespace.apply(&namespace.service("orders", json!({"ingress": {"routes": routes}}))).await.unwrap();
    eventually("a spec that cannot work is told of", || async {
        let spans = collector.spans();
        let reasons =
            spans.iter().flat_map(|(_, span)| &span.attributes).filter(|attribute| attribute.key == "reason");
        reasons
            .map(|found| attribute(std::slice::from_ref(found), "reason"))
            .find(|reason| reason == "DuplicatePath")
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_sweep_is_traced_if_it_cancels_orders_and_not_if_it_only_queries() {
    let namespace = TestNamespace::create("traces").await;
    namespace.secrets(&uri()).await;
    let (database, (collector, endpoint)) = (TestDatabase::new().await, Collector::start().await);
    let patch = json!({"ingress": null, "database": {"name": database.name}});
    namespace.apply(&namespace.service("orders", patch)).await.unwrap();
    let sweeper = namespace.run_in("sweeper", &["--otlp-endpoint", &endpoint], &[AT_ONCE]).await;
    // It queries several times between the two.
    for expires_in_ms in [-1000, 3000] {
        let expires_at = DateTime::from_millis(DateTime::now().timestamp_millis() + expires_in_ms);
        let id = database.mongoose_order(doc! { "expiresAt": expires_at }).await;
        eventually("the order is cancelled", || async {
            (database.stored(&id).await.get_str("status").unwrap() == "cancelled").then_some(())
        })
        .await;
    }
    let begun = || {
        let begun = |(_, span): &(String, Span)| span.parent_span_id.is_empty();
        collector.spans().into_iter().filter(begun).count()
    };
    eventually("both are exported", || async { (begun() >= 2).then_some(()) }).await;
    sweeper.terminate().await;
    let spans = collector.spans();
    assert!(spans.iter().all(|(service, _)| service == "orders-operator-sweeper"), "{spans:?}");
    let begun: Vec<_> = spans.iter().filter(|(_, span)| span.parent_span_id.is_empty()).collect();
    assert_eq!(begun.len(), 2, "{begun:?}");
    assert!(begun.iter().all(|(_, span)| span.name == "expiring orders"), "{begun:?}");
    namespace.remove().await;
}
