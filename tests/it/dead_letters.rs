//! `orders-operator events dead-letters`: what nobody could read is looked at, and handled again once it is mended.

use std::process::{Command, Output};

use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use orders_operator::store::DeadLetter;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    events::{System, reserve_in},
    mongo::uri,
};

/// Runs the command, and returns its exit code and what it prints.
pub(crate) async fn dead_letters(system: &System, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(["events", "dead-letters"]).args(arguments);
    command.env("MONGO_URI", uri()).env("MONGO_DATABASE", &system.database.name);
    let Output { status, stdout, .. } = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[tokio::test]
async fn letters_are_listed_shown_replayed_once_they_are_mended_and_dropped() {
    let system = System::new().await;
    let store = system.silent_store().await;
    let order = reserve_in(&store, system.database.ticket().await).await;
    let ticket = ObjectId::new().to_hex();
    let published = Timestamp::from_millisecond(1_795_368_564_464).unwrap();
    let keep = async |sequence: u64, subject: &str, data: &str| {
        let letter = DeadLetter {
            subject,
            data: data.as_bytes(),
            reason: "malformed-field",
            detail: "price: it is not\u{1b}[2J a finite number",
            stream: "s",
            sequence,
            published,
        };
        store.keep_dead_letter(&letter).await.unwrap();
        format!("s:{sequence}:1795368564464")
    };
    let cheap = json!({"id": ticket, "title": "concert", "price": "cheap", "version": 2}).to_string();
    let first = keep(1, "ticket:created", &cheap).await;
    // It was refused by the database, which is mended.
    let second = keep(2, "payment:created", &json!({"id": "p1", "orderId": order}).to_string()).await;
    let third = keep(3, "payment:created", &json!({"id": "p2", "orderId": ticket}).to_string()).await;

    let (code, listed) = dead_letters(&system, &["list"]).await;
    assert_eq!((code, listed.lines().count()), (Some(0), 3));
    assert!(listed.contains("malformed-field: price: it is not\\u{1b}[2J a finite"), "{listed}");
    let (code, shown) = dead_letters(&system, &["show", &first]).await;
    assert_eq!((code, shown.lines().last()), (Some(0), Some(cheap.as_str())));
    // As a file it is what was sent, line breaks included.
    let broken = "{\n \"id\": \"\u{1b}[2J\",\r\n}";
    let with_lines = keep(9, "ticket:created", broken).await;
    let (code, shown) = dead_letters(&system, &["show", &with_lines]).await;
    assert_eq!((code, shown.lines().count()), (Some(0), 2));
    assert_eq!(dead_letters(&system, &["show", &with_lines, "--raw"]).await, (Some(0), broken.to_owned()));
    assert_eq!(dead_letters(&system, &["show", "--raw", "nobody"]).await, (Some(3), String::new()));
    assert_eq!(dead_letters(&system, &["drop", &with_lines]).await.0, Some(0));

    let (code, text) = dead_letters(&system, &["replay", &first, &second, &third]).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&format!("{first}: price: it is not a finite number")), "{text}");
    assert!(text.contains(&format!("{second}: the order is complete")), "{text}");
    assert!(text.contains(&format!("{third}: there is no such order")), "{text}");
    let paid = system.database.stored(&order.to_string()).await;
    assert_eq!(paid.get_str("paymentId").ok(), Some("p1"));

    let mended = std::env::temp_dir().join(format!("mended-{ticket}.json"));
    std::fs::write(&mended, cheap.replace("\"cheap\"", "20")).unwrap();
    let (code, text) = dead_letters(&system, &["replay", &first, "--with", mended.to_str().unwrap()]).await;
    std::fs::remove_file(&mended).unwrap();
    assert_eq!((code, text.contains("the ticket is written")), (Some(0), true), "{text}");
    assert!(store.ticket(ticket.parse().unwrap()).await.unwrap().is_some());

    // Its payment was answered, so nothing is done with it unless somebody insists.
    let paid_again = json!({"id": "p9", "orderId": order}).to_string();
    let answered = DeadLetter {
        subject: "payment:created",
        data: paid_again.as_bytes(),
        reason: "order-not-found",
        detail: "the order of this payment does not exist; the payment was refused",
        stream: "s",
        sequence: 4,
        published,
    };
    store.keep_dead_letter(&answered).await.unwrap();
    let fourth = "s:4:1795368564464";
    let (code, text) = dead_letters(&system, &["replay", fourth]).await;
    assert_eq!((code, text.contains("its payment was refused")), (Some(3), true), "{text}");
    let (code, text) = dead_letters(&system, &["replay", "--even-refused", fourth]).await;
    assert_eq!((code, text.contains("the payment is refused: already-paid")), (Some(0), true), "{text}");

    assert_eq!(dead_letters(&system, &["drop", &third]).await.0, Some(0));
    assert_eq!(dead_letters(&system, &["drop", &third]).await.0, Some(3));
    assert_eq!(dead_letters(&system, &["list"]).await, (Some(0), String::new()));
    assert_eq!(dead_letters(&system, &["replay", "a", "b", "--with", "/nonexistent"]).await.0, Some(2));
}
