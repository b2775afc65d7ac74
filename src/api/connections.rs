//! Accepts connections, and keeps each of them within bounds.
//!
//! HTTP/1.1 with keep-alive, and HTTP/2 without TLS (h2c, with prior knowledge), on one port. A client
//! that is slow to ask or to take its answer costs a connection for a bounded time, and a head or
//! a number of connections without end costs a bounded amount of memory.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Version, header::CONNECTION},
    response::Response,
    serve::{Listener, ListenerExt},
};
use futures::TryFutureExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How many connections are open at most; more wait in the listener's queue.
const CONNECTIONS: usize = 4096;

/// How long a new connection may take to bring its first request's head.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// How long a connection may be idle, the next head's arrival included. Longer than the usual
/// proxies' own limit (60 s in ingress-nginx, 90 s in Traefik): if this side closes first, the proxy
/// may just be sending a request, which it can neither repeat nor answer.
const IDLE: Duration = Duration::from_secs(100);

/// How long a client may take none of the answer that is being written to it.
const STALLED: Duration = Duration::from_secs(30);

/// The largest head of a request in bytes; also what is buffered of an answer at most.
const BUFFER: u32 = 64 * 1024;

/// How many requests one HTTP/2 connection may have in flight.
const STREAMS: u32 = 128;

/// An HTTP/2 connection is asked for a sign of life this often, and given this long to show it.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// When a server ends, step by step.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// From now on, HTTP/1.1 clients are told with each answer to open another connection next time:
    /// their balancer may choose another server for it by then.
    pub(super) draining: CancellationToken,
    /// From now on nothing is accepted; what is in flight is finished.
    pub(super) closing: CancellationToken,
}

/// Serves `routes` until it is told to close and the last connection has ended.
pub(super) async fn serve(listener: TcpListener, routes: Router, ending: Ending) {
    // Answers are small and written at once: waiting to fill packets only delays them.
    let mut listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
    });
    let (builder, graceful) = (builder(), GracefulShutdown::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await.0, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            () = ending.closing.cancelled() => break,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(STALLED));
        let begun = CancellationToken::new();
        let (routes, asked, draining) = (routes.clone(), begun.clone(), ending.draining.clone());
        let service = service_fn(move |request| answer(&routes, request, &asked, &draining));
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                // How a client went away is its own affair.
                _ = connection => {}
                () = nothing_asked(&begun) => tracing::debug!("closed a connection that asked for nothing"),
            }
        });
    }
    // Refuses those that would connect now, while the others are served to their end.
    drop(listener);
    graceful.shutdown().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(BUFFER as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(BUFFER)
        .max_send_buf_size(BUFFER as usize);
    builder
}

/// Answers one request, and notes in `begun` that one came.
fn answer(
    routes: &Router,
    request: Request<Incoming>,
    begun: &CancellationToken,
    draining: &CancellationToken,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    begun.cancel();
    let (draining, told) = (draining.clone(), request.version() <= Version::HTTP_11);
    let answer = routes.clone().oneshot(request.map(Body::new));
    answer.map_ok(move |mut response| {
        if told && draining.is_cancelled() {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        response
    })
}

/// Returns when the time for the first request is over and none has come.
async fn nothing_asked(begun: &CancellationToken) {
    if timeout(FIRST_HEAD, begun.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use futures::stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A server, and how to end it.
    async fn server() -> (SocketAddr, Ending) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, ending) = (listener.local_addr().unwrap(), Ending::default());
        let endless = || async { Body::from_stream(stream::repeat(Ok::<_, Infallible>("x".repeat(4096)))) };
        let routes = Router::new().route("/", get(|| async { "hello" })).route("/endless", get(endless));
        tokio::spawn(serve(listener, routes, ending.clone()));
        (address, ending)
    }

    async fn ask(connection: &mut TcpStream) -> String {
        connection.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "the connection ended");
        }
        String::from_utf8(answer).unwrap()
    }

    /// How long it takes, by the paused clock, until the other side has ended the connection.
    async fn ends_after(connection: &mut TcpStream) -> Duration {
        let started = Instant::now();
        let _ = connection.read_to_end(&mut Vec::new()).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_brings_no_head_is_closed() {
        let (address, _) = server().await;
        for part in [b"".as_slice(), b"P", b"GET / HTTP/1.1\r\nhost:", b"PRI * HTTP/2.0\r\n"] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(part).await.unwrap();
            let after = ends_after(&mut connection).await;
            assert!((FIRST_HEAD..FIRST_HEAD * 2).contains(&after), "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_while_proxies_would_keep_it_and_not_for_ever() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            assert!(ask(&mut connection).await.starts_with("HTTP/1.1 200"));
        }
        let after = ends_after(&mut connection).await;
        assert!((IDLE..IDLE * 2).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_is_given_up() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // What the sockets hold is more than any test should read; so this only waits for the other
        // side to have gone, which it tells by refusing what is sent to it.
        let started = Instant::now();
        while connection.write_all(b"\r\n").await.is_ok() {
            assert!(started.elapsed() < STALLED * 4, "the answer is still being written");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(started.elapsed() >= STALLED);
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (address, _) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", "x".repeat(BUFFER as usize));
        let _ = connection.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn during_the_drain_an_answer_ends_its_connection_and_new_ones_are_taken() {
        let (address, ending) = server().await;
        let mut kept = TcpStream::connect(address).await.unwrap();
        assert!(!ask(&mut kept).await.contains("connection: close"));
        ending.draining.cancel();
        assert!(ask(&mut kept).await.contains("connection: close"));
        assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
        let mut new = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut new).await.contains("connection: close"));
    }
}
