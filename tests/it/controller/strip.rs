//! `stripPrefix` with Traefik: from before its CRDs are there, served by Traefik itself, and asked under load whether a request
//! ever goes to the client.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::StreamExt;
use k8s_openapi::{
    api::{core::v1::Service, networking::v1::Ingress},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use super::MONGO;
use crate::{
    cluster::{TestNamespace, apply_any, eventually},
    planes::backends,
    server::Server,
};

const VERSION: &str = "traefik.io/v1alpha1";

/// The kinds that Traefik's provider waits for.
const KINDS: [&str; 10] = [
    "Middleware",
    "MiddlewareTCP",
    "IngressRoute",
    "IngressRouteTCP",
    "IngressRouteUDP",
    "ServersTransport",
    "ServersTransportTCP",
    "TLSOption",
    "TLSStore",
    "TraefikService",
];

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

fn crd(kind: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.traefik.io", plural(kind))},
        "spec": {
            "group": "traefik.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural(kind), "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        }
    })
}

async fn remove_crds(namespace: &TestNamespace) {
    let crds = Api::<CustomResourceDefinition>::all(namespace.client.clone());
    for kind in KINDS {
        let name = format!("{}.traefik.io", plural(kind));
        drop(crds.delete(&name, &DeleteParams::default()).await);
        eventually("Traefik's CRDs are gone", || async {
            crds.get_opt(&name).await.unwrap().is_none().then_some(())
        })
        .await;
    }
}

async fn install_crds(namespace: &TestNamespace) {
    for kind in KINDS {
        apply_any(&namespace.client, crd(kind)).await;
        let objects = namespace.dynamic(kind, VERSION);
        let any = ListParams::default().limit(1);
        eventually("its objects are served", || async { objects.list(&any).await.ok() }).await;
    }
}

/// Traefik, which serves this namespace; by two providers, or without the one that reads Middlewares.
fn traefik(namespace: &TestNamespace, strict: bool, middlewares: bool) -> Server {
    let name = &namespace.name;
    let mut options = vec![
        "--providers.kubernetesingress=true".to_owned(),
        format!("--providers.kubernetesingress.namespaces={name}"),
        "--providers.kubernetesingress.allowexternalnameservices=true".to_owned(),
        format!("--providers.kubernetesingress.strictprefixmatching={strict}"),
    ];
    if middlewares {
        options.push("--providers.kubernetescrd=true".to_owned());
        options.push(format!("--providers.kubernetescrd.namespaces={name}"));
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    Server::traefik(&options)
}

/// Asks for a path again and again, and counts the answers.
struct Load {
    ends: Arc<AtomicBool>,
    answers: Arc<SyncMutex<BTreeMap<String, usize>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn begin(server: &Arc<Server>, host: &str, path: &'static str) -> Self {
        let (ends, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (server, host) = (server.clone(), host.to_owned());
        let (until, counts): (_, Arc<SyncMutex<BTreeMap<String, usize>>>) =
            (ends.clone(), Arc::clone(&answers));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let answer = match server.ask(&host, path).await {
                    Some((200, body)) => body,
                    Some((code, _)) => code.to_string(),
                    None => "none".to_owned(),
                };
                *counts.lock().unwrap().entry(answer).or_default() += 1;
                tokio::task::yield_now().await;
            }
        });
        Self { ends, answers, task }
    }

    fn count(&self, answer: &str) -> usize {
        self.answers.lock().unwrap().get(answer).copied().unwrap_or_default()
    }

    /// Waits until there are more answers of this kind.
    async fn sees_more(&self, answer: &str) {
        let before = self.count(answer);
        eventually(&format!("more of {answer:?}"), || async {
            (self.count(answer) > before + 3).then_some(())
        })
        .await;
    }

    async fn end(self) -> BTreeMap<String, usize> {
        self.ends.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.answers.lock().unwrap().clone()
    }
}

/// Nothing that the client, or nobody, answered.
fn only_from_reports(answers: &BTreeMap<String, usize>, as_starting: &[&str]) {
    let is_good = |answer: &String| answer.starts_with("reports /") || as_starting.contains(&answer.as_str());
    assert!(answers.keys().all(is_good), "{answers:?}");
}

/// The revision of an object, which counts the changes of all objects of the cluster.
fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

/// The revision at which this object was deleted, since another.
async fn deleted_at(api: &Api<DynamicObject>, since: &str, name: &str) -> u64 {
    let params = WatchParams::default().timeout(90);
    let mut events = pin!(api.watch(&params, since).await.unwrap());
    while let Some(event) = events.next().await {
        if let WatchEvent::Deleted(object) = event.unwrap()
            && object.name_any() == name
        {
            return revision(&object);
        }
    }
    panic!("{name} was not deleted")
}

fn middlewares(namespace: &TestNamespace) -> Api<DynamicObject> {
    namespace.dynamic("Middleware", VERSION)
}

async fn prefixes(namespace: &TestNamespace) -> BTreeMap<String, Value> {
    let all = middlewares(namespace).list(&ListParams::default()).await.unwrap();
    all.iter().map(|of| (of.name_any(), of.data["spec"]["stripPrefix"]["prefixes"].clone())).collect()
}

#[tokio::test]
async fn traefik_takes_prefixes_off_and_no_request_for_one_goes_to_the_client_whatever_is_missing() {
    let namespace = TestNamespace::create("strip").await;
    namespace.secrets(MONGO).await;
    remove_crds(&namespace).await;
    let mut ports = BTreeMap::new();
    for name in ["client", "reports", "all", "users"] {
        let port = backends::server(name.to_owned()).await;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"name": "web", "port": port}]}
        });
        namespace
            .api::<Service>()
            .patch(name, &PatchParams::apply("test"), &Patch::Apply(service))
            .await
            .unwrap();
        ports.insert(name, port);
    }
    let host = format!("{}.dev", namespace.name);
    let route = |path: &str, name: &str, strips: bool| json!({"path": path, "service": name, "port": ports[name], "stripPrefix": strips});
    let spec = |routes: Vec<Value>| {
        let ingress = json!({
            "hosts": [&host], "routes": routes, "client": {"service": "client", "port": ports["client"]},
            // A class that need not exist as an object.
            "annotations": {"kubernetes.io/ingress.class": "traefik"},
        });
        namespace.service("orders", json!({"ingress": ingress}))
    };
    let users = || route("/api/users", "users", false);
    let both = || vec![route("/reports", "reports", true), route("/reports/all", "all", true), users()];

    // Refused where there is nothing to do it by; nothing is made by halves.
    let controller = namespace.run("controller").await;
    namespace.apply(&spec(both())).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "TraefikApiMissing").await;
    assert!(message.contains("install the CRDs of Traefik"), "{message}");
    assert!(namespace.api::<Ingress>().list(&ListParams::default()).await.unwrap().items.is_empty());
    install_crds(&namespace).await;
    namespace.condition("orders", IngressReady, "True", "AsExpected").await;
    let made = prefixes(&namespace).await;
    let values: Vec<_> = made.values().collect();
    assert!(values.len() == 2 && values.contains(&&json!(["/reports"])), "{made:?}");
    // The Middlewares were there first. Nobody has changed either since.
    for name in made.keys() {
        let (middleware, ingress) = (
            middlewares(&namespace).get(name).await.unwrap(),
            namespace.api::<Ingress>().get(name).await.unwrap(),
        );
        assert!(revision(&middleware) < revision(&ingress), "{name}");
    }
    let status = namespace.api::<OrdersService>().get("orders").await.unwrap().status.unwrap();
    let shown: Vec<_> =
        status.routes.iter().filter(|of| of.strip_prefix).map(|of| of.path.as_str()).collect();
    assert_eq!(shown, ["/reports/all", "/reports"]);

    for strict in [false, true] {
        let served = traefik(&namespace, strict, true);
        served.up(&host, "/reports/5", "reports /5").await;
        served.up(&host, "/reports/all/5", "all /5").await;
        for (path, expected) in [
            ("/reports", "reports /"),
            ("/reports/", "reports /"),
            ("/reports?page=2", "reports /?page=2"),
            ("/reports/a%2Fb/c", "reports /a%2Fb/c"),
            ("/reports/all", "all /"),
            ("/reports/al", "reports /al"),
            ("/api/users/1", "users /api/users/1"),
            ("/", "client /"),
            ("/report", "client /report"),
        ] {
            // Other versions refuse an escaped slash.
            let answer = served.ask(&host, path).await.unwrap();
            assert!(
                answer.1 == expected || path.contains("%2F") && answer.0 == 400,
                "{strict} {path}: {answer:?}"
            );
        }
        // Without the provider of Middlewares, the guards serve.
        let blind = traefik(&namespace, strict, false);
        blind.up(&host, "/", "client /").await;
        blind.up(&host, "/reports/5", "reports /reports/5").await;
        blind.up(&host, "/reports/all/5", "all /reports/all/5").await;
        assert_eq!(blind.ask(&host, "/api/users/1").await.unwrap().1, "users /api/users/1");
    }

    // Drift, under load.
    let served = Arc::new(traefik(&namespace, false, true));
    served.up(&host, "/reports/5", "reports /5").await;
    let load = Load::begin(&served, &host, "/reports/5");
    let name = made.iter().find(|(_, of)| **of == json!(["/reports"])).unwrap().0;
    for _ in 0..3 {
        middlewares(&namespace).delete(name, &DeleteParams::default()).await.unwrap();
        eventually("it is there again", || async { middlewares(&namespace).get_opt(name).await.unwrap() })
            .await;
        load.sees_more("reports /5").await;
        let edit = Patch::Merge(json!({"spec": {"stripPrefix": {"prefixes": ["/other"]}}}));
        middlewares(&namespace).patch(name, &PatchParams::default(), &edit).await.unwrap();
        eventually("the edit is repaired", || async { (prefixes(&namespace).await == made).then_some(()) })
            .await;
        load.sees_more("reports /5").await;
    }
    // Nobody repairs it, so only the guard serves, and then it is repaired.
    controller.kill();
    middlewares(&namespace).delete(name, &DeleteParams::default()).await.unwrap();
    load.sees_more("reports /reports/5").await;
    let controller = namespace.run("controller").await;
    load.sees_more("reports /5").await;
    // Another one comes and goes.
    let mut three = both();
    three.push(route("/api", "all", true));
    namespace.apply(&spec(three)).await.unwrap();
    served.up(&host, "/api/5", "all /5").await;
    served.up(&host, "/api/users/1", "users /api/users/1").await;
    namespace.apply(&spec(both())).await.unwrap();
    served.up(&host, "/api/5", "client /api/5").await;
    eventually("its Middleware is gone", || async { (prefixes(&namespace).await == made).then_some(()) })
        .await;
    // Not taken off any more, and then again.
    let plain = vec![route("/reports", "reports", false), users()];
    let since = middlewares(&namespace)
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    namespace.apply(&spec(plain)).await.unwrap();
    eventually("no Middleware is left", || async { prefixes(&namespace).await.is_empty().then_some(()) })
        .await;
    let ingress = deleted_at(&namespace.dynamic("Ingress", "networking.k8s.io/v1"), &since, name).await;
    assert!(ingress < deleted_at(&middlewares(&namespace), &since, name).await);
    let ingresses = namespace.api::<Ingress>().list(&ListParams::default()).await.unwrap();
    assert_eq!(ingresses.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["orders"]);
    load.sees_more("reports /reports/5").await;
    namespace.apply(&spec(both())).await.unwrap();
    eventually("both are there again", || async { (prefixes(&namespace).await == made).then_some(()) }).await;
    load.sees_more("reports /5").await;
    only_from_reports(&load.end().await, &[]);

    // From the first moment of a new Traefik: until it serves anything it answers nothing, or 404.
    drop(served);
    for _ in 0..3 {
        let starting = Arc::new(traefik(&namespace, false, true));
        let load = Load::begin(&starting, &host, "/reports/5");
        load.sees_more("reports /5").await;
        only_from_reports(&load.end().await, &["none", "404"]);
    }
    drop(controller);
    namespace.remove().await;
    // The namespace's objects are gone: other tests know no Traefik.
}
