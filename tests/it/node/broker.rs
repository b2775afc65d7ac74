//! What README.md makes, with a broker, where pods run; and what other pages have people do with one: tell what was done during a
//! switch, and hear everything once more.

use std::{process::Stdio, time::Duration};

use jiff::Timestamp;
use mongodb::bson::doc;
use serde_json::json;

use crate::{
    bed::setting,
    cluster::{TestNamespace, eventually, root},
    console::{blocks, words},
    mongo::TestDatabase,
    nats::Streams,
    reader::Reader,
    server::free_port,
};

/// A broker in the namespace, as the examples have it.
async fn broker(namespace: &TestNamespace, reader: &Reader) {
    let text = std::fs::read_to_string(root().join("examples/15-nats.yaml")).unwrap();
    assert!(text.contains(&setting("NATS_IMAGE")));
    let text = text.replace("namespace: ticketing", &format!("namespace: {}", namespace.name));
    std::fs::write(namespace.folder().join("nats.yaml"), text).unwrap();
    reader
        .does("kubectl apply -f nats.yaml && kubectl rollout status deployment/nats-depl --timeout=90s")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_system_of_the_readme_tells_again_and_hears_everything_once_more_by_the_commands_of_the_pages() {
    let namespace = TestNamespace::create_beside("broker", &setting("NODE_KUBECONFIG")).await;
    let (database, port) = (TestDatabase::new().await, free_port());
    let url = format!("nats://127.0.0.1:{port}");
    let since = Timestamp::now() - Duration::from_secs(60);
    let reader = Reader::of(&namespace, &setting("NODE_KUBECONFIG"))
        .await
        .calls("-n ticketing", &format!("-n {}", namespace.name))
        .calls("hosts: [ticketing.dev]", &format!("hosts: [{}.dev]", namespace.name))
        .calls("className: nginx", "className: traefik")
        .calls("mongodb://orders-mongo:27017/orders", &database.at_server(&setting("NODE_MONGO_URI")))
        .calls("TIME_OF_STEP_2", &since.to_string())
        .knows("NATS_URL", &url)
        .has("nats", &format!("node '{}'", root().join("tests/mongoose/nats.js").display()));
    broker(&namespace, &reader).await;
    let [install, create, import] = blocks("README.md", "On your own cluster").try_into().unwrap();
    // The operator is that of all tests. `installs::page` has the same commands.
    assert_eq!(words(&install), words(&blocks("docs/installing.md", "One installation")[0]));
    reader.does(&create).await;
    reader.does(&import).await;
    assert_eq!(database.tickets().count_documents(doc! {}).await.unwrap(), 1);

    // An order that the old pods had made, of which this broker knows nothing.
    let order = database.orders_of_tickets("ada", 1, "concert").await.remove(0);
    let [tell] = blocks("docs/migration.md", "With a broker").try_into().unwrap();
    reader.does(&tell).await;
    let mut forward = reader.command(&format!("exec kubectl port-forward service/nats-srv {port}:4222"));
    let _forward = forward.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the port is forwarded", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    let streams = Streams::of(&url).await;
    let told = streams.events("ticketing").await;
    assert!(
        told.iter().any(|event| event.subject == "order:created" && event.data["id"] == order),
        "{told:?}"
    );

    // A ticket that was heard, and is in no backup.
    let id = "5f0a1c2b3d4e5f6a7b8c9d77";
    let ticket = json!({"id": id, "version": 0, "title": "Opera", "price": 70, "userId": "seller"});
    streams.0.publish("ticket:created", ticket.to_string().into()).await.unwrap().await.unwrap();
    let opera = doc! {"title": "Opera"};
    let is_there = async || database.tickets().count_documents(opera.clone()).await.unwrap() == 1;
    eventually("the ticket is heard", || async { is_there().await.then_some(()) }).await;
    database.tickets().delete_many(opera.clone()).await.unwrap();
    let [once_more] = blocks("docs/backup.md", "What is lost since the backup").try_into().unwrap();
    reader.does(&once_more).await;
    eventually("the ticket is heard once more", || async { is_there().await.then_some(()) }).await;
    namespace.remove().await;
}
