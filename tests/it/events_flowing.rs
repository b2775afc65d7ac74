//! The condition `EventsFlowing`, which the sweeper writes without speaking to a broker.

use mongodb::bson::{DateTime, doc};
use orders_operator::{
    crd::{ConditionType::*, OrdersService, find_condition},
    store::EventsTask,
};
use serde_json::{Value, json};

use crate::{
    cluster::{TestNamespace, eventually},
    events::System,
    mongo::uri,
    nats::Nats,
    sweeper::service,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_condition_says_whether_events_flow_and_why_not() {
    let mut nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let namespace = TestNamespace::create("flowing").await;
    namespace.secrets(&uri()).await;
    let events = json!({"nats": {"servers": [nats.url()]}});
    let wanted = service(&namespace, "orders", &system.database, json!({"events": events}));
    namespace.apply(&wanted).await.unwrap();
    // Of the same database, and nobody has asked for events there.
    namespace.apply(&service(&namespace, "silent", &system.database, json!({}))).await.unwrap();
    let _processes = [namespace.run("controller").await, namespace.run("sweeper").await];
    let message = namespace.condition("orders", EventsFlowing, "False", "NoPublisher").await;
    assert!(message.contains("no pod publishes"), "{message}");

    let pod = system.pod();
    pod.wait_until_ready(true).await;
    namespace.condition("orders", EventsFlowing, "True", "AsExpected").await;
    let letters = system.database.dead_letters();
    letters.insert_one(doc! { "_id": "x", "at": DateTime::now(), "reason": "not-json" }).await.unwrap();
    let message = namespace.condition("orders", EventsFlowing, "True", "DeadLetters").await;
    assert!(message.contains("1 messages"), "{message}");

    nats.kill();
    let message = namespace.condition("orders", EventsFlowing, "False", "BrokerUnreachable").await;
    assert!(message.contains("waits in the database"), "{message}");
    nats.restart().await;
    namespace.condition("orders", EventsFlowing, "True", "DeadLetters").await;
    let noted = system.database.store.events_health().await.unwrap().hearing;
    assert_eq!(noted, None, "what it has noted does not count until it is old, but until it hears again");

    let silent: OrdersService = namespace.api().get_status("silent").await.unwrap();
    assert!(find_condition(&silent.status.unwrap_or_default().conditions, EventsFlowing).is_none());
    // Without events there is no such condition any more.
    let without = service(&namespace, "orders", &system.database, json!({"events": Value::Null}));
    namespace.apply(&without).await.unwrap();
    eventually("the condition is gone", || async {
        let orders: OrdersService = namespace.api().get_status("orders").await.unwrap();
        find_condition(&orders.status.unwrap_or_default().conditions, EventsFlowing).is_none().then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_pod_that_hears_again_takes_back_what_it_has_noted_and_nothing_else() {
    let system = System::new().await;
    let store = &system.database.store;
    let noted = async || store.events_health().await.unwrap().hearing.map(|trouble| trouble.reason);
    for (by, reason) in [("a", "BrokerUnreachable"), ("b", "BrokerRefused")] {
        store.note_events_trouble(EventsTask::Hearing, by, reason).await.unwrap();
        assert_eq!(noted().await.as_deref(), Some(reason));
    }
    store.events_trouble_is_over(EventsTask::Hearing, "a").await.unwrap();
    assert_eq!(noted().await.as_deref(), Some("BrokerRefused"), "the other does not hear");
    store.events_trouble_is_over(EventsTask::Hearing, "b").await.unwrap();
    assert_eq!(noted().await, None);
}
