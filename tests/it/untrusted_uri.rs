//! What a connection string can make the product do, and whom a tenant can touch: nothing of ours, and nobody else.

use std::{
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use orders_operator::{
    crd::ConditionType::*,
    order::{Ticket, Version},
    store::{ConnectOptions, Store, StoreError},
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener, task::spawn_blocking};

use crate::{
    cluster::{TestNamespace, eventually},
    mongo::{TestDatabase, reach, ticket_id, uri},
    sweeper::{cancelled, order, service, state},
};

/// A server that accepts every connection, keeps what it gets, and never answers.
pub(crate) struct Listener {
    pub(crate) port: u16,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Listener {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let all = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let all = all.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
                        all.lock().unwrap()[number].extend_from_slice(&buffer[..count]);
                    }
                });
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> Vec<Vec<u8>> {
        self.connections.lock().unwrap().clone()
    }
}

/// Connection strings to that port, by which the driver would send the process's identity, read its files, or go by a
/// proxy.
fn attacks(port: u16) -> Vec<String> {
    let options = [
        "authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s",
        "AUTHMECHANISM=MONGODB-OIDC&AUTHMECHANISMPROPERTIES=ENVIRONMENT:k8s",
        "%61uthMechanism=MONGODB-OIDC&auth%4DechanismProperties=ENVIRONMENT:k8s",
        "authMechanism=%4DONGODB-OIDC&authMechanismProperties=ENVIRONMENT%3Ak8s",
        "authMechanism=SCRAM-SHA-256&authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s",
        "retryWrites=true;authMechanism=MONGODB-OIDC;authMechanismProperties=ENVIRONMENT:k8s",
        "authMechanism=MONGODB-AWS",
        "authMechanism=PLAIN&authSource=$external",
        "authMechanism=GSSAPI",
        "tls=true&tlsCAFile=/etc/hostname",
        "tls=true&tlsCertificateKeyFile=/etc/hostname",
        "tls=true&tlsInsecure=true",
        "proxyHost=127.0.0.1&proxyPort=1",
        "someFutureOption=1",
    ];
    let mut attacks = Vec::new();
    for options in options {
        attacks.push(format!("mongodb://127.0.0.1:{port}/orders?{options}"));
        attacks.push(format!("mongodb://user:hunter2@127.0.0.1:{port}/orders?{options}"));
        attacks.push(format!("mongodb+srv://user:hunter2@orders.example.invalid/orders?{options}"));
    }
    attacks
}

#[tokio::test]
async fn an_unsafe_connection_string_is_refused_before_a_connection_is_opened() {
    let listener = Listener::start().await;
    for attack in attacks(listener.port) {
        let error = Store::connect(ConnectOptions::new(&attack)).await.expect_err(&attack);
        assert!(error.is_misconfigured(), "{attack}: {error}");
        let refused = matches!(error, StoreError::UnsafeUri { .. });
        let text = error.to_string();
        assert!(refused || text.contains("given twice"), "{attack}: {text}");
        for value in ["hunter2", "k8s", "OIDC", "hostname"] {
            assert!(!text.contains(value), "{text}");
        }
    }
    assert!(listener.connections().is_empty());
}

#[tokio::test]
async fn a_server_gets_no_more_than_the_beginning_of_scram() {
    let listener = Listener::start().await;
    let uri = format!("mongodb://tenant:hunter2@127.0.0.1:{}/orders", listener.port);
    let store = Store::connect(ConnectOptions::new(&uri)).await.unwrap();
    let error = reach(&store).await.unwrap_err();
    assert_eq!(error.reason(), "DatabaseUnreachable", "{error}");
    let connections = listener.connections();
    assert!(!connections.is_empty());
    for connection in connections {
        let text = String::from_utf8_lossy(&connection).into_owned();
        assert!(text.contains("hello") || text.contains("isMaster"), "{text}");
        for ours in ["hunter2", "MONGODB-OIDC", "jwt", "PLAIN"] {
            assert!(!text.contains(ours), "{text}");
        }
    }
}

#[tokio::test]
async fn an_error_for_the_tenant_is_the_same_for_an_open_port_and_a_closed_one() {
    let open = Listener::start().await;
    let mut remedies = Vec::new();
    for port in [open.port, 1] {
        for tls in ["false", "true"] {
            let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=300&tls={tls}");
            let store = Store::connect(ConnectOptions::new(&uri)).await.unwrap();
            let error = reach(&store).await.unwrap_err();
            remedies.push((error.reason(), error.remedy()));
        }
    }
    assert_eq!(remedies[0].0, "DatabaseUnreachable");
    assert!(remedies.iter().all(|remedy| remedy == &remedies[0]), "{remedies:?}");
    assert!(!remedies[0].1.contains("127.0.0.1") && !remedies[0].1.contains("refused"), "{remedies:?}");
}

fn run(subcommand: &[&str], uri: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(subcommand).env_clear();
    command.envs([("JWT_KEY", "key"), ("MONGO_URI", uri), ("SWEEPER_URI", uri), ("LOG_LEVEL", "off")]);
    command.output().unwrap()
}

#[tokio::test]
async fn every_subcommand_refuses_an_unsafe_connection_string_with_one_line_and_exit_code_2() {
    let listener = Listener::start().await;
    let attack = attacks(listener.port).swap_remove(1);
    for subcommand in [
        &["serve"] as &[_],
        &["sweeper"],
        &["sweeper", "--once"],
        &["sweeper", "--dry-run"],
        &["tickets", "import", "/dev/null"],
    ] {
        let attack = attack.clone();
        let output = spawn_blocking(move || run(subcommand, &attack)).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{subcommand:?}: {text}");
        assert!(
            text.contains("this authMechanism is not allowed") && text.contains("SCRAM-SHA-256"),
            "{text}"
        );
        assert!(text.lines().count() == 1 && !text.contains("hunter2"), "{subcommand:?}: {text}");
    }
    assert!(listener.connections().is_empty());
}

#[tokio::test]
async fn weaker_guarantees_in_the_connection_string_are_overridden() {
    let separator = if uri().contains('?') { '&' } else { '?' };
    let weaker = format!(
        "{}{separator}w=0&journal=false&readConcernLevel=available&readPreference=secondaryPreferred&compressors=zlib",
        uri()
    );
    let options = ConnectOptions::new(&weaker);
    assert_eq!(options.warnings().unwrap().len(), 5);
    let database = TestDatabase::new().await;
    let store = Store::connect(ConnectOptions { database: Some(&database.name), ..options }).await.unwrap();
    let ticket = Ticket { id: ticket_id(), title: "concert".into(), price: 20.0, version: Version(0) };
    // With w=0 the driver would not wait for what became of it.
    let written = store.upsert_tickets(std::slice::from_ref(&ticket)).await.unwrap();
    assert_eq!(written.written, 1);
}

#[tokio::test]
async fn the_sweeper_refuses_an_unsafe_connection_string_and_the_resource_says_so() {
    let namespace = TestNamespace::create("unsafe").await;
    let listener = Listener::start().await;
    let database = TestDatabase::new().await;
    namespace.secrets(&uri()).await;
    for (number, attack) in attacks(listener.port).iter().take(3).enumerate() {
        let name = format!("evil-{number}");
        namespace.secret(&name, "MONGO_URI", attack).await;
        let secret = json!({"database": {"uriSecretRef": {"name": name}}});
        namespace.apply(&service(&namespace, &name, &database, secret)).await.unwrap();
    }
    let separator = if uri().contains('?') { '&' } else { '?' };
    namespace.secret("warned", "MONGO_URI", &format!("{}{separator}w=1", uri())).await;
    let warned = json!({"database": {"uriSecretRef": {"name": "warned"}}});
    namespace.apply(&service(&namespace, "warned", &database, warned)).await.unwrap();
    let _sweeper = namespace.run("sweeper").await;
    let _controller = namespace.run("controller").await;
    for number in 0..3 {
        let name = format!("evil-{number}");
        let message = namespace.condition(&name, DatabaseReady, "False", "UnsafeDatabaseUri").await;
        assert!(message.contains("authMechanism") && message.contains("SCRAM-SHA-256"), "{message}");
        assert!(!message.contains("hunter2") && !message.contains("OIDC"), "{message}");
    }
    assert!(listener.connections().is_empty());
    let message = namespace.condition("warned", DatabaseReady, "True", "DatabaseOptionIgnored").await;
    assert!(message.contains("the option w "), "{message}");

    // One that was good and is not any more is still swept, and says so.
    namespace.secret("warned", "MONGO_URI", &attacks(listener.port)[0]).await;
    let warned =
        json!({"database": {"uriSecretRef": {"name": "warned"}}, "expiration": {"paymentGraceSeconds": 1}});
    namespace.apply(&service(&namespace, "warned", &database, warned)).await.unwrap();
    namespace.condition("warned", DatabaseReady, "False", "UnsafeDatabaseUri").await;
    let due = order(&database, "created", -1).await;
    cancelled(&database, due).await;
    namespace.condition("warned", Sweeping, "True", "AsExpected").await;
    assert!(listener.connections().is_empty());
    namespace.remove().await;
}

#[tokio::test]
async fn resources_of_another_namespace_with_the_same_database_stop_and_delay_nothing() {
    let mut ticketing = TestNamespace::create("ticketing").await;
    let mallory = TestNamespace::create("mallory").await;
    ticketing.watch_also(&mallory);
    let database = TestDatabase::new().await;
    ticketing.secrets(&uri()).await;
    mallory.secrets(&uri()).await;
    let evil = json!({"expiration": {"suspend": true, "maxPerSecond": 1, "paymentGraceSeconds": 604_800}});
    mallory.apply(&service(&mallory, "evil", &database, evil)).await.unwrap();
    ticketing.apply(&service(&ticketing, "orders", &database, json!({}))).await.unwrap();
    let overdue = order(&database, "created", -60_000).await;
    let paying = order(&database, "awaiting:payment", -60_000).await;
    let sweeper = ticketing.run("sweeper").await;
    cancelled(&database, overdue).await;
    cancelled(&database, paying).await;
    assert_eq!(sweeper.metric("orders_operator_sweeper_targets ").await, 2.0);
    let _controller = ticketing.run("controller").await;
    ticketing.condition("orders", Sweeping, "True", "AsExpected").await;
    mallory.condition("evil", Sweeping, "False", "Suspended").await;
    let total = async |namespace: &TestNamespace, name: &str| {
        let service = namespace.api::<orders_operator::crd::OrdersService>().get_status(name).await.unwrap();
        service.status.and_then(|status| status.expiry).and_then(|expiry| expiry.expired_total)
    };
    eventually("the owner's total has both orders", || async {
        (total(&ticketing, "orders").await == Some(2)).then_some(())
    })
    .await;
    assert_eq!(total(&mallory, "evil").await.unwrap_or(0), 0);
    assert_eq!(state(&database, overdue).await.1, 1);
    ticketing.remove().await;
    mallory.remove().await;
}
