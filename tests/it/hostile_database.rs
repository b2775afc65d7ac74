//! What a server can do to whoever connects to it: a fake one that speaks MongoDB's protocol up to the login.

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use orders_operator::{
    crd::ConditionType::*,
    store::{ConnectOptions, ErrorCategory, Pools, Store, StoreError},
};
use ring::{digest, hmac, pbkdf2};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    cluster::{TestNamespace, eventually},
    mongo::{TestDatabase, reach, uri},
    sweeper::{cancelled, order, service},
};

const PASSWORD: &str = "pencil";

/// What SCRAM-SHA-1 hashes in its place: MD5 of `user:mongo:pencil`.
const PASSWORD_SHA1: &str = "1c33006ec1ffd90f9cadcbcc0e118200";

/// How the server answers the first message of SCRAM.
#[derive(Clone, Copy)]
struct Login {
    rounds: u32,
    salt: usize,
    /// Whether it keeps the client's nonce, as it must.
    nonce: bool,
    /// The rounds in a second payload, which whoever takes the last of two fields reads.
    second: Option<u32>,
}

/// What MongoDB asks for.
const USUAL: Login = Login { rounds: 15_000, salt: 28, nonce: true, second: None };

/// How the server answers when it is connected to.
type Greeting = fn(u32) -> Message;

/// An answer, of which only the id of the request is left out.
struct Message {
    /// The length that it claims to have; that which it has, if none.
    length: Option<i32>,
    flags: u32,
    document: Vec<u8>,
    /// How often it is sent.
    times: u32,
}

impl From<Document> for Message {
    fn from(document: Document) -> Self {
        let document = mongodb::bson::serialize_to_vec(&document).unwrap();
        Self { length: None, flags: 0, document, times: 1 }
    }
}

/// An honest answer, with more of it.
fn hello(more: Document) -> Document {
    let mut hello = doc! {
        "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "minWireVersion": 0, "maxWireVersion": 21,
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
    };
    hello.extend(more);
    hello
}

/// A document that is nested so deep, without a library that would take as much of the stack.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![5, 0, 0, 0, 0], |inner, _| {
        let mut outer = (inner.len() as i32 + 8).to_le_bytes().to_vec();
        outer.extend(b"\x03a\0");
        outer.extend(inner);
        outer.push(0);
        outer
    })
}

/// A server whose only user is `user`.
struct FakeDatabase {
    port: u16,
    greetings: Arc<AtomicU32>,
    /// For each login, whether the client has proved that it knows the password.
    logins: Arc<Mutex<Vec<bool>>>,
}

impl FakeDatabase {
    async fn start(login: Login) -> Self {
        Self::greeting(login, |_| hello(doc! {}).into()).await
    }

    async fn greeting(login: Login, greeting: Greeting) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::<Mutex<Vec<bool>>>::default();
        let all = logins.clone();
        let greetings = Arc::<AtomicU32>::default();
        let count = greetings.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let connection = Connection { stream, login, greeting, greetings: count, scram: None };
                // It ends with an error when the client hangs up.
                tokio::spawn(connection.serve(all.clone()));
            }
        });
        Self { port, greetings, logins }
    }

    /// How often it was asked whether it is there.
    fn greetings(&self) -> u32 {
        self.greetings.load(Ordering::Relaxed)
    }

    fn uri(&self, mechanism: &str) -> String {
        format!("mongodb://user:{PASSWORD}@127.0.0.1:{}/orders?authMechanism={mechanism}", self.port)
    }

    fn logins(&self) -> Vec<bool> {
        self.logins.lock().unwrap().clone()
    }
}

struct Connection {
    stream: TcpStream,
    login: Login,
    greeting: Greeting,
    greetings: Arc<AtomicU32>,
    /// The first messages of the client and of the server, and the salt.
    scram: Option<Scram>,
}

struct Scram {
    sha1: bool,
    client_first: String,
    server_first: String,
    salt: Vec<u8>,
}

impl Connection {
    async fn serve(mut self, logins: Arc<Mutex<Vec<bool>>>) -> io::Result<()> {
        loop {
            let length = self.stream.read_i32_le().await?;
            // Request id, response to, opcode and flags, of four bytes each; then a byte for the kind of the section.
            let mut rest = vec![0; length as usize - 4];
            self.stream.read_exact(&mut rest).await?;
            let command = Document::from_reader(&rest[17..]).unwrap();
            let answer = self.answer(&command, &logins);
            let mut message = Vec::new();
            let length = answer.length.unwrap_or(16 + 4 + 1 + answer.document.len() as i32);
            message.extend(length.to_le_bytes());
            message.extend(0_i32.to_le_bytes());
            message.extend(&rest[..4]);
            message.extend(2013_i32.to_le_bytes());
            message.extend(answer.flags.to_le_bytes());
            message.push(0);
            message.extend(answer.document);
            for _ in 0..answer.times {
                self.stream.write_all(&message).await?;
            }
        }
    }

    fn answer(&mut self, command: &Document, logins: &Mutex<Vec<bool>>) -> Message {
        match command.keys().next().unwrap().as_str() {
            "hello" | "isMaster" | "ismaster" => {
                (self.greeting)(self.greetings.fetch_add(1, Ordering::Relaxed))
            }
            name => {
                let mut message = Message::from(self.reply(command, logins));
                if let (Some(rounds), "saslStart") = (self.login.second, name) {
                    message.document = with_payload(message.document, &format!("r=x,s=c2FsdA==,i={rounds}"));
                }
                message
            }
        }
    }

    fn reply(&mut self, command: &Document, logins: &Mutex<Vec<bool>>) -> Document {
        let text = || {
            let payload = command.get_binary_generic("payload").unwrap();
            String::from_utf8(payload.clone()).unwrap()
        };
        match command.keys().next().unwrap().as_str() {
            "saslStart" => {
                let scram = self.start(command.get_str("mechanism").unwrap() == "SCRAM-SHA-1", &text());
                let payload = payload(&scram.server_first);
                self.scram = Some(scram);
                doc! { "ok": 1, "conversationId": 1, "done": false, "payload": payload }
            }
            "saslContinue" => {
                let signature = self.scram.take().unwrap().signature(self.login.rounds, &text());
                logins.lock().unwrap().push(signature.is_some());
                match signature {
                    Some(signature) => {
                        let payload = payload(&format!("v={}", STANDARD.encode(signature)));
                        doc! { "ok": 1, "conversationId": 1, "done": true, "payload": payload }
                    }
                    None => doc! { "ok": 0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "no" },
                }
            }
            "find" => doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "orders.orders", "firstBatch": [] } },
            _ => doc! { "ok": 1 },
        }
    }

    fn start(&self, sha1: bool, message: &str) -> Scram {
        let client_first = message.strip_prefix("n,,").unwrap().to_owned();
        let nonce = client_first.split_once(",r=").unwrap().1;
        let salt = vec![7; self.login.salt];
        let nonce = if self.login.nonce { format!("{nonce}server") } else { "short".into() };
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&salt), self.login.rounds);
        Scram { sha1, client_first, server_first, salt }
    }
}

impl Scram {
    /// What proves that the server knows the password too, if the client does.
    fn signature(&self, rounds: u32, client_final: &str) -> Option<Vec<u8>> {
        // Who answers to more rounds than that has not computed them, and neither does this server.
        let rounds = rounds.try_into().ok().filter(|rounds: &NonZeroU32| rounds.get() <= 200_000)?;
        let (hash, mac, pbkdf2, password) = if self.sha1 {
            let hash = &digest::SHA1_FOR_LEGACY_USE_ONLY;
            (hash, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pbkdf2::PBKDF2_HMAC_SHA1, PASSWORD_SHA1)
        } else {
            (&digest::SHA256, hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256, PASSWORD)
        };
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(mac, key), text);
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(pbkdf2, rounds, &self.salt, password.as_bytes(), &mut salted);
        let (without_proof, proof) = client_final.split_once(",p=").unwrap();
        let messages = format!("{},{},{without_proof}", self.client_first, self.server_first);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(hash, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), messages.as_bytes());
        let expected: Vec<_> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let is_proved = STANDARD.decode(proof).unwrap() == expected;
        is_proved.then(|| sign(sign(&salted, b"Server Key").as_ref(), messages.as_bytes()).as_ref().to_vec())
    }
}

/// A document with one more field, be there one of that name or not.
fn with_payload(mut document: Vec<u8>, text: &str) -> Vec<u8> {
    document.pop();
    document.extend(b"\x05payload\0");
    document.extend((text.len() as i32).to_le_bytes());
    document.push(0);
    document.extend(text.as_bytes());
    document.push(0);
    let length = document.len() as i32;
    document[..4].copy_from_slice(&length.to_le_bytes());
    document
}

fn payload(text: &str) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() })
}

/// What comes of connecting: a login, or an error that `is_answer`. Unoptimized, the hashing of both sides may take longer than
/// a call may; the driver goes on with it, and the next call has its result. And on a loaded machine the server may seem to
/// be away.
async fn connect(uri: &str, is_answer: impl Fn(&StoreError) -> bool) -> Result<(), StoreError> {
    // As the sweeper connects.
    let store = Store::connect_in(&Pools::guarded(), ConnectOptions::new(uri)).await.unwrap();
    let what = "the server has been answered";
    let answered = |result: Result<(), StoreError>| match result {
        Err(StoreError::TimedOut { .. }) => None,
        Err(error) if !is_answer(&error) => {
            eprintln!("{error}");
            None
        }
        result => Some(result),
    };
    eventually(what, || async { answered(reach(&store).await) }).await
}

/// The server has been reached.
fn is_reached(error: &StoreError) -> bool {
    error.category() != ErrorCategory::DatabaseUnreachable
}

// The server has threads of its own beside the client, as a real one has.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_hashed_as_often_as_an_honest_server_asks_for_and_no_more() {
    for (mechanism, login, is_proved) in [
        ("SCRAM-SHA-256", USUAL, true),
        ("SCRAM-SHA-1", Login { rounds: 10_000, salt: 16, ..USUAL }, true),
        ("SCRAM-SHA-256", Login { salt: 129, ..USUAL }, true),
        ("SCRAM-SHA-256", Login { salt: 130, ..USUAL }, false),
        ("SCRAM-SHA-256", Login { rounds: 100_001, ..USUAL }, false),
        ("SCRAM-SHA-1", Login { rounds: 10_000, salt: 130, ..USUAL }, false),
        ("SCRAM-SHA-1", Login { rounds: i32::MAX as u32, ..USUAL }, false),
    ] {
        let server = FakeDatabase::start(login).await;
        let result = connect(&server.uri(mechanism), is_reached).await;
        let what = format!("{mechanism}, {} rounds, a salt of {} bytes", login.rounds, login.salt);
        match result {
            Ok(()) => assert!(is_proved, "{what}"),
            Err(error) => {
                assert!(!is_proved, "{what}: {error}");
                assert_eq!(error.category(), ErrorCategory::AuthenticationFailed, "{what}: {error}");
            }
        }
        // Who is asked for too much says nothing more.
        let logins = server.logins();
        assert_eq!(logins.contains(&true), is_proved, "{what}: {logins:?}");
        assert!(is_proved || logins.is_empty(), "{what}: {logins:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_by_which_the_driver_would_panic_is_a_refused_login() {
    let server = FakeDatabase::start(Login { nonce: false, ..USUAL }).await;
    let error = connect(&server.uri("SCRAM-SHA-256"), is_reached).await.unwrap_err();
    assert_eq!(error.category(), ErrorCategory::AuthenticationFailed, "{error}");
    assert!(error.to_string().contains("does not begin with the nonce"), "{error}");
}

/// Greetings that no database gives, and what is said of them.
const HOSTILE: [(&str, Greeting, &str); 9] = [
    ("nested", |_| Message { document: nested(1000), ..doc! {}.into() }, "nested more than 32 deep"),
    (
        "long",
        |_| Message { length: Some(48_000_000), ..hello(doc! {}).into() },
        "its length is 48000000 bytes",
    ),
    ("large", |_| hello(doc! { "setName": "x".repeat(20_000) }).into(), "at most 16384 are allowed"),
    ("in-parts", |_| Message { flags: 2, times: 1_000_000, ..hello(doc! {}).into() }, "its flags are 0x2"),
    ("crowd", |_| hello(doc! { "setName": "rs", "hosts": vec!["h:1"; 51] }).into(), "its field hosts"),
    ("socket", |_| hello(doc! { "setName": "rs", "hosts": ["/tmp/hostile.sock"] }).into(), "its field hosts"),
    ("liar", |_| Message { document: [7; 100].into(), ..doc! {}.into() }, "it is not BSON"),
    ("negative", |_| Message { length: Some(-1), ..doc! {}.into() }, "its length is -1 bytes"),
    ("short", |_| Message { document: Vec::new(), ..doc! {}.into() }, "it is not BSON"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_no_database_gives_is_an_error_of_that_database() {
    for (what, greeting, why) in HOSTILE {
        let server = FakeDatabase::greeting(USUAL, greeting).await;
        let is_told = |error: &StoreError| error.to_string().contains(why);
        let error = connect(&server.uri("SCRAM-SHA-256"), is_told).await.unwrap_err();
        assert_eq!(error.category(), ErrorCategory::DatabaseUnreachable, "{what}: {error}");
        assert!(!error.remedy().contains(why), "{what}: {}", error.remedy());
    }
}

/// A message that is begun and never ended costs its namespace's budget for some seconds, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_end_is_given_up() {
    let server =
        FakeDatabase::greeting(USUAL, |_| Message { length: Some(16_000), ..hello(doc! {}).into() }).await;
    let error = connect(&server.uri("SCRAM-SHA-256"), |_| true).await.unwrap_err();
    assert_eq!(error.category(), ErrorCategory::DatabaseUnreachable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_there_twice_is_read_in_no_way() {
    let server = FakeDatabase::start(Login { second: Some(i32::MAX as u32), ..USUAL }).await;
    let error = connect(&server.uri("SCRAM-SHA-256"), is_reached).await.unwrap_err();
    assert!(error.to_string().contains("the field payload twice"), "{error}");
    assert!(server.logins().is_empty());
}

#[tokio::test]
async fn hostile_databases_stop_nobody_s_expiry() {
    let mut ticketing = TestNamespace::create("honest").await;
    let mallory = TestNamespace::create("mallory").await;
    ticketing.watch_also(&mallory);
    let (database, later) = (TestDatabase::new().await, TestDatabase::new().await);
    ticketing.secrets(&uri()).await;
    mallory.secrets(&uri()).await;
    let hashing = FakeDatabase::start(Login { rounds: i32::MAX as u32, ..USUAL }).await;
    let mut evil: Vec<_> = ["SCRAM-SHA-256", "SCRAM-SHA-1"]
        .map(|mechanism| (mechanism.to_lowercase(), hashing.uri(mechanism)))
        .into();
    let twice = FakeDatabase::start(Login { second: Some(i32::MAX as u32), ..USUAL }).await;
    evil.push(("twice".into(), twice.uri("SCRAM-SHA-256")));
    // Names that no server of the DNS knows, or answers about.
    let unknown: Vec<_> = (0..50).map(|number| format!("h{number}.nowhere.invalid")).collect();
    evil.push(("unknown".into(), format!("mongodb://{}/orders?replicaSet=rs", unknown.join(","))));
    let mut servers = Vec::new();
    for (what, greeting, _) in HOSTILE {
        let server = FakeDatabase::greeting(USUAL, greeting).await;
        evil.push((what.into(), server.uri("SCRAM-SHA-256")));
        servers.push(server);
    }
    for (name, uri) in &evil {
        mallory.secret(name, "MONGO_URI", uri).await;
        let spec = json!({"database": {"uriSecretRef": {"name": name}, "name": name}});
        mallory.apply(&service(&mallory, name, &database, spec)).await.unwrap();
    }
    ticketing.apply(&service(&ticketing, "orders", &database, json!({}))).await.unwrap();
    let overdue = order(&database, "created", -60_000).await;
    let sweeper = ticketing.run("sweeper").await;
    let _controller = ticketing.run("controller").await;
    cancelled(&database, overdue).await;
    for (name, _) in &evil {
        let reason = match name.as_str() {
            "scram-sha-1" | "scram-sha-256" | "twice" => "AuthenticationFailed",
            _ => "DatabaseUnreachable",
        };
        mallory.condition(name, DatabaseReady, "False", reason).await;
    }
    // While these are tried again and again, somebody else's database is added, and a login that takes hashing succeeds.
    ticketing.apply(&service(&ticketing, "later", &later, json!({}))).await.unwrap();
    let overdue = order(&later, "created", -60_000).await;
    cancelled(&later, overdue).await;
    let honest = FakeDatabase::start(USUAL).await;
    ticketing.secret("honest", "MONGO_URI", &honest.uri("SCRAM-SHA-256")).await;
    let spec = json!({"database": {"uriSecretRef": {"name": "honest"}, "name": "honest"}});
    ticketing.apply(&service(&ticketing, "honest", &database, spec)).await.unwrap();
    eventually("the honest login succeeds", || async { honest.logins().contains(&true).then_some(()) }).await;
    assert!(hashing.greetings() > 0 && hashing.logins().is_empty(), "{:?}", hashing.logins());
    for (server, (what, ..)) in servers.iter().zip(HOSTILE) {
        assert!(server.greetings() > 0, "{what}");
    }
    let memory = sweeper.peak_memory();
    assert!(memory < 100_000, "{memory} kB");
    ticketing.remove().await;
    mallory.remove().await;
}
