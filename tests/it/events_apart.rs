//! Several systems on one broker, each with subjects of its own: none consumes what is not for it.

use futures::TryStreamExt;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;

use crate::{
    api_process::Process,
    cluster::eventually,
    events::{Kind, System, check_history, leader, on_both, reserve},
    nats::{Nats, Streams},
    streaming::{Neighbour, StreamingServer},
};

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_broker_with_other_subjects_hear_nothing_of_each_other() {
    let server = Nats::start().await;
    let (one, other) = (System::with(server.url()).await, System::with(server.url()).await);
    // The course's names, in the stream that is made by default.
    let first = one.pod_set(&[("NATS_SUBJECTS", ""), ("NATS_STREAM", "ticketing")]);
    first.wait_until_ready(true).await;
    let second = other.pod();
    second.wait_until_ready(true).await;
    let streams = Streams::of(&server.url()).await;
    let send = async |subject: String, id: ObjectId| {
        let event = json!({ "id": id.to_hex(), "version": 0, "title": "concert", "price": 20 });
        streams.0.publish(subject, event.to_string().into()).await.unwrap().await.unwrap();
    };
    let (theirs, ours) = (ObjectId::new(), ObjectId::new());
    eventually("both streams are there", || async {
        streams.0.get_stream("ticketing").await.ok()?;
        streams.0.get_stream(&other.stream).await.ok()
    })
    .await;
    send("ticket:created".to_owned(), ours).await;
    send(other.subject("ticket:created"), theirs).await;
    for (system, wanted, foreign) in [(&one, ours, theirs), (&other, theirs, ours)] {
        eventually("its own ticket has arrived", || async {
            system.database.tickets().find_one(doc! { "_id": wanted }).await.unwrap()
        })
        .await;
        assert_eq!(system.database.tickets().find_one(doc! { "_id": foreign }).await.unwrap(), None);
    }
    let id = |id: ObjectId| id.to_hex().parse().unwrap();
    let made =
        [reserve(&first, "ada", id(ours)).await.unwrap(), reserve(&second, "ada", id(theirs)).await.unwrap()];
    one.all_told().await;
    check_history(&other, false).await;
    let told = streams.events("ticketing").await;
    let told: Vec<_> = told.iter().filter(|event| event.subject.starts_with("order:")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0].subject[..], told[0].data["id"].as_str()), ("order:created", Some(&made[0][..])));
    for pod in [&first, &second] {
        assert_eq!(leader(&[pod]).await, 0);
    }
}

/// A server of this kind that nobody else uses, and what keeps it.
enum Server {
    Stream(Nats),
    Course(StreamingServer),
}

impl Server {
    async fn start(kind: Kind) -> Self {
        match kind {
            Kind::JetStream => Self::Stream(Nats::start().await),
            Kind::Streaming => Self::Course(StreamingServer::start().await),
        }
    }

    /// A database, with the names of the course.
    async fn system(&self) -> System {
        let system = match self {
            Self::Stream(nats) => System::with(nats.url()).await,
            Self::Course(server) => System::streaming(server.url(), server.channels()).await,
        };
        system.of_the_course()
    }

    fn url(&self) -> String {
        match self {
            Self::Stream(nats) => nats.url(),
            Self::Course(server) => server.url(),
        }
    }

    /// Publishes payments, each for one of `orders`.
    async fn pay(&self, orders: &[String]) {
        let payment =
            |order: &String| json!({ "id": format!("p-{order}"), "orderId": order, "stripeId": "c" });
        if let Self::Stream(nats) = self {
            let streams = Streams::of(&nats.url()).await;
            for order in orders {
                let data = payment(order).to_string().into();
                streams.0.publish("payment:created", data).await.unwrap().await.unwrap();
            }
            return;
        }
        let neighbour = Neighbour::start(&self.url(), "payments", "payments", &[]).await;
        for order in orders {
            neighbour.publish("payment:created", &payment(order)).await;
        }
        neighbour.close().await;
    }
}

/// Waits until a pod says that its subjects are those of another system, so that it neither consumes nor publishes; what it says.
async fn is_kept_out(pod: &Process) -> String {
    let mut said = Vec::new();
    eventually("the log says so", || {
        said.extend(pod.lines.try_iter().filter(|line| line.contains("SubjectsOfOthers")));
        let find = |what: &str| said.iter().find(|line| line.contains(what)).cloned();
        let both = find("cannot publish events").and_then(|_| find("cannot consume events"));
        async move { both }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_system_with_the_same_names_takes_no_payment_of_the_first_and_says_whose_they_are() {
    on_both(a_second_system).await;
}

async fn a_second_system(kind: Kind) {
    let server = Server::start(kind).await;
    let (first, second) = (server.system().await, server.system().await);
    let pod = first.pod();
    pod.wait_until_ready(true).await;
    assert_eq!(leader(&[&pod]).await, 0);
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(reserve(&pod, "ada", first.database.ticket().await).await.unwrap());
    }
    first.all_told().await;
    let other = second.pod();
    other.wait_until_ready(true).await;
    let line = is_kept_out(&other).await;
    let id = first.identity().await;
    assert!(line.contains(&id) && line.contains(&first.database.name), "{id}: {line}");
    let own = reserve(&other, "bob", second.database.ticket().await).await.unwrap();

    server.pay(&orders).await;
    let completed = doc! { "status": "complete", "outbox": { "$exists": false } };
    eventually("all are paid for", || async {
        let count = first.database.orders().count_documents(completed.clone()).await.unwrap();
        (count == orders.len() as u64).then_some(())
    })
    .await;
    let events = first.events().await;
    assert!(!events.iter().any(|event| event.subject == "payment:refused"), "{events:?}");
    assert!(!events.iter().any(|event| event.data["id"] == json!(own)), "{events:?}");
    assert_eq!(second.database.dead_letters().count_documents(doc! {}).await.unwrap(), 0);
    let health = second.database.store.events_health().await.unwrap();
    assert_eq!(health.consuming.map(|trouble| trouble.reason).as_deref(), Some("SubjectsOfOthers"));

    // The first one is gone for good, and the second takes its place.
    drop(pod);
    let told = second.set_identity(&id).await;
    assert!(told.contains(&id), "{told}");
    second.all_told().await;
    server.pay(std::slice::from_ref(&own)).await;
    eventually("it hears", || async { second.database.orders().find_one(completed.clone()).await.unwrap() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_copied_elsewhere_is_the_same_system() {
    on_both(a_copied_database).await;
}

async fn a_copied_database(kind: Kind) {
    let server = Server::start(kind).await;
    let (former, copy) = (server.system().await, server.system().await);
    let pod = former.pod();
    pod.wait_until_ready(true).await;
    reserve(&pod, "ada", former.database.ticket().await).await.unwrap();
    former.all_told().await;
    drop(pod);
    let mut relays = former.database.relays().find(doc! {}).await.unwrap();
    while let Some(document) = relays.try_next().await.unwrap() {
        copy.database.relays().insert_one(document).await.unwrap();
    }
    let pod = copy.pod();
    pod.wait_until_ready(true).await;
    let order = reserve(&pod, "ada", copy.database.ticket().await).await.unwrap();
    copy.all_told().await;
    server.pay(&[order]).await;
    eventually("it hears", || async {
        copy.database.orders().find_one(doc! { "status": "complete" }).await.unwrap()
    })
    .await;
}
