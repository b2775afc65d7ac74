//! Notices another operator on the API server of the tests: it would change what they look at.

use std::{io::Write, sync::Once, thread, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use orders_operator::crd::OrdersService;
use serde_json::json;
use tokio::time::{Instant, interval};

/// Marks the namespaces that this makes.
const LABEL: &str = "it.ticketing.dev/stranger";

/// How soon an operator that is at work would say something of a new resource.
const WITHIN: Duration = Duration::from_secs(15);

/// Makes, once in a run and beside the tests, a resource that no process of theirs watches. Whoever gives it a status
/// ends the run with a message.
pub fn look_out(client: impl Future<Output = Client> + Send + 'static) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            if let Some(who) = runtime.block_on(async { stranger(client.await).await }) {
                // Not by a macro, whose output libtest would keep to itself.
                let message = format!(
                    "\nanother operator ({who}) is at work on the API server of KUBECONFIG, and would spoil what \
                     the tests look at: stop it, or use another cluster\n"
                );
                drop(std::io::stderr().write_all(message.as_bytes()));
                std::process::exit(101);
            }
        });
    });
}

/// The field manager that writes to a resource which is nobody's.
async fn stranger(client: Client) -> Option<String> {
    let namespaces = Api::<Namespace>::all(client.clone());
    // What runs that were over before the answer have left.
    for old in namespaces.list(&ListParams::default().labels(LABEL)).await.ok()? {
        let age = old.creation_timestamp().map(|made| made.0.duration_until(jiff::Timestamp::now()));
        if age.is_some_and(|age| age > jiff::SignedDuration::from_mins(2)) {
            drop(namespaces.delete(&old.name_any(), &DeleteParams::background()).await);
        }
    }
    let name = format!("it-stranger-{:06x}", fastrand::u32(..0x100_0000));
    let namespace = json!({"metadata": {"name": name, "labels": {LABEL: "yes"}}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.ok()?;
    let services = Api::<OrdersService>::namespaced(client, &name);
    let service = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "nobodys"},
        "spec": {"image": "registry.example/orders-operator:1", "replicas": 0,
                 "auth": {"jwtSecretRef": {"name": "none"}}, "database": {"uriSecretRef": {"name": "none"}}}
    });
    services.patch("nobodys", &PatchParams::apply("test"), &Patch::Apply(service)).await.ok()?;
    let (deadline, mut tick) = (Instant::now() + WITHIN, interval(Duration::from_millis(200)));
    let mut found = None;
    while found.is_none() && Instant::now() < deadline {
        tick.tick().await;
        let service = services.get("nobodys").await.ok()?;
        let mut managers = service.managed_fields().iter().filter_map(|fields| fields.manager.clone());
        found = managers.find(|manager| manager != "test");
    }
    drop(namespaces.delete(&name, &DeleteParams::background()).await);
    found
}
