//! `orders-operator events publish`: consumers that have lost events get them again, each ticket's in order, while pods
//! go on.

use std::{
    collections::{BTreeMap, HashMap},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream::stream;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cluster::{eventually, root},
    events::{Kind, System, cancel, check_history, reserve},
    mongo::uri,
    nats::Event,
};

fn command(system: &System, since: Timestamp, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(["events", "publish", "--since", &since.to_string()]).args(more);
    command.env("MONGO_URI", uri()).env("MONGO_DATABASE", &system.database.name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn publish(system: &System, since: Timestamp, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = command(system, since, more);
    let Output { status, stdout, stderr } = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Everything that was published, without what says the same of a ticket as the event before it: what holds a ticket is
/// published again whenever something of its former orders was, and a run may be seen while it puts them in the outbox.
async fn heard(system: &System) -> Vec<Event> {
    let mut last = HashMap::new();
    let mut events = system.events().await;
    events.retain(|event| {
        let said = (event.subject.clone(), event.data.clone());
        last.insert(event.data["ticket"]["id"].to_string(), said.clone()) != Some(said)
    });
    events
}

/// What a neighbour that keeps an order for each ticket has in the end, which is what the database says.
async fn check_tickets(system: &System) {
    let mut held = BTreeMap::new();
    for event in system.events().await {
        let ticket = event.data["ticket"]["id"].as_str().unwrap_or_default().to_owned();
        let id = event.data["id"].as_str().unwrap().to_owned();
        if event.subject.ends_with("order:created") {
            held.insert(ticket, id);
        } else if event.subject.ends_with("order:cancelled") {
            held.remove(&ticket);
        }
    }
    let active = doc! { "status": { "$ne": "cancelled" } };
    let found: Vec<Document> =
        system.database.orders().find(active).await.unwrap().try_collect().await.unwrap();
    let id = |order: &Document, field: &str| order.get_object_id(field).unwrap().to_hex();
    let wanted: BTreeMap<_, _> = found.iter().map(|order| (id(order, "ticket"), id(order, "_id"))).collect();
    assert_eq!(held, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_has_everything_again_and_a_listener_ends_with_what_holds() {
    let since = Timestamp::now();
    let system = System::new().await;
    let pods = [system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let tickets =
        [system.database.ticket().await, system.database.ticket().await, system.database.ticket().await];
    let mut held = Vec::new();
    for _ in 0..2 {
        let id = reserve(&pods[0], "ada", tickets[0]).await.unwrap();
        assert_eq!(cancel(&pods[1], "ada", &id).await, StatusCode::NO_CONTENT);
        held.push(id);
    }
    held.push(reserve(&pods[0], "ada", tickets[0]).await.unwrap());
    let paid = reserve(&pods[1], "bob", tickets[1]).await.unwrap();
    system.all_told().await;
    let streams = system.streams().await;
    for payment in ["p1", "p2"] {
        let event = json!({ "id": payment, "orderId": paid }).to_string();
        let subject = system.subject("payment:created");
        streams.0.publish(subject, event.into()).await.unwrap().await.unwrap();
        // Both at once would be settled in any order.
        eventually("it is settled", || async {
            let settled = system.database.stored(&paid).await.to_string();
            settled.contains(payment).then_some(())
        })
        .await;
    }
    streams.wait_for(&system.stream, 10).await;
    system.all_told().await;

    streams.0.delete_stream(&system.stream).await.unwrap();
    // Something is published when the stream is there again.
    let last = reserve(&pods[0], "cleo", tickets[2]).await.unwrap();
    streams.wait_for(&system.stream, 1).await;
    system.all_told().await;

    let (code, printed, _) = publish(&system, since, &["--dry-run"]).await;
    let counts = "5 orders of 3 tickets: 5 order:created, 0 order:updated, 2 order:cancelled, 1 order:completed, 1 payment:refused";
    assert_eq!((code, printed), (Some(0), format!("would be published again: {counts}\n")));
    assert_eq!(streams.events(&system.stream).await.len(), 1);
    let (code, printed, error) = publish(&system, since, &[]).await;
    assert_eq!((code, printed), (Some(0), format!("published again: {counts}\n")), "{error}");
    check_tickets(&system).await;
    // That of the last order comes twice, with nothing of its ticket between.
    let events = heard(&system).await;
    assert_eq!(events.len(), 9, "{events:?}");
    let refused: Vec<_> = events
        .iter()
        .filter(|event| event.subject.ends_with("payment:refused"))
        .map(|event| &event.data["reason"])
        .collect();
    assert_eq!(refused, ["already-paid"]);
    assert!(events.iter().any(|event| event.subject.ends_with("order:completed")
        && event.data["paymentId"] == "p1"
        && event.data["version"] == 1));

    let heard_by_tickets = [system.subject("order:created"), system.subject("order:cancelled")];
    let mut count = streams.events(&system.stream).await;
    count.retain(|event| heard_by_tickets.contains(&event.subject));
    let mut node = Command::new("node");
    node.arg(root().join("tests/mongoose/listener.js"))
        .args([&system.url, &system.stream, "tickets-service", &count.len().to_string()])
        .args(heard_by_tickets)
        .stdin(Stdio::null());
    let output = spawn_blocking(move || node.output().expect("node is installed")).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let of = |ticket: &str| {
        let mut lines: Vec<_> = printed.lines().filter(|line| line.starts_with(ticket)).collect();
        lines.dedup();
        lines
    };
    let first = tickets[0].to_string();
    let wanted = [
        format!("{first} is held by {}", held[0]),
        format!("{first} is free"),
        format!("{first} is held by {}", held[1]),
        format!("{first} is free"),
        format!("{first} is held by {}", held[2]),
    ];
    assert_eq!(of(&first), wanted, "{}", String::from_utf8_lossy(&output.stderr));
    let third = tickets[2].to_string();
    assert_eq!(of(&third), [format!("{third} is held by {last}")]);
    // And it goes on as before.
    assert_eq!(cancel(&pods[0], "ada", &held[2]).await, StatusCode::NO_CONTENT);
    system.all_told().await;
    check_tickets(&system).await;
}

/// Starts the command, and kills it after a while.
fn interrupted(system: &System, since: Timestamp, after: Duration) -> impl Future<Output = ()> + use<> {
    let mut child: Child = command(system, since, &[]).spawn().unwrap();
    async move {
        tokio::time::sleep(after).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_pods_under_load_and_interrupted_every_ticket_ends_with_what_holds_it() {
    let since = Timestamp::now();
    let system = System::new().await;
    let pods = [system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let mut tickets = Vec::new();
    for _ in 0..12 {
        tickets.push(system.database.ticket().await);
    }
    let until = Instant::now() + Duration::from_secs(8);
    let buyers = (0..6).map(|number: usize| {
        let (pods, tickets) = (&pods, &tickets);
        async move {
            let (user, mut turn) = (format!("u{number}"), number);
            while Instant::now() < until {
                turn += 1;
                let ticket = tickets[turn * (number + 1) % tickets.len()];
                if let Some(id) = reserve(&pods[turn % 2], &user, ticket).await
                    && turn % 7 > 0
                {
                    cancel(&pods[(turn + 1) % 2], &user, &id).await;
                }
            }
        }
    });
    let again = async {
        for after in [300, 700, 1100] {
            interrupted(&system, since, Duration::from_millis(after)).await;
        }
        publish(&system, since, &[]).await
    };
    let (_, (code, printed, error)) = tokio::join!(futures::future::join_all(buyers), again);
    assert_eq!(code, Some(0), "{error}");
    assert!(printed.starts_with("published again: "), "{printed}");
    system.all_told().await;
    check_tickets(&system).await;

    // Once more, when nothing else happens: all of it comes again, in order.
    let before = system.streams().await.events(&system.stream).await.len();
    let (code, ..) = publish(&system, since, &[]).await;
    assert_eq!(code, Some(0));
    check_tickets(&system).await;
    let events = system.streams().await.events(&system.stream).await;
    let mut versions = HashMap::<String, Vec<u64>>::new();
    for event in &events[before..] {
        let id = event.data["id"].as_str().unwrap().to_owned();
        versions.entry(id).or_default().push(event.data["version"].as_u64().unwrap());
    }
    let count = system.database.orders().count_documents(doc! {}).await.unwrap();
    assert_eq!(versions.len() as u64, count);
    // What holds a ticket may come once more, if the run was seen while it put the orders before it in the outbox.
    versions.values_mut().for_each(Vec::dedup);
    assert!(versions.values().all(|versions| *versions == [0] || *versions == [0, 1]), "{versions:?}");
    // Nothing of it is left in the database.
    let noted = system.database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await;
    assert_eq!(noted.unwrap(), 0);
}

/// Notes an order as a run of the command does, or as its making.
async fn note(system: &System, id: &str, again: Option<&str>) {
    let mut outbox = doc! { "created": 20.0, "since": DateTime::now() };
    outbox.extend(again.map(|again| ("again".to_owned(), again.into())));
    let id = doc! { "_id": ObjectId::parse_str(id).unwrap() };
    let update = doc! { "$set": { "outbox": outbox } };
    assert_eq!(system.database.orders().update_one(id, update).await.unwrap().matched_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_nats_streaming_too_everything_is_told_again_and_every_ticket_ends_with_what_holds_it() {
    let system = System::on(Kind::Streaming).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let [held, free] = [system.database.ticket().await, system.database.ticket().await];
    for ticket in [held, held, free] {
        let id = reserve(&pod, "ada", ticket).await.unwrap();
        assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
    }
    reserve(&pod, "bob", held).await.unwrap();
    check_history(&system, false).await;
    let counted = async || {
        let mut counts = BTreeMap::new();
        for event in system.events().await {
            *counts.entry((event.data["id"].to_string(), event.data["version"].to_string())).or_insert(0) +=
                1;
        }
        counts
    };
    let told = counted().await;
    assert_eq!(told.len(), 7);

    let since = Timestamp::now() - SignedDuration::from_hours(1);
    let (code, said, errors) = publish(&system, since, &[]).await;
    assert_eq!(code, Some(0), "{said}{errors}");
    system.all_told().await;
    let again = counted().await;
    assert_eq!(again.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    assert!(again.values().all(|count| *count > 1), "{again:?}");
    check_tickets(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seen_while_it_notes_the_orders_of_a_ticket_it_still_ends_with_what_holds_it() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let mut over = Vec::new();
    for _ in 0..2 {
        let id = reserve(&pod, "ada", ticket).await.unwrap();
        assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
        over.push(id);
    }
    let holder = reserve(&pod, "bob", ticket).await.unwrap();
    check_history(&system, false).await;
    note(&system, &over[0], Some("x")).await;
    system.all_told().await;
    check_tickets(&system).await;
    for id in [&over[1], &holder] {
        note(&system, id, Some("x")).await;
    }
    system.all_told().await;
    check_tickets(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_order_whose_making_is_not_noted_as_told_its_ticket_still_ends_with_it() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let over = reserve(&pod, "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &over).await, StatusCode::NO_CONTENT);
    let holder = reserve(&pod, "bob", ticket).await.unwrap();
    check_history(&system, false).await;
    // As by a pod that was killed before it marked that, and a run that was killed before it came to the order of bob.
    drop(pod);
    note(&system, &holder, None).await;
    note(&system, &over, Some("x")).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    system.all_told().await;
    check_tickets(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_between_two_orders_of_a_ticket_it_still_ends_with_what_holds_it() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let over = reserve(&pod, "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &over).await, StatusCode::NO_CONTENT);
    reserve(&pod, "bob", ticket).await.unwrap();
    check_history(&system, false).await;
    // Noted as by a run that was killed before it came to the order of bob.
    note(&system, &over, Some("x")).await;
    system.all_told().await;
    system.streams().await.wait_for(&system.stream, 6).await;
    check_tickets(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_broker_fails_between_two_orders_of_a_ticket_it_still_ends_with_what_holds_it() {
    let system = System::new().await;
    let streams = system.streams().await;
    // What an order begins with has a stream of its own, which takes three messages.
    let is_beginning = |subject: &String| subject.ends_with("order:created");
    let (beginnings, others): (Vec<_>, Vec<_>) = system.subjects().into_iter().partition(is_beginning);
    streams.make_forgetful(&system.stream, others).await;
    let small = stream::Config {
        name: format!("{}-beginnings", system.stream),
        subjects: beginnings,
        max_messages: 3,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    streams.0.create_stream(small.clone()).await.unwrap();
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let over = reserve(&pod, "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &over).await, StatusCode::NO_CONTENT);
    let holder = reserve(&pod, "bob", ticket).await.unwrap();
    system.all_told().await;
    // In the outbox as by a run that was killed before it came to the order of bob, which is published after this one and does not fit.
    let note = doc! { "outbox": { "created": 20.0, "again": "x", "since": DateTime::now() } };
    let id = doc! { "_id": ObjectId::parse_str(&over).unwrap() };
    system.database.orders().update_one(id, doc! { "$set": note }).await.unwrap();
    eventually("the broker refuses it", || async {
        (pod.metric("orders_events_failures_total{reason=\"BrokerFailed\"}").await > 0).then_some(())
    })
    .await;
    streams.0.update_stream(stream::Config { max_messages: 100, ..small.clone() }).await.unwrap();
    system.all_told().await;
    let told = streams.events(&small.name).await;
    let ids: Vec<_> = told.iter().map(|event| event.id.clone().unwrap()).collect();
    let begins = |order: &str| format!("{order}:0");
    let wanted = [begins(&over), begins(&holder), format!("{over}:0:x"), begins(&holder)];
    let is_wanted = ids.len() == 4 && ids.iter().zip(&wanted).all(|(id, wanted)| id.starts_with(wanted));
    assert!(is_wanted && ids[3] != ids[1], "each once, and last the one that holds the ticket: {ids:?}");
    assert_eq!(streams.events(&system.stream).await.len(), 2, "its end is published once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_could_change_since_is_told_again_and_only_where_events_are_on() {
    let system = System::new().await;
    let later = Timestamp::now() + SignedDuration::from_hours(2);
    let (code, _, error) = publish(&system, later, &[]).await;
    assert!(code == Some(2) && error.contains("events are off"), "{code:?} {error}");
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    check_history(&system, false).await;
    let nothing = "published again: 0 orders of 0 tickets: 0 order:created, 0 order:updated, 0 order:cancelled, 0 order:completed, 0 payment:refused\n";
    assert_eq!(publish(&system, later, &[]).await.1, nothing);
    check_history(&system, false).await;

    // Of a ticket whose copy is gone nobody knows the price.
    system.database.tickets().delete_many(doc! {}).await.unwrap();
    let now = Timestamp::now();
    let (code, _, error) = publish(&system, now, &[]).await;
    assert!(code == Some(0) && error.contains("1 of the orders are not published again"), "{code:?} {error}");
    eventually("nothing is left", || async {
        (system.database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await.ok()? == 0)
            .then_some(())
    })
    .await;
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_orders_without_a_version_or_with_too_low_a_one_making_and_end_are_told_and_it_comes_to_its_end() {
    let since = Timestamp::now();
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let [cancelled, complete, held] = [
        reserve(&pod, "ada", system.database.ticket().await).await.unwrap(),
        reserve(&pod, "bob", system.database.ticket().await).await.unwrap(),
        reserve(&pod, "cleo", system.database.ticket().await).await.unwrap(),
    ];
    assert_eq!(cancel(&pod, "ada", &cancelled).await, StatusCode::NO_CONTENT);
    system.all_told().await;
    let before = system.streams().await.events(&system.stream).await.len();
    // As services that keep no versions store them.
    let without = doc! { "$unset": { "version": 1 } };
    let paid = doc! { "$set": { "status": "complete", "version": 0 } };
    for (id, update) in [(&cancelled, without.clone()), (&complete, paid), (&held, without)] {
        let of_order = doc! { "_id": ObjectId::parse_str(id).unwrap() };
        system.database.orders().update_one(of_order, update).await.unwrap();
    }
    let publish = command(&system, since, &[]);
    let mut limited = Command::new("timeout");
    limited.arg("90").arg(publish.get_program()).args(publish.get_args());
    limited.envs(publish.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let output = spawn_blocking(move || limited.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let counts = "3 orders of 3 tickets: 3 order:created, 0 order:updated, 1 order:cancelled, 1 order:completed, 0 payment:refused";
    assert_eq!((output.status.code(), said), (Some(0), format!("published again: {counts}\n")));
    let told = system.streams().await.events(&system.stream).await;
    let of = |id: &str| {
        let of_order = told[before..].iter().filter(|event| event.data["id"] == *id);
        let said = |event: &Event| {
            let subject = event.subject.rsplit('.').next().unwrap().to_owned();
            (subject, event.data["version"].as_u64().unwrap())
        };
        of_order.map(said).collect::<Vec<_>>()
    };
    let [created, ended, paid] = [("order:created", 0), ("order:cancelled", 1), ("order:completed", 1)]
        .map(|(subject, version)| (subject.to_owned(), version));
    assert_eq!(of(&cancelled), [created.clone(), ended]);
    assert_eq!(of(&complete), [created.clone(), paid]);
    assert_eq!(of(&held), [created]);
    let noted = system.database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await;
    assert_eq!(noted.unwrap(), 0);
}
