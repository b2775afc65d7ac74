//! NATS Streaming, the broker of the course: the services of the course stay as they are, and the Node.js orders service
//! ends where ours begins.

use std::process::Command;

use futures::StreamExt;
use mongodb::bson::{doc, oid::ObjectId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    bed::setting,
    cluster::eventually,
    events::{Kind, System, cancel, check_history, leader, reserve},
    mongo::{answer, uri},
    streaming::{Heard, Neighbour, StreamingServer},
};

fn id() -> String {
    ObjectId::new().to_hex()
}

/// What the tickets service of the course publishes of a new ticket.
fn ticket_event(id: &str) -> Value {
    json!({ "id": id, "version": 0, "title": "concert", "price": 20, "userId": "seller" })
}

/// What somebody has consumed, without what makes it this system's.
fn short(system: &System, heard: &[Heard]) -> Vec<(String, String, i64)> {
    let prefix = format!("{}.", system.database.name);
    let of = |heard: &Heard| {
        let subject = heard.subject.strip_prefix(&prefix).unwrap().to_owned();
        (subject, heard.data["id"].as_str().unwrap().to_owned(), heard.data["version"].as_i64().unwrap_or(-1))
    };
    heard.iter().map(of).collect()
}

fn named(system: &System, service: &str) -> String {
    format!("{service}-{}", system.database.name)
}

async fn order(pod: &Process, user: &str, id: &str) -> Value {
    answer(pod.by(user, Method::GET, &format!("/api/orders/{id}"))).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_the_course_tell_of_tickets_and_payments_and_hear_of_orders() {
    let system = System::on(Kind::Streaming).await;
    let told = ["order:created", "order:cancelled"].map(|name| system.subject(name));
    let refused = [system.subject("order:completed"), system.subject("payment:refused")];
    let tickets = Neighbour::start(&system.url, &named(&system, "tickets"), "tickets-service", &told).await;
    let payments =
        Neighbour::start(&system.url, &named(&system, "payments"), "payments-service", &refused).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;

    let [first, second] = [id(), id()];
    for ticket in [&first, &second] {
        tickets.publish(&system.subject("ticket:created"), &ticket_event(ticket)).await;
    }
    let reserved = async |ticket: &str, user: &str| {
        let ticket = ticket.parse().unwrap();
        eventually("the ticket has arrived", || reserve(&pod, user, ticket)).await
    };
    let (paid, given_up) = (reserved(&first, "ada").await, reserved(&second, "bob").await);
    let wanted = order(&pod, "ada", &paid).await;
    assert_eq!(cancel(&pod, "bob", &given_up).await, StatusCode::NO_CONTENT);
    let next = reserved(&second, "eve").await;
    for (payment, order) in [("p1", &paid), ("p2", &given_up)] {
        let event = json!({ "id": payment, "orderId": order, "stripeId": "ch_1" });
        payments.publish(&system.subject("payment:created"), &event).await;
    }

    let heard = tickets.wait_for(4).await;
    let created = heard.iter().find(|heard| heard.data["id"] == paid.as_str()).unwrap();
    assert_eq!(
        created.data,
        json!({
            "id": paid, "version": 0, "status": "created", "userId": "ada", "expiresAt": wanted["expiresAt"],
            "ticket": { "id": first, "price": 20 },
        })
    );
    let of_second: Vec<_> =
        heard.into_iter().filter(|heard| heard.data["ticket"]["id"] == second.as_str()).collect();
    let event = |subject: &str, id: &str, version| (subject.to_owned(), id.to_owned(), version);
    assert_eq!(
        short(&system, &of_second),
        [
            event("order:created", &given_up, 0),
            event("order:cancelled", &given_up, 1),
            event("order:created", &next, 0)
        ]
    );
    let mut heard = payments.wait_for(2).await;
    heard.sort_by_key(|heard| heard.subject.clone());
    assert_eq!(
        heard[0].data,
        json!({ "id": paid, "version": 1, "userId": "ada", "ticket": { "id": first }, "paymentId": "p1" })
    );
    assert_eq!((&heard[1].data["id"], &heard[1].data["reason"]), (&json!("p2"), &json!("order-cancelled")));
    assert_eq!(order(&pod, "ada", &paid).await["status"], "complete");
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_durable_subscription_goes_on_where_the_node_service_stopped_and_back_again() {
    let system = System::on(Kind::Streaming).await;
    let tickets = Neighbour::start(&system.url, &named(&system, "tickets"), "tickets-service", &[]).await;
    let subjects = ["ticket:created", "ticket:updated", "payment:created"].map(|name| system.subject(name));
    let created = &subjects[0];
    let publish = async |id: &str| {
        tickets.publish(created, &ticket_event(id)).await;
    };
    let ids = [id(), id(), id()];
    // The Node.js service consumes one ticket and ends; while nobody listens there is another.
    let node = Neighbour::start(&system.url, &named(&system, "node"), "orders-service", &subjects).await;
    publish(&ids[0]).await;
    node.wait_for(1).await;
    node.close().await;
    publish(&ids[1]).await;

    let name = named(&system, "orders");
    let mut pod = system.pod_with(&uri(), &[("NATS_CLIENT_ID", &name)]);
    pod.wait_until_ready(true).await;
    eventually("what came meanwhile is heard", || reserve(&pod, "ada", ids[1].parse().unwrap())).await;
    let known = system.database.tickets().count_documents(doc! {}).await.unwrap();
    assert_eq!(known, 1, "what the Node.js service has heard is not heard again");
    pod.terminate();
    assert!(pod.ended().await.success());
    assert_eq!(system.channels.members(created, "orders-service").await, 0, "it has taken its leave");
    publish(&ids[2]).await;

    let node = Neighbour::start(&system.url, &named(&system, "node"), "orders-service", &subjects).await;
    let heard = node.wait_for(1).await;
    assert_eq!(heard[0].data["id"], ids[2].as_str());
    assert_eq!(node.heard().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_forgotten_everything_is_connected_to_again_and_told_what_it_missed() {
    let mut server = StreamingServer::start().await;
    let system = System::streaming(server.url(), server.channels()).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let first = reserve(&pod, "ada", ticket).await.unwrap();
    system.all_told().await;

    server.kill();
    eventually("it is seen to be away", || async {
        (pod.metric("orders_events_connected").await == 0).then_some(())
    })
    .await;
    assert_eq!(cancel(&pod, "ada", &first).await, StatusCode::NO_CONTENT);
    let second = reserve(&pod, "ada", ticket).await.unwrap();
    // The API does not depend on the broker.
    pod.wait_until_ready(true).await;
    server.restart().await;
    system.all_told().await;
    let wanted = [("order:cancelled", first), ("order:created", second)];
    assert_eq!(system.heard().await, wanted.map(|(subject, id)| (subject.to_owned(), id)));

    let tickets = Neighbour::start(&system.url, "tickets", "tickets-service", &[]).await;
    let new = id();
    tickets.publish(&system.subject("ticket:created"), &ticket_event(&new)).await;
    eventually("it is heard", || reserve(&pod, "ada", new.parse().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_server_do_not_hear_each_other() {
    let systems = [System::on(Kind::Streaming).await, System::on(Kind::Streaming).await];
    for (at, system) in systems.iter().enumerate() {
        let name = named(system, "tickets");
        let tickets = Neighbour::start(&system.url, &name, "tickets-service", &[]).await;
        let pods = [&systems[0], &systems[1]].map(System::pod);
        for pod in &pods {
            pod.wait_until_ready(true).await;
        }
        let ticket = id();
        tickets.publish(&system.subject("ticket:created"), &ticket_event(&ticket)).await;
        let order = eventually("it is heard", || reserve(&pods[at], "ada", ticket.parse().unwrap())).await;
        assert!(reserve(&pods[1 - at], "ada", ticket.parse().unwrap()).await.is_none());
        system.all_told().await;
        assert_eq!(system.heard().await, [("order:created".to_owned(), order)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_that_is_taken_and_a_cluster_that_is_not_there_are_named() {
    let system = System::on(Kind::Streaming).await;
    let taken = named(&system, "tickets");
    let _neighbour = Neighbour::start(&system.url, &taken, "tickets-service", &[]).await;
    for (name, value, wanted) in [
        ("NATS_CLIENT_ID", taken.as_str(), "another process is connected as"),
        ("NATS_CLUSTER_ID", "nowhere", "has the cluster id nowhere"),
    ] {
        let pod = system.pod_with(&uri(), &[(name, value)]);
        pod.wait_until_ready(true).await;
        eventually("the log names the reason", || {
            let line = pod.lines.try_iter().find(|line| line.contains(wanted));
            async move { line.filter(|line| line.contains("BrokerRefused") && line.contains(name)) }
        })
        .await;
        let order = reserve(&pod, "ada", system.database.ticket().await).await;
        assert!(order.is_some(), "the API goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_ends_the_connection_of_the_last_leader_so_that_nothing_of_it_arrives_late() {
    let system = System::on(Kind::Streaming).await;
    let names = ["one", "two"].map(|name| named(&system, name));
    let pods = names.clone().map(|name| system.pod_with(&uri(), &[("NATS_CLIENT_ID", &name)]));
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    reserve(&pods[0], "ada", system.database.ticket().await).await.unwrap();
    system.all_told().await;
    let signal = |at: usize, signal: &str| {
        assert!(Command::new("kill").args([signal, &pods[at].id().to_string()]).status().unwrap().success());
    };
    let since = async || system.lease().await.get_datetime("taken").ok().copied();
    // A pod that is delayed for seconds stops publishing: it must be the frozen one that is the last leader.
    let at = loop {
        let before = since().await;
        let at = leader(&pods.iter().collect::<Vec<_>>()).await;
        let relay = format!("{}-relay", names[at]);
        eventually("it is connected", || async { system.channels.knows(&relay).await.then_some(()) }).await;
        signal(at, "-STOP");
        if since().await == before {
            break at;
        }
        signal(at, "-CONT");
    };
    let (other, relay) = (&pods[1 - at], format!("{}-relay", names[at]));
    reserve(other, "ada", system.database.ticket().await).await.unwrap();
    system.all_told().await;
    assert!(!system.channels.knows(&relay).await, "the server would take what it has sent");
    signal(at, "-CONT");
    eventually("it connects again", || async { system.channels.knows(&relay).await.then_some(()) }).await;
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_place_another_has_taken_connects_again_once_it_is_free() {
    let system = System::on(Kind::Streaming).await;
    let name = named(&system, "orders");
    let pod = system.pod_with(&uri(), &[("NATS_CLIENT_ID", &name)]);
    pod.wait_until_ready(true).await;
    let channel = system.subject("ticket:created");
    eventually("it hears", || async {
        (system.channels.members(&channel, "orders-service").await == 1).then_some(())
    })
    .await;
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &pod.id().to_string()]).status().unwrap().success());
    };
    // Frozen it does not answer, so the server gives its name to whoever wants it.
    signal("-STOP");
    let other = Neighbour::start(&system.url, &name, "another-service", &[]).await;
    signal("-CONT");
    // An answer that it waited for when it was frozen may be too late, which it says first.
    let is_told = |line: &String| {
        let reasons = ["BrokerFailed", "BrokerRefused"];
        line.contains("cannot consume events") && reasons.iter().any(|reason| line.contains(reason))
    };
    eventually("it has noticed", || {
        let line = pod.lines.try_iter().find(is_told);
        async move { line }
    })
    .await;
    other.close().await;
    let tickets = Neighbour::start(&system.url, &named(&system, "tickets"), "tickets-service", &[]).await;
    let ticket = id();
    tickets.publish(&channel, &ticket_event(&ticket)).await;
    eventually("it is heard", || reserve(&pod, "ada", ticket.parse().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_answers_that_is_none_harms_nobody() {
    let servers = async_nats::connect(setting("TEST_NATS_URL")).await.unwrap();
    // A length that is longer than the message, a subject with a line break, and nothing at all.
    for answer in [&b"\x0a\xff\xff\xff\xff\x0fabc"[..], b"\x0a\x03a\r\n\x12\x01b\x22\x01c\x32\x01d", b""] {
        let mut system = System::on(Kind::Streaming).await;
        system.url = setting("TEST_NATS_URL");
        let cluster = system.database.name.clone();
        let mut asked = servers.subscribe(format!("_STAN.discover.{cluster}")).await.unwrap();
        let (client, answer) = (servers.clone(), answer.to_vec());
        let answering = tokio::spawn(async move {
            while let Some(question) = asked.next().await {
                client.publish(question.reply.unwrap(), answer.clone().into()).await.unwrap();
            }
        });
        let pod = system.pod_with(&uri(), &[("NATS_CLUSTER_ID", &cluster)]);
        pod.wait_until_ready(true).await;
        eventually("the log names the reason", || {
            let line = pod.lines.try_iter().find(|line| line.contains("BrokerFailed"));
            async move { line }
        })
        .await;
        let order = reserve(&pod, "ada", system.database.ticket().await).await;
        assert!(order.is_some(), "the API goes on");
        answering.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_that_are_gone_and_payments_that_begin_are_heard_where_they_are_named() {
    let system = System::on(Kind::Streaming).await;
    let names = ["ticket:deleted", "payment:started"].map(|name| system.subject(name));
    let others = Neighbour::start(&system.url, &named(&system, "others"), "others-service", &[]).await;
    let pod = system
        .pod_set(&[("NATS_TICKET_DELETED", names[0].as_str()), ("NATS_PAYMENT_STARTED", names[1].as_str())]);
    pod.wait_until_ready(true).await;
    let [gone, sold] = [id(), id()];
    let copies = async || system.database.tickets().count_documents(doc! {}).await.unwrap();
    for ticket in [&gone, &sold] {
        others.publish(&system.subject("ticket:created"), &ticket_event(ticket)).await;
    }
    eventually("both have arrived", || async { (copies().await == 2).then_some(()) }).await;
    let paid = reserve(&pod, "ada", sold.parse().unwrap()).await.unwrap();
    others.publish(&names[0], &json!({ "id": gone })).await;
    others.publish(&names[1], &json!({ "orderId": paid })).await;
    eventually("one is gone", || async { (copies().await == 1).then_some(()) }).await;
    eventually("its payment has begun", || async {
        (order(&pod, "ada", &paid).await["status"] == "awaiting:payment").then_some(())
    })
    .await;
    assert_eq!(reserve(&pod, "bob", gone.parse().unwrap()).await, None);
    // With `order:updated`.
    check_history(&system, false).await;
}
