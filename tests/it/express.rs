//! The answers of the API beside those of the Node.js service itself, on Express 4 and mongoose 5 and 8: each pair is the same,
//! or the difference is on the page about the API.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use jsonwebtoken::get_current_timestamp;
use mongodb::bson::{Bson, DateTime, doc, oid::ObjectId};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::block_in_place,
};

use crate::{
    api_process::Process,
    cluster::root,
    jwt::signed,
    mongo::{JWT_KEY, TestDatabase, cookie, uri},
};

/// The Node.js service on a database of its own; it ends with the test.
struct Express {
    child: Child,
    address: String,
}

impl Express {
    fn start(database: &TestDatabase, mongoose: &str) -> Self {
        assert!(
            std::env::var_os("NODE_PATH").is_some(),
            "NODE_PATH is not set: `make test` installs the packages of tests/mongoose and sets it"
        );
        let mut child = Command::new("node")
            .arg(root().join("tests/mongoose/express.js"))
            .arg(mongoose)
            .env("MONGO_URI", uri())
            .env("MONGO_DATABASE", &database.name)
            .env("JWT_KEY", JWT_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        block_in_place(|| output.read_line(&mut line)).unwrap();
        let printed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, address: format!("127.0.0.1:{}", printed["port"]) }
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request, byte by byte, so that it may be one that no client library sends.
#[derive(Clone)]
struct Request {
    bytes: Vec<u8>,
    /// Whether the client sends no more, which it shows by closing its side.
    half_close: bool,
}

impl Request {
    fn new(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        Self { bytes: [head.as_bytes(), b"\r\n", body].concat(), half_close: false }
    }

    /// By the user u1.
    fn by_u1(method: &str, path: &str) -> Self {
        Self::new(method, path, &[("cookie", &cookie("u1"))], b"")
    }

    /// A reservation by the user u1.
    fn post(body: &str) -> Self {
        let headers = [("cookie", &*cookie("u1")), ("content-type", "application/json")];
        Self::new("POST", "/api/orders", &headers, body.as_bytes())
    }

    /// The list of whoever has this token.
    fn with_token(claims: &Value) -> Self {
        let session = STANDARD.encode(json!({ "jwt": signed(JWT_KEY, claims) }).to_string());
        Self::new("GET", "/api/orders", &[("cookie", &format!("session={session}"))], b"")
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    tag: Option<String>,
    body: Value,
}

/// What differs in every answer about a new order: when it was made, and which id it has.
const CHANGING: [&str; 2] = ["id", "expiresAt"];

async fn answer(address: &str, request: &Request) -> Answer {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&request.bytes).await.unwrap();
    if request.half_close {
        connection.shutdown().await.unwrap();
    }
    let mut text = Vec::new();
    connection.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?} is no answer"));
    let header = |name: &str| {
        let value = |line: &str| Some(line.split_once(": ")?.1.to_owned());
        head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: "))).and_then(value)
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        content_type: header("content-type"),
        tag: header("etag"),
        body: serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())),
    };
    // Express tags an answer that has no body by the body that it would have had.
    if status == 204 {
        answer.tag = None;
    }
    if status == 201 {
        answer.tag = None;
        CHANGING.iter().for_each(|field| drop(answer.body.as_object_mut().unwrap().remove(*field)));
    }
    answer
}

/// A request, and how it is answered.
struct Case {
    what: String,
    request: Request,
    /// None if both answers are the same; otherwise the row on the page, and the statuses there and here.
    difference: Option<(&'static str, u16, u16)>,
}

fn same(what: impl Into<String>, request: Request) -> Case {
    Case { what: what.into(), request, difference: None }
}

fn differs(row: &'static str, there: u16, here: u16, request: Request) -> Case {
    Case { what: row.to_owned(), request, difference: Some((row, there, here)) }
}

/// Both services, each with a database of its own that has the same documents.
struct Pair {
    ours: Process,
    theirs: Express,
    databases: [TestDatabase; 2],
    mongoose: &'static str,
}

impl Pair {
    async fn start(mongoose: &'static str) -> Self {
        let databases = [TestDatabase::bare().await, TestDatabase::bare().await];
        let ours = Process::start(&uri(), &databases[0].name, &[]);
        let theirs = Express::start(&databases[1], mongoose);
        ours.wait_until_ready(true).await;
        Self { ours, theirs, databases, mongoose }
    }

    /// Stores an order, with `fields` set; `None` takes a field away. Returns its id.
    async fn order(&self, fields: Vec<(&str, Option<Bson>)>) -> String {
        // In the order in which mongoose stores the fields, since it shows them in that order.
        let mut order = doc! {
            "_id": ObjectId::new(), "userId": "u1", "status": "created",
            "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 900_000),
            "ticket": self.ticket(Bson::Int32(20)).await, "version": 0,
        };
        for (name, value) in fields {
            match value {
                Some(value) => drop(order.insert(name, value)),
                None => drop(order.remove(name)),
            }
        }
        for database in &self.databases {
            database.orders().insert_one(&order).await.unwrap();
        }
        order.get_object_id("_id").unwrap().to_hex()
    }

    async fn ticket(&self, price: Bson) -> ObjectId {
        let ticket = doc! { "_id": ObjectId::new(), "title": "concert", "price": price, "version": 0 };
        for database in &self.databases {
            database.tickets().insert_one(&ticket).await.unwrap();
        }
        ticket.get_object_id("_id").unwrap()
    }

    /// Sends the request of each case to both. Returns the rows of the differences.
    async fn compare(&self, cases: Vec<Case>) -> BTreeSet<&'static str> {
        let mut rows = BTreeSet::new();
        for Case { what, request, difference } in cases {
            let mut here = answer(&self.ours.api, &request).await;
            let mut there = answer(&self.theirs.address, &request).await;
            if self.mongoose == "5" && here.tag != there.tag && difference.is_none() {
                // The same fields in another order.
                (here.tag, there.tag) = (None, None);
                rows.insert("the order of an order's fields");
            }
            match difference {
                None => assert_eq!(here, there, "{what}"),
                Some((row, status_there, status_here)) => {
                    assert_eq!(
                        (there.status, here.status),
                        (status_there, status_here),
                        "{what}: {there:?} {here:?}"
                    );
                    assert_ne!(here, there, "{what} is the same");
                    rows.insert(row);
                }
            }
        }
        rows
    }
}

/// The rows of the table of differences: what is in the first column.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let table = page.split_once("| | Node.js service | here |\n").unwrap().1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

fn assert_documented(rows: &BTreeSet<&'static str>) {
    let documented = documented();
    for row in rows {
        assert!(documented.contains(*row), "the table of differences in docs/api.md has no row {row:?}");
    }
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn compressed(encoding: &str, body: &[u8]) -> Request {
    let headers =
        [("cookie", &*cookie("u1")), ("content-type", "application/json"), ("content-encoding", encoding)];
    Request::new("POST", "/api/orders", &headers, body)
}

/// Requests about no order in particular.
async fn general(pair: &Pair) -> Vec<Case> {
    let (now, mine) = (get_current_timestamp(), cookie("u1"));
    let ticket = pair.ticket(Bson::Double(20.5)).await.to_hex();
    let held = pair.ticket(Bson::Int32(20)).await;
    pair.order(vec![("ticket", Some(held.into())), ("userId", Some("u2".into()))]).await;
    let body = format!(r#"{{"ticketId":"{ticket}","more":{{"ignored":true}}}}"#);
    let with = |name: &str, value: &str| {
        Request::new("GET", "/api/orders", &[("cookie", &mine), (name, value)], b"")
    };
    let empty = "W/\"2-l9Fw4VUO7kr8CvBlt4zaMCqXZ0w\"";
    let mut cases = vec![
        same("an empty list", Request::by_u1("GET", "/api/orders")),
        same("HEAD", Request::by_u1("HEAD", "/api/orders")),
        same("no session", Request::new("GET", "/api/orders", &[], b"")),
        same("another case and a slash", Request::by_u1("GET", "/API/Orders/")),
        same("an unknown path", Request::by_u1("GET", "/api/nothing")),
        same("an unknown method", Request::by_u1("PUT", "/api/orders")),
        same("a known tag", with("if-none-match", empty)),
        same("a known tag among others", with("if-none-match", &format!("\"a\", {empty}"))),
        same("any tag", with("if-none-match", "*")),
        same("another tag", with("if-none-match", "\"a\"")),
        same(
            "a reload",
            Request::new(
                "GET",
                "/api/orders",
                &[("cookie", &mine), ("if-none-match", empty), ("cache-control", "no-cache")],
                b"",
            ),
        ),
        same(
            "a cookie that is not ASCII",
            Request::new("GET", "/api/orders", &[("cookie", &format!("name=José; {mine}"))], b""),
        ),
        same("a number as the user's id", Request::with_token(&json!({ "id": 7 }))),
        same("an expired token", Request::with_token(&json!({ "id": "u1", "exp": now - 1 }))),
        same("a token that is not valid yet", Request::with_token(&json!({ "id": "u1", "nbf": now + 60 }))),
        same("a token that expires later", Request::with_token(&json!({ "id": "u1", "exp": now + 60 }))),
        same("a compressed body without a ticket", compressed("gzip", &gzip("{}"))),
        same("a reservation", Request::post(&body)),
        same("a reservation of a held ticket", Request::post(&format!(r#"{{"ticketId":"{held}"}}"#))),
        same("an unknown ticket", Request::post(r#"{"ticketId":"65f0c1d2a3b4c5d6e7f80911"}"#)),
        same("an unknown order", Request::by_u1("GET", "/api/orders/65f0c1d2a3b4c5d6e7f80911")),
        same("a reservation by nobody", Request::new("POST", "/api/orders", &[], b"")),
        same(
            "a body that is not JSON by its type",
            Request::new("POST", "/api/orders", &[("cookie", &mine), ("content-type", "text/plain")], b"{}"),
        ),
        differs("the methods of a path (`OPTIONS`)", 200, 200, Request::by_u1("OPTIONS", "/api/orders")),
        differs("a body in another encoding than gzip and deflate", 400, 415, compressed("br", b"{}")),
        differs("a body that is not JSON, or is broken", 400, 400, Request::post("{\"ticketId\": ")),
        differs("a body that is not JSON, or is broken", 400, 400, compressed("gzip", b"{}")),
        differs(
            "body too large, unexpected error, database unavailable",
            400,
            413,
            Request::post(&" ".repeat(200_000)),
        ),
        differs(
            "body too large, unexpected error, database unavailable",
            400,
            413,
            compressed("gzip", &gzip(&" ".repeat(200_000))),
        ),
        differs("an id that is not valid", 400, 400, Request::by_u1("GET", "/api/orders/x")),
        differs("a token without an `id`", 200, 401, Request::with_token(&json!({ "email": "a@b.c" }))),
    ];
    if pair.mongoose == "5" {
        cases.push(differs("ids", 404, 400, Request::by_u1("GET", "/api/orders/abcdefghijkl")));
    }
    for missing in ["{}", "[]", r#"{"ticketId":""}"#, r#"{"ticketId":"x"}"#] {
        cases.push(same(missing, Request::post(missing)));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_as_by_express_or_the_page_says_how() {
    for mongoose in ["5", "8"] {
        let pair = Pair::start(mongoose).await;
        let rows = pair.compare(general(&pair).await).await;
        assert_documented(&rows);
        // A client that closes its side cannot be told from one that is gone. Node.js answers what it can at once; here
        // that is left to chance, since what is in progress ends with its client.
        let no_more = Request { half_close: true, ..Request::new("GET", "/api/orders", &[], b"") };
        assert_eq!(answer(&pair.theirs.address, &no_more).await.status, 401);
        assert_documented(&["a client that closes its side after the request"].into());
    }
}

/// Values of `expiresAt` that are read as mongoose reads them.
fn due_times() -> Vec<(&'static str, Option<Bson>)> {
    let millis = 1_795_368_564_464_i64;
    vec![
        ("missing", None),
        ("null", Some(Bson::Null)),
        ("empty", Some("".into())),
        ("a text", Some("2026-11-22T17:29:24.464Z".into())),
        ("a text with an offset", Some("2026-11-22T18:29:24.464+01:00".into())),
        ("a day", Some("2026-11-22".into())),
        ("milliseconds as text", Some("1795368564464".into())),
        ("words", Some("tomorrow".into())),
        ("int64", Some(Bson::Int64(millis))),
        ("double", Some(Bson::Double(1_795_368_564_464.7))),
        ("int32", Some(Bson::Int32(-5))),
        ("the last day of JavaScript", Some(DateTime::from_millis(8_640_000_000_000_000).into())),
        ("the first day of JavaScript", Some(DateTime::from_millis(-8_640_000_000_000_000).into())),
        ("after it", Some(DateTime::from_millis(8_640_000_000_000_001).into())),
        ("the year 10000", Some(DateTime::from_millis(253_402_300_800_000).into())),
        ("true", Some(Bson::Boolean(true))),
        ("decimal", Some(Bson::Decimal128("1795368564464".parse().unwrap()))),
        ("an object", Some(doc! { "a": 1 }.into())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_read_as_by_mongoose() {
    for mongoose in ["5", "8"] {
        let pair = Pair::start(mongoose).await;
        let mut cases = Vec::new();
        for (what, value) in due_times() {
            let id = pair.order(vec![("expiresAt", value)]).await;
            cases.push(same(
                format!("expiresAt: {what}"),
                Request::by_u1("GET", &format!("/api/orders/{id}")),
            ));
        }
        for (what, price) in [
            ("text", "20.5".into()),
            ("text with spaces", " 20 ".into()),
            ("exponent", "1e2".into()),
            ("decimal", Bson::Decimal128("20.50".parse().unwrap())),
            ("int64", Bson::Int64(5_000_000_000)),
            ("true", Bson::Boolean(true)),
        ] {
            let ticket = pair.ticket(price).await;
            let id = pair.order(vec![("ticket", Some(ticket.into()))]).await;
            cases.push(same(format!("price: {what}"), Request::by_u1("GET", &format!("/api/orders/{id}"))));
        }
        // All of them are in the list too.
        cases.push(same("all of them", Request::by_u1("GET", "/api/orders")));
        assert_documented(&pair.compare(cases).await);

        let user = ObjectId::new();
        let theirs = cookie(&user.to_hex());
        let id = pair.order(vec![("userId", Some(user.into()))]).await;
        let of_user = |method, path: &str| Request::new(method, path, &[("cookie", &theirs)], b"");
        let path = format!("/api/orders/{id}");
        let row = "an order whose `userId` is an ObjectId or a number";
        let rows = pair
            .compare(vec![
                same("userId as an ObjectId", of_user("GET", &path)),
                differs(row, 200, 200, of_user("GET", "/api/orders")),
                same("its cancellation", of_user("DELETE", &path)),
                same("what is left of it", of_user("GET", &path)),
            ])
            .await;
        assert_documented(&rows);
        let listed = answer(&pair.ours.api, &of_user("GET", "/api/orders")).await;
        assert_eq!(listed.body[0]["id"], json!(id), "mongoose looks for a text only, and finds nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_in_an_order_it_is_cancelled_and_answered_as_such_or_neither() {
    for mongoose in ["5", "8"] {
        let pair = Pair::start(mongoose).await;
        let mut rows = BTreeSet::new();
        for (what, value) in due_times() {
            let id = pair.order(vec![("expiresAt", value)]).await;
            let cancel = Request::by_u1("DELETE", &format!("/api/orders/{id}"));
            let (here, there) =
                (answer(&pair.ours.api, &cancel).await, answer(&pair.theirs.address, &cancel).await);
            assert_eq!(here.status, 204, "{what}");
            // mongoose refuses to save what it could not cast.
            if there.status == 204 {
                assert_eq!(here, there, "{what}");
            } else {
                rows.insert("cancelling an order whose `expiresAt` is no time");
                assert_eq!(there.status, 400, "{what}");
            }
            let stored = pair.databases[0].stored(&id).await;
            let status_and_version = (stored.get_str("status").unwrap(), stored.get_i32("version").unwrap());
            assert_eq!(status_and_version, ("cancelled", 1), "{what}");
        }
        assert_documented(&rows);
        for version in [Bson::Double(0.5), Bson::Int32(-1), Bson::Null, "3".into()] {
            let id = pair.order(vec![("version", Some(version.clone()))]).await;
            let here = answer(&pair.ours.api, &Request::by_u1("DELETE", &format!("/api/orders/{id}"))).await;
            let stored = pair.databases[0].stored(&id).await;
            let is_cancelled = stored.get_str("status").unwrap() == "cancelled";
            assert_eq!(here.status, if is_cancelled { 204 } else { 500 }, "{version}");
        }
        let again = pair.order(vec![("status", Some("cancelled".into()))]).await;
        let complete = pair.order(vec![("status", Some("complete".into()))]).await;
        let cancel = |id: &str| Request::by_u1("DELETE", &format!("/api/orders/{id}"));
        let show = |id: &str| Request::by_u1("GET", &format!("/api/orders/{id}"));
        let rows = pair
            .compare(vec![
                same("cancelling a cancelled order", cancel(&again)),
                differs("cancelling a cancelled order", 200, 200, show(&again)),
                differs("cancelling a complete order", 204, 400, cancel(&complete)),
            ])
            .await;
        assert_documented(&rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_sent_too_slowly_is_answered_with_408() {
    let pair = Pair::start("8").await;
    let mut slow = Request::post(r#"{"ticketId":""}"#);
    slow.bytes.truncate(slow.bytes.len() - 1);
    let (here, there) = tokio::join!(answer(&pair.ours.api, &slow), answer(&pair.theirs.address, &slow));
    assert_eq!((here.status, there.status), (408, 408));
    assert_eq!(here.body["errors"][0]["message"], "Request timeout");
    assert_documented(&["a body that is sent too slowly"].into());
}
