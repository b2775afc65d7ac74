//! IPv6: what we serve, and whom we reach.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::Arc,
};

use kube::config::Kubeconfig;
use orders_operator::crd::ConditionType::*;
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    api_process::Process,
    bed::setting,
    cluster::{TestNamespace, eventually},
    events::{System, reserve},
    machine::without_ipv6,
    mongo::{JWT_KEY, TestDatabase, by_way_of, uri},
    pki::Pki,
    sweeper::{cancelled, order, service},
};

/// The answer to a request by this host.
async fn status(host: &str, address: &str, path: &str) -> StatusCode {
    let port = address.rsplit_once(':').unwrap().1;
    reqwest::get(format!("http://{host}:{port}{path}")).await.unwrap().status()
}

/// The addresses at which a process listens at a port, by what the kernel says: at others, somebody else may be served there.
fn listens_at(process: u32, address: &str) -> Vec<IpAddr> {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let open: Vec<_> = open.map(|file| file.display().to_string()).collect();
    let mut addresses = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (local, at) = fields[1].split_once(':').unwrap();
            let is_ours = open.contains(&format!("socket:[{}]", fields[9]));
            // 0A is LISTEN.
            if fields[3] == "0A" && is_ours && u16::from_str_radix(at, 16).unwrap() == port {
                // Words of four bytes, in the order of this machine.
                let word = |at: usize| u32::from_str_radix(&local[at..at + 8], 16).unwrap().to_ne_bytes();
                let bytes: Vec<u8> = (0..local.len()).step_by(8).flat_map(word).collect();
                addresses.push(match <[u8; 4]>::try_from(&bytes[..]) {
                    Ok(four) => IpAddr::from(Ipv4Addr::from(four)),
                    Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap())),
                });
            }
        }
    }
    addresses
}

#[tokio::test]
async fn the_api_and_the_admin_port_are_served_at_the_addresses_that_are_asked_for() {
    let database = TestDatabase::bare().await;
    for (listen, hosts) in [
        ("::", &["[::1]", "127.0.0.1"][..]),
        ("::1", &["[::1]"]),
        ("0.0.0.0", &["127.0.0.1"]),
        ("127.0.0.1", &["127.0.0.1"]),
    ] {
        let process = Process::start(&uri(), &database.name, &[("LISTEN_ADDRESS", listen)]);
        process.wait_until_ready(true).await;
        for address in [&process.api, &process.admin] {
            assert_eq!(listens_at(process.id(), address), [listen.parse::<IpAddr>().unwrap()]);
        }
        for host in hosts {
            let api = status(host, &process.api, "/api/orders").await;
            assert_eq!(api, StatusCode::UNAUTHORIZED, "{listen}: {host}");
            let admin = status(host, &process.admin, "/readyz").await;
            assert_eq!(admin, StatusCode::OK, "{listen}: {host}");
        }
    }
}

#[tokio::test]
async fn a_machine_without_ipv6_is_served_by_ipv4_and_an_address_that_it_lacks_is_named() {
    let database = TestDatabase::bare().await;
    let every = [("LISTEN_ADDRESS", "::")];
    let process = Process::start_under(&without_ipv6(), &uri(), &database.name, &every);
    assert!(process.api.starts_with("0.0.0.0:") && process.admin.starts_with("0.0.0.0:"), "{}", process.api);
    process.wait_until_ready(true).await;
    assert_eq!(status("127.0.0.1", &process.api, "/api/orders").await, StatusCode::UNAUTHORIZED);

    let [program, arguments @ ..] = without_ipv6();
    let output = Command::new(program)
        .args(arguments)
        .args([env!("CARGO_BIN_EXE_orders-operator"), "serve", "--listen-address", "::1", "--port", "3999"])
        .args(["--jwt-key", JWT_KEY, "--mongo-uri", "mongodb://127.0.0.1:1/orders"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot listen on [::1]:3999: Address family not supported"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// Passes connections on to a server.
fn pass_on(listener: TcpListener, behind: String) {
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let behind = behind.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(behind).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
}

/// A port of this machine's IPv6 loopback address.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The URI of the database by IPv6.
async fn mongo_by_ipv6() -> String {
    let (listener, address) = listener().await;
    let (uri, behind) = by_way_of(address.port());
    pass_on(listener, behind);
    uri.replace("127.0.0.1", "[::1]")
}

#[tokio::test]
async fn the_api_reaches_its_database_and_its_broker_by_ipv6() {
    let (listener, address) = listener().await;
    pass_on(listener, setting("TEST_NATS_URL").trim_start_matches("nats://").to_owned());
    let system = System::with(format!("nats://{address}")).await;
    let pod = system.pod_by(&mongo_by_ipv6().await);
    pod.wait_until_ready(true).await;
    let id = reserve(&pod, "u1", system.database.ticket().await).await.unwrap();
    system.all_told().await;
    assert_eq!(system.heard().await, [("order:created".to_owned(), id)]);
}

/// The API server at an IPv6 address, with a certificate of this CA for it. Gives its URL.
async fn api_server_by_ipv6(pki: &Pki) -> String {
    let config = Kubeconfig::read_from(setting("KUBECONFIG")).unwrap();
    let cluster = config.clusters[0].cluster.clone().unwrap();
    let behind = cluster.server.unwrap().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.certificate_authority.unwrap()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (acceptor, connector) = (pki.acceptor(false), TlsConnector::from(Arc::new(client)));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, connector, behind) = (acceptor.clone(), connector.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let name = ServerName::from(behind.parse::<SocketAddr>().unwrap().ip());
                let server = TcpStream::connect(behind).await.unwrap();
                let mut server = connector.connect(name, server).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn controller_and_sweeper_reach_the_api_server_and_the_database_by_ipv6_and_are_probed_by_it() {
    let namespace = TestNamespace::create("ipv6").await;
    let (pki, database) = (Pki::new(), TestDatabase::new().await);
    let server = api_server_by_ipv6(&pki).await;
    namespace.secrets(&mongo_by_ipv6().await).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let overdue = order(&database, "created", -60_000).await;
    let mut processes = Vec::new();
    for subcommand in ["controller", "sweeper"] {
        namespace.lead(subcommand, &server, Some(&pki.path("ca.crt"))).await;
        let process = namespace.run(subcommand).await;
        let address = process.admin_address().await;
        assert!(address.ip().is_unspecified() && address.is_ipv6(), "{address}");
        eventually("its probes succeed", || async {
            let ready = reqwest::get(format!("http://{address}/readyz")).await.ok()?.status();
            (ready == StatusCode::OK).then_some(())
        })
        .await;
        processes.push(process);
    }
    cancelled(&database, overdue).await;
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}
