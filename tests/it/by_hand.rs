//! What pages have people run by hand, on a machine without a cluster: the program on files, and beside a database and a broker.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use mongodb::bson::{doc, oid::ObjectId};
use orders_operator::store::DeadLetter;
use serde_json::json;
use tokio::process::Child;

use crate::{
    cluster::{eventually, root},
    console::{blocks, with_language},
    events::{System, reserve_in},
    mongo::{JWT_KEY, TestDatabase, uri},
    reader::Reader,
    sweeper::{cancelled, order},
};

/// A folder for someone who reads; it is removed with this.
struct Desk(PathBuf);

impl Desk {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("orders-desk-{}", ObjectId::new().to_hex()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Someone whose programs take any free ports.
    fn reader(&self) -> Reader {
        let reader = Reader::without_cluster(&self.0);
        reader.knows("LISTEN_ADDRESS", "127.0.0.1").knows("PORT", "0").knows("ADMIN_PORT", "0")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Starts a command that runs until it is killed.
fn start(reader: &Reader, command: &str) -> Child {
    // In place of its shell; it ends with the thread of its test, even when the tests are killed.
    let program = "orders-operator() { exec setpriv --pdeathsig KILL -- orders-operator \"$@\"; }";
    let mut shell = reader.command(&format!("{program}\n{}", reader.as_called(command)));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_database_is_checked_and_swept_by_hand_by_the_commands_of_the_pages() {
    let (desk, database) = (Desk::new(), TestDatabase::new().await);
    let at = database.at_server(&uri());
    let reader = desk.reader().calls("mongodb://HOST/orders", &at).calls("mongodb://localhost/orders", &at);
    database.many_orders("ada", 3, doc! {}).await;
    let [check] = blocks("docs/database.md", "Checking a database").try_into().unwrap();
    let told = reader.does(&check).await;
    assert_eq!(told.matches("0 foreign unique indexes").count(), 2, "{told}");

    let [commands] = blocks("docs/sweeper.md", "Without a cluster").try_into().unwrap();
    let [all_the_time, count, once] = commands.lines().collect::<Vec<_>>().try_into().unwrap();
    let mut sweeper = start(&reader, all_the_time);
    cancelled(&database, order(&database, "created", -60_000).await).await;
    sweeper.kill().await.unwrap();
    let due = order(&database, "created", -60_000).await;
    let told = reader.does(count).await;
    assert!(told.contains("1 order due in 1 database, 0 failed"), "{told}");
    let told = reader.does(once).await;
    assert!(told.contains("1 order expired in 1 database, 0 failed"), "{told}");
    cancelled(&database, due).await;
}

#[tokio::test]
async fn events_are_switched_on_told_again_and_switched_off_by_the_commands_of_the_page() {
    let (desk, system) = (Desk::new(), System::new().await);
    let since = Timestamp::now() - Duration::from_secs(60);
    let mut reader = desk
        .reader()
        .calls("nats://nats:4222", &system.url)
        .calls("2026-11-22T17:00:00Z", &since.to_string())
        .knows("JWT_KEY", JWT_KEY)
        .knows("MONGO_URI", &system.database.at_server(&uri()));
    for (name, value) in system.settings() {
        reader = reader.knows(&name, &value);
    }
    let [serve] = blocks("docs/events.md", "Events").try_into().unwrap();
    let mut pod = start(&reader, &serve);
    eventually("it may publish", || async { (!system.lease().await.is_empty()).then_some(()) }).await;

    // Of which nobody has told.
    let order = system.database.orders_of_tickets("ada", 1, "concert").await.remove(0);
    let [publish] = blocks("docs/events.md", "Publishing again").try_into().unwrap();
    reader.does(&publish).await;
    assert_eq!(system.heard().await, [("order:created".to_owned(), order)]);

    let [identity] = blocks("docs/events.md", "Two systems on one server").try_into().unwrap();
    reader.does(&identity).await;
    assert_eq!(system.identity().await, "0123456789abcdef");
    pod.kill().await.unwrap();

    let [off] = with_language("docs/events.md", "Switching it off", "js").try_into().unwrap();
    let index =
        off.trim().strip_prefix("db.orders.dropIndex(\"").and_then(|rest| rest.strip_suffix("\")")).unwrap();
    system.database.drop_index(index).await;
    let mut publish = reader.command(&reader.as_called(&publish));
    let output = publish.output().await.unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(index),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_message_that_nobody_could_read_is_dealt_with_by_the_commands_of_the_page() {
    let (desk, system) = (Desk::new(), System::new().await);
    let store = system.silent_store().await;
    let order = reserve_in(&store, system.database.ticket().await).await.to_string();
    let keep = async |sequence: u64, subject: &str, data: String| {
        let (reason, detail) = ("malformed-field", "price: it is not a finite number");
        let published = Timestamp::from_millisecond(1_795_368_564_464).unwrap();
        let data = data.as_bytes();
        let letter = DeadLetter { subject, data, reason, detail, stream: "s", sequence, published };
        store.keep_dead_letter(&letter).await.unwrap();
        format!("s:{sequence}:1795368564464")
    };
    let ticket = ObjectId::new().to_hex();
    let of_ticket = |price: &str| {
        format!("{{\"id\":\"{ticket}\",\"title\":\"concert\",\"price\":{price},\"version\":0}}")
    };
    let malformed = keep(1, "ticket:created", of_ticket("\"cheap\"")).await;
    let paid = keep(2, "payment:created", json!({"id": "p1", "orderId": order}).to_string()).await;

    let reader = desk.reader().knows("MONGO_URI", &system.database.at_server(&uri()));
    let [commands] = blocks("docs/events.md", "Consuming").try_into().unwrap();
    let commands = commands.lines().collect::<Vec<_>>();
    let [list, show, show_raw, replay, replay_mended, drop] = commands.try_into().unwrap();
    let with = |command: &str, id: &str| command.replace("ID", id).replace("FILE", "mended.json");
    assert_eq!(reader.does(list).await.lines().count(), 2);
    assert!(reader.does(&with(show, &malformed)).await.contains("cheap"));
    reader.does(&with(show_raw, &malformed)).await;
    assert_eq!(reader.does("cat mended.json").await, of_ticket("\"cheap\""));
    desk.write("mended.json", &of_ticket("20"));
    assert!(reader.does(&with(replay, &paid)).await.contains("the order is complete"));
    assert!(reader.does(&with(replay_mended, &malformed)).await.contains("the ticket is written"));
    let nonsense = keep(3, "ticket:created", "nonsense".to_owned()).await;
    reader.does(&with(drop, &nonsense)).await;
    assert_eq!(reader.does(list).await, "");
}

#[tokio::test]
async fn routes_are_explained_and_files_are_checked_by_the_commands_of_the_pages() {
    let desk = Desk::new();
    let examples = format!("{}/", root().join("examples").display());
    let reader = desk.reader().calls("examples/", &examples);
    let [explain, draw] = blocks("docs/routes.md", "Why does this path go there?").try_into().unwrap();
    let told = reader.does(&explain).await;
    assert!(told.contains("/api/users/5") && told.contains("auth-srv"), "{told}");
    let told = reader.does(&draw).await;
    assert!(told.starts_with("flowchart ") && told.contains("auth-srv"), "{told}");

    // As `dev/book` has it.
    let packages = "import sys; sys.path.insert(0, 'dev'); from bedlib import tools; print(tools.python_packages('book'))";
    let packages = Command::new("python3").args(["-c", packages]).current_dir(root()).output().unwrap();
    let packages = String::from_utf8(packages.stdout).unwrap();
    let checker = format!("env PYTHONPATH='{}' python3 -m check_jsonschema", packages.trim());
    let crds = format!("{}/", root().join("crds").display());
    let reader = desk.reader().calls("crds/", &crds).has("check-jsonschema", &checker);
    let orders = std::fs::read_to_string(root().join("examples/30-orders.yaml")).unwrap();
    desk.write("orders.yaml", &orders);
    let [check] = blocks("docs/tasks.md", "Write OrdersServices in an editor").try_into().unwrap();
    reader.does(&check).await;
    desk.write("orders.yaml", &orders.replace("spec:\n", "spec:\n  replica: 2\n"));
    let output = reader.command(&reader.as_called(&check)).output().await.unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("replica"),
        "{output:?}"
    );
}
