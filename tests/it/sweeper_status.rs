//! What the sweeper writes to the resources, and that it writes nothing if nothing happens.

use std::collections::BTreeSet;

use k8s_openapi::api::{apps::v1::Deployment, events::v1::Event};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use mongodb::bson::{Bson, DateTime, doc, oid::ObjectId};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    bed::{SPARE_MONGO, setting},
    cluster::{Process, TestNamespace, eventually, root},
    console::blocks,
    fault_proxy::{Fault, FaultProxy},
    held::Held,
    mongo::{TestDatabase, by_way_of, uri},
    monitoring::compare,
    reader::Reader,
    sweeper::{cancelled, order, service},
};

async fn expired_total(namespace: &TestNamespace, name: &str, total: i64) {
    eventually(&format!("{name} says that {total} expired"), || async {
        let service: OrdersService = namespace.api().get_status(name).await.unwrap();
        let expiry = service.status?.expiry?;
        (expiry.expired_total == Some(total) && expiry.last_sweep_time.is_some()).then_some(())
    })
    .await;
}

/// Waits for an event with this reason about `name`, and returns its type and note.
async fn event(namespace: &TestNamespace, name: &str, reason: &str) -> (String, String) {
    eventually(&format!("an event {reason} about {name}"), || async {
        let events = namespace.api::<Event>().list(&ListParams::default()).await.unwrap();
        let event = events.into_iter().find(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            about == Some(name) && event.reason.as_deref() == Some(reason)
        })?;
        Some((event.type_.unwrap(), event.note.unwrap()))
    })
    .await
}

/// Waits for `count` more queries of `database`, of which there is one per second.
async fn looks(sweeper: &Process, database: &TestDatabase, count: f64) {
    let of = async || {
        let page = sweeper.admin("/metrics").await;
        let lines = page.lines().filter(|line| line.starts_with("orders_operator_sweeper_looks_total{"));
        lines
            .filter(|line| line.contains(&database.name))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum::<f64>()
    };
    let before = of().await;
    eventually("it looks again and again", || async { (of().await >= before + count).then_some(()) }).await;
}

#[tokio::test]
async fn the_resource_counts_expired_orders_across_restarts_and_an_idle_one_is_not_written() {
    let namespace = TestNamespace::create("expiry").await;
    namespace.secrets(&uri()).await;
    let (busy, idle) = (TestDatabase::new().await, TestDatabase::new().await);
    namespace.apply(&service(&namespace, "busy", &busy, json!({}))).await.unwrap();
    namespace.apply(&service(&namespace, "idle", &idle, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    expired_total(&namespace, "busy", 0).await;
    expired_total(&namespace, "idle", 0).await;
    let version = async || namespace.api::<OrdersService>().get("idle").await.unwrap().resource_version();
    let before = version().await;
    for _ in 0..3 {
        let due = order(&busy, "created", -1).await;
        cancelled(&busy, due).await;
    }
    // The status may be up to a minute behind; on SIGTERM the rest is written. But what the database has not answered yet is
    // not known then.
    looks(&sweeper, &busy, 2.0).await;
    assert_eq!(sweeper.terminate().await.code(), Some(0));
    expired_total(&namespace, "busy", 3).await;
    // As the page looks at it.
    let reader = Reader::of(&namespace, &setting("KUBECONFIG")).await;
    let reader =
        reader.calls("-n ticketing", &format!("-n {}", namespace.name)).calls("osvc orders", "osvc busy");
    let [look] = blocks("docs/sweeper.md", "In a cluster").try_into().unwrap();
    let told = reader.does(&look).await;
    for part in ["EXPIRED", "\"expiredTotal\":3", "DatabaseReady", "Sweeping"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }

    let sweeper = namespace.run_sweeper().await;
    let due = order(&busy, "created", -1).await;
    cancelled(&busy, due).await;
    // As long as three resyncs take.
    looks(&sweeper, &idle, 15.0).await;
    expired_total(&namespace, "busy", 4).await;
    assert_eq!(version().await, before);
    namespace.remove().await;
}

#[tokio::test]
async fn what_expired_last_is_counted_at_the_end_also_where_the_resource_has_changed_unseen() {
    let namespace = TestNamespace::create("unseen").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let is_watch = |path: &str, query: &str| path.ends_with("/ordersservices") && query.contains("watch=");
    let watches = Held::between(&namespace, "sweeper", is_watch).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    expired_total(&namespace, "orders", 0).await;
    watches.hold(true);
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "unseen"}}}));
    let services = namespace.api::<OrdersService>();
    services.patch("orders", &PatchParams::default(), &note).await.unwrap();
    let due = order(&database, "created", -1).await;
    cancelled(&database, due).await;
    looks(&sweeper, &database, 2.0).await;
    assert_eq!(sweeper.terminate().await.code(), Some(0));
    expired_total(&namespace, "orders", 1).await;
    namespace.remove().await;
}

#[tokio::test]
async fn orders_that_never_become_due_are_a_warning_in_the_condition_that_counts_and_names_them() {
    let namespace = TestNamespace::create("undue").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let never = database.mongoose_order(doc! { "expiresAt": Bson::Null }).await;
    // Such an id may be any text.
    let id = "x is paid\u{1b}[2J";
    let odd = doc! { "_id": id, "userId": "u1", "status": "created", "version": 0 };
    database.orders().insert_one(odd).await.unwrap();
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let _sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    let message = namespace.condition("orders", Sweeping, "True", "OrdersWithoutDueTime").await;
    assert!(message.contains(&format!("2 open orders (such as {never})")), "{message}");
    assert!(message.contains("orders check") && !message.contains("paid"), "{message}");
    namespace.remove().await;
}

#[tokio::test]
async fn falling_behind_and_catching_up_are_reported() {
    let namespace = TestNamespace::create("behind").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    database.many_orders("u1", 500, doc! { "expiresAt": DateTime::from_millis(0) }).await;
    let slow = |most| json!({"expiration": {"maxPerSecond": most}});
    namespace.apply(&service(&namespace, "orders", &database, slow(1))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    let message = namespace.condition("orders", Sweeping, "False", "FallingBehind").await;
    assert!(message.contains("maxPerSecond"), "{message}");
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    assert_eq!(event(&namespace, "orders", "FallingBehind").await.0, "Warning");
    let backlog = eventually("the backlog is counted", || async {
        let backlog = sweeper.metric("orders_operator_sweeper_backlog{").await;
        (backlog > 0.0).then_some(backlog)
    })
    .await;
    assert!(backlog < 500.0, "{backlog}");
    assert!(sweeper.metric("orders_operator_sweeper_oldest_overdue_seconds{").await > 1_000_000.0);

    namespace.apply(&service(&namespace, "orders", &database, slow(5000))).await.unwrap();
    namespace.condition("orders", Sweeping, "True", "AsExpected").await;
    assert_eq!(event(&namespace, "orders", "Sweeping").await.0, "Normal");
    assert!(sweeper.metric("orders_operator_sweeper_lateness_seconds_count").await >= 450.0);
    namespace.remove().await;
}

/// A proxy to the database that accepts connections but forwards nothing until it is opened.
async fn stuck_way() -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (uri, behind) = by_way_of(listener.local_addr().unwrap().port());
    let (opened, open) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (behind, mut open) = (behind.clone(), open.clone());
            tokio::spawn(async move {
                if open.wait_for(|open| *open).await.is_ok()
                    && let Ok(mut there) = TcpStream::connect(&behind).await
                {
                    drop(copy_bidirectional(&mut here, &mut there).await);
                }
            });
        }
    });
    (uri, opened)
}

#[tokio::test]
async fn a_database_that_hangs_delays_no_other_and_is_swept_once_it_answers_again() {
    let namespace = TestNamespace::create("hangs").await;
    let (stuck, well) = (TestDatabase::new().await, TestDatabase::new().await);
    let (way, opened) = stuck_way().await;
    namespace.secrets(&uri()).await;
    namespace.secret("stuck", "MONGO_URI", &way).await;
    let overdue = order(&stuck, "created", -60_000).await;
    let by_stuck_way = json!({"database": {"uriSecretRef": {"name": "stuck"}}});
    namespace.apply(&service(&namespace, "stuck", &stuck, by_stuck_way)).await.unwrap();
    namespace.apply(&service(&namespace, "well", &well, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("stuck", DatabaseReady, "False", "DatabaseUnreachable").await;
    let (kind, note) = event(&namespace, "stuck", "DatabaseUnreachable").await;
    assert_eq!(kind, "Warning");
    assert!(note.contains("the database"), "{note}");
    // Meanwhile the orders of the other database expire on time.
    for _ in 0..5 {
        let due = order(&well, "created", 300).await;
        cancelled(&well, due).await;
    }
    assert!(sweeper.metric("orders_operator_sweeper_errors_total{").await >= 1.0);
    namespace.condition("well", Sweeping, "True", "AsExpected").await;

    opened.send_replace(true);
    cancelled(&stuck, overdue).await;
    namespace.condition("stuck", DatabaseReady, "True", "AsExpected").await;
    namespace.condition("stuck", Sweeping, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_corrected_secret_and_resolved_duplicates_are_noticed_without_a_restart() {
    let namespace = TestNamespace::create("corrected").await;
    namespace.secrets(&uri()).await;
    namespace.secret("other", "MONGO_URI", "mongodb://127.0.0.1:1/").await;
    let (well, twice) = (TestDatabase::new().await, TestDatabase::bare().await);
    let overdue = order(&well, "created", -1).await;
    let ticket = ObjectId::new();
    let first = twice.mongoose_order(doc! { "ticket": ticket }).await;
    twice.mongoose_order(doc! { "ticket": ticket }).await;
    let other = json!({"database": {"uriSecretRef": {"name": "other"}}});
    namespace.apply(&service(&namespace, "other", &well, other)).await.unwrap();
    namespace.apply(&service(&namespace, "twice", &twice, json!({}))).await.unwrap();
    let _sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    let message = namespace.condition("other", DatabaseReady, "False", "DatabaseUnreachable").await;
    assert!(
        message.contains("the database at 127.0.0.1 cannot be reached") && !message.contains(":1"),
        "{message}"
    );
    let message = namespace.condition("twice", DatabaseReady, "False", "DuplicateActiveOrders").await;
    assert!(message.contains(&ticket.to_hex()), "{message}");
    // Without the index the sweep is slower, but it works.
    namespace.condition("twice", Sweeping, "True", "AsExpected").await;
    let due = order(&twice, "created", -1).await;
    cancelled(&twice, due).await;

    namespace.secret("other", "MONGO_URI", &uri()).await;
    let id = ObjectId::parse_str(&first).unwrap();
    twice.orders().update_one(doc! { "_id": id }, doc! { "$set": { "status": "cancelled" } }).await.unwrap();
    cancelled(&well, overdue).await;
    namespace.condition("other", DatabaseReady, "True", "AsExpected").await;
    namespace.condition("twice", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_connection_string_that_is_refused_is_told_also_while_the_database_of_the_former_one_is_away() {
    let namespace = TestNamespace::create("refused").await;
    let database = TestDatabase::new().await;
    let (way, _kept_shut) = stuck_way().await;
    namespace.secrets(&way).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let _sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("orders", DatabaseReady, "False", "DatabaseUnreachable").await;
    namespace.secret("orders-mongo", "MONGO_URI", "127.0.0.1/orders").await;
    let message = namespace.condition("orders", DatabaseReady, "False", "InvalidDatabaseUri").await;
    assert!(message.contains("Secret \"orders-mongo\"") && message.contains("mongodb://"), "{message}");
    namespace.secret("orders-mongo", "MONGO_URI", &uri()).await;
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_changed_connection_string_reaches_the_sweeper_as_soon_as_the_pods() {
    let _beside_others = SPARE_MONGO.read().await;
    let spare = setting("SPARE_MONGO_URI");
    let (before, after) = (TestDatabase::new().await, TestDatabase::at(spare.clone()).await);
    let namespace = TestNamespace::create("moved").await;
    namespace.secrets(&before.at_server(&uri())).await;
    // Without a node its pods never serve, and so the controller reads the Secrets often; the sweeper sees nothing amiss.
    let by_string = json!({"replicas": 1, "database": {"name": null}});
    namespace.apply(&service(&namespace, "orders", &before, by_string)).await.unwrap();
    let _sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    let template = async || {
        let deployment = namespace.api::<Deployment>().get("orders").await.unwrap();
        deployment.spec.unwrap().template.metadata.unwrap().annotations
    };
    let former = template().await;
    namespace.secret("orders-mongo", "MONGO_URI", &after.at_server(&spare)).await;
    eventually("the pods are rolled", || async { (template().await != former).then_some(()) }).await;
    // Its own look at the Secret would come in four minutes.
    let due = order(&after, "created", -1).await;
    cancelled(&after, due).await;
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn no_condition_speaks_of_a_former_database_or_generation_and_ready_waits_for_the_sweeper() {
    let namespace = TestNamespace::create("former").await;
    let database = TestDatabase::new().await;
    let (way, opened) = stuck_way().await;
    namespace.secrets(&uri()).await;
    namespace.secret("stuck", "MONGO_URI", &way).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("orders", Sweeping, "True", "AsExpected").await;
    namespace.ready("orders").await;
    let by_stuck_way = json!({"database": {"uriSecretRef": {"name": "stuck"}}});
    namespace.apply(&service(&namespace, "orders", &database, by_stuck_way)).await.unwrap();
    namespace.condition("orders", DatabaseReady, "False", "DatabasePending").await;
    let series = "orders_operator_sweeper_last_look_timestamp_seconds{";
    eventually("the former one has no series any more, and this one has", || async {
        let page = sweeper.admin("/metrics").await;
        (page.lines().filter(|line| line.starts_with(series)).count() == 1).then_some(())
    })
    .await;
    namespace.condition("orders", DatabaseReady, "False", "DatabaseUnreachable").await;
    opened.send_replace(true);
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.ready("orders").await;
    // A change that the sweeper need not act on.
    let unprotected = json!({
        "database": {"uriSecretRef": {"name": "stuck"}}, "networkPolicy": false
    });
    namespace.apply(&service(&namespace, "orders", &database, unprotected)).await.unwrap();
    namespace.ready("orders").await;
    let now: OrdersService = namespace.api().get("orders").await.unwrap();
    let generations: BTreeSet<_> =
        now.status.unwrap().conditions.iter().map(|condition| condition.observed_generation).collect();
    assert_eq!(generations, BTreeSet::from([now.metadata.generation]));
    // Nobody would say it.
    assert_eq!(sweeper.terminate().await.code(), Some(0));
    let other = json!({
        "database": {"uriSecretRef": {"name": "stuck"}}, "networkPolicy": true
    });
    namespace.apply(&service(&namespace, "orders", &database, other)).await.unwrap();
    let message = namespace.condition("orders", Ready, "False", "AwaitingSweeper").await;
    assert!(message.contains("check that a sweeper is running"), "{message}");
    namespace.remove().await;
}

#[tokio::test]
async fn a_sweeper_that_is_started_anew_does_not_go_on_saying_that_all_is_well_where_the_database_is_away() {
    let namespace = TestNamespace::create("anew").await;
    let database = TestDatabase::new().await;
    let (way, opened) = stuck_way().await;
    opened.send_replace(true);
    namespace.secrets(&way).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    assert_eq!(sweeper.terminate().await.code(), Some(0));
    opened.send_replace(false);
    let _sweeper = namespace.run_sweeper().await;
    namespace.condition("orders", DatabaseReady, "False", "DatabaseUnreachable").await;
    opened.send_replace(true);
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_sweeper_that_is_started_anew_says_that_nothing_is_known_while_the_database_takes_long_to_answer() {
    let namespace = TestNamespace::create("pending").await;
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    namespace.secrets(&proxy.uri).await;
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let sweeper = namespace.run_sweeper().await;
    let _controller = namespace.run("controller").await;
    namespace.condition("orders", Sweeping, "True", "AsExpected").await;
    assert_eq!(sweeper.terminate().await.code(), Some(0));
    // It is reached, and answers what it is asked; but what is to be acknowledged by most of its servers waits for them.
    let waits = proxy.on("createIndexes", Fault::HoldRequest);
    let _sweeper = namespace.run_sweeper().await;
    waits.wait(1).await;
    let message = namespace.condition("orders", DatabaseReady, "False", "DatabasePending").await;
    assert!(message.contains("the database at 127.0.0.1, and nothing has been swept there yet"), "{message}");
    namespace.condition("orders", Sweeping, "False", "DatabasePending").await;
    assert_eq!(event(&namespace, "orders", "DatabasePending").await.0, "Normal");
    waits.lift();
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.condition("orders", Sweeping, "True", "AsExpected").await;
    namespace.remove().await;
}

/// The names of metrics in a text that begin with `prefix`, without the suffixes of samples.
pub(crate) fn metrics_in<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    let names = text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    });
    let base = |name: &'static [&str], full| {
        name.iter().find_map(|end| str::strip_suffix(full, end)).unwrap_or(full)
    };
    names.map(|name| base(&["_total", "_bucket", "_sum", "_count", "_info"], name)).collect()
}

#[tokio::test]
async fn the_metrics_of_the_dashboard_and_the_alerts_exist_and_are_documented() {
    let namespace = TestNamespace::create("metrics").await;
    namespace.secrets(&uri()).await;
    namespace.secret("away", "MONGO_URI", "mongodb://127.0.0.1:1/orders").await;
    let database = TestDatabase::new().await;
    let due = order(&database, "created", -1).await;
    namespace.apply(&service(&namespace, "well", &database, json!({}))).await.unwrap();
    let away = json!({"database": {"uriSecretRef": {"name": "away"}}});
    namespace.apply(&service(&namespace, "away", &database, away)).await.unwrap();
    // A metric of a target exists once it has been set.
    let sweeper = namespace.run("sweeper").await;
    cancelled(&database, due).await;
    eventually("an error is counted", || async {
        (sweeper.metric("orders_operator_sweeper_errors_total{").await > 0.0).then_some(())
    })
    .await;
    let page = sweeper.admin("/metrics").await;
    compare(&page, "orders_operator_sweeper_");
    let there: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let docs = std::fs::read_to_string(root().join("docs/sweeper.md")).unwrap();
    for short in there.iter().filter_map(|name| name.strip_prefix("orders_operator_sweeper_")) {
        assert!(docs.contains(&format!("`{short}")), "docs/sweeper.md does not explain {short}");
    }
    namespace.remove().await;
}
