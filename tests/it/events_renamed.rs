//! A subject that has another name from now on: its messages are consumed from the first one on, whoever changes first.

use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;

use crate::{
    api_process::Process,
    cluster::eventually,
    events::{SUBJECTS, System},
    nats::Streams,
};

/// A system in whose stream `ticket:created` has a second name.
struct Renamed {
    system: System,
    streams: Streams,
}

impl Renamed {
    async fn new() -> Self {
        let system = System::new().await;
        let streams = system.streams().await;
        let mut subjects = system.subjects_and_marks();
        subjects.push(system.subject("tickets.new"));
        streams.make_forgetful(&system.stream, subjects).await;
        Self { system, streams }
    }

    /// A pod for which `ticket:created` has this name.
    fn pod(&self, created: &str) -> Process {
        let name = |known: &str| self.system.subject(if known == "ticket:created" { created } else { known });
        let names: Vec<_> = SUBJECTS.iter().map(|known| format!("{known}={}", name(known))).collect();
        self.system.pod_set(&[("NATS_SUBJECTS", &names.join(","))])
    }

    async fn send(&self, subject: &str) -> ObjectId {
        let id = ObjectId::new();
        let event = json!({ "id": id.to_hex(), "version": 0, "title": "concert", "price": 20 });
        let sent = self.streams.0.publish(self.system.subject(subject), event.to_string().into()).await;
        sent.unwrap().await.unwrap();
        id
    }

    async fn is_heard(&self, what: &str, id: ObjectId) {
        let tickets = self.system.database.tickets();
        eventually(what, || async { tickets.find_one(doc! { "_id": id }).await.unwrap() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_with_a_new_name_is_heard_from_its_first_message_on_and_nothing_else_is_missed() {
    let renamed = Renamed::new().await;
    let old = renamed.pod("ticket:created");
    old.wait_until_ready(true).await;
    let first = renamed.send("ticket:created").await;
    renamed.is_heard("the old name", first).await;
    // Its sender changes before we do, and what comes after that is consumed meanwhile.
    let early = renamed.send("tickets.new").await;
    let later = renamed.send("ticket:updated").await;
    renamed.is_heard("another subject", later).await;

    // As while pods are replaced one by one.
    let new = renamed.pod("tickets.new");
    new.wait_until_ready(true).await;
    renamed.is_heard("what was sent before anybody asked for it", early).await;
    drop(old);
    let next = renamed.send("tickets.new").await;
    renamed.is_heard("the new name", next).await;

    // And back, while nobody runs.
    drop(new);
    let [back, late] = [renamed.send("ticket:created").await, renamed.send("ticket:updated").await];
    let old = renamed.pod("ticket:created");
    old.wait_until_ready(true).await;
    renamed.is_heard("the old name again", back).await;
    renamed.is_heard("what was sent while nobody ran", late).await;
    let letters = renamed.system.database.dead_letters().count_documents(doc! {}).await.unwrap();
    assert_eq!(letters, 0);
}
