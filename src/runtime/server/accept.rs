//! Accepts connections and limits the time and memory that each can take.
//!
//! HTTP/1.1 with keep-alive, and HTTP/2 without TLS (h2c with prior knowledge), share one port. Timeouts limit how
//! long a slow client holds a connection; limits on the number of connections, on the size of a request's head and on the
//! sockets' buffers bound the memory.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode, Version, header::CONNECTION},
    response::{IntoResponse, Response},
};
use h2::Reason;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{interval, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    bodies::{RequestBody, ResponseBody},
    connections::{Busy, Connection, Connections, ServerMetrics},
    header_blocks::HeaderBlocks,
    limits::Limits,
    streams::{Progress, StreamExecutor},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The pause after a connection could not be accepted, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a new connection may take to send the head of its first request.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle, until the next head is received. Longer than the idle timeout of common proxies
/// (60 s in ingress-nginx, 90 s in Traefik): if this side closed first, a proxy could just be sending a request,
/// which it could not safely retry.
const IDLE_TIMEOUT: Duration = Duration::from_secs(100);

/// How long a write of a response may make no progress because the client does not read it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a request's head in bytes, and of the part of a response that is buffered.
const MAX_BUFFER: u32 = 32 * 1024;

/// Maximum size of a request's head in HTTP/2, where each header counts 32 bytes more. What has come of a head that has
/// not ended may take four times as much, on each connection.
const MAX_HTTP2_HEAD: u32 = 16 * 1024;

/// The same of a head as it is sent. A frame has no more than this.
const MAX_HTTP2_BLOCK: usize = 2 * MAX_HTTP2_HEAD as usize;

/// Maximum number of a request's headers: hyper's for HTTP/1.1. In HTTP/2, where it has none, each may be sent as a single
/// byte, and takes more than a hundred.
const MAX_HEADERS: usize = 100;

/// How much of the bodies of an HTTP/2 connection's requests may be on the way: the protocol's default.
const WINDOW: u32 = 65_535;

/// Maximum number of concurrent requests on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// How often an HTTP/2 connection is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection that is closing may take for the rest of a request's head, and for the last bytes of a response.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A graceful shutdown, in two steps.
#[derive(Clone, Debug, Default)]
pub struct GracefulStop {
    /// Once cancelled, HTTP/1.1 responses carry `connection: close`, so that clients reconnect by way of a load
    /// balancer that may choose another server.
    pub draining: CancellationToken,
    /// Notified of each request that comes meanwhile.
    pub late_request: Arc<Notify>,
    /// Once cancelled, no connection is accepted any more, and requests in flight are finished.
    pub closing: CancellationToken,
}

/// Serves `routes` until `stop.closing`, and then until the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    metrics: ServerMetrics,
    stop: GracefulStop,
) {
    let (builder, graceful) = (builder(&metrics), GracefulShutdown::new());
    let connections = Arc::new(Connections::new(limits, metrics));
    loop {
        // Room is made only once somebody asks for it.
        let accepted = async { (accept(&listener, &connections).await, connections.admit().await) };
        let (stream, admitted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.closing.cancelled() => break,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let first_request = CancellationToken::new();
        let (routes, received, stop) = (routes.clone(), first_request.clone(), stop.clone());
        let (connection, metrics) = (admitted.connection.clone(), connections.metrics.clone());
        let service = service_fn(move |request| {
            received.cancel();
            if stop.draining.is_cancelled() {
                stop.late_request.notify_one();
            }
            respond(routes.clone(), request, connection.clone(), metrics.clone(), stop.draining.clone())
        });
        let stream = HeaderBlocks::new(Box::pin(stream), MAX_HTTP2_BLOCK);
        let serving = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let serving = graceful.watch(serving);
        tokio::spawn(async move {
            tokio::select! {
                // An error only means that the client disconnected.
                _ = serving => {}
                () = admitted.connection.closed.cancelled() => {}
                () = no_request_within_timeout(&first_request) => {
                    tracing::debug!("closed a connection that sent no request in time");
                }
            }
        });
    }
    // New connections are refused from now on, while the open ones are finished.
    drop(listener);
    let close_idle = async {
        let mut moments = interval(LAST_MOMENT);
        moments.tick().await;
        loop {
            moments.tick().await;
            connections.close_idle(LAST_MOMENT);
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = close_idle => {}
    }
}

/// The next connection. Where the operating system refuses it, others make room, until it does not.
async fn accept(listener: &TcpListener, connections: &Connections) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Responses are small and written at once, so Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return stream;
            }
            // The client was gone before it was accepted.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                connections.accept_failed(&error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(metrics: &ServerMetrics) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor { stalled: metrics.stalled.clone() });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_BUFFER as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HTTP2_HEAD)
        .max_send_buf_size(MAX_BUFFER as usize);
    builder
}

/// Responds to a request; the connection shows meanwhile whom it waits for.
///
/// One request beyond what is allowed is refused in the way that tells an HTTP/2 client that it was not looked at. What is
/// refused is dropped before this returns: until its future is polled, others may have been received.
fn respond(
    routes: Router,
    request: Request<Incoming>,
    connection: Arc<Connection>,
    metrics: ServerMetrics,
    draining: CancellationToken,
) -> impl Future<Output = Result<Response<ResponseBody>, h2::Error>> + use<> {
    let in_progress = connection.request();
    let accepted = (in_progress.is_some() && request.headers().len() <= MAX_HEADERS).then_some(request);
    async move {
        let Some(in_progress) = in_progress else {
            metrics.refused.inc();
            return Err(Reason::REFUSED_STREAM.into());
        };
        let response = match accepted {
            Some(request) => {
                let is_http1 = request.version() <= Version::HTTP_11;
                let busy = Arc::new(Busy::new(connection, true));
                let request = request.map(|body| Body::new(RequestBody::new(body, busy.clone())));
                let Ok(mut response) = routes.oneshot(request).await;
                if is_http1 && draining.is_cancelled() {
                    response.headers_mut().insert(CONNECTION, CLOSE);
                }
                busy.set(false);
                response
            }
            None => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response(),
        };
        Ok(response.map(|body| ResponseBody::new(body, Progress::of_this_stream(), in_progress)))
    }
}

/// Returns once the timeout for the first request has passed without one.
async fn no_request_within_timeout(first_request: &CancellationToken) {
    if timeout(FIRST_HEAD_TIMEOUT, first_request.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::SocketAddr};

    use axum::routing::get;
    use futures::{FutureExt, stream};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    const CONNECTIONS: usize = 8;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A running server, and the handle that stops it.
    async fn server() -> (SocketAddr, GracefulStop) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), GracefulStop::default());
        let endless = || async { Body::from_stream(stream::repeat(Ok::<_, Infallible>("x".repeat(4096)))) };
        let routes = Router::new().route("/", get(|| async { "hello" })).route("/endless", get(endless));
        let limits = Limits { connections: CONNECTIONS, more_requests: 4 };
        tokio::spawn(serve(listener, routes, limits, ServerMetrics::default(), stop.clone()));
        (address, stop)
    }

    async fn request(connection: &mut TcpStream) -> String {
        connection.write_all(REQUEST).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"hello") {
            assert_ne!(connection.read_buf(&mut response).await.unwrap(), 0, "the connection ended");
        }
        String::from_utf8(response).unwrap()
    }

    /// How long it takes, by the paused clock, until the server closes the connection.
    async fn closed_after(connection: &mut TcpStream) -> Duration {
        let started = Instant::now();
        let _ = connection.read_to_end(&mut Vec::new()).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_no_head_is_closed() {
        let (address, _) = server().await;
        for part in [b"".as_slice(), b"P", b"GET / HTTP/1.1\r\nhost:", b"PRI * HTTP/2.0\r\n"] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(part).await.unwrap();
            let after = closed_after(&mut connection).await;
            assert!((FIRST_HEAD_TIMEOUT..FIRST_HEAD_TIMEOUT * 2).contains(&after), "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_only_after_the_idle_timeout() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            assert!(request(&mut connection).await.starts_with("HTTP/1.1 200"));
        }
        let after = closed_after(&mut connection).await;
        assert!((IDLE_TIMEOUT..IDLE_TIMEOUT * 2).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_the_client_does_not_read_is_aborted() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // The sockets' buffers hold more than the test should read, so it only waits until the server has closed
        // the connection, which makes a write fail.
        let started = Instant::now();
        while connection.write_all(b"\r\n").await.is_ok() {
            assert!(started.elapsed() < WRITE_TIMEOUT * 4, "the response is still being written");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(started.elapsed() >= WRITE_TIMEOUT);
    }

    #[tokio::test]
    async fn a_head_over_the_limit_is_rejected() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", "x".repeat(MAX_BUFFER as usize));
        let _ = connection.write_all(head.as_bytes()).await;
        let mut response = Vec::new();
        let _ = connection.read_to_end(&mut response).await;
        assert!(response.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&response));
    }

    #[tokio::test]
    async fn while_draining_every_response_closes_its_connection_and_new_ones_are_accepted() {
        let (address, stop) = server().await;
        let mut kept = TcpStream::connect(address).await.unwrap();
        assert!(!request(&mut kept).await.contains("connection: close"));
        let is_late = || stop.late_request.notified().now_or_never().is_some();
        assert!(!is_late(), "it is not draining yet");
        stop.draining.cancel();
        assert!(request(&mut kept).await.contains("connection: close"));
        assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
        assert!(is_late(), "of a connection that was there");
        let mut new = TcpStream::connect(address).await.unwrap();
        assert!(request(&mut new).await.contains("connection: close"));
        assert!(is_late(), "of a new connection");
        let mut mute = TcpStream::connect(address).await.unwrap();
        mute.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(request(&mut other).await.contains("connection: close"));
        assert!(is_late() && !is_late(), "a connection without a request does not count");
    }
}
