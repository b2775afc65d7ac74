//! Lists of orders: complete, page by page, by status.

use std::collections::BTreeSet;

use mongodb::bson::{Bson, Document, doc, oid::ObjectId};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    bed::seed,
    mongo::{TestApi, TestDatabase, answer, uri},
};

fn ids(orders: &Value) -> Vec<&str> {
    orders.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect()
}

/// A page, and the target of its `Link` header.
async fn page(api: &TestApi, path: &str) -> (Value, Option<String>) {
    let response = api.by("u1", Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    page_in(response).await
}

async fn page_in(response: reqwest::Response) -> (Value, Option<String>) {
    let link = response.headers().get(header::LINK).map(|link| {
        let (target, relation) = link.to_str().unwrap().split_once(">; ").unwrap();
        assert_eq!(relation, "rel=\"next\"");
        target.strip_prefix('<').unwrap().to_owned()
    });
    (response.json().await.unwrap(), link)
}

/// All orders found by following the links from `path`, and the number of pages.
async fn follow(api: &TestApi, path: &str) -> (Vec<String>, usize) {
    let (mut all, mut pages, mut next) = (Vec::new(), 0, Some(path.to_owned()));
    while let Some(path) = next {
        let (orders, link) = page(api, &path).await;
        all.extend(ids(&orders).into_iter().map(str::to_owned));
        (pages, next) = (pages + 1, link);
    }
    (all, pages)
}

#[tokio::test]
async fn a_list_longer_than_a_batch_is_complete_in_order_and_with_its_tickets() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let fields = doc! { "ticket": ObjectId::from(ticket.bytes()), "status": "cancelled" };
    let mine = api.many_orders("u1", 1234, fields).await;
    api.many_orders("u2", 3, doc! {}).await;
    let (status, orders) = api.get("u1", "/api/orders").await;
    assert_eq!((status, ids(&orders)), (StatusCode::OK, mine.iter().map(String::as_str).collect()));
    assert!(orders.as_array().unwrap().iter().all(|order| order["ticket"]["title"] == "concert"));

    let head = api.by("u1", Method::HEAD, "/api/orders").send().await.unwrap();
    assert_eq!((head.status(), head.bytes().await.unwrap().len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn lists_and_pages_are_complete_however_large_their_tickets_are() {
    let api = TestApi::new().await;
    // Written as JSON, each is six times as long.
    let title = "\u{1}".repeat(10_000);
    let small = api.orders_of_tickets("u1", 70, "concert").await;
    let large = api.orders_of_tickets("u1", 60, &title).await;
    let ticket = ObjectId::from(api.ticket().await.bytes());
    let shared = api.many_orders("u1", 400, doc! { "ticket": ticket, "status": "cancelled" }).await;
    let all = [&small[..], &large, &shared].concat();
    for path in ["/api/orders", "/api/orders?limit=1000"] {
        let response = api.by("u1", Method::GET, path).send().await.unwrap();
        assert!(!response.headers().contains_key(header::ETAG), "{path}: it is streamed");
        let (orders, _) = page_in(response).await;
        assert!(ids(&orders).into_iter().eq(all.iter()), "{path}");
        for (number, order) in orders.as_array().unwrap().iter().enumerate() {
            let expected = if (70..130).contains(&number) { title.as_str() } else { "concert" };
            assert!(order["ticket"]["title"] == expected, "{path}: {number}");
        }
    }
    let (followed, pages) = follow(&api, "/api/orders?limit=120").await;
    assert!(followed == all && pages == 5, "{pages}");
    let whole = api.by("u1", Method::GET, "/api/orders?status=cancelled").send().await.unwrap();
    assert!(whole.headers().contains_key(header::ETAG));
    assert!(ids(&page_in(whole).await.0).into_iter().eq(shared.iter()));
}

#[tokio::test]
async fn following_the_links_shows_each_order_once_also_when_orders_are_added_or_cancelled_meanwhile() {
    let api = TestApi::new().await;
    let mine = api.many_orders("u1", 10, doc! {}).await;
    assert_eq!(follow(&api, "/api/orders?limit=3").await, (mine.clone(), 4));
    assert_eq!(follow(&api, "/api/orders?limit=10").await, (mine.clone(), 1), "a full last page has no link");
    assert_eq!(follow(&api, "/api/orders?limit=1000").await, (mine.clone(), 1));
    let (orders, _) = page(&api, &format!("/api/orders?after={}", mine[6])).await;
    assert_eq!(ids(&orders), mine[7..]);

    let (first, link) = page(&api, "/api/orders?limit=4").await;
    assert_eq!(ids(&first), mine[..4]);
    api.cancel("u1", &mine[1]).await;
    let later = api.reserved("u1", api.ticket().await).await;
    let (rest, _) = follow(&api, &link.unwrap()).await;
    assert_eq!(rest, [&mine[4..], &[later]].concat());
}

/// An id that was made so many seconds ago, by another process.
fn made_ago(seconds: u32, number: u8) -> ObjectId {
    let mut bytes = ObjectId::new().bytes();
    let made = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) - seconds;
    bytes[..4].copy_from_slice(&made.to_be_bytes());
    bytes[4..].fill(number);
    ObjectId::from(bytes)
}

#[tokio::test]
async fn an_order_that_is_stored_after_one_with_a_greater_id_was_shown_is_shown_later() {
    let api = TestApi::new().await;
    let mut seen = api.many_orders("u1", 5, doc! {}).await;
    assert_eq!(follow(&api, "/api/orders?limit=2").await.0, seen);
    for round in 1..=3 {
        // A pod whose clock is behind, one that made the id in the same second, and one whose clock is ahead.
        for id in [made_ago(3600, round), made_ago(0, round), made_ago(0, 0xff - round)] {
            let id = api.mongoose_order(doc! { "_id": id }).await;
            let next = format!("/api/orders?limit=2&after={}", seen.last().unwrap());
            assert_eq!(follow(&api, &next).await.0, [id.as_str()]);
            let next = format!("/api/orders?after={}", seen.last().unwrap());
            assert_eq!(ids(&page(&api, &next).await.0), [&id]);
            seen.push(id);
        }
    }
    assert_eq!(follow(&api, "/api/orders?limit=4").await.0, seen, "and everyone sees them in the same order");
    // Without a page they are listed by age, all of them.
    let (orders, _) = page(&api, "/api/orders").await;
    assert_eq!(ids(&orders).into_iter().collect::<BTreeSet<_>>(), seen.iter().map(String::as_str).collect());
}

/// Follows the links from after the last order of `seen`, by one process after the other, and adds what it finds.
async fn read_on(processes: &[Process], limit: usize, seen: &mut Vec<String>) {
    let after = seen.last().map(|last| format!("&after={last}")).unwrap_or_default();
    let (mut next, mut turn) = (Some(format!("/api/orders?limit={limit}{after}")), limit);
    while let Some(path) = next {
        let process = &processes[turn % processes.len()];
        let response = process.by("u1", Method::GET, &path).send().await.unwrap();
        let log = || process.lines.try_iter().collect::<Vec<_>>();
        assert_eq!(response.status(), StatusCode::OK, "{path}: {:#?}", log());
        let (orders, link) = page_in(response).await;
        seen.extend(ids(&orders).into_iter().map(str::to_owned));
        (next, turn) = (link, turn + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_the_links_and_asks_again_sees_each_order_once_while_two_processes_write() {
    let database = TestDatabase::new().await;
    let processes = [(); 2].map(|()| Process::start(&uri(), &database.name, &[]));
    for process in &processes {
        process.wait_until_ready(true).await;
    }
    let mut tickets = Vec::new();
    for _ in 0..60 {
        tickets.push(database.ticket().await);
    }
    let done = tokio_util::sync::CancellationToken::new();
    let writers = async {
        let rounds = tickets.chunks(6).enumerate().map(|(number, chunk)| async move { (number, chunk) });
        for round in rounds {
            let (number, chunk) = round.await;
            let reserve = chunk.iter().enumerate().map(|(turn, ticket)| {
                let body = json!({ "ticketId": ticket.to_string() });
                answer(processes[turn % 2].by("u1", Method::POST, "/api/orders").json(&body))
            });
            // The Node.js service beside them, on a machine whose clock is behind.
            let id = made_ago(60, u8::try_from(number).unwrap());
            let (reserved, _) =
                tokio::join!(futures::future::join_all(reserve), database.mongoose_order(doc! { "_id": id }));
            assert!(reserved.iter().all(|(status, _)| *status == StatusCode::CREATED), "{reserved:?}");
        }
        done.cancel();
    };
    let reader = |limit| {
        let (processes, done) = (&processes, &done);
        async move {
            let mut seen = Vec::new();
            while !done.is_cancelled() {
                read_on(processes, limit, &mut seen).await;
            }
            read_on(processes, limit, &mut seen).await;
            seen
        }
    };
    let ((), one, three, many) = tokio::join!(writers, reader(1), reader(3), reader(50));
    assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), 70, "each order once: {one:?}");
    assert_eq!(one.len(), 70);
    assert_eq!((&three, &many), (&one, &one));

    let positions = |order: &Document| order.get_document("listPlace").unwrap().get_i64("position").unwrap();
    let stored: Vec<Document> = {
        use futures::TryStreamExt;
        database.orders().find(doc! {}).await.unwrap().try_collect().await.unwrap()
    };
    assert_eq!(stored.iter().map(positions).collect::<BTreeSet<_>>(), (1..=70).collect());
}

#[tokio::test]
async fn after_an_order_that_no_page_has_shown_are_those_with_greater_ids() {
    let api = TestApi::new().await;
    let few = api.many_orders("u3", 5, doc! {}).await;
    assert_eq!(ids(&api.get("u3", &format!("/api/orders?after={}", few[2])).await.1), few[3..]);
    let later = api.mongoose_order(doc! { "_id": made_ago(3600, 3), "userId": "u3" }).await;
    assert_eq!(ids(&api.get("u3", &format!("/api/orders?after={}", few[4])).await.1), [&later]);
    let mine = api.many_orders("u1", 330, doc! {}).await;
    let after = |id: &str| format!("/api/orders?limit=50&after={id}");
    assert_eq!(follow(&api, &after(&mine[200])).await.0, mine[201..]);
    let later = api.mongoose_order(doc! { "_id": made_ago(3600, 1) }).await;
    assert_eq!(follow(&api, &after(mine.last().unwrap())).await.0, [later]);
    // Another user's order, and one that does not exist.
    api.many_orders("u2", 2, doc! {}).await;
    assert_eq!(api.get("u2", &after(&mine[0])).await.1.as_array().unwrap().len(), 2);
    let between = made_ago(1800, 0).to_hex();
    assert_eq!(ids(&page(&api, &after(&between)).await.0), mine[..50]);
}

#[tokio::test]
async fn many_first_pages_at_the_same_time_agree() {
    let api = TestApi::new().await;
    let mine = api.many_orders("u1", 130, doc! {}).await;
    let all = futures::future::join_all((0..5).map(|number| {
        let path = format!("/api/orders?limit={}", 40 + number);
        let api = &api;
        async move { follow(api, &path).await.0 }
    }));
    assert!(all.await.iter().all(|seen| *seen == mine));
}

#[tokio::test]
async fn the_newest_come_first_if_they_are_asked_for() {
    let api = TestApi::new().await;
    let mine = api.many_orders("u1", 7, doc! {}).await;
    let cancelled = api.many_orders("u1", 2, doc! { "status": "cancelled" }).await;
    for strange in [Bson::Int32(1), Bson::Boolean(true)] {
        api.orders().insert_one(doc! { "_id": strange, "userId": "u1", "status": "created" }).await.unwrap();
    }
    let mut newest_first = [mine.clone(), cancelled.clone()].concat();
    newest_first.reverse();
    for limit in [1, 2, 4, 9, 1000] {
        let path = format!("/api/orders?order=desc&limit={limit}");
        assert_eq!(follow(&api, &path).await.0, newest_first, "{limit}");
    }
    assert_eq!(ids(&page(&api, "/api/orders?order=desc").await.0), newest_first);
    let (open, pages) = follow(&api, "/api/orders?order=desc&status=created&limit=3").await;
    assert_eq!((open.as_slice(), pages), (&newest_first[2..], 3));
    // What is reserved meanwhile comes before the first page, and disturbs none after it.
    let (first, link) = page(&api, "/api/orders?order=desc&limit=4").await;
    assert_eq!(ids(&first), newest_first[..4]);
    let newest = api.reserved("u1", api.ticket().await).await;
    assert_eq!(follow(&api, &link.unwrap()).await.0, newest_first[4..]);
    assert_eq!(ids(&page(&api, "/api/orders?order=desc&limit=1").await.0), [newest]);
}

#[tokio::test]
async fn a_list_can_be_filtered_by_status() {
    let api = TestApi::new().await;
    let mut by_status = Vec::new();
    for status in ["created", "awaiting:payment", "complete", "cancelled"] {
        by_status.push(api.many_orders("u1", 3, doc! { "status": status }).await);
    }
    let (orders, link) = page(&api, "/api/orders?status=cancelled,awaiting:payment").await;
    assert_eq!(
        (ids(&orders), link),
        ([&by_status[1][..], &by_status[3]].concat().iter().map(String::as_str).collect(), None)
    );
    let (all, pages) = follow(&api, "/api/orders?status=created,complete&limit=2").await;
    assert_eq!((all, pages), ([&by_status[0][..], &by_status[2]].concat(), 3));
    assert_eq!(
        page(&api, &format!("/api/orders?status=created&after={}", by_status[0][2])).await.0,
        json!([])
    );
}

#[tokio::test]
async fn an_invalid_parameter_is_named_and_the_session_is_checked_first() {
    let api = TestApi::new().await;
    for (query, field, message) in [
        ("limit=0", "limit", "Limit must be a whole number from 1 to 1000"),
        ("limit=1001&after=x", "limit", "Limit must be a whole number from 1 to 1000"),
        ("after=x", "after", "After must be the id of an order"),
        ("order=up", "order", "Order must be asc or desc"),
        (
            "status=paid",
            "status",
            "Status must be one or more of created, awaiting:payment, complete and cancelled, separated by commas",
        ),
    ] {
        let path = format!("/api/orders?{query}");
        let wanted = json!({ "errors": [{ "message": message, "field": field }] });
        assert_eq!(api.get("u1", &path).await, (StatusCode::BAD_REQUEST, wanted), "{query}");
        assert_eq!(answer(api.request(Method::GET, &path)).await.0, StatusCode::UNAUTHORIZED, "{query}");
    }
}

#[tokio::test]
async fn malformed_orders_hide_no_page() {
    let api = TestApi::new().await;
    let first = api.many_orders("u1", 2, doc! {}).await;
    api.many_orders("u1", 1003, doc! { "status": "no such status" }).await;
    let last = api.many_orders("u1", 2, doc! {}).await;
    let readable = [first, last].concat();
    assert_eq!(follow(&api, "/api/orders?limit=1").await.0, readable);
    let (orders, _) = page(&api, "/api/orders").await;
    assert_eq!(ids(&orders), readable);
    let (orders, _) = page(&api, &format!("/api/orders?after={}", readable[1])).await;
    assert_eq!(ids(&orders), readable[2..]);
}

#[tokio::test]
async fn ids_of_another_type_hide_no_order() {
    let api = TestApi::new().await;
    let mine = api.many_orders("u1", 4, doc! {}).await;
    for strange in [Bson::Int32(1), Bson::String("x".into()), Bson::Int32(2), Bson::Boolean(true)] {
        api.orders().insert_one(doc! { "_id": strange, "userId": "u1", "status": "created" }).await.unwrap();
    }
    for limit in [1, 2, 3, 5, 1000] {
        assert_eq!(follow(&api, &format!("/api/orders?limit={limit}")).await.0, mine, "{limit}");
    }
    assert_eq!(ids(&page(&api, "/api/orders").await.0), mine);
}

#[tokio::test]
async fn every_page_is_read_from_the_user_orders_index() {
    let api = TestApi::new().await;
    let mine = api.many_orders("u1", 50, doc! {}).await;
    api.many_orders("u2", 2000, doc! {}).await;
    let ticket = doc! { "from": "tickets", "localField": "ticket", "foreignField": "_id", "as": "joined" };
    let first = doc! { "userId": "u1" };
    let second = doc! { "userId": "u1", "_id": { "$gt": ObjectId::parse_str(&mine[9]).unwrap() } };
    for (filter, hint) in [(first, doc! {}), (second, doc! { "hint": { "userId": 1, "_id": 1 } })] {
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$limit": 501 },
            doc! { "$lookup": ticket.clone() },
        ];
        let mut aggregate = doc! { "aggregate": "orders", "pipeline": pipeline, "cursor": {} };
        aggregate.extend(hint);
        let plan = api.explain(aggregate).await;
        assert!(plan.contains("user_orders"), "{plan}");
    }
    follow(&api, "/api/orders?limit=20").await;
    let place =
        doc! { "listPlace.user": "u1", "listPlace.position": { "$gt": 10, "$lte": 40 }, "userId": "u1" };
    let plan = api
        .explain(doc! {
            "find": "orders", "filter": place, "sort": { "listPlace.position": 1 }, "limit": 21,
            "hint": { "listPlace.user": 1, "listPlace.position": 1 },
        })
        .await;
    assert!(plan.contains("one_order_per_list_position"), "{plan}");
}

#[tokio::test]
async fn concurrent_requests_of_many_users_each_return_their_own_orders() {
    let api = TestApi::new().await;
    // User 20 has more orders than fit into one batch; the last two have none.
    let counts = (0..50).map(|user| if user == 20 { 1100 } else { user % 7 }).chain([0, 0]);
    let mut users = Vec::new();
    for (number, count) in counts.enumerate() {
        let user = format!("user-{number:02}");
        let ids = api.many_orders(&user, count, doc! {}).await;
        users.push((user, ids));
    }
    // Each order gets its position before everyone asks at the same time.
    for (user, _) in &users {
        api.get(user, "/api/orders?limit=3").await;
    }
    let mut random = fastrand::Rng::with_seed(seed());
    for round in 0..10 {
        random.shuffle(&mut users);
        // Every other round leaves that user out, so that all others fit into one query.
        let asking = users.iter().filter(|(user, _)| round % 2 == 0 || user != "user-20");
        let answers = asking.map(|(user, mine)| {
            let api = &api;
            async move {
                let some = mine.len().min(3);
                let (whole, page) =
                    tokio::join!(api.get(user, "/api/orders"), api.get(user, "/api/orders?limit=3"));
                assert_eq!(
                    (whole.0, ids(&whole.1)),
                    (StatusCode::OK, mine.iter().map(String::as_str).collect())
                );
                assert_eq!(
                    (page.0, ids(&page.1)),
                    (StatusCode::OK, mine[..some].iter().map(String::as_str).collect())
                );
            }
        });
        futures::future::join_all(answers).await;
    }
}
