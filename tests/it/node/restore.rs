//! docs/backup.md: a database that was lost comes back, by the commands of the page, to pods that run.

use mongodb::bson::doc;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{OnNode, USER};
use crate::{
    bed::setting,
    cluster::root,
    console::blocks,
    mongo::{answer, cookie, uri},
    reader::Reader,
};

impl OnNode {
    /// The answer of the orders API to this user, by the ingress.
    async fn by(&self, user: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let client = reqwest::Client::new();
        let request = client.request(method, format!("{}{path}", setting("INGRESS_URL")));
        let request = request.header("host", &self.host).header("cookie", cookie(user));
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn a_lost_database_comes_back_to_running_pods_by_the_commands_of_the_page() {
    let on = OnNode::new("restore").await;
    let copies = root().join("tests/mongoose/dump.js");
    let program = |name: &str| format!("node '{}' {name}", copies.display());
    let reader = Reader::of(&on.namespace, &setting("NODE_KUBECONFIG"))
        .await
        .calls("-n ticketing", &format!("-n {}", on.namespace.name))
        .knows("MONGO_URI", &on.database.at_server(&uri()))
        .has("mongodump", &program("mongodump"))
        .has("mongorestore", &program("mongorestore"));
    let [dump] = blocks("docs/backup.md", "What is state").try_into().unwrap();
    let [stop, restore, check, start, resume] =
        blocks("docs/backup.md", "Restoring, in order").try_into().unwrap();
    on.apply(json!({"replicas": 2})).await;
    on.namespace.ready("orders").await;
    on.entry.up(&on.host, "/api/orders", "orders").await;
    let ticket = on.database.ticket().await;
    let reserve = json!({"ticketId": ticket.to_string()});
    let (status, held) = on.by(USER, Method::POST, "/api/orders", Some(reserve.clone())).await;
    assert_eq!(status, StatusCode::CREATED, "{held}");
    let other = on.database.ticket().await;
    reader.does(&dump).await;

    // What happens afterwards is lost with the database.
    let held = held["id"].as_str().unwrap();
    let (status, _) = on.by(USER, Method::DELETE, &format!("/api/orders/{held}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, lost) =
        on.by("bob", Method::POST, "/api/orders", Some(json!({"ticketId": other.to_string()}))).await;
    assert_eq!(status, StatusCode::CREATED, "{lost}");
    for collection in [on.database.orders(), on.database.tickets()] {
        collection.delete_many(doc! {}).await.unwrap();
    }

    reader.does(&stop).await;
    reader.does(&restore).await;
    let findings = reader.does(&check).await;
    reader.does(&start).await;
    reader.does(&resume).await;
    on.entry.up(&on.host, "/api/orders", "orders").await;
    let (_, orders) = on.by(USER, Method::GET, "/api/orders", None).await;
    let of = |id: &str| orders.as_array().unwrap().iter().find(|order| order["id"] == id).cloned();
    assert_eq!(of(held).unwrap()["status"], "created", "{findings}");
    assert_eq!(of(&on.order).unwrap()["status"], "created", "{orders}");
    let (status, _) = on.by("bob", Method::POST, "/api/orders", Some(reserve)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "it is held");
    let (status, _) =
        on.by("bob", Method::GET, &format!("/api/orders/{}", lost["id"].as_str().unwrap()), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) =
        on.by("bob", Method::POST, "/api/orders", Some(json!({"ticketId": other.to_string()}))).await;
    assert_eq!(status, StatusCode::CREATED, "the ticket of the lost order can be reserved");
    on.remove().await;
}
