//! Guarantees of the store that cannot be seen over HTTP.

use std::time::{Duration, Instant};

use futures::future::join_all;
use mongodb::{
    IndexModel,
    bson::{DateTime, doc, oid::ObjectId},
    options::IndexOptions,
};
use orders_operator::{
    order::{Ticket, Version},
    store::{ConnectOptions, Store, StoreError},
};
use tokio::time::timeout;

use crate::{
    cluster::PATIENCE,
    mongo::{TestDatabase, make_indexes, reach, refusal_of_indexes, ticket_id},
};

/// After which time a store says at the soonest that its database does not answer, and a little less.
const AWAY_AFTER: Duration = Duration::from_millis(1_900);

#[tokio::test]
async fn any_number_of_processes_may_create_the_indexes_concurrently_and_repeatedly() {
    let database = TestDatabase::bare().await;
    let make = async || {
        let started = Instant::now();
        (database.store.ensure_indexes().await, started.elapsed())
    };
    let results = join_all((0..8).map(|_| make())).await;
    // Where the machine is busy the database may not answer in time; whatever fails sooner fails because of the others.
    let is_delayed = |error: &StoreError, took: Duration| error.is_unavailable() && took >= AWAY_AFTER;
    let is_as_wanted = |(made, took): &(Result<(), StoreError>, Duration)| match made {
        Ok(()) => true,
        Err(error) => is_delayed(error, *took),
    };
    assert!(results.iter().all(is_as_wanted), "{results:?}");
    make_indexes(&database.store).await;
    let mut names = database.orders().list_index_names().await.unwrap();
    names.sort_unstable();
    let ours = [
        "one_active_order_per_ticket",
        "one_order_per_idempotency_key",
        "one_order_per_list_position",
        "open_orders_by_expiry",
        "user_orders",
    ];
    assert_eq!((names[0].as_str(), &names[1..]), ("_id_", ours.map(str::to_owned).as_slice()));
    make_indexes(&database.store).await;
}

#[tokio::test]
async fn two_active_orders_on_one_ticket_are_reported_and_two_without_a_ticket_are_not() {
    let database = TestDatabase::bare().await;
    for _ in 0..2 {
        let id = database.mongoose_order(doc! {}).await;
        let without = doc! { "$unset": { "ticket": 1 } };
        database
            .orders()
            .update_one(doc! { "_id": ObjectId::parse_str(id).unwrap() }, without)
            .await
            .unwrap();
    }
    make_indexes(&database.store).await;

    let database = TestDatabase::bare().await;
    let ticket = ObjectId::new();
    for status in ["created", "complete", "cancelled"] {
        database.mongoose_order(doc! { "ticket": ticket, "status": status }).await;
    }
    let error = refusal_of_indexes(&database.store).await;
    assert!(matches!(error, StoreError::DuplicateActiveOrders(_)), "{error}");
    assert!(error.to_string().contains(&ticket.to_hex()), "{error}");
    // It keeps no other from being made, such as the one by which orders expire.
    let names = database.orders().list_index_names().await.unwrap();
    for name in ["open_orders_by_expiry", "one_order_per_list_position", "one_order_per_idempotency_key"] {
        assert!(names.iter().any(|made| made == name), "{names:?}");
    }
}

#[tokio::test]
async fn the_same_index_under_another_name_is_accepted_and_a_conflicting_one_is_reported() {
    let database = TestDatabase::bare().await;
    let index = IndexModel::builder().keys(doc! { "userId": 1, "_id": 1 }).build();
    database.orders().create_index(index).await.unwrap();
    make_indexes(&database.store).await;

    let database = TestDatabase::bare().await;
    let options = IndexOptions::builder().name("one_active_order_per_ticket".to_owned()).build();
    let index = IndexModel::builder().keys(doc! { "ticket": 1 }).options(options).build();
    database.orders().create_index(index).await.unwrap();
    let error = refusal_of_indexes(&database.store).await;
    assert!(
        matches!(&error, StoreError::IndexConflict { name, .. } if name == "one_active_order_per_ticket"),
        "{error}"
    );
}

#[tokio::test]
async fn concurrent_upserts_leave_the_newest_version() {
    let database = TestDatabase::new().await;
    for _ in 0..5 {
        let id = ticket_id();
        let write = |version: u32| {
            let ticket = Ticket { id, title: format!("v{version}"), price: 1.5, version: Version(version) };
            let store = database.store.clone();
            async move { store.upsert_tickets(&[ticket]).await }
        };
        let results = join_all((0..16).map(write)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let ticket = database.store.ticket(id).await.unwrap().unwrap();
        assert_eq!((ticket.title.as_str(), ticket.version, ticket.price), ("v15", Version(15), 1.5));
    }
}

#[tokio::test]
async fn an_unreachable_database_is_reported_as_unavailable_and_soon() {
    let store = Store::connect(ConnectOptions::new("mongodb://127.0.0.1:1/")).await.unwrap();
    // With the driver's own limits it would be found to be too slow, when the time of the call is over.
    let error = reach(&store).await.unwrap_err();
    assert!(error.is_unavailable() && error.reason() == "DatabaseUnreachable", "{error}");
    assert!(store.ensure_indexes().await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn a_database_that_accepts_connections_and_never_answers_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = format!("mongodb://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    // Also where the driver would wait for longer than this test.
    let patient = format!("{plain}?connectTimeoutMS=600000&serverSelectionTimeoutMS=600000");
    for (uri, reason) in [(plain, None), (patient, Some("DatabaseTooSlow"))] {
        let store = Store::connect(ConnectOptions::new(&uri)).await.unwrap();
        let error = timeout(PATIENCE, reach(&store)).await.expect("it times out").unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(reason.is_none_or(|reason| error.reason() == reason), "{error}");
    }
}

#[tokio::test]
async fn the_servers_time_is_that_of_its_clock() {
    let database = TestDatabase::new().await;
    let time = database.store.server_time().await.unwrap();
    let here = DateTime::now().timestamp_millis();
    assert!((time.as_millisecond() - here).abs() < 60_000, "{time}");
}
