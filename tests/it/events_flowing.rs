//! The condition `EventsFlowing`, which the sweeper writes without speaking to a broker.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    ResourceExt,
    api::{WatchEvent, WatchParams},
};
use mongodb::bson::{DateTime, doc};
use orders_operator::{
    crd::{ConditionType, ConditionType::*, OrdersService, find_condition},
    store::EventsTask,
};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api_process::Process,
    cluster::{TestNamespace, eventually},
    events::System,
    mongo::uri,
    nats::Nats,
    server::free_port,
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
    assert!(message.contains("kept in the database"), "{message}");
    nats.restart().await;
    namespace.condition("orders", EventsFlowing, "True", "DeadLetters").await;
    let recorded = system.database.store.events_health().await.unwrap().consuming;
    assert_eq!(
        recorded, None,
        "what it has recorded does not count until it is old, but until it consumes again"
    );

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

/// A pod as the Deployment has it, once that leads to this server.
async fn pod(namespace: &TestNamespace, system: &System, url: &str) -> Process {
    let mark = eventually("the Deployment has these settings", || async {
        let deployment = namespace.api::<Deployment>().get_opt("orders").await.unwrap()?;
        let container = deployment.spec?.template.spec?.containers.into_iter().next()?;
        let variables: BTreeMap<_, _> = container
            .env?
            .into_iter()
            .filter_map(|variable| Some((variable.name, variable.value?)))
            .collect();
        let mark = variables.get("NATS_SETTINGS_MARK").cloned().unwrap_or_default();
        (variables.get("NATS_URL").is_some_and(|of| of == url)).then_some(mark)
    })
    .await;
    system.pod_set(&[("NATS_URL", url), ("NATS_SETTINGS_MARK", &mark)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_of_former_settings_do_says_nothing_of_the_new_ones() {
    let nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let namespace = TestNamespace::create("settings").await;
    namespace.secrets(&uri()).await;
    let apply = async |url: &str| {
        let events = json!({"events": {"nats": {"servers": [url]}}});
        let wanted = service(&namespace, "orders", &system.database, events);
        namespace.apply(&wanted).await.unwrap().metadata.generation
    };
    apply(&nats.url()).await;
    let _processes = [namespace.run("controller").await, namespace.run("sweeper").await];
    let first = pod(&namespace, &system, &nats.url()).await;
    namespace.condition("orders", EventsFlowing, "True", "AsExpected").await;
    namespace.ready("orders").await;
    let seen = Arc::<Mutex<Vec<Condition>>>::default();
    let all = seen.clone();
    let version = namespace.api::<OrdersService>().get("orders").await.unwrap().resource_version().unwrap();
    let services = namespace.api::<OrdersService>();
    let _watch = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut changes = pin!(services.watch(&WatchParams::default(), &version).await.unwrap());
        while let Some(Ok(event)) = changes.next().await {
            if let WatchEvent::Modified(service) = event {
                all.lock().unwrap().extend(service.status.unwrap_or_default().conditions);
            }
        }
    }));
    let is_seen = |kind: ConditionType, status: &str, generation: Option<i64>| {
        seen.lock().unwrap().iter().any(|condition| {
            (condition.type_.as_str(), condition.status.as_str()) == (kind.as_str(), status)
                && condition.observed_generation == generation
        })
    };

    // The pod of before goes on publishing, and that of now does not reach the server.
    let dead = format!("nats://127.0.0.1:{}", free_port());
    let second_generation = apply(&dead).await;
    let second = pod(&namespace, &system, &dead).await;
    namespace.condition("orders", EventsFlowing, "False", "BrokerUnreachable").await;
    eventually("the change is seen", || async {
        is_seen(EventsFlowing, "False", second_generation).then_some(())
    })
    .await;
    assert!(!is_seen(EventsFlowing, "True", second_generation) && !is_seen(Ready, "True", second_generation));

    // It is mended by another name of the first server; the pods of before go on as they are.
    let other = nats.url().replace("127.0.0.1", "localhost");
    let third_generation = apply(&other).await;
    let third = pod(&namespace, &system, &other).await;
    drop(first);
    namespace.condition("orders", EventsFlowing, "True", "AsExpected").await;
    namespace.ready("orders").await;
    eventually("the change is seen", || async { is_seen(Ready, "True", third_generation).then_some(()) })
        .await;
    assert!(!is_seen(EventsFlowing, "False", third_generation));
    drop((second, third));
    namespace.remove().await;
}

#[tokio::test]
async fn a_pod_that_hears_again_takes_back_what_it_has_noted_and_nothing_else() {
    let system = System::new().await;
    let store = &system.database.store;
    let recorded = async || store.events_health().await.unwrap().consuming.map(|trouble| trouble.reason);
    for (by, reason) in [("a", "BrokerUnreachable"), ("b", "BrokerRefused")] {
        store.record_events_trouble(EventsTask::Consuming, by, reason).await.unwrap();
        assert_eq!(recorded().await.as_deref(), Some(reason));
    }
    store.events_trouble_is_over(EventsTask::Consuming, "a").await.unwrap();
    assert_eq!(recorded().await.as_deref(), Some("BrokerRefused"), "the other does not consume");
    store.events_trouble_is_over(EventsTask::Consuming, "b").await.unwrap();
    assert_eq!(recorded().await, None);
}
