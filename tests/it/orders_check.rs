//! `orders check`: what it finds, what it leaves alone, and how it fixes duplicates.

use std::process::{Command, Output};

use mongodb::{
    Client, IndexModel,
    bson::{Bson, DateTime, Document, doc, oid::ObjectId},
    options::IndexOptions,
};
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    bed::setting,
    cluster::eventually,
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, make_indexes, uri},
};

/// Runs the check to its end. Returns the exit code, what it printed and what it reported.
async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(["orders", "check"]).args(arguments).env_clear().envs(environment.iter().copied());
    let Output { status, stdout, stderr } = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

async fn check(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String) {
    let uri = uri();
    let named = ["--uri", &uri, "--database", &database.name];
    let (code, printed, reported) = run(&[], &[&named, arguments].concat()).await;
    assert_eq!(reported, "");
    (code, printed)
}

async fn unchecked_index(database: &TestDatabase, keys: Document, is_unique: bool) {
    let options = IndexOptions::builder().unique(is_unique).build();
    let index = IndexModel::builder().keys(keys).options(options).build();
    database.orders().create_index(index).await.unwrap();
}

/// Every document of the database.
async fn contents(database: &TestDatabase) -> Vec<Document> {
    use futures::TryStreamExt;
    let mut all: Vec<_> = database.orders().find(doc! {}).await.unwrap().try_collect().await.unwrap();
    all.sort_by_key(Document::to_string);
    all
}

#[tokio::test]
async fn a_good_database_and_an_empty_one_have_no_findings_and_stay_as_they_are() {
    let database = TestDatabase::bare().await;
    let (code, printed) = check(&database, &[]).await;
    assert!(code == Some(0) && printed.ends_with("0 foreign unique indexes\n"), "{printed}");
    assert_eq!(database.orders().list_index_names().await.unwrap_or_default(), Vec::<String>::new());
    make_indexes(&database.store).await;
    database.many_orders("u1", 3, doc! {}).await;
    database.ticket().await;
    let (code, printed) = check(&database, &[]).await;
    assert!(code == Some(0) && printed.lines().count() == 2, "{printed}");
}

#[tokio::test]
async fn each_kind_of_finding_is_named_and_nothing_is_changed() {
    let database = TestDatabase::bare().await;
    let twice = ObjectId::new();
    let mut holders = Vec::new();
    for status in ["created", "awaiting:payment", "cancelled"] {
        holders.push(database.mongoose_order(doc! { "ticket": twice, "status": status }).await);
    }
    let unreadable = database.mongoose_order(doc! { "status": "completed" }).await;
    let by_text = database.mongoose_order(doc! { "ticket": ObjectId::new().to_hex() }).await;
    let fixed = database.mongoose_order(doc! { "version": Bson::Null }).await;
    let never = database.mongoose_order(doc! { "expiresAt": Bson::Null }).await;
    let text = database.mongoose_order(doc! { "expiresAt": "2026-11-22T17:29:24.464Z" }).await;
    database.mongoose_order(doc! { "expiresAt": Bson::Null, "status": "complete" }).await;
    let ticket = doc! { "_id": ObjectId::new(), "title": "concert", "price": "cheap" };
    database.tickets().insert_one(&ticket).await.unwrap();
    unchecked_index(&database, doc! { "ticket": 1, "status": 1 }, true).await;
    unchecked_index(&database, doc! { "status": 1 }, false).await;

    let before = contents(&database).await;
    let (code, printed) = check(&database, &[]).await;
    assert_eq!(code, Some(3), "{printed}");
    for line in [
        format!(
            "the ticket {twice} is held by 2 active orders: {} (created), {} (awaiting:payment)",
            holders[0], holders[1]
        ),
        format!("the document {unreadable} in orders cannot be read: status:"),
        format!("the document {by_text} in orders does not hold its ticket"),
        format!("the document {fixed} in orders cannot be read: version: it is null"),
        format!("the document {} in tickets cannot be read: price:", ticket.get_object_id("_id").unwrap()),
        format!("the order {never} never expires"),
        format!("the order {text} never expires"),
        "the unique index ticket_1_status_1 is not ours".into(),
        "the index status_1 is not ours; it does no harm".into(),
    ] {
        assert!(printed.contains(&line), "no {line:?} in {printed}");
    }
    let last = printed.lines().last().unwrap();
    assert_eq!(
        last,
        "1 ticket with several active orders, 4 unusable documents, 2 orders without a due time, \
         1 foreign unique index"
    );
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn duplicates_are_shown_first_and_all_but_one_are_cancelled_so_that_the_index_can_be_made() {
    let database = TestDatabase::bare().await;
    let mut ids = Vec::new();
    for statuses in [["created", "awaiting:payment", "created"], ["created", "complete", "created"]] {
        let ticket = ObjectId::new();
        for status in statuses {
            ids.push(
                database.mongoose_order(doc! { "ticket": ticket, "status": status, "version": 4 }).await,
            );
        }
    }
    assert!(database.store.ensure_indexes().await.is_err());

    let before = contents(&database).await;
    let fix = ["--fix-duplicates", "keep-oldest"];
    let (code, planned) = check(&database, &[&fix[..], &["--dry-run"]].concat()).await;
    assert_eq!((code, contents(&database).await), (Some(3), before));
    let plan = [
        format!("keep {} (created); cancel {} (awaiting:payment), {} (created)\n", ids[0], ids[1], ids[2]),
        format!("keep {} (complete); cancel {} (created), {} (created)\n", ids[4], ids[3], ids[5]),
    ];
    assert!(plan.iter().all(|line| planned.contains(line)), "{planned}");

    let (code, printed) = check(&database, &fix).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(plan.iter().all(|line| printed.contains(line)), "{printed}");
    assert!(printed.find("cancelled ").unwrap() > printed.rfind("cancel ").unwrap(), "{printed}");
    assert!(printed.ends_with("0 foreign unique indexes; 4 orders cancelled\n"), "{printed}");
    for (id, kept) in ids.iter().zip([true, false, false, false, true, false]) {
        let stored = database.stored(id).await;
        let version = stored.get_i32("version").unwrap();
        assert_eq!(stored.get_str("status").unwrap() != "cancelled", kept);
        assert_eq!(version, if kept { 4 } else { 5 });
    }
    make_indexes(&database.store).await;
    assert_eq!(check(&database, &fix).await.0, Some(0));
}

#[tokio::test]
async fn of_more_orders_than_are_looked_at_the_one_that_is_paid_for_is_kept() {
    let database = TestDatabase::bare().await;
    let ticket = ObjectId::new();
    let open = database.many_orders("u1", 1001, doc! { "ticket": ticket }).await;
    let paid = database.mongoose_order(doc! { "ticket": ticket, "status": "complete" }).await;
    let (code, printed) = check(&database, &["--fix-duplicates", "keep-oldest", "--dry-run"]).await;
    let plan = format!("keep {paid} (complete); cancel {} (created), ", open[0]);
    assert!(code == Some(3) && printed.contains(&plan), "{printed}");
    assert!(printed.contains("it may have more: check again afterwards"), "{printed}");
}

#[tokio::test]
async fn what_was_cancelled_by_a_write_whose_reply_was_lost_is_told_as_cancelled() {
    let database = TestDatabase::bare().await;
    let ticket = ObjectId::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(database.mongoose_order(doc! { "ticket": ticket }).await);
    }
    let proxy = FaultProxy::start().await;
    let lost = proxy.once("update", Fault::LoseReply);
    let named = ["--uri", &proxy.uri, "--database", &database.name, "--fix-duplicates", "keep-oldest"];
    let (code, printed, reported) = run(&[], &named).await;
    assert_eq!((code, lost.happened()), (Some(0), 1), "{printed} {reported}");
    assert!(printed.contains(&format!("cancelled {}", ids[1])), "{printed}");
    assert_eq!(database.stored(&ids[1]).await.get_i32("version").unwrap(), 1);
}

#[tokio::test]
async fn a_ticket_that_was_paid_for_twice_is_left_to_a_person() {
    let database = TestDatabase::bare().await;
    let ticket = ObjectId::new();
    for _ in 0..2 {
        database.mongoose_order(doc! { "ticket": ticket, "status": "complete" }).await;
    }
    let (code, printed) = check(&database, &["--fix-duplicates", "keep-oldest"]).await;
    assert!(code == Some(3) && printed.contains("refund all but one by hand"), "{printed}");
}

#[tokio::test]
async fn a_wrong_command_line_is_2_and_a_database_that_is_away_is_1() {
    for (arguments, code, wanted) in [
        (vec![], 2, "give its connection string by --uri"),
        (vec!["--uri", "postgres://user:hunter2@host"], 2, "the MongoDB URI is not usable"),
        (vec!["--uri", "mongodb://127.0.0.1:1", "--dry-run"], 2, "--fix-duplicates"),
        (vec!["--uri", "mongodb://127.0.0.1:1", "--fix-duplicates", "all"], 2, "keep-oldest"),
        (vec!["--uri", "mongodb://127.0.0.1:1/x"], 1, "the database is unavailable"),
    ] {
        let (status, _, reported) = run(&[], &arguments).await;
        assert_eq!(status, Some(code), "{reported}");
        assert!(reported.contains(wanted) && !reported.contains("hunter2"), "{reported}");
    }
}

/// On the spare server, which belongs to the bed: only there may the names be `orders` and `test`. Another test may restart
/// it meanwhile, so whatever asks it asks again.
#[tokio::test(flavor = "multi_thread")]
async fn orders_where_mongoose_would_have_stored_them_are_noticed_before_anything_is_made() {
    let uri = setting("SPARE_MONGO_URI");
    let client = Client::with_uri_str(&uri).await.unwrap();
    let (ours, theirs) = (client.database("orders"), client.database("test"));
    let drop_both = || async { (ours.drop().await.is_ok() && theirs.drop().await.is_ok()).then_some(()) };
    eventually("nothing is left of an earlier run", drop_both).await;
    let order =
        doc! { "_id": ObjectId::new(), "userId": "u1", "status": "created", "expiresAt": DateTime::MAX };
    let insert = || async {
        let collection = theirs.collection::<Document>("orders");
        let (filter, set) = (doc! { "_id": order.get("_id").unwrap() }, doc! { "$set": { "userId": "u1" } });
        collection.update_one(filter, set).upsert(true).await.ok()
    };
    eventually("an order is in test", insert).await;

    let process = Process::start(&uri, "", &[]);
    let refused = || async { process.readyz().await.1.contains("mongodb://HOST/test").then_some(()) };
    eventually("it says which option to set", refused).await;
    let made = || async { ours.list_collection_names().await.ok() };
    assert_eq!(eventually("the collections are listed", made).await, Vec::<String>::new());
    let checked = || async {
        let (code, printed, reported) = run(&[("MONGO_URI", &uri)], &[]).await;
        assert!(reported.contains("the MongoDB URI names no database"), "{reported}");
        (code != Some(1)).then_some((code, printed))
    };
    let (code, printed) = eventually("it is checked", checked).await;
    assert!(code == Some(3) && printed.contains("orders in another database"), "{printed}");
    for mode in ["--once", "--dry-run"] {
        let swept = || async {
            let mut sweeper = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
            sweeper.args(["sweeper", mode]).env("SWEEPER_URI", &uri).env("KUBECONFIG", "/nonexistent");
            let output = spawn_blocking(move || sweeper.output().unwrap()).await.unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(1), "{printed}");
            printed.contains("mongodb://HOST/test").then_some(())
        };
        eventually("the sweeper says which option to set", swept).await;
    }
    assert_eq!(eventually("the collections are listed", made).await, Vec::<String>::new());

    // Either is used once it is named.
    for name in ["test", "orders"] {
        Process::start(&uri, name, &[]).wait_until_ready(true).await;
    }
    eventually("nothing is left", drop_both).await;
    // Without orders elsewhere the default is used; a process that had refused goes on.
    process.wait_until_ready(true).await;
    drop(process);
    eventually("nothing is left", drop_both).await;
}
