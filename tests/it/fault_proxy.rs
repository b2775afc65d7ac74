//! A proxy between the product and its database, which a test steers.
//!
//! It understands just enough of MongoDB's wire protocol to tell the commands apart. The database behind it is the real
//! one of the test bed, so whatever a fault does not touch is as it always is.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use orders_operator::store::{ConnectOptions, Store};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex as AsyncMutex,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::eventually,
    mongo::{TestDatabase, by_way_of, reach},
};

/// What happens to a command.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The server carries it out. Its reply is lost, and with it the connection.
    LoseReply,
    /// The server carries it out. Its reply is held until the rule is lifted.
    HoldReply,
    /// The server carries it out. Its reply comes so much later.
    DelayReply(Duration),
    /// The server carries it out, and its reply is changed, as the text says.
    ChangeReply(String, Arc<dyn Fn(&mut Document) + Send + Sync>),
    /// The server does not see it until the rule is lifted.
    HoldRequest,
    /// The server never sees it, and this is the reply.
    Answer(Document),
}

impl Fault {
    /// The server carries it out, and its reply is changed by `change`, which `what` describes.
    pub(crate) fn change(
        what: impl Into<String>,
        change: impl Fn(&mut Document) + Send + Sync + 'static,
    ) -> Self {
        Self::ChangeReply(what.into(), Arc::new(change))
    }

    /// The server never sees it, and the reply is this error.
    pub(crate) fn error(code: i32, message: &str) -> Self {
        Self::Answer(error(code, message))
    }

    /// The server carries it out, and the reply is this error.
    pub(crate) fn error_after(code: i32, message: &'static str) -> Self {
        Self::change(format!("error {code}: {message}"), move |reply| *reply = error(code, message))
    }

    /// The server carries out a write, and its reply says that too few servers have acknowledged it.
    pub(crate) fn write_concern_error(code: i32, message: &'static str) -> Self {
        Self::change(format!("writeConcernError {code}: {message}"), move |reply| {
            reply.insert("writeConcernError", doc! { "code": code, "errmsg": message });
        })
    }

    /// `listIndexes` shows one more index.
    pub(crate) fn list_index(index: Document) -> Self {
        Self::change(format!("{index} is listed"), move |reply| {
            let cursor = reply.get_document_mut("cursor").expect("the collection exists");
            cursor.get_array_mut("firstBatch").unwrap().push(Bson::Document(index.clone()));
        })
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoseReply => f.write_str("LoseReply"),
            Self::HoldReply => f.write_str("HoldReply"),
            Self::DelayReply(by) => write!(f, "DelayReply({by:?})"),
            Self::ChangeReply(what, _) => write!(f, "ChangeReply({what})"),
            Self::HoldRequest => f.write_str("HoldRequest"),
            Self::Answer(reply) => write!(f, "Answer({reply})"),
        }
    }
}

/// The body of a server's reply that is an error.
fn error(code: i32, message: &str) -> Document {
    doc! { "ok": 0.0, "errmsg": message, "code": code }
}

type Applies = dyn Fn(&Document) -> bool + Send + Sync;

/// A fault, and to which commands it happens. Clones are the same rule.
#[derive(Clone)]
pub(crate) struct Rule(Arc<RuleState>);

struct RuleState {
    command: String,
    applies: Box<Applies>,
    fault: Fault,
    /// To how many commands it happens at most.
    limit: usize,
    happened: AtomicUsize,
    /// How many clients closed their connection instead of waiting for what is held.
    abandoned: AtomicUsize,
    lifted: CancellationToken,
}

/// A reply that is held; to be told when nobody waits for it any more.
struct Held<'a> {
    rule: &'a RuleState,
    is_lifted: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_lifted {
            self.rule.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl RuleState {
    async fn hold(&self) {
        let mut held = Held { rule: self, is_lifted: false };
        self.lifted.cancelled().await;
        held.is_lifted = true;
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {}", self.0.fault, self.0.command)
    }
}

impl Rule {
    /// How often it has happened. A test that finds 0 at its end has proven nothing.
    pub(crate) fn happened(&self) -> usize {
        self.0.happened.load(Ordering::SeqCst)
    }

    /// Waits until it has happened so often.
    pub(crate) async fn wait(&self, times: usize) {
        let what = format!("{self:?} has happened {times} times");
        eventually(&what, || async { (self.happened() >= times).then_some(()) }).await;
    }

    /// How many clients have closed the connections on which a reply of theirs is held.
    pub(crate) fn abandoned(&self) -> usize {
        self.0.abandoned.load(Ordering::SeqCst)
    }

    /// Waits until so many of them have.
    pub(crate) async fn wait_until_abandoned(&self, times: usize) {
        let what = format!("{self:?} was given up {times} times");
        eventually(&what, || async { (self.abandoned() >= times).then_some(()) }).await;
    }

    /// Ends it: it happens to no more commands, and what it holds goes on.
    pub(crate) fn lift(&self) {
        self.0.lifted.cancel();
    }

    fn claim(&self, command: &Document) -> bool {
        let rule = &self.0;
        let is_meant = command.keys().next() == Some(&rule.command) && (rule.applies)(command);
        let count = |count| (count < rule.limit).then_some(count + 1);
        is_meant
            && !rule.lifted.is_cancelled()
            && rule.happened.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).is_ok()
    }
}

/// The proxy. It ends with its test, and so do its connections.
pub(crate) struct FaultProxy {
    /// The connection string of the database by way of the proxy.
    pub(crate) uri: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Document>>,
    connections: AtomicUsize,
}

impl FaultProxy {
    /// A proxy to the server that the tests use, without faults.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (uri, behind) = by_way_of(listener.local_addr().unwrap().port());
        let shared = Arc::<Shared>::default();
        let (state, mut tasks) = (shared.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                let (state, behind) = (state.clone(), behind.clone());
                connections.spawn(async move {
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    if let Ok(there) = TcpStream::connect(behind).await {
                        Connection::new(state.clone(), here, there).run().await;
                    }
                    state.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { uri, shared, _tasks: tasks }
    }

    /// A store of `database` by way of the proxy.
    pub(crate) async fn store(&self, database: &TestDatabase) -> Store {
        let options = ConnectOptions { database: Some(&database.name), ..ConnectOptions::new(&self.uri) };
        Store::connect(options).await.unwrap()
    }

    /// From now on `fault` happens to every command of this name, such as `insert` or `findAndModify`.
    pub(crate) fn on(&self, command: &str, fault: Fault) -> Rule {
        self.when(command, usize::MAX, |_| true, fault)
    }

    /// `fault` happens to the next command of this name.
    pub(crate) fn once(&self, command: &str, fault: Fault) -> Rule {
        self.when(command, 1, |_| true, fault)
    }

    /// `fault` happens to the next `limit` commands of this name that `applies` accepts. A command has its document
    /// sequences as arrays, such as the `documents` of an `insert`. Of several rules the oldest counts.
    pub(crate) fn when(
        &self,
        command: &str,
        limit: usize,
        applies: impl Fn(&Document) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> Rule {
        let rule = Rule(Arc::new(RuleState {
            command: command.to_owned(),
            applies: Box::new(applies),
            fault,
            limit,
            happened: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            lifted: CancellationToken::new(),
        }));
        self.shared.rules.lock().unwrap().push(rule.clone());
        rule
    }

    /// The commands of this name that have arrived, oldest first.
    pub(crate) fn seen(&self, command: &str) -> Vec<Document> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|sent| sent.keys().next().is_some_and(|name| name == command)).cloned().collect()
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Notes a command, and finds the rule for it.
    fn rule_of(&self, command: Document) -> Option<Rule> {
        let rule = self.rules.lock().unwrap().iter().find(|rule| rule.claim(&command)).cloned();
        self.seen.lock().unwrap().push(command);
        rule
    }
}

/// One connection of the product, and the one to the server that belongs to it.
struct Connection {
    shared: Arc<Shared>,
    from_here: AsyncMutex<OwnedReadHalf>,
    to_here: AsyncMutex<OwnedWriteHalf>,
    from_there: AsyncMutex<OwnedReadHalf>,
    to_there: AsyncMutex<OwnedWriteHalf>,
    /// What is to happen to the replies to these requests.
    pending: Mutex<HashMap<i32, Rule>>,
}

impl Connection {
    fn new(shared: Arc<Shared>, here: TcpStream, there: TcpStream) -> Self {
        // Otherwise every small message waits for the acknowledgement of the one before it.
        here.set_nodelay(true).unwrap();
        there.set_nodelay(true).unwrap();
        let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
        Self {
            shared,
            from_here: AsyncMutex::new(from_here),
            to_here: AsyncMutex::new(to_here),
            from_there: AsyncMutex::new(from_there),
            to_there: AsyncMutex::new(to_there),
            pending: Mutex::default(),
        }
    }

    /// Until either side closes it, or a fault does.
    async fn run(self) {
        tokio::select! {
            _ = self.forward_requests() => {}
            _ = self.forward_replies() => {}
        }
    }

    async fn forward_requests(&self) -> Option<()> {
        let mut from_here = self.from_here.lock().await;
        loop {
            let request = Message::read(&mut from_here).await?;
            if let Some(rule) = request.command().and_then(|command| self.shared.rule_of(command)) {
                match &rule.0.fault {
                    Fault::Answer(reply) => {
                        Message::reply(request.id(), reply).write(&self.to_here).await?;
                        continue;
                    }
                    Fault::HoldRequest => rule.0.lifted.cancelled().await,
                    _ => drop(self.pending.lock().unwrap().insert(request.id(), rule)),
                }
            }
            request.write(&self.to_there).await?;
        }
    }

    async fn forward_replies(&self) -> Option<()> {
        let mut from_there = self.from_there.lock().await;
        loop {
            let mut reply = Message::read(&mut from_there).await?;
            let rule = self.pending.lock().unwrap().remove(&reply.response_to());
            if let Some(rule) = rule {
                match &rule.0.fault {
                    Fault::LoseReply => return None,
                    Fault::HoldReply => rule.0.hold().await,
                    Fault::DelayReply(by) => tokio::time::sleep(*by).await,
                    Fault::ChangeReply(_, change) => {
                        let mut document = reply.command()?;
                        change(&mut document);
                        reply = Message::reply(reply.response_to(), &document);
                    }
                    Fault::HoldRequest | Fault::Answer(_) => {}
                }
            }
            reply.write(&self.to_here).await?;
        }
    }
}

/// A message of the wire protocol: a header of four numbers, then, of an OP_MSG, flags and sections.
struct Message(Vec<u8>);

const OP_MSG: i32 = 2013;
const HAS_CHECKSUM: i32 = 1;
const HEADER: usize = 16;

impl Message {
    async fn read(from: &mut OwnedReadHalf) -> Option<Self> {
        let mut bytes = vec![0; HEADER];
        from.read_exact(&mut bytes).await.ok()?;
        let length = usize::try_from(number(&bytes, 0)?).ok()?;
        bytes.resize(length, 0);
        from.read_exact(bytes.get_mut(HEADER..)?).await.ok()?;
        Some(Self(bytes))
    }

    async fn write(&self, to: &AsyncMutex<OwnedWriteHalf>) -> Option<()> {
        to.lock().await.write_all(&self.0).await.ok()
    }

    /// An OP_MSG with this body, in reply to the request with this id.
    fn reply(to: i32, body: &Document) -> Self {
        let body = body.to_vec().unwrap();
        let length = i32::try_from(HEADER + 5 + body.len()).unwrap();
        let numbers = [length, 1, to, OP_MSG, 0].map(i32::to_le_bytes).concat();
        Self([numbers.as_slice(), &[0], &body].concat())
    }

    fn id(&self) -> i32 {
        number(&self.0, 4).unwrap()
    }

    fn response_to(&self) -> i32 {
        number(&self.0, 8).unwrap()
    }

    /// The body of an OP_MSG, with its document sequences as arrays; none for the other operations, which drivers use
    /// to greet servers.
    fn command(&self) -> Option<Document> {
        if number(&self.0, 12)? != OP_MSG {
            return None;
        }
        let checksum = if number(&self.0, HEADER)? & HAS_CHECKSUM == 0 { 0 } else { 4 };
        let mut rest = self.0.get(HEADER + 4..self.0.len() - checksum)?;
        let (mut body, mut sequences) = (Document::new(), Document::new());
        while let Some((kind, section)) = rest.split_first() {
            let (this, others) = section.split_at_checked(usize::try_from(number(section, 0)?).ok()?)?;
            rest = others;
            if *kind == 0 {
                body = Document::from_reader(this).ok()?;
            } else {
                let name = this.get(4..)?.split(|byte| *byte == 0).next()?;
                let mut documents = this.get(4 + name.len() + 1..)?;
                let mut sequence = Vec::new();
                while !documents.is_empty() {
                    sequence.push(Document::from_reader(&mut documents).ok()?);
                }
                sequences.insert(String::from_utf8(name.to_vec()).ok()?, sequence);
            }
        }
        body.extend(sequences);
        Some(body)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[tokio::test]
async fn the_proxy_tells_commands_apart_and_steers_their_replies() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&database).await;

    // An insert of several documents arrives whole.
    let tickets = [database.ticket().await, database.ticket().await];
    reach(&store).await.unwrap();
    assert!(proxy.connections() > 0);
    assert_eq!(store.ticket(tickets[0]).await.unwrap().unwrap().id, tickets[0]);
    assert!(
        proxy.seen("find").iter().any(|find| find.get_str("find").ok() == Some("tickets")),
        "{:?}",
        proxy.seen("find")
    );

    // A rule for other commands changes nothing; one that is lifted neither.
    let other =
        proxy.when("find", usize::MAX, |find| find.get_str("find").ok() == Some("nothing"), Fault::LoseReply);
    let lifted = proxy.on("find", Fault::error(13, "not allowed"));
    assert_eq!(store.ticket(tickets[0]).await.unwrap_err().reason(), "AuthenticationFailed");
    lifted.lift();
    assert!(store.ticket(tickets[0]).await.unwrap().is_some());
    assert_eq!((other.happened(), lifted.happened()), (0, 1));

    // A reply that is held arrives once the rule is lifted.
    let held = proxy.once("find", Fault::HoldReply);
    let reading = tokio::spawn({
        let (store, ticket) = (store.clone(), tickets[1]);
        async move { store.ticket(ticket).await }
    });
    held.wait(1).await;
    assert!(!reading.is_finished());
    held.lift();
    assert_eq!(reading.await.unwrap().unwrap().unwrap().id, tickets[1]);
}

#[tokio::test]
async fn the_proxy_holds_requests_and_changes_what_a_server_says() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let client = Client::with_uri_str(&proxy.uri).await.unwrap();
    let orders = client.database(&database.name).collection::<Document>("orders");

    proxy.once("listIndexes", Fault::list_index(doc! { "v": 2, "key": { "a": 1 }, "name": "theirs" }));
    assert!(orders.list_index_names().await.unwrap().contains(&"theirs".to_owned()));
    assert!(!orders.list_index_names().await.unwrap().contains(&"theirs".to_owned()));

    proxy.once("insert", Fault::write_concern_error(64, "waiting for replication timed out"));
    let error = orders.insert_one(doc! { "userId": "u1" }).await.unwrap_err();
    assert!(error.to_string().contains("waiting for replication timed out"), "{error}");
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1);

    let held = proxy.once("delete", Fault::HoldRequest);
    let deleting = tokio::spawn(async move { orders.delete_one(doc! {}).await });
    held.wait(1).await;
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1, "the server has not seen it");
    held.lift();
    assert_eq!(deleting.await.unwrap().unwrap().deleted_count, 1);

    let (by, started) = (Duration::from_millis(50), Instant::now());
    proxy.once("aggregate", Fault::DelayReply(by));
    client.database(&database.name).collection::<Document>("orders").count_documents(doc! {}).await.unwrap();
    assert!(started.elapsed() >= by);
}
