//! Lists of orders: complete, page by page, by status.

use mongodb::bson::{Bson, doc, oid::ObjectId};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    bed::seed,
    mongo::{TestApi, answer},
};

fn ids(orders: &Value) -> Vec<&str> {
    orders.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect()
}

/// A page, and the target of its `Link` header.
async fn page(api: &TestApi, path: &str) -> (Value, Option<String>) {
    let response = api.by("u1", Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
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
