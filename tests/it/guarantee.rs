//! One active order per ticket, also when the database's replies are lost, wrong or early, and when an index is gone.

use mongodb::{
    IndexModel,
    bson::{Document, doc, oid::ObjectId},
    options::IndexOptions,
};
use orders_operator::{
    order::{ReservationTerms, TicketId, UserId},
    store::{ReserveError, Reserved, Store, StoreError},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    cluster::eventually,
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, answer, make_indexes, refusal_of_indexes, uri},
};

const INDEX: &str = "one_active_order_per_ticket";

fn index(keys: Document, options: IndexOptions) -> IndexModel {
    IndexModel::builder().keys(keys).options(options).build()
}

async fn post(process: &Process, user: &str, ticket: TicketId) -> StatusCode {
    let body = json!({ "ticketId": ticket.to_string() });
    answer(process.by(user, Method::POST, "/api/orders").json(&body)).await.0
}

/// The descriptions of the indexes, as a server with all of ours lists them.
async fn listed_indexes() -> Document {
    let database = TestDatabase::new().await;
    database.command(doc! { "listIndexes": "orders" }).await
}

#[tokio::test]
async fn nothing_is_reserved_while_an_index_that_is_listed_is_still_being_built() {
    let database = TestDatabase::bare().await;
    let ticket = database.ticket().await;
    let proxy = FaultProxy::start().await;
    let listed = listed_indexes().await;
    let in_the_making =
        proxy.on("listIndexes", Fault::change("all are listed", move |reply| *reply = listed.clone()));
    let building = proxy.on("createIndexes", Fault::HoldRequest);
    let process = Process::start(&proxy.uri, &database.name, &[]);
    building.wait(1).await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(process.readyz().await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 0);

    in_the_making.lift();
    building.lift();
    process.wait_until_ready(true).await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::CREATED);
    assert_eq!(post(&process, "u2", ticket).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_reservation_that_finds_its_index_missing_stops_all_of_them_until_it_is_back() {
    let database = TestDatabase::bare().await;
    let (ticket, other) = (database.ticket().await, database.ticket().await);
    let proxy = FaultProxy::start().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;

    // What MongoDB answers to a query that names an index which is missing or being built.
    let message = "error processing query: planner returned error :: caused by :: hint provided does not correspond to an existing index";
    let names_it = |find: &Document| find.get_str("hint").ok() == Some(INDEX);
    let lost = proxy.when("find", usize::MAX, names_it, Fault::error(2, message));
    let building = proxy.on("createIndexes", Fault::HoldRequest);
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lost.happened() > 0);
    // Others are not even tried.
    let asked = proxy.seen("find").len();
    assert_eq!(post(&process, "u2", other).await, StatusCode::SERVICE_UNAVAILABLE);
    let about_tickets = |find: &Document| find.get_str("find").ok() == Some("tickets");
    assert!(!proxy.seen("find")[asked..].iter().any(about_tickets));
    assert!(proxy.seen("insert").is_empty());
    process.wait_until_ready(false).await;
    assert!(process.readyz().await.1.contains("index"), "{}", process.readyz().await.1);
    // Orders can still be read.
    assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await, (StatusCode::OK, json!([])));

    lost.lift();
    building.lift();
    process.wait_until_ready(true).await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_reservation_notices_at_once_that_the_whole_collection_is_gone() {
    let database = TestDatabase::new().await;
    let tickets = [database.ticket().await, database.ticket().await];
    let store = &database.store;
    assert!(matches!(reserve(store, tickets[0], "a").await, Ok(Reserved::New(_))));
    database.orders().drop().await.unwrap();
    // As long as the index counts as seen, a reservation does not look for it.
    let noticed = eventually("it is noticed", || async {
        let result = reserve(store, tickets[1], "b").await;
        database.orders().drop().await.unwrap();
        result.err()
    })
    .await;
    let ReserveError::Store(error) = noticed else { panic!("{noticed}") };
    assert!(error.is_of_an_index() && error.to_string().contains("no collection"), "{error}");
    // Nothing has made it again, without its indexes.
    assert!(database.orders().list_indexes().await.is_err());
    make_indexes(store).await;
    assert!(matches!(reserve(store, tickets[1], "c").await, Ok(Reserved::New(_))));
}

#[tokio::test]
async fn an_index_that_is_dropped_while_the_api_runs_is_noticed_and_sales_stop_if_it_cannot_be_made_again() {
    let database = TestDatabase::bare().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let orders = database.orders();
    database.drop_index(INDEX).await;
    eventually("it is made again", || async {
        orders.list_index_names().await.unwrap().contains(&INDEX.to_owned()).then_some(())
    })
    .await;
    process.wait_until_ready(true).await;

    // Somebody sells a ticket twice before it is made again.
    let sold = ObjectId::new();
    eventually("a ticket is sold twice", || async {
        let _ = orders.drop_index(INDEX).await;
        let order = || doc! { "userId": "u1", "status": "created", "ticket": sold, "version": 0 };
        let mut twice = true;
        for _ in 0..2 {
            twice &= orders.insert_one(order()).await.is_ok();
        }
        twice.then_some(())
    })
    .await;
    eventually("the ticket is named", || async {
        process.readyz().await.1.contains(&sold.to_hex()).then_some(())
    })
    .await;
    let ticket = database.ticket().await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_unique_index_of_others_that_refuses_orders_is_a_conflict_and_is_named() {
    for keys in [doc! { "ticket": 1 }, doc! { "ticket": -1 }, doc! { "userId": 1, "ticket": 1 }] {
        let database = TestDatabase::bare().await;
        let options = IndexOptions::builder().name("theirs".to_owned()).unique(true).build();
        database.orders().create_index(index(keys.clone(), options)).await.unwrap();
        let error = refusal_of_indexes(&database.store).await;
        assert!(
            matches!(&error, StoreError::IndexConflict { name, .. } if name == "theirs"),
            "{keys}: {error}"
        );
        assert!(error.to_string().contains("theirs"));
        database.drop_index("theirs").await;
        make_indexes(&database.store).await;
    }
}

#[tokio::test]
async fn a_hidden_index_and_one_that_is_made_by_others_while_the_api_runs_are_conflicts() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&database).await;
    store.check_indexes().await.unwrap();
    let hide = |reply: &mut Document| {
        for index in reply.get_document_mut("cursor").unwrap().get_array_mut("firstBatch").unwrap() {
            let index = index.as_document_mut().unwrap();
            if index.get_str("name").ok() == Some(INDEX) {
                index.insert("hidden", true);
            }
        }
    };
    let theirs = doc! { "v": 2, "key": { "ticket": 1 }, "name": "ticket_1", "unique": true };
    for (fault, name) in
        [(Fault::change("the index is hidden", hide), INDEX), (Fault::list_index(theirs), "ticket_1")]
    {
        let fault = proxy.on("listIndexes", fault);
        let error = store.check_indexes().await.unwrap_err();
        assert!(
            matches!(&error, StoreError::IndexConflict { name: found, .. } if found == name),
            "{fault:?}: {error}"
        );
        fault.lift();
        store.check_indexes().await.unwrap();
    }

    // In the database itself, and nobody starts anything.
    let ticket = database.ticket().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let unique = IndexOptions::builder().name("theirs".to_owned()).unique(true).build();
    database.orders().create_index(index(doc! { "userId": 1 }, unique)).await.unwrap();
    eventually("it is not ready for that", || async {
        process.readyz().await.1.contains("another index conflicts").then_some(())
    })
    .await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::SERVICE_UNAVAILABLE);
    eventually("the log names it", || async {
        process.lines.try_iter().any(|line| line.contains("theirs")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn orders_that_hold_a_ticket_without_being_seen_are_refused_at_start_counted_and_named() {
    let database = TestDatabase::bare().await;
    let ticket = database.ticket().await;
    let held = ObjectId::from(ticket.bytes());
    for harmless in [
        doc! { "ticket": ticket.to_string(), "status": "cancelled" },
        doc! { "ticket": null, "status": "completed" },
        doc! { "status": "complete" },
    ] {
        database.mongoose_order(harmless).await;
    }
    database.store.check_orders().await.unwrap();
    let unseen = [
        database.mongoose_order(doc! { "ticket": held, "status": "completed" }).await,
        database.mongoose_order(doc! { "ticket": held, "status": null }).await,
        database.mongoose_order(doc! { "ticket": ticket.to_string(), "status": "complete" }).await,
    ];
    let error = database.store.check_orders().await.unwrap_err();
    assert!(matches!(error, StoreError::UnseenOrders { count: 3, .. }), "{error}");
    for part in unseen.iter().map(String::as_str).chain(["completed", "null", &ticket.to_string()]) {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }

    let process = Process::start(&uri(), &database.name, &[]);
    eventually("it says so", || async { process.readyz().await.1.contains("3 orders").then_some(()) }).await;
    assert_eq!(post(&process, "u1", ticket).await, StatusCode::SERVICE_UNAVAILABLE);
}

async fn reserve(store: &Store, ticket: TicketId, key: &str) -> Result<Reserved, ReserveError> {
    let (user, key) = (UserId::new("u1").unwrap(), key.parse().unwrap());
    store.reserve(&user, ticket, Some(&key), &ReservationTerms::default()).await
}

#[tokio::test]
async fn an_order_whose_insert_was_sent_twice_is_recognized_as_its_own() {
    // What is left of a lost reply if the driver sends the insert again, and the server does not remember it.
    for name in [INDEX, "_id_"] {
        let database = TestDatabase::new().await;
        let ticket = database.ticket().await;
        let proxy = FaultProxy::start().await;
        let store = proxy.store(&database).await;
        let sent_again = Fault::change(format!("a duplicate in {name}"), move |reply| {
            let message =
                format!("E11000 duplicate key error collection: orders.orders index: {name} dup key");
            *reply =
                doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 0, "code": 11000, "errmsg": message }] };
        });
        let fault = proxy.once("insert", sent_again);
        let (user, terms) = (UserId::new("u1").unwrap(), ReservationTerms::default());
        let reserved = store.reserve(&user, ticket, None, &terms).await;
        assert!(matches!(reserved, Ok(Reserved::New(_))), "{reserved:?}");
        assert_eq!(fault.happened(), 1);
        assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1);
        // And somebody else hears that it is reserved.
        let other = store.reserve(&UserId::new("u2").unwrap(), ticket, None, &terms).await;
        assert!(matches!(other, Err(ReserveError::AlreadyReserved(_))), "{other:?}");
    }
}

#[tokio::test]
async fn an_order_that_no_majority_has_acknowledged_is_not_answered_until_one_has() {
    let database = TestDatabase::new().await;
    let ticket = database.ticket().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&database).await;
    let concern = || Fault::write_concern_error(64, "waiting for replication timed out");
    let faults = [proxy.on("insert", concern()), proxy.on("update", concern())];
    // Neither the call that inserts it, nor one with the same key that finds it.
    let (first, second) = tokio::join!(reserve(&store, ticket, "a"), async {
        faults[1].wait(1).await;
        reserve(&store, ticket, "a").await
    });
    for result in [first, second] {
        let Err(ReserveError::Store(error)) = result else { panic!("{result:?}") };
        assert!(error.is_unavailable(), "{error}");
    }
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1, "it is stored all the same");

    // The same call with the same key finds out.
    faults.iter().for_each(|fault| fault.lift());
    let Ok(Reserved::Replayed(reservation)) = reserve(&store, ticket, "a").await else { panic!() };
    assert_eq!(
        database.stored(&reservation.order.id.to_string()).await.get_str("status").ok(),
        Some("created")
    );

    // Where a majority acknowledges it a moment later, the call succeeds.
    let (ticket, late) = (database.ticket().await, proxy.once("insert", concern()));
    let confirmed = proxy.seen("update").len();
    assert!(matches!(reserve(&store, ticket, "b").await, Ok(Reserved::New(_))));
    assert_eq!(late.happened(), 1);
    assert_eq!(proxy.seen("update").len(), confirmed + 1);
}

#[tokio::test]
async fn a_ticket_that_is_free_costs_two_round_trips_and_one_that_is_taken_costs_one() {
    let database = TestDatabase::new().await;
    let ticket = database.ticket().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&database).await;
    store.read_clock().await.unwrap();
    let sent = || {
        let commands = ["find", "insert", "update", "aggregate", "findAndModify"];
        commands.map(|command| proxy.seen(command).len())
    };
    let before = sent();
    let reserved = reserve(&store, ticket, "a").await;
    assert!(matches!(reserved, Ok(Reserved::New(_))), "{reserved:?}");
    let after = sent();
    // The ticket, its holder and the key are read at once.
    assert_eq!([0, 1, 2, 3, 4].map(|at| after[at] - before[at]), [3, 1, 0, 0, 0]);
    let taken = reserve(&store, ticket, "b").await;
    assert!(matches!(taken, Err(ReserveError::AlreadyReserved(_))), "{taken:?}");
    let last = sent();
    assert_eq!([0, 1, 2, 3, 4].map(|at| last[at] - after[at]), [3, 0, 0, 0, 0]);
}

#[tokio::test]
async fn every_read_and_write_has_our_own_concerns_whatever_the_connection_string_says() {
    let database = TestDatabase::new().await;
    let (ticket, proxy) = (database.ticket().await, FaultProxy::start().await);
    let separator = if proxy.uri.contains('?') { '&' } else { '?' };
    let wishes = "readPreference=secondary&readConcernLevel=available&w=0&journal=false";
    let process = Process::start(&format!("{}{separator}{wishes}", proxy.uri), &database.name, &[]);
    process.wait_until_ready(true).await;
    let reserve = process.by("u1", Method::POST, "/api/orders").header("idempotency-key", "a");
    let (status, order) = answer(reserve.json(&json!({ "ticketId": ticket.to_string() }))).await;
    assert_eq!(status, StatusCode::CREATED);
    let path = format!("/api/orders/{}", order["id"].as_str().unwrap_or_default());
    assert_eq!(answer(process.by("u1", Method::GET, &path)).await.0, StatusCode::OK);
    assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await.0, StatusCode::OK);
    assert_eq!(answer(process.by("u1", Method::DELETE, &path)).await, (StatusCode::NO_CONTENT, Value::Null));
    for command in ["find", "listIndexes"] {
        for read in proxy.seen(command) {
            let preference = read.get_document("$readPreference").and_then(|mode| mode.get_str("mode"));
            // To a single server, the driver says that any will do.
            assert!(matches!(preference, Err(_) | Ok("primary" | "primaryPreferred")), "{read}");
            let concern = read.get_document("readConcern").and_then(|concern| concern.get_str("level"));
            assert!(matches!(concern, Err(_) | Ok("local" | "majority")), "{read}");
        }
    }
    for command in ["insert", "findAndModify"] {
        let writes = proxy.seen(command);
        assert!(!writes.is_empty(), "{command}");
        for write in writes {
            let concern = write.get_document("writeConcern").and_then(|concern| concern.get_str("w"));
            assert_eq!(concern.ok(), Some("majority"), "{write}");
        }
    }
}
