//! Several systems on one broker, each with subjects of its own: none hears what is not for it.

use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;

use crate::{
    cluster::eventually,
    events::{System, check_history, leader, reserve},
    nats::{Nats, Streams},
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
