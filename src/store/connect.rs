//! From a connection string to a client, and to the identity of its database.
//!
//! Errors never repeat the connection string, since it holds a password.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use mongodb::{
    Client,
    error::{Error, ErrorKind},
    options::{
        Acknowledgment, ClientOptions, Credential, HostInfo, ReadConcern, ReadPreference, SelectionCriteria,
        ServerAddress, ServerMonitoringMode, Tls, WriteConcern,
    },
};

use sha2::{Digest, Sha256};

use super::{
    error::StoreError,
    guard::{Guard, Guards},
    retry,
    tls::{self, ClientTls},
    uri::{ConnectionUri, DEFAULT_MAX_POOL_SIZE, MAX_HOSTS, check_auth_source, check_database},
};

use crate::runtime::hex;

/// The database's name if neither the caller nor the URI sets one.
pub(super) const DEFAULT_DATABASE: &str = "orders";

const APP_NAME: &str = "orders-operator";

/// The timeouts of server selection and of connecting, unless the URI sets them: shorter than any request's deadline,
/// so that an unreachable database is reported as such and not as a timeout. The driver's defaults are 30 s and 10 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest that these may be for a server that nobody vouches for.
const MAX_GUARDED_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections to each such server, apart from the one that looks whether it is there.
const MAX_GUARDED_POOL_SIZE: u32 = 8;

/// The shortest pause between two such looks.
const MIN_GUARDED_HEARTBEAT: Duration = Duration::from_secs(5);

/// What to connect to.
#[derive(Clone, Copy)]
pub struct ConnectOptions<'a> {
    /// A `mongodb://` or `mongodb+srv://` connection string.
    pub uri: &'a str,
    /// The database's name; else the URI's, else `orders`.
    pub database: Option<&'a str>,
    /// The Kubernetes namespace in which host names are resolved as a pod of it would: with `ticketing`, `orders-mongo` is
    /// `orders-mongo.ticketing.svc`. Only in guarded pools, since the others are those of such a pod.
    pub namespace: Option<&'a str>,
    /// The CA and the client certificate; TLS is then on.
    pub tls: Option<&'a ClientTls>,
}

impl<'a> ConnectOptions<'a> {
    /// Connects with the URI as it is.
    #[must_use]
    pub const fn new(uri: &'a str) -> Self {
        Self { uri, database: None, namespace: None, tls: None }
    }

    /// The database that these options lead to, determined without contacting it.
    ///
    /// # Errors
    /// When the URI or the database's name is not usable.
    pub fn target(&self) -> Result<TargetId, StoreError> {
        self.parse().map(|(_, target)| target)
    }

    /// The database that the caller or the URI names.
    pub(super) fn named<'u>(&'u self, uri: &'u ConnectionUri) -> Option<&'u str> {
        let named = self.database.filter(|name| !name.is_empty());
        named.or(uri.driver.default_database.as_deref())
    }

    /// What of the URI has no effect, and why; each names an option, never a value.
    ///
    /// # Errors
    /// As [`ConnectOptions::target`].
    pub fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.parse()?.0.warnings.iter().map(ToString::to_string).collect())
    }

    /// The servers, by what may be told to people who may not read the connection string: names and addresses without
    /// ports. A port of digits may be a password whose `@HOST` was forgotten, and where an option has an `@`, what was
    /// read as a server may be the middle of a password that is not percent-encoded. Then none is told; nor where the
    /// connection string cannot be parsed.
    #[must_use]
    pub fn hosts_to_tell(&self) -> Vec<String> {
        let (_, options) = self.uri.split_once('?').unwrap_or_default();
        let Ok(target) = self.target() else { return Vec::new() };
        if options.contains('@') {
            return Vec::new();
        }
        let mut hosts: Vec<_> = target
            .hosts
            .iter()
            .map(|host| match host.strip_prefix("srv:") {
                Some(name) => name.to_owned(),
                None => host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host).to_owned(),
            })
            .collect();
        // They are sorted.
        hosts.dedup();
        hosts
    }

    /// Connects, through a guard if there are any.
    async fn open(&self, guards: Option<&Guards>) -> Result<(Pool, TargetId), StoreError> {
        let (uri, target) = self.parse()?;
        let mut options =
            retry::once("resolving the database's servers", async { ClientOptions::parse(uri.driver).await })
                .await?;
        check_resolved(&options)?;
        options.app_name.get_or_insert_with(|| APP_NAME.to_owned());
        options.server_selection_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.max_pool_size.get_or_insert(DEFAULT_MAX_POOL_SIZE);
        // A failover can roll back a write that only one server has acknowledged, and the ticket would be sold twice.
        options.write_concern = Some(majority());
        // What the primary has now: it refuses what an older state would allow.
        options.read_concern = Some(ReadConcern::local());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let has_tls = match (uri.tls, self.tls) {
            (_, Some(_)) => true,
            (Some(is_on), None) => is_on,
            // With mongodb+srv:// it is on by default.
            (None, None) => matches!(options.tls, Some(Tls::Enabled(_))),
        };
        let pool = match (guards, has_tls) {
            (Some(guards), _) => self.guarded(options, has_tls, guards)?,
            (None, true) => self.tls.unwrap_or(&ClientTls::default()).with_options(|files| {
                options.tls = Some(Tls::Enabled(files));
                client(options).map(Pool::from)
            })?,
            (None, false) => {
                options.tls = Some(Tls::Disabled);
                client(options)?.into()
            }
        };
        Ok((pool, target))
    }

    /// The client, which makes its connections through a guard of its own: that speaks TLS, and keeps the servers within
    /// bounds. What the connection string chooses for itself is bounded here.
    fn guarded(
        &self,
        mut options: ClientOptions,
        has_tls: bool,
        guards: &Guards,
    ) -> Result<Pool, StoreError> {
        let bounded = |chosen: Option<Duration>| chosen.unwrap_or(CONNECT_TIMEOUT).min(MAX_GUARDED_TIMEOUT);
        let timeout = bounded(options.connect_timeout);
        let tls = has_tls.then(|| tls::connector(self.tls)).transpose()?;
        let login = digest(options.credential.as_ref());
        let guard = guards.start(self.namespace, tls, timeout, login).map_err(|error| {
            StoreError::Failed { doing: "preparing to connect", detail: error.to_string() }
        })?;
        options.socks5_proxy = Some(guard.proxy());
        options.tls = Some(Tls::Disabled);
        options.connect_timeout = Some(timeout);
        options.server_selection_timeout = Some(bounded(options.server_selection_timeout));
        options.min_pool_size = None;
        options.max_pool_size = options.max_pool_size.map(|size| size.min(MAX_GUARDED_POOL_SIZE));
        options.heartbeat_freq = options.heartbeat_freq.map(|pause| pause.max(MIN_GUARDED_HEARTBEAT));
        // Otherwise a server may send as many answers to one look as it likes.
        options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
        // A DNS record is asked for again and again, and 0 would mean that it may name any number.
        options.srv_max_hosts = options.srv_max_hosts.filter(|most| *most > 0).or(Some(MAX_HOSTS));
        Ok(Pool { client: client(options)?, guard: Some(guard) })
    }

    pub(super) fn parse(&self) -> Result<(ConnectionUri, TargetId), StoreError> {
        let has_certificate = self.tls.is_some_and(ClientTls::has_certificate);
        let uri = ConnectionUri::parse(self.uri.trim(), has_certificate)?;
        if uri.tls == Some(false) && self.tls.is_some() {
            return Err(StoreError::InvalidUri(
                "tls=false contradicts the CA or the client certificate that is given".into(),
            ));
        }
        let hosts = match &uri.driver.host_info {
            HostInfo::HostIdentifiers(addresses) => {
                addresses.iter().map(|address| host_port(address, self.namespace)).collect()
            }
            HostInfo::DnsRecord(name) => vec![format!("srv:{}", name.to_lowercase())],
            _ => {
                return Err(StoreError::InvalidUri("it names its servers in a way that is not known".into()));
            }
        };
        let database = self.named(&uri).unwrap_or(DEFAULT_DATABASE).to_owned();
        check_database(&database)?;
        Ok((uri, TargetId::new(hosts, database)))
    }
}

/// Tells one login from another, and neither the user nor the password.
fn digest(credential: Option<&Credential>) -> String {
    let of = |text: Option<&String>| Sha256::digest(text.map(String::as_bytes).unwrap_or_default());
    let credential =
        credential.map(|login| [of(login.username.as_ref()), of(login.password.as_ref())].concat());
    hex(Sha256::digest(credential.unwrap_or_default()).iter().take(8))
}

/// Checks what a DNS record may have added: with `mongodb+srv://` the servers, and from a TXT record `authSource`,
/// `replicaSet` and `loadBalanced`; the driver refuses any other option there.
fn check_resolved(options: &ClientOptions) -> Result<(), StoreError> {
    if options.hosts.len() > MAX_HOSTS as usize {
        return Err(StoreError::InvalidUri(format!("its DNS record names more than {MAX_HOSTS} servers")));
    }
    if options.hosts.iter().any(|host| !matches!(host, ServerAddress::Tcp { .. })) {
        return Err(StoreError::UnsafeUri { option: "a Unix socket".into(), instead: "write HOST:PORT" });
    }
    if options.load_balanced == Some(true) {
        return Err(StoreError::UnsafeUri {
            option: "the option loadBalanced, which its DNS record has,".into(),
            instead: "name the servers themselves",
        });
    }
    options.credential.as_ref().map_or(Ok(()), check_auth_source)
}

/// The client; the servers are contacted later. The driver reads the files of TLS here, and not again.
fn client(options: ClientOptions) -> Result<Client, StoreError> {
    Client::with_options(options).map_err(|error: Error| match *error.kind {
        // Its own text has the path of a file that is none.
        ErrorKind::InvalidTlsConfig { .. } => StoreError::InvalidTls(
            "the CA or the client certificate cannot be read, or the private key is not that of the certificate"
                .into(),
        ),
        _ => {
            tracing::debug!(%error, "the driver refuses the options");
            StoreError::InvalidUri("its options contradict each other".into())
        }
    })
}

impl fmt::Debug for ConnectOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("database", &self.database)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Connection pools by what they connect with, so that stores with the same ones share a client: each client
/// takes memory and has its own connections to every server. A pool lives as long as a store that uses it.
///
/// Stores of different servers or different users never share a pool, so neither can use up the other's connections.
#[derive(Debug, Default)]
pub struct Pools {
    pools: Mutex<PoolsByUri>,
    /// Set if the servers are guarded against.
    guards: Option<Guards>,
}

/// Pools by connection string, namespace, and certificates.
type PoolsByUri = HashMap<(String, Option<String>, Option<ClientTls>), Weak<Pool>>;

/// A client of the driver, and the guard that it connects through, if it has one.
pub(super) struct Pool {
    pub(super) client: Client,
    pub(super) guard: Option<Guard>,
}

impl From<Client> for Pool {
    fn from(client: Client) -> Self {
        Self { client, guard: None }
    }
}

impl Pools {
    /// For servers that nobody vouches for: what they answer is checked before the driver parses it, within a budget
    /// that all of a namespace share.
    #[must_use]
    pub fn guarded() -> Self {
        Self { guards: Some(Guards::default()), ..Self::default() }
    }

    /// The pool for these options, created if there is none, and the database that they lead to.
    pub(super) async fn open(
        &self,
        options: &ConnectOptions<'_>,
    ) -> Result<(Arc<Pool>, TargetId), StoreError> {
        let key = (options.uri.trim().to_owned(), options.namespace.map(str::to_owned), options.tls.cloned());
        let known = self.lock().get(&key).and_then(Weak::upgrade);
        if let Some(pool) = known {
            return Ok((pool, options.target()?));
        }
        let (pool, target) = options.open(self.guards.as_ref()).await?;
        let pool = Arc::new(pool);
        let mut pools = self.lock();
        pools.retain(|_, pool| pool.strong_count() > 0);
        // Another task may have created one meanwhile.
        if let Some(other) = pools.get(&key).and_then(Weak::upgrade) {
            return Ok((other, target));
        }
        pools.insert(key, Arc::downgrade(&pool));
        Ok((pool, target))
    }

    fn lock(&self) -> MutexGuard<'_, PoolsByUri> {
        // No code panics while it holds the lock.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identifies a database by its servers and its name: two URIs with the same target lead to the same orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    /// `host:port` of every server, sorted; or one `srv:NAME`.
    pub hosts: Vec<String>,
    /// The database's name.
    pub database: String,
}

impl TargetId {
    fn new(mut hosts: Vec<String>, database: String) -> Self {
        hosts.sort_unstable();
        hosts.dedup();
        Self { hosts, database }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hosts.join(","), self.database)
    }
}

/// The write concern `majority`.
pub(super) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).build()
}

/// How a server is identified, whoever writes it: a short name is that of a Service in the namespace.
fn host_port(address: &ServerAddress, namespace: Option<&str>) -> String {
    match address {
        ServerAddress::Tcp { host, port } => {
            let (host, port) = (host.to_lowercase(), port.unwrap_or(27017));
            let is_short = !host.contains(['.', ':']) && host != "localhost";
            match namespace {
                Some(namespace) if is_short => format!("{host}.{namespace}.svc:{port}"),
                _ if host.contains(':') => format!("[{host}]:{port}"),
                _ => format!("{host}:{port}"),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Instant};

    use mongodb::{
        bson::{Document, doc, serialize_to_vec},
        options::Credential,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinSet,
        time::sleep,
    };
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::store::guard::test_dns::{Answer, Dns};

    fn target(uri: &str, namespace: Option<&str>) -> String {
        ConnectOptions { namespace, ..ConnectOptions::new(uri) }.target().unwrap().to_string()
    }

    #[test]
    fn a_short_host_is_qualified_with_its_namespace_and_every_other_host_stays() {
        let ticketing = Some("ticketing");
        assert_eq!(target("mongodb://orders-mongo", ticketing), "orders-mongo.ticketing.svc:27017/orders");
        assert_eq!(
            target("mongodb://Orders-Mongo:27018/db", ticketing),
            "orders-mongo.ticketing.svc:27018/db"
        );
        assert_eq!(target("mongodb://orders-mongo", None), "orders-mongo:27017/orders");
        for host in ["localhost:27017", "127.0.0.1:27017", "[::1]:27017", "mongo.other.svc:27017"] {
            assert_eq!(target(&format!("mongodb://{host}/x"), ticketing), format!("{host}/x"));
        }
        assert_eq!(target("mongodb+srv://cluster0.example.net/x", ticketing), "srv:cluster0.example.net/x");
    }

    #[test]
    fn two_uris_that_lead_to_one_database_are_one_target() {
        let a =
            ConnectOptions::new("mongodb://u:one@b.example:27017,a.example/orders?replicaSet=rs").target();
        let b = ConnectOptions::new("mongodb://A.example:27017,B.example").target();
        assert_eq!(a.unwrap(), b.unwrap());
    }

    #[test]
    fn the_database_is_the_argument_else_the_uris_else_orders() {
        let name = |uri, database| {
            ConnectOptions { database, ..ConnectOptions::new(uri) }.target().unwrap().database
        };
        assert_eq!(name("mongodb://h/from-uri", Some("given")), "given");
        assert_eq!(name("mongodb://h/from-uri", Some("")), "from-uri");
        assert_eq!(name("mongodb://h/from-uri", None), "from-uri");
        assert_eq!(name("mongodb://h/?retryWrites=false", None), "orders");
    }

    #[test]
    fn no_error_repeats_a_password() {
        for uri in [
            "mongodb://user:hunter/hunter@host",
            "mongodb://user:hunter:hunter@host",
            "mongodb://user:hunter%@host",
            "http://user:hunter@host",
            "mongodb://user:hunter@host:99999",
            "mongodb://user:hunter@host/a b",
        ] {
            let Err(error) = ConnectOptions::new(uri).target() else { continue };
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        }
        let options = ConnectOptions::new("mongodb://user:hunter@host");
        assert!(!format!("{options:?}").contains("hunter"));
    }

    #[test]
    fn servers_are_told_without_ports_users_and_passwords_and_never_where_a_password_may_be_read_as_one() {
        let told =
            |uri| ConnectOptions { namespace: Some("shop"), ..ConnectOptions::new(uri) }.hosts_to_tell();
        assert_eq!(told("mongodb://user:hunter2@mongo:27018/orders"), ["mongo.shop.svc"]);
        assert_eq!(told("mongodb://b.example:2,[::1],b.example/?replicaSet=x"), ["[::1]", "b.example"]);
        assert_eq!(told("mongodb+srv://user:hunter2@cluster0.example.net"), ["cluster0.example.net"]);
        assert_eq!(told("mongodb://user:4711"), ["user.shop.svc"], "the port may be a password");
        for uri in [
            "mongodb://user:x@hunter2?appName=y@host/db",
            "mongodb://user:hunter2",
            "mongodb://user:x/hunter2@host",
            "user:hunter2@host",
        ] {
            assert_eq!(told(uri), [""; 0], "{uri}");
        }
    }

    #[test]
    fn a_wrong_uri_says_what_to_write() {
        let error = ConnectOptions::new("orders-mongo:27017").target().unwrap_err().to_string();
        assert!(error.contains("scheme") && error.contains("mongodb://HOST"), "{error}");
        assert!(
            ConnectOptions { database: Some("a.b"), ..ConnectOptions::new("mongodb://h") }.target().is_err()
        );
    }

    #[tokio::test]
    async fn what_the_store_promises_is_not_the_uris_to_weaken() {
        for options in [
            "",
            "w=0&journal=false&readConcernLevel=available&readPreference=secondary&readPreferenceTags=a:b",
            "w=1&maxStalenessSeconds=120&readPreference=nearest",
        ] {
            for pools in [Pools::default(), Pools::guarded()] {
                let uri = format!("mongodb://h/?{options}");
                let Pool { client, .. } = &*pools.open(&ConnectOptions::new(&uri)).await.unwrap().0;
                assert_eq!(client.write_concern(), Some(&majority()));
                assert_eq!(client.read_concern(), Some(&ReadConcern::local()));
                let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
                assert_eq!(client.selection_criteria(), Some(&primary));
            }
        }
    }

    #[test]
    fn a_dns_record_may_add_only_what_the_uri_may_have() {
        let address = |number: u32| ServerAddress::Tcp { host: format!("h{number}"), port: None };
        let resolved = |hosts: u32, source: &str, load_balanced| {
            let mut credential = Credential::default();
            credential.source = Some(source.into());
            let mut options = ClientOptions::default();
            options.hosts = (0..hosts).map(address).collect();
            (options.credential, options.load_balanced) = (Some(credential), load_balanced);
            check_resolved(&options)
        };
        assert!(resolved(MAX_HOSTS, "admin", Some(false)).is_ok());
        assert!(resolved(MAX_HOSTS + 1, "admin", None).is_err());
        assert!(resolved(1, "$external", None).is_err());
        assert!(matches!(resolved(1, "admin", Some(true)), Err(StoreError::UnsafeUri { .. })));
    }

    /// Answers every greeting like this, and all else with success.
    fn play_member(listener: TcpListener, greeting: Document) -> AbortOnDropHandle<()> {
        async fn serve(mut driver: TcpStream, greeting: Document) -> io::Result<()> {
            loop {
                let length = driver.read_i32_le().await?;
                let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
                driver.read_exact(&mut rest).await?;
                let request = Document::from_reader(&rest[17..]).unwrap();
                let is_greeting = request.keys().next().is_some_and(|name| name.to_lowercase() != "ping");
                let answer = if is_greeting {
                    greeting.clone()
                } else {
                    doc! { "ok": 1 }
                };
                let answer = serialize_to_vec(&answer).unwrap();
                driver.write_i32_le(i32::try_from(21 + answer.len()).unwrap()).await?;
                driver.write_i32_le(0).await?;
                driver.write_all(&rest[..4]).await?;
                driver.write_all(&[[221, 7, 0, 0].as_slice(), &[0; 5], &answer].concat()).await?;
            }
        }
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((driver, _)) = listener.accept().await {
                // It ends when the driver hangs up.
                let greeting = greeting.clone();
                connections.spawn(async move { drop(serve(driver, greeting).await) });
            }
        }))
    }

    #[tokio::test]
    async fn members_that_a_replica_set_names_are_looked_for_in_the_namespace_too_and_not_in_that_of_the_operator()
     {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let hosts: Vec<_> = (0..)
            .zip(&listeners)
            .map(|(at, listener)| format!("mongo-{at}.mongo:{}", listener.local_addr().unwrap().port()))
            .collect();
        let greeting = |at: usize| {
            doc! {
                "ok": 1, "helloOk": true, "isWritablePrimary": at == 1, "ismaster": at == 1, "secondary": at == 0,
                "setName": "rs", "hosts": &hosts, "me": &hosts[at], "minWireVersion": 0, "maxWireVersion": 21,
                "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            }
        };
        let mut members = Vec::new();
        for (at, listener) in (0..).zip(listeners) {
            members.push(play_member(listener, greeting(at)));
        }
        // Only the second is writable, and only the first names it.
        let waits = "serverSelectionTimeoutMS=10000&connectTimeoutMS=10000";
        let uri = format!("mongodb://{}/orders?replicaSet=rs&{waits}", hosts[0]);
        let options = ConnectOptions { namespace: Some("shop"), ..ConnectOptions::new(&uri) };
        let here = Answer::Address([127, 0, 0, 1]);
        let first = ("mongo-0.mongo.shop.svc.cluster.local.", here);
        for (second, is_found) in [("shop", true), ("orders-operator", false)] {
            let second = format!("mongo-1.mongo.{second}.svc.cluster.local.");
            let dns = Dns::start(&[first, (&second, here)]).await;
            let pools = Pools { guards: Some(Guards::with(dns.lookup())), ..Pools::default() };
            let (pool, _) = pools.open(&options).await.unwrap();
            if is_found {
                pool.client.database("orders").run_command(doc! { "ping": 1 }).await.unwrap();
            } else {
                // Also without a command it looks for the members. The name as it is comes last.
                let until = Instant::now() + Duration::from_secs(60);
                while !dns.asked().contains(&"mongo-1.mongo.".to_owned()) && Instant::now() < until {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            let asked = dns.asked();
            assert!(asked.contains(&"mongo-1.mongo.shop.svc.cluster.local.".to_owned()), "{asked:?}");
            assert_eq!(asked.contains(&"mongo-1.mongo.".to_owned()), !is_found, "{asked:?}");
            assert!(!asked.iter().any(|name| name.contains("orders-operator")), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_pool_is_shared_by_stores_with_the_same_uri_and_dropped_with_the_last_of_them() {
        let pools = Pools::default();
        let open = async |uri, database, namespace| {
            pools
                .open(&ConnectOptions { database: Some(database), namespace, ..ConnectOptions::new(uri) })
                .await
                .unwrap()
        };
        let (first, one) = open("mongodb://h/", "a", None).await;
        let (second, two) = open("mongodb://h/", "b", None).await;
        assert!(Arc::ptr_eq(&first, &second) && one != two);
        let others =
            [open("mongodb://u:p@h/", "a", None).await, open("mongodb://h/", "a", Some("shop")).await];
        assert!(others.iter().all(|(other, _)| !Arc::ptr_eq(&first, other)));
        drop((first, second, others));
        let _fresh = open("mongodb://other/", "a", None).await;
        assert_eq!(pools.lock().len(), 1);
    }

    #[tokio::test]
    async fn connecting_contacts_nobody_and_hides_the_password() {
        let store = super::super::database::Store::connect(ConnectOptions::new(
            "mongodb://user:hunter@nowhere.invalid",
        ))
        .await;
        assert!(!format!("{store:?}").contains("hunter"));
        assert_eq!(store.unwrap().target().to_string(), "nowhere.invalid:27017/orders");
    }
}
