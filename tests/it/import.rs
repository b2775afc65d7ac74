//! `tickets import` against a real database.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use mongodb::bson::{doc, oid::ObjectId};
use orders_operator::{
    import::{self, ImportError, ImportSummary, OnError, TicketsImportArgs},
    store::TlsArgs,
};

use crate::{
    cluster::eventually,
    mongo::{TestDatabase, ticket_id, uri},
};

/// A file that is removed at the end of the test.
struct TestFile(PathBuf);

impl TestFile {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("orders-test-{}.ndjson", ticket_id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Imports a file with the content `text`.
pub(crate) async fn run(
    database: &TestDatabase,
    text: &str,
    on_error: OnError,
) -> Result<ImportSummary, ImportError> {
    let file = TestFile::new(text);
    import::run(TicketsImportArgs {
        tls: TlsArgs::default(),
        file: file.0.clone(),
        mongo_uri: Some(uri()),
        database: Some(database.name.clone()),
        on_error,
    })
    .await
}

fn line(id: impl std::fmt::Display, title: &str, version: u32) -> String {
    format!(r#"{{"id":"{id}","title":"{title}","price":20,"version":{version}}}"#)
}

fn summary(imported: u64, unchanged: u64, bad: u64) -> ImportSummary {
    ImportSummary { imported, unchanged, bad }
}

#[tokio::test]
async fn an_older_version_never_overwrites_a_newer_one_and_a_second_run_changes_nothing() {
    let database = TestDatabase::new().await;
    let (a, b, c) = (ticket_id(), ticket_id(), ticket_id());
    let first = [line(a, "a", 2), line(b, "b", 0), line(c, "c", 0)].join("\n");
    let done = run(&database, &first, OnError::Stop).await.unwrap();
    assert_eq!(done, summary(3, 0, 0));
    assert_eq!(done.to_string(), "imported 3, unchanged 0, bad 0");
    assert_eq!(run(&database, &first, OnError::Stop).await.unwrap(), summary(0, 3, 0));

    let second = [line(a, "older", 1), line(b, "newer", 1), line(c, "same", 0)].join("\n");
    assert_eq!(run(&database, &second, OnError::Stop).await.unwrap(), summary(1, 2, 0));
    let mut tickets = std::collections::HashMap::new();
    for id in [a, b, c] {
        tickets.insert(id, database.store.ticket(id).await.unwrap().unwrap());
    }
    assert_eq!([a, b, c].map(|id| tickets[&id].title.as_str()), ["a", "newer", "c"]);
    assert_eq!([a, b, c].map(|id| tickets[&id].version.0), [2, 1, 0]);
}

#[tokio::test]
async fn the_versions_of_one_ticket_may_come_in_any_order_in_one_file() {
    let database = TestDatabase::new().await;
    let id = ticket_id();
    let text = [3, 1, 4, 0, 2].map(|version| line(id, &format!("v{version}"), version)).join("\n");
    let done = run(&database, &text, OnError::Stop).await.unwrap();
    assert_eq!((done.imported + done.unchanged, done.bad), (5, 0));
    assert_eq!(database.store.ticket(id).await.unwrap().unwrap().title, "v4");
}

#[tokio::test]
async fn a_file_of_many_batches_is_imported_completely() {
    let database = TestDatabase::new().await;
    let ids: Vec<_> = (0..1234).map(|_| ticket_id()).collect();
    let text: String = ids.iter().map(|id| line(id, "t", 0) + "\n").collect();
    assert_eq!(run(&database, &text, OnError::Stop).await.unwrap(), summary(1234, 0, 0));
    assert_eq!(database.tickets().count_documents(doc! {}).await.unwrap(), 1234);
}

#[tokio::test]
async fn titles_of_any_size_are_imported_or_named_and_none_stops_the_others() {
    let database = TestDatabase::new().await;
    let (longest, longer) = ("x".repeat(10_000), "x".repeat(40_000));
    let with = |title: &str, count: usize| (0..count).map(|_| line(ticket_id(), title, 0) + "\n").collect();
    let lines: [String; 3] = [with(&longer, 600), with(&longest, 600), with("t", 1)];
    let done = run(&database, &lines.concat(), OnError::Skip).await.unwrap();
    assert_eq!(done, summary(601, 0, 600));
    let error = run(&database, &lines[0], OnError::Stop).await.unwrap_err();
    assert!(error.to_string().contains("no more than 10000"), "{error}");
}

#[tokio::test]
async fn a_bad_line_stops_the_import_after_the_lines_before_it_or_is_skipped() {
    let database = TestDatabase::new().await;
    let (a, b) = (ticket_id(), ticket_id());
    let text = format!("{}\n\n{{\"id\":\"x\"}}\n{}\n", line(a, "a", 0), line(b, "b", 0));
    let error = run(&database, &text, OnError::Stop).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::BadLine { number: 3, before, .. } if before.imported == 1),
        "{error}"
    );
    assert!(error.to_string().contains("24 hexadecimal digits"), "{error}");
    assert!(database.store.ticket(b).await.unwrap().is_none());
    assert_eq!(run(&database, &text, OnError::Skip).await.unwrap(), summary(1, 1, 1));
}

#[tokio::test]
async fn other_fields_are_kept_and_a_document_without_a_version_is_older_than_any_version() {
    let database = TestDatabase::new().await;
    let id = ticket_id();
    let record =
        doc! { "_id": ObjectId::from(id.bytes()), "title": "old", "price": 1, "__v": 0, "extra": "kept" };
    database.tickets().insert_one(record).await.unwrap();
    assert_eq!(run(&database, &line(id, "new", 0), OnError::Stop).await.unwrap(), summary(1, 0, 0));
    let stored = database.tickets().find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!((stored.get_str("title").unwrap(), stored.get_str("extra").unwrap()), ("new", "kept"));
}

#[tokio::test]
async fn a_missing_uri_a_missing_file_and_an_unreachable_database_are_named() {
    let args = |file: &str, uri: Option<&str>| TicketsImportArgs {
        tls: TlsArgs::default(),
        file: file.into(),
        mongo_uri: uri.map(str::to_owned),
        database: None,
        on_error: OnError::Stop,
    };
    for uri in [None, Some(""), Some(" ")] {
        let error = import::run(args("-", uri)).await.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("MONGO_URI"), "{error}");
    }
    let error = import::run(args("/no/such/file", Some("mongodb://127.0.0.1:1"))).await.unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("/no/such/file"), "{error}");

    let good = TestFile::new(&line(ticket_id(), "t", 0));
    let error = import::run(args(good.0.to_str().unwrap(), Some("mongodb://127.0.0.1:1"))).await.unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("the database is unavailable"), "{error}");
}

#[tokio::test]
async fn a_killed_import_can_be_repeated() {
    let database = TestDatabase::new().await;
    let lines: Vec<String> =
        (0..3000).map(|n| line(ticket_id(), &format!("concert {n}"), 0) + "\n").collect();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(["tickets", "import", "-"])
        .env("MONGO_URI", uri())
        .env("MONGO_DATABASE", &database.name)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Its input stays open, so that it cannot end by itself.
    let mut input = killed.stdin.take().unwrap();
    input.write_all(lines[..2000].concat().as_bytes()).unwrap();
    let before = eventually("it has written a thousand", || async {
        let written = database.tickets().count_documents(doc! {}).await.unwrap();
        (written >= 1000).then_some(written)
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();

    let done = run(&database, &lines.concat(), OnError::Stop).await.unwrap();
    assert!(done.unchanged >= before, "{done}");
    assert_eq!((done.imported + done.unchanged, done.bad), (3000, 0));
    assert_eq!(database.tickets().count_documents(doc! {}).await.unwrap(), 3000);
}
