//! What only pods that run can show: on a cluster with a kubelet and an ingress controller, in which the operator is installed as
//! users install it. `make test-node` brings that up, as `make demo` does, and runs what is ignored here.
//!
//! ```text
//! waiting     who waits for a change waits until it is live, or hears why it is not
//! rolling     changes and evictions under load, of which no request notices anything
//! migration   docs/migration.md on real pods
//! restore     docs/backup.md on real pods
//! pages       docs/tasks.md, docs/quickstart.md and examples/quickstart on real pods
//! broker      README.md, and what pages do with a broker, on real pods
//! families    IPv4, IPv6 or both, whichever the node has: Services, pods, the ingress controller and the database
//! ```

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{api::ListParams, runtime::watcher::watch_object};
use orders_operator::crd::{ConditionType, OrdersService, find_condition, is_true};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    bed::setting,
    cluster::TestNamespace,
    load::{Answer, Entry, Load, Question},
    mongo::{JWT_KEY, TestDatabase, cookie},
};

mod broker;
mod families;
mod migration;
mod pages;
mod restore;
mod rolling;
mod waiting;

/// Who asks for orders.
const USER: &str = "ada";

/// A namespace of the node's cluster, and a database for it.
struct OnNode {
    namespace: TestNamespace,
    database: TestDatabase,
    /// Where the orders API is served.
    host: String,
    entry: Entry,
    /// An order of the user.
    order: String,
}

impl OnNode {
    async fn new(test: &str) -> Self {
        let namespace = TestNamespace::create_beside(test, &setting("NODE_KUBECONFIG")).await;
        let database = TestDatabase::new().await;
        let uri = database.at_server(&setting("NODE_MONGO_URI"));
        namespace.secret("jwt-secret", "JWT_KEY", JWT_KEY).await;
        namespace.secret("orders-mongo", "MONGO_URI", &uri).await;
        let order = database.orders_of_tickets(USER, 1, "concert").await.remove(0);
        let entry = Entry::new(&setting("INGRESS_URL"), &cookie(USER), who);
        Self { host: format!("orders.{}.dev", namespace.name), namespace, database, entry, order }
    }

    /// Applies an OrdersService with one pod of this checkout's image, and with these changes.
    async fn apply(&self, changes: Value) -> i64 {
        let mut spec = json!({
            "image": setting("OPERATOR_IMAGE"), "replicas": 1,
            "ingress": {"hosts": [self.host], "className": "traefik", "routes": null, "client": null},
        });
        json_patch::merge(&mut spec, &changes);
        let applied = self.namespace.apply(&self.namespace.service("orders", spec)).await.unwrap();
        applied.metadata.generation.unwrap()
    }

    /// Has requests for the orders API come, by the ingress.
    async fn load(&self) -> Load {
        let paths = ["/api/orders".to_owned(), format!("/api/orders/{}", self.order)];
        for path in &paths {
            self.entry.up(&self.host, path, "orders").await;
        }
        let questions = paths.map(|path| Question { path, by: vec!["orders"] });
        Load::start(&self.entry, &self.host, questions.into())
    }

    /// The pods of the orders API but for those that are about to end.
    async fn pods(&self) -> Vec<Pod> {
        let of_orders = ListParams::default().labels("app.kubernetes.io/instance=orders");
        let mut pods = self.namespace.api::<Pod>().list(&of_orders).await.unwrap().items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// Removes all of it, once nothing uses the database any more.
    async fn remove(self) {
        self.namespace.remove().await;
    }
}

/// Who has given a proper answer: a stand-in by the name of its Deployment, which is the first part of its pod's, or the
/// product. That gives its answers a number; which OrdersService it is of shows in the host only.
fn who(answer: &Answer) -> Option<String> {
    if !answer.status.is_success() {
        return None;
    }
    if let Some(pod) = answer.headers.get("x-stand-in") {
        return Some(pod.to_str().unwrap().rsplitn(3, '-').last().unwrap().to_owned());
    }
    answer.headers.get("x-request-id")?;
    Some(if answer.host.starts_with("next.") { "orders-next" } else { "orders" }.to_owned())
}

/// Whether a pod serves.
fn serves(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|each| each.type_ == "Ready" && each.status == "True")
}

/// Whether a pod is started with this value of a variable.
fn has_variable(pod: &Pod, name: &str, value: &str) -> bool {
    let variables = pod.spec.as_ref().unwrap().containers[0].env.iter().flatten();
    variables.into_iter().any(|each| each.name == name && each.value.as_deref() == Some(value))
}

/// Every generation that the resource has ever called ready, from some moment on.
struct History {
    ready: Arc<Mutex<Vec<i64>>>,
    task: JoinHandle<()>,
}

impl History {
    fn of(namespace: &TestNamespace) -> Self {
        let ready = Arc::<Mutex<Vec<i64>>>::default();
        let (services, seen) = (namespace.api::<OrdersService>(), ready.clone());
        let task = tokio::spawn(async move {
            let mut changes = std::pin::pin!(watch_object(services, "orders"));
            while let Some(change) = changes.next().await {
                if let Ok(Some(service)) = change {
                    seen.lock().unwrap().extend(ready_generation(&service));
                }
            }
        });
        Self { ready, task }
    }

    fn was_ready(&self, generation: i64) -> bool {
        self.ready.lock().unwrap().contains(&generation)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The generation for which it is ready, as whoever waits for it understands it.
fn ready_generation(service: &OrdersService) -> Option<i64> {
    let conditions = &service.status.as_ref()?.conditions;
    let ready = find_condition(conditions, ConditionType::Ready).filter(|ready| is_true(ready))?;
    ready.observed_generation.filter(|generation| Some(*generation) == service.metadata.generation)
}
