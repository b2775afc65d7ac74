//! Shares a database with mongoose, the library of the Node.js service: each side reads what the other writes, and
//! neither overwrites what the other has changed meanwhile.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use orders_operator::{import::OnError, order::ReservationTerms, store::Settled};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    cluster::root,
    import,
    mongo::{TestApi, ticket_id, uri},
};

/// The versions in use: mongoose 5 or 8 with mongoose-update-if-current, or 8 with optimistic concurrency of its own.
const KINDS: [&str; 3] = ["5", "8", "8-own"];

/// A run of the Node program, which is stopped with the test.
struct Node {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Node {
    fn start(api: &TestApi, kind: &str, arguments: &[&str]) -> Self {
        assert!(
            std::env::var_os("NODE_PATH").is_some(),
            "NODE_PATH is not set: `make test` installs the packages of tests/mongoose and sets it"
        );
        let mut child = Command::new("node")
            .arg(root().join("tests/mongoose/orders.js"))
            .arg(kind)
            .args(arguments)
            .env("MONGO_URI", uri())
            .env("MONGO_DATABASE", &api.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// The next line that it prints. A program that exits without it fails the test.
    fn next_line(&mut self) -> Value {
        let mut line = String::new();
        block_in_place(|| self.output.read_line(&mut line)).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Lets it continue.
    fn resume(&mut self) {
        self.input.take().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The id of a new order. It has no idempotency key any more, which mongoose would show.
async fn reserved(api: &TestApi) -> String {
    let id = api.reserved("u1", api.ticket().await).await;
    let of_order = doc! { "_id": ObjectId::parse_str(&id).unwrap() };
    api.orders().update_one(of_order, doc! { "$unset": { "idempotencyKey": 1 } }).await.unwrap();
    id
}

fn node(api: &TestApi, kind: &str, arguments: &[&str]) -> Value {
    Node::start(api, kind, arguments).next_line()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_mongoose_wrote_are_answered_as_by_the_node_service() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let mut wanted = node(&api, kind, &["write", "u1"]);
        let orders = wanted.as_array_mut().unwrap();
        assert_eq!(orders.len(), 7);
        // A document with `__v` in place of `version` has version 0 here.
        let old = orders[6].as_object_mut().unwrap();
        old.remove("__v").unwrap();
        old.insert("version".into(), json!(0));
        // Unknown fields are kept, but not shown.
        assert_eq!(old.remove("seats").unwrap()[0]["number"], 12);
        assert_eq!(api.get("u1", "/api/orders").await, (StatusCode::OK, wanted.clone()), "mongoose {kind}");
        for number in ["int", "double", "long"] {
            let of_type = doc! { "price": { "$type": number } };
            assert!(
                api.tickets().count_documents(of_type).await.unwrap() > 0,
                "no price is stored as {number}"
            );
        }

        for order in wanted.as_array().unwrap() {
            let id = order["id"].as_str().unwrap();
            assert_eq!(api.get("u1", &format!("/api/orders/{id}")).await.1, *order);
            let (status, _) = api.cancel("u1", id).await;
            let (complete, cancelled) = (order["status"] == "complete", order["status"] == "cancelled");
            assert_eq!(status, if complete { StatusCode::BAD_REQUEST } else { StatusCode::NO_CONTENT });
            let (_, after) = api.get("u1", &format!("/api/orders/{id}")).await;
            let steps = u64::from(!complete && !cancelled);
            assert_eq!(after["version"].as_u64().unwrap(), order["version"].as_u64().unwrap() + steps);
        }
        let old = api.stored(wanted[6]["id"].as_str().unwrap()).await;
        assert_eq!((old.get_i32("__v").unwrap(), old.get_i32("version").unwrap()), (0, 1));
        assert_eq!(old.get_array("seats").unwrap()[0].as_document().unwrap().get_str("row").unwrap(), "B");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongoose_reads_what_we_wrote_as_we_answer_it() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let terms = ReservationTerms::default();
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(reserved(&api).await);
        }
        api.cancel("u1", &ids[1]).await;
        api.store.payment_started(ids[2].parse().unwrap(), Timestamp::MAX, &terms).await.unwrap();
        api.store.settle(ids[3].parse().unwrap(), "p1", Timestamp::MAX, &terms).await.unwrap();
        let (_, ours) = api.get("u1", "/api/orders").await;
        let mut theirs = node(&api, kind, &["read", "u1"]);
        // It shows what it does not know.
        for order in theirs.as_array_mut().unwrap() {
            order.as_object_mut().unwrap().remove("paymentId");
        }
        assert_eq!(theirs, ours, "mongoose {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongoose_cannot_save_an_order_that_we_have_changed_since_it_was_read() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let id = reserved(&api).await;
        let mut stale = Node::start(&api, kind, &["move", &id, "complete"]);
        assert_eq!(stale.next_line()["version"], 0);
        api.cancel("u1", &id).await;
        stale.resume();
        assert_eq!(stale.next_line(), json!({ "error": "VersionError" }), "mongoose {kind}");
        let stored = api.stored(&id).await;
        assert_eq!((stored.get_str("status").unwrap(), stored.get_i32("version").unwrap()), ("cancelled", 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongoose_can_save_an_order_that_it_has_read_after_our_change() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let id = reserved(&api).await;
        api.cancel("u1", &id).await;
        // As where events are on.
        let noted = doc! { "$set": { "outbox": { "since": DateTime::now(), "created": 20 } } };
        let of_order = doc! { "_id": ObjectId::parse_str(&id).unwrap() };
        api.orders().update_one(of_order, noted).await.unwrap();
        // What the Node.js service does with a late payment.
        let mut fresh = Node::start(&api, kind, &["move", &id, "complete"]);
        assert_eq!(fresh.next_line()["version"], 1);
        fresh.resume();
        let mut saved = fresh.next_line();
        // It shows what it does not know.
        saved.as_object_mut().unwrap().remove("outbox").unwrap();
        assert_eq!((&saved["status"], &saved["version"]), (&json!("complete"), &json!(2)), "mongoose {kind}");
        assert_eq!(api.get("u1", &format!("/api/orders/{id}")).await.1, saved, "mongoose {kind}");
        assert_eq!(api.cancel("u1", &id).await.0, StatusCode::BAD_REQUEST, "it is complete for us too");
        assert!(
            api.stored(&id).await.contains_key("outbox"),
            "mongoose {kind} has removed what is to be told"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_continue_from_what_mongoose_has_saved() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let id = reserved(&api).await;
        let mut fresh = Node::start(&api, kind, &["move", &id, "awaiting:payment"]);
        fresh.next_line();
        fresh.resume();
        let saved = fresh.next_line();
        assert_eq!((&saved["status"], &saved["version"]), (&json!("awaiting:payment"), &json!(1)));
        assert_eq!(api.get("u1", &format!("/api/orders/{id}")).await.1, saved, "mongoose {kind}");
        let terms = ReservationTerms::default();
        let paid = api.store.settle(id.parse().unwrap(), "p1", Timestamp::MAX, &terms).await.unwrap();
        assert_eq!(paid, Settled::Completed);
        assert_eq!(api.stored(&id).await.get_i32("version").unwrap(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_services_listener_updates_tickets_that_we_imported() {
    for kind in KINDS {
        let api = TestApi::new().await;
        let ticket = ticket_id();
        let line = format!(r#"{{"id":"{ticket}","title":"concert","price":20,"version":3}}"#);
        assert_eq!(import::run(&api, &line, OnError::Stop).await.unwrap().imported, 1);
        let id = ticket.to_string();
        assert_eq!(
            node(&api, kind, &["update", &id, "5", "too early"]),
            json!({ "error": "Ticket not found" })
        );
        let updated = node(&api, kind, &["update", &id, "4", "moved to the park"]);
        assert_eq!(updated["version"], 4, "mongoose {kind}");
        let (_, order) = api.reserve("u1", ticket).await;
        assert_eq!(order["ticket"], updated);
        assert_eq!(api.tickets().count_documents(doc! {}).await.unwrap(), 1);
    }
}
