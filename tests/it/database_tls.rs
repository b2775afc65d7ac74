//! TLS to the database: a CA of its own, and client certificates.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use orders_operator::{
    crd::ConditionType::*,
    store::{ClientTls, ConnectOptions, Store, StoreError},
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{
    api_process::Process,
    cluster::TestNamespace,
    mongo::{TestDatabase, by_way_of, reach, uri},
    pki::Pki,
    sweeper::{cancelled, order, service},
};

fn ca(pki: &Pki) -> ClientTls {
    ClientTls::from_pem(Some(&pki.pem("ca.crt")), None).unwrap()
}

fn with_certificate(pki: &Pki) -> ClientTls {
    let (certificate, key) = (pki.pem("client.crt"), pki.pem("client.key"));
    ClientTls::from_pem(Some(&pki.pem("ca.crt")), Some((&certificate, &key))).unwrap()
}

/// The database behind TLS: the URI by this way. With `asks`, clients must present a certificate of the CA.
async fn serve(pki: &Pki, asks: bool) -> String {
    let acceptor = pki.acceptor(asks);
    // On every address, since the certificate is for one of them only.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (uri, behind) = by_way_of(listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                if let Ok(mut client) = acceptor.accept(client).await {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    drop(copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    uri
}

async fn ping(uri: &str, tls: Option<&ClientTls>) -> Result<(), StoreError> {
    reach(&Store::connect(ConnectOptions { tls, ..ConnectOptions::new(uri) }).await?).await
}

fn failed(result: Result<(), StoreError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::TlsFailed { .. }), "{error}");
    assert!(error.remedy().contains("spec.database.tls.caSecretRef"));
    error.to_string()
}

#[tokio::test]
async fn a_database_with_a_ca_of_its_own_is_reached_with_that_ca_only() {
    let (pki, other) = (Pki::new(), Pki::new());
    let uri = serve(&pki, false).await;
    ping(&uri, Some(&ca(&pki))).await.unwrap();
    // Which does not depend on what the URI says.
    ping(&format!("{uri}&tls=true"), Some(&ca(&pki))).await.unwrap();
    failed(ping(&format!("{uri}&tls=true"), None).await);
    failed(ping(&uri, Some(&ca(&other))).await);
    let contradicting = ping(&format!("{uri}&tls=false"), Some(&ca(&pki))).await.unwrap_err();
    assert!(contradicting.is_misconfigured(), "{contradicting}");
    // The certificate is not for this name.
    failed(ping(&uri.replace("127.0.0.1", "127.0.0.2"), Some(&ca(&pki))).await);
}

#[tokio::test]
async fn a_client_certificate_is_presented_to_a_database_that_asks_for_one() {
    let (pki, other) = (Pki::new(), Pki::new());
    let uri = serve(&pki, true).await;
    ping(&uri, Some(&with_certificate(&pki))).await.unwrap();
    failed(ping(&uri, Some(&ca(&pki))).await);
    let (certificate, key) = (other.pem("client.crt"), other.pem("client.key"));
    let foreign = ClientTls::from_pem(Some(&pki.pem("ca.crt")), Some((&certificate, &key))).unwrap();
    failed(ping(&uri, Some(&foreign)).await);
    let mixed = ClientTls::from_pem(None, Some((&pki.pem("client.crt"), &key))).unwrap();
    let error = ping(&uri, Some(&mixed)).await.unwrap_err();
    assert!(error.is_misconfigured() && error.reason() == "DatabaseTLSFailed", "{error}");
}

#[tokio::test]
async fn the_api_takes_the_certificates_from_files() {
    let pki = Pki::new();
    let uri = serve(&pki, true).await;
    let database = TestDatabase::bare().await;
    let files = ["ca.crt", "client.crt", "client.key"].map(|file| pki.path(file).display().to_string());
    let settings = [
        ("MONGO_TLS_CA_FILE", files[0].as_str()),
        ("MONGO_TLS_CERT_FILE", &files[1]),
        ("MONGO_TLS_KEY_FILE", &files[2]),
    ];
    Process::start(&uri, &database.name, &settings).wait_until_ready(true).await;
}

/// Makes a Secret have these keys.
async fn secret(namespace: &TestNamespace, name: &str, values: &[(&str, &str)]) {
    let values: serde_json::Map<_, _> =
        values.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    let object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
    namespace.api::<Secret>().patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
}

#[tokio::test]
async fn the_sweeper_takes_the_certificates_from_secrets_and_the_pods_get_them_mounted() {
    let namespace = TestNamespace::create("tls").await;
    let (pki, other) = (Pki::new(), Pki::new());
    let database = TestDatabase::new().await;
    namespace.secrets(&uri()).await;
    namespace.secret("by-tls", "MONGO_URI", &serve(&pki, true).await).await;
    secret(&namespace, "ca", &[("ca.crt", &pki.text("ca.crt"))]).await;
    secret(&namespace, "other", &[("ca.crt", &other.text("ca.crt"))]).await;
    secret(
        &namespace,
        "client",
        &[("tls.crt", &pki.text("client.crt")), ("tls.key", &pki.text("client.key"))],
    )
    .await;
    let with = |name: &str, tls: Value| {
        let tls = json!({"database": {"uriSecretRef": {"name": "by-tls"}, "tls": tls}});
        service(&namespace, name, &database, tls)
    };
    let client = json!({"name": "client"});
    let well = with("well", json!({"caSecretRef": {"name": "ca"}, "clientCertificateSecretRef": client}));
    namespace.apply(&well).await.unwrap();
    let _sweeper = namespace.run("sweeper").await;
    let _controller = namespace.run("controller").await;
    namespace.condition("well", DatabaseReady, "True", "AsExpected").await;
    let due = order(&database, "created", -1).await;
    cancelled(&database, due).await;
    namespace.condition("well", Reconciled, "True", "AsExpected").await;
    let deployment = namespace.dynamic("Deployment", "apps/v1").get("well").await.unwrap();
    let pod = &deployment.data["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["projected"]["sources"][1]["secret"]["name"], "client");

    // What is missing is named; the spec is then as before in every other way.
    let missing =
        with("well", json!({"caSecretRef": {"name": "nowhere"}, "clientCertificateSecretRef": client}));
    namespace.apply(&missing).await.unwrap();
    let message = namespace.condition("well", Ready, "False", "SecretNotFound").await;
    assert!(message.contains("spec.database.tls.caSecretRef") && message.contains("nowhere"), "{message}");
    let wrong = with("well", json!({"caSecretRef": {"name": "other"}, "clientCertificateSecretRef": client}));
    namespace.apply(&wrong).await.unwrap();
    let message = namespace.condition("well", DatabaseReady, "False", "DatabaseTLSFailed").await;
    assert!(!message.contains("UnknownIssuer") && message.contains("caSecretRef"), "{message}");
    namespace.remove().await;
}
