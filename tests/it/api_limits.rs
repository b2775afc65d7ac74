//! Clients that take what they can: memory, connections, time. Others are served meanwhile, and nothing runs out.
//!
//! The same attacks, for longer and in a control group with as much memory as a pod has: `make attack`.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderValue, Request},
};
use futures::future::join_all;
use h2::client::SendRequest;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api_process::{Process, peak_memory},
    cluster::eventually,
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, answer, cookie, uri},
};

/// Shorter than any timeout of the server.
const SOON: Duration = Duration::from_secs(8);

/// Longer than any answer takes, also on a machine with other work.
const PATIENT: Duration = Duration::from_secs(60);

/// Begins an attack, and is served while it lasts. Where the machine is so slow that the server's timeouts have ended it by
/// then, that says nothing, and another one is begun.
async fn is_served_during<T>(
    process: &Process,
    database: &TestDatabase,
    begin: impl AsyncFn() -> Vec<JoinHandle<T>>,
) -> Vec<JoinHandle<T>> {
    for _ in 0..5 {
        let attack = begin().await;
        is_served(process, database).await;
        if attack.iter().any(|part| !part.is_finished()) {
            return attack;
        }
    }
    panic!("another client was served only when the attack was over, five times");
}

/// Reserves a ticket on a new connection, as a client does who has nothing to do with the attack.
async fn is_served(process: &Process, database: &TestDatabase) {
    let body = json!({ "ticketId": database.ticket().await.to_string() });
    let (client, url) = (reqwest::Client::new(), format!("http://{}/api/orders", process.api));
    let request = client.post(&url).header("cookie", cookie("ada")).json(&body);
    let (status, order) = timeout(PATIENT, answer(request)).await.expect("another client is served");
    assert_eq!(status, StatusCode::CREATED, "{order}");
    let list = client.get(&url).header("cookie", cookie("ada"));
    assert_eq!(timeout(PATIENT, answer(list)).await.expect("another client is served").0, StatusCode::OK);
}

/// A connection that has sent so much and no more.
async fn held(address: &str, sent: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    // The server may refuse it before it has all.
    drop(connection.write_all(sent).await);
    connection
}

#[tokio::test]
async fn bodies_of_strangers_have_a_bound_together_and_others_are_served() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    is_served(&process, &database).await;
    let before = peak_memory(&process);
    // All but the last byte of the largest body, so that each waits for the rest.
    let head = "POST /api/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 102400\r\n\r\n";
    let body = [head.as_bytes(), &[b' '; 102_399]].concat();
    let begin = async || {
        let refused = process.metric("orders_api_requests_over_budget_total").await;
        let attack = Vec::from_iter((0..700).map(|_| {
            let (address, body) = (process.api.clone(), body.clone());
            tokio::spawn(async move {
                let mut connection = held(&address, &body).await;
                let mut answer = Vec::new();
                drop(connection.read_to_end(&mut answer).await);
                String::from_utf8_lossy(&answer).into_owned()
            })
        }));
        eventually("the bodies use up what there is for them", || async {
            (process.metric("orders_api_requests_over_budget_total").await > refused + 300).then_some(())
        })
        .await;
        attack
    };
    let attack = is_served_during(&process, &database, begin).await;
    let grown = peak_memory(&process).saturating_sub(before);
    assert!(grown < 80_000, "{grown} kB more for 70 MB of bodies");
    // Whoever finds no room learns what a stranger would have learned with it; the rest are answered when their time is up.
    let answers: Vec<_> = join_all(attack).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.is_empty()
        || answer.starts_with("HTTP/1.1 401")
        || answer.starts_with("HTTP/1.1 408")));
    let late = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 408")).count();
    assert!((100..400).contains(&late), "{late}");
    // Then there is room again, and the order of judgement is the usual one.
    let malformed = process.request(Method::POST, "/api/orders").header("content-type", "application/json");
    assert_eq!(answer(malformed.body("{")).await.0, StatusCode::BAD_REQUEST);
}

/// An HTTP/2 connection whose client gives no stream any room for a response.
async fn greedy(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn http_2_streams_that_take_nothing_of_a_response_cost_little_memory() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    is_served(&process, &database).await;
    let before = peak_memory(&process);
    let url = format!("http://{}/api/orders/docs/swagger-ui-bundle.js", process.api);
    let mut bodies = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut client = greedy(&process.api).await.ready().await.unwrap();
        let requests = (0..100).map(|_| {
            let request = Request::get(&url).body(()).unwrap();
            client.send_request(request, true).unwrap().0
        });
        for response in join_all(requests.collect::<Vec<_>>()).await {
            let response = response.unwrap();
            assert_eq!(response.status(), 200);
            bodies.push(response.into_body());
        }
        connections.push(client);
    }
    is_served(&process, &database).await;
    let grown = peak_memory(&process).saturating_sub(before);
    assert!(grown < 20_000, "{grown} kB more for 300 responses of 400 kB that are not taken");
    // None of them lasts, although the connections are alive.
    let ended = async {
        for body in &mut bodies {
            assert!(body.data().await.unwrap().is_err(), "there was no room for data");
        }
    };
    timeout(Duration::from_secs(30), ended).await.expect("the streams are ended");
    assert_eq!(process.metric("orders_api_streams_stalled_total").await, 300);
}

/// A request for a list of `user`.
fn list_of(user: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", cookie(user)).into_bytes()
}

/// A connection whose client sends this, reads the status of the answer, and has little room for the rest.
async fn unread(address: &str, request: &[u8]) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut connection = socket.connect(address.parse().unwrap()).await.unwrap();
    connection.write_all(request).await.unwrap();
    let mut status = [0; 12];
    let read = timeout(PATIENT, connection.read_exact(&mut status)).await;
    read.expect("it is answered").expect("the connection is open");
    (connection, String::from_utf8_lossy(&status).into_owned())
}

fn with_status(attack: &[(TcpStream, String)], status: &str) -> usize {
    attack.iter().filter(|(_, answer)| answer.ends_with(status)).count()
}

#[tokio::test]
async fn large_pages_that_are_asked_for_at_the_same_time_cost_little_memory() {
    let database = TestDatabase::new().await;
    let title = "x".repeat(10_000);
    let mut orders = database.orders_of_tickets("eve", 500, &title).await;
    orders.reverse();
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    is_served(&process, &database).await;
    let before = peak_memory(&process);
    let path = "/api/orders?order=desc&limit=1000";
    let request = list_of("eve", path);
    let attack = join_all((0..60).map(|_| unread(&process.api, &request))).await;
    is_served(&process, &database).await;
    let grown = peak_memory(&process).saturating_sub(before);
    assert!(grown < 80_000, "{grown} kB more for 60 pages of 5 MB");
    let taken = with_status(&attack, "200");
    assert!((1..20).contains(&taken), "{taken}");
    assert_eq!(with_status(&attack, "503"), 60 - taken);
    drop(attack);
    // And whoever reads such a page gets all of it.
    let page = eventually("there is room again", || async {
        let (status, page) = answer(process.by("eve", Method::GET, path)).await;
        (status == StatusCode::OK).then_some(page)
    })
    .await;
    let page = page.as_array().unwrap();
    assert!(page.iter().map(|order| &order["id"]).eq(orders.iter()));
    assert!(page.iter().all(|order| order["ticket"]["title"] == title.as_str()));
}

#[tokio::test]
async fn a_user_who_takes_nothing_of_their_lists_has_a_share_and_others_are_served() {
    let database = TestDatabase::new().await;
    for user in ["eve", "mallory"] {
        database.orders_of_tickets(user, 900, &"x".repeat(250)).await;
    }
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let before = peak_memory(&process);
    // Pages of 440 kB that are answered as a whole, and a longer list that is streamed.
    let mut all = Vec::new();
    for (user, path) in [("eve", "/api/orders?order=desc&limit=1000"), ("mallory", "/api/orders")] {
        let request = list_of(user, path);
        let attack = join_all((0..100).map(|_| unread(&process.api, &request))).await;
        let taken = with_status(&attack, "200");
        assert!((1..20).contains(&taken), "{path}: {taken}");
        assert_eq!(with_status(&attack, "503"), 100 - taken, "{path}");
        is_served(&process, &database).await;
        // Also with a body that counts.
        let body = json!({ "ticketId": database.ticket().await.to_string(), "more": "x".repeat(20_000) });
        let (status, order) = answer(process.by("ada", Method::POST, "/api/orders").json(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {order}");
        all.extend(attack);
    }
    let grown = peak_memory(&process).saturating_sub(before);
    assert!(grown < 80_000, "{grown} kB more");
}

#[tokio::test]
async fn a_page_that_is_taken_late_is_whole_though_the_process_is_terminated() {
    let database = TestDatabase::new().await;
    database.orders_of_tickets("eve", 900, &"x".repeat(250)).await;
    let mut process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let (mut late, status) = unread(&process.api, &list_of("eve", "/api/orders?order=desc&limit=1000")).await;
    assert_eq!(status, "HTTP/1.1 200");
    // One that has sent half a request is ended a moment later than what is idle.
    let half = b"GET /api/orders HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost:";
    let (mut half, _) = unread(&process.api, half).await;
    process.terminate();
    drop(timeout(PATIENT, half.read_to_end(&mut Vec::new())).await.expect("it is ended"));
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap());
    assert!(body.len() > 400_000, "{}", body.len());
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn heads_of_many_small_headers_that_cost_their_client_nothing_are_refused_or_counted() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    is_served(&process, &database).await;
    let before = peak_memory(&process);
    let url = format!("http://{}/api/orders", process.api);
    // After the first, each of them is a byte. The body, which is awaited, does not come.
    let request = |headers: usize| {
        let mut request = Request::post(&url).body(()).unwrap();
        for _ in 0..headers {
            request.headers_mut().append("a", HeaderValue::from_static("b"));
        }
        request
    };
    let begin = async || {
        let refused = process.metric("orders_api_requests_over_budget_total").await;
        let mut attack = Vec::new();
        // First those that wait for the rest of the request, then those that are refused.
        for (headers, count) in [(100, 100), (900, 10)] {
            for _ in 0..20 {
                let mut client = greedy(&process.api).await;
                for _ in 0..count {
                    client = client.ready().await.unwrap();
                    let (response, body) = client.send_request(request(headers), false).unwrap();
                    attack.push(tokio::spawn(async move {
                        let status = response.await.ok().map(|response| response.status().as_u16());
                        drop(body);
                        (headers, status)
                    }));
                }
            }
        }
        // Or the server's timeouts have ended it before.
        eventually("the heads use up what there is for them", || async {
            let now = process.metric("orders_api_requests_over_budget_total").await;
            (now > refused + 100 || attack.iter().all(JoinHandle::is_finished)).then_some(())
        })
        .await;
        attack
    };
    let attack = is_served_during(&process, &database, begin).await;
    let grown = peak_memory(&process).saturating_sub(before);
    assert!(grown < 120_000, "{grown} kB more for 2,200 heads of a few hundred bytes");
    let mut answered = HashSet::new();
    for answer in attack {
        // The connection of a client that takes nothing may be ended before it is answered.
        let (headers, Some(status)) = answer.await.unwrap() else { continue };
        answered.insert(headers);
        let expected: &[u16] = if headers > 100 { &[431] } else { &[401, 408] };
        assert!(expected.contains(&status), "{headers} headers: {status}");
    }
    assert_eq!(answered, HashSet::from([100, 900]), "each kind was answered");
}

#[tokio::test]
async fn a_head_of_http_2_that_does_not_end_and_a_flood_of_frames_have_a_bound() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let frame = |kind: u8, payload: &[u8]| {
        let [.., high, middle, low] = (payload.len() as u32).to_be_bytes();
        [&[high, middle, low, kind, 0, 0, 0, 0, u8::from(kind != 4)], payload].concat()
    };
    // The value of a header is said to have 95,000 bytes; none of the frames ends the head.
    let begins = [b"\x82\x86\x84\x00\x01a\x7f\x99\xe5\x05".as_slice(), &[b'b'; 16_000]].concat();
    let goes_on = frame(9, &[b'b'; 16_000]);
    let settings = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, b"")].concat();
    let head = [settings.clone(), frame(1, &begins), goes_on.repeat(4)].concat();
    // Nor may it send frames without end that ask for nothing.
    let pings = [settings, frame(6, &[0; 8]).repeat(5000)].concat();
    for attack in [head, pings] {
        let ends_soon = async || {
            let mut connection = held(&process.api, &attack).await;
            timeout(SOON, connection.read_to_end(&mut Vec::new())).await.is_ok()
        };
        // On a machine with other work the end may come late once, and not each time.
        let mut tries = 1;
        while !ends_soon().await {
            assert!(tries < 5, "{tries} connections were not ended before a timeout would end them");
            tries += 1;
        }
    }
    is_served(&process, &database).await;
}

#[tokio::test]
async fn connections_that_wait_for_their_clients_make_room_for_others() {
    let database = TestDatabase::new().await;
    // Of 256 files, 192 may be connections.
    let process = Process::start_under(&["prlimit", "--nofile=256:256", "--"], &uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let parts = [
        "",
        "GET /api/orders HTTP/1.1\r\nhost:",
        "POST /api/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
        "GET /api/orders HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    let mut attack = Vec::new();
    for round in 0..4 {
        attack
            .extend(join_all((0..100).map(|number| held(&process.api, parts[number % 4].as_bytes()))).await);
        is_served(&process, &database).await;
        assert!(process.metric("orders_api_connections").await <= 192, "round {round}");
    }
    assert!(process.metric("orders_api_connections_evicted_total").await > 100);
    assert_eq!(process.metric("orders_api_accept_errors_total").await, 0);
}

#[tokio::test]
async fn where_files_run_out_it_says_so_and_goes_on() {
    let database = TestDatabase::new().await;
    let mut process = Process::start_under(&["prlimit", "--nofile=44:44", "--"], &uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let mut attack = Vec::new();
    for _ in 0..200 {
        attack.push(held(&process.api, b"GET").await);
    }
    eventually("no more files can be opened", || async {
        (process.metric("orders_api_accept_errors_total").await > 0).then_some(())
    })
    .await;
    let unsigned = answer(reqwest::Client::new().get(format!("http://{}/api/orders", process.api)));
    assert_eq!(timeout(PATIENT, unsigned).await.expect("a new client is served").0, StatusCode::UNAUTHORIZED);
    let new_probe = reqwest::get(format!("http://{}/livez", process.admin));
    assert_eq!(
        timeout(PATIENT, new_probe).await.expect("a new probe is answered").unwrap().status(),
        StatusCode::OK
    );
    // Not because timeouts have ended the others by then.
    assert!(process.metric("orders_api_connections_evicted_total").await > 0);
    drop(attack);
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    let told: Vec<_> =
        process.lines.iter().filter(|line| line.contains("cannot accept connections")).collect();
    assert!((1..=2).contains(&told.len()), "{told:?}");
    assert!(told[0].contains("Too many open files") && told[0].contains("nofile"), "{told:?}");
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let database = TestDatabase::bare().await;
    let process = Process::start_under(&["prlimit", "--nofile=64:1024", "--"], &uri(), &database.name, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().filter(|word| *word == "1024").count(), 2, "{line}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_what_is_lost_is_counted() {
    let database = TestDatabase::new().await;
    let mut process = Process::start_with_slow_reader(&uri(), &database.name);
    process.wait_until_ready(true).await;
    // Long lines: what a pipe and the queue hold is soon full.
    let path = format!("/api/{}", "x".repeat(10_000));
    let started = Instant::now();
    while process.metric("orders_operator_log_lines_dropped_total").await == 0 {
        let requests = (0..20).map(|_| answer(process.request(Method::GET, &path)));
        let answers =
            timeout(PATIENT, join_all(requests)).await.expect("it answers while nobody reads its log");
        assert!(answers.iter().all(|(status, _)| *status == StatusCode::NOT_FOUND));
        assert!(started.elapsed() < Duration::from_secs(60), "no line was dropped");
    }
    is_served(&process, &database).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn half_a_request_delays_the_end_of_the_process_by_no_more_than_a_moment() {
    let database = TestDatabase::new().await;
    let mut process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let half = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-half:";
    let mut connections = vec![held(&process.admin, half).await, held(&process.api, half).await];
    // One of a connection that has been in use, which may be idle for longer.
    let whole = [b"GET /api/orders HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), half].concat();
    connections.push(held(&process.api, &whole).await);
    let mut answered = [0; 12];
    connections[2].read_exact(&mut answered).await.unwrap();
    assert_eq!(&answered, b"HTTP/1.1 401");
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    // If it waited for the third, that would be ended when the time for all is over, and the log would say so.
    assert!(!process.lines.iter().any(|line| line.contains("not finished in time")));
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_is_logged_and_counted() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let mut process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;
    let body = json!({ "ticketId": database.ticket().await.to_string() }).to_string();
    let request = format!(
        "POST /api/orders HTTP/1.1\r\nhost: x\r\nx-request-id: given-up\r\ncookie: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        cookie("ada"),
        body.len()
    );
    let insert = proxy.once("insert", Fault::HoldReply);
    let client = held(&process.api, request.as_bytes()).await;
    insert.wait(1).await;
    drop(client);
    let name = r#"orders_api_requests_abandoned_total{method="POST",route="/api/orders"}"#;
    eventually("it is counted", || async { (process.metric(name).await == 1).then_some(()) }).await;
    process.terminate();
    process.ended().await;
    let line = process.lines.iter().find(|line| line.contains("the client gave up")).unwrap();
    assert!(line.contains("given-up") && line.contains("/api/orders") && line.contains("POST"), "{line}");
}
