//! `spec.gateway`: HTTPRoutes of the real Gateway API, from before its CRDs are there until they are gone,
//! and served by Traefik.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::watcher::{self, Event, watcher},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{MONGO, Role};
use crate::{
    bed::setting,
    cluster::{TestNamespace, apply_any, eventually, yaml_documents},
    held::Held,
    server::Server,
};

const CRD: &str = "httproutes.gateway.networking.k8s.io";
pub(crate) const VERSION: &str = "gateway.networking.k8s.io/v1";

/// One test removes the CRD, so only one at a time may use it.
pub(crate) static GATEWAY_API: Mutex<()> = Mutex::const_new(());

async fn remove_crd(namespace: &TestNamespace) {
    let crds = Api::<CustomResourceDefinition>::all(namespace.client.clone());
    drop(crds.delete(CRD, &DeleteParams::default()).await);
    eventually("there is no Gateway API", || async {
        crds.get_opt(CRD).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Installs the CRDs whose files' names have this in them, and waits until what they define is served.
pub(crate) async fn install_crds(namespace: &TestNamespace, part: &str) {
    for file in std::fs::read_dir(setting("GATEWAY_API_CRDS")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.to_str().unwrap().contains(part) {
            let documents = yaml_documents(&std::fs::read_to_string(file).unwrap());
            for crd in documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition")
            {
                let [group, names, versions] =
                    ["group", "names", "versions"].map(|field| crd["spec"][field].clone());
                apply_any(&namespace.client, crd).await;
                for version in versions.as_array().unwrap().iter().filter(|version| version["served"] == true)
                {
                    let [group, version, kind] =
                        [&group, &version["name"], &names["kind"]].map(|text| text.as_str().unwrap());
                    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
                    let objects = Api::<DynamicObject>::all_with(namespace.client.clone(), &kind);
                    let any = ListParams::default().limit(1);
                    eventually("its objects are served", || async { objects.list(&any).await.ok() }).await;
                }
            }
        }
    }
}

pub(super) fn routes(namespace: &TestNamespace) -> Api<DynamicObject> {
    namespace.dynamic("HTTPRoute", VERSION)
}

async fn spec(namespace: &TestNamespace, name: &str) -> Value {
    routes(namespace).get(name).await.unwrap().data["spec"].clone()
}

/// The names of all routes.
async fn names(namespace: &TestNamespace) -> Vec<String> {
    let listed = routes(namespace).list(&Default::default()).await.unwrap();
    listed.iter().map(ResourceExt::name_any).collect()
}

/// Waits until there are these routes and no others.
async fn only(namespace: &TestNamespace, expected: &[&str]) {
    eventually(&format!("there are {expected:?}"), || async {
        (names(namespace).await == expected).then_some(())
    })
    .await;
}

fn paths(spec: &Value) -> Vec<String> {
    let value = |rule: &Value| rule["matches"][0]["path"]["value"].as_str().unwrap().to_owned();
    spec["rules"].as_array().unwrap().iter().map(value).collect()
}

/// Says what a gateway's controller would say of the route as it is now.
async fn answer(namespace: &TestNamespace, name: &str, accepted: &str, resolved: &str) {
    let route = routes(namespace).get(name).await.unwrap();
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": if status == "True" { kind } else { "NotAllowedByListeners" },
               "message": "as the gateway has it", "observedGeneration": route.metadata.generation,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"parents": [{
        "controllerName": "example.com/gateway", "parentRef": route.data["spec"]["parentRefs"][0],
        "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", resolved)],
    }]}});
    routes(namespace).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn gateways_serve_the_routes_once_the_gateway_api_is_installed() {
    let _alone = GATEWAY_API.lock().await;
    let namespace = TestNamespace::create("gateway").await;
    namespace.secrets(MONGO).await;
    remove_crd(&namespace).await;
    let controller = namespace.run("controller").await;
    let gateway = json!({"parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
                         "hostnames": ["Shop.example", "*.shop.example"]});
    let host = format!("{}.dev", namespace.name);
    let with = |gateway: Value| {
        namespace.service("orders", json!({"gateway": gateway, "ingress": {"hosts": [host.clone()]}}))
    };
    namespace.apply(&with(gateway.clone())).await.unwrap();
    let message = namespace.condition("orders", IngressReady, "False", "GatewayApiMissing").await;
    assert!(message.contains("install its CRDs") && message.contains("or remove spec.gateway"), "{message}");
    // All else is as without it.
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let watches = "orders_operator_controller_watch_errors_total{kind=\"HTTPRoute\"}";
    assert_eq!(controller.metric(watches).await, 0.0, "what is not there is not watched");

    install_crds(&namespace, "httproutes").await;
    let message = namespace.condition("orders", IngressReady, "False", "GatewayPending").await;
    assert!(message.contains("Gateway gateways/public (listener \"https\")"), "{message}");
    let rendered = spec(&namespace, "orders").await;
    assert_eq!(paths(&rendered), ["/api/orders", "/api/users", "/ws", "/"]);
    assert_eq!(rendered["hostnames"], json!(["shop.example", "*.shop.example"]));
    assert_eq!(rendered["rules"][1]["backendRefs"][0]["name"], "auth-srv");
    answer(&namespace, "orders", "False", "True").await;
    let message = namespace.condition("orders", IngressReady, "False", "RouteNotAccepted").await;
    assert!(message.contains("NotAllowedByListeners: as the gateway has it"), "{message}");
    answer(&namespace, "orders", "True", "False").await;
    namespace.condition("orders", IngressReady, "False", "BackendsNotResolved").await;
    answer(&namespace, "orders", "True", "True").await;
    namespace.ready("orders").await;
    let status = namespace.api::<OrdersService>().get("orders").await.unwrap().status.unwrap();
    assert_eq!(status.routes.len(), 12, "three hosts");
    assert_eq!(status.url, Some(format!("http://{host}/api/orders")));

    // A controller that starts anew changes nothing; drift is repaired.
    let version = || async { routes(&namespace).get("orders").await.unwrap().resource_version() };
    let before = version().await;
    controller.kill();
    let controller = namespace.run("controller").await;
    namespace
        .apply(&with(json!({"parentRefs": gateway["parentRefs"], "hostnames": gateway["hostnames"]})))
        .await
        .unwrap();
    eventually("it has reconciled", || async {
        (controller.metric("orders_operator_controller_reconciles_total").await >= 1.0).then_some(())
    })
    .await;
    super::settled(&namespace).await;
    assert_eq!(version().await, before);
    let edit = Patch::Merge(json!({"spec": {"hostnames": ["evil.example"]}}));
    routes(&namespace).patch("orders", &PatchParams::default(), &edit).await.unwrap();
    eventually("the edit is repaired", || async {
        (spec(&namespace, "orders").await["hostnames"] == rendered["hostnames"]).then_some(())
    })
    .await;
    routes(&namespace).delete("orders", &DeleteParams::default()).await.unwrap();
    eventually("the route is there again", || async { routes(&namespace).get_opt("orders").await.unwrap() })
        .await;

    // More rules than one route may have, without an Ingress.
    let many: Vec<_> =
        (0..30).map(|number| json!({"path": format!("/r{number}"), "service": "a-srv"})).collect();
    let mut alone = gateway.clone();
    alone["routes"] = json!(many);
    alone["client"] = json!({"service": "client-srv"});
    let mut object = with(alone);
    object["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&object).await.unwrap();
    let parts = eventually("there are two", || async {
        let names = names(&namespace).await;
        (names.len() == 2 && !names.contains(&"orders".to_owned())).then_some(names)
    })
    .await;
    for part in &parts {
        assert_eq!(paths(&spec(&namespace, part).await).len(), 16);
    }
    namespace.condition("orders", IngressReady, "False", "GatewayPending").await;
    for part in &parts {
        answer(&namespace, part, "True", "True").await;
    }
    namespace.ready("orders").await;

    // One of them is someone else's: then the former one stays, and nothing of what it serves is lost.
    namespace.apply(&with(gateway.clone())).await.unwrap();
    only(&namespace, &["orders"]).await;
    let part_names: Vec<_> = parts.iter().map(String::as_str).collect();
    for part in &parts {
        let foreign = json!({"apiVersion": VERSION, "kind": "HTTPRoute", "metadata": {"name": part},
                             "spec": {"hostnames": ["theirs.example"]}});
        let foreign: DynamicObject = serde_json::from_value(foreign).unwrap();
        routes(&namespace).create(&PostParams::default(), &foreign).await.unwrap();
        namespace.apply(&object).await.unwrap();
        let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
        assert!(message.contains(&format!("HTTPRoute {part:?} already exists")), "{message}");
        assert_eq!(spec(&namespace, part).await["hostnames"], json!(["theirs.example"]));
        let former = spec(&namespace, "orders").await;
        assert_eq!(paths(&former), ["/api/orders", "/api/users", "/ws", "/"]);
        // The other one is there all the same.
        for other in parts.iter().filter(|other| *other != part) {
            assert_eq!(paths(&spec(&namespace, other).await).len(), 16);
        }
        routes(&namespace).delete(part, &DeleteParams::default()).await.unwrap();
        namespace.condition("orders", Reconciled, "True", "AsExpected").await;
        only(&namespace, &part_names).await;
        namespace.apply(&with(gateway.clone())).await.unwrap();
        only(&namespace, &["orders"]).await;
    }
    namespace.apply(&object).await.unwrap();
    only(&namespace, &part_names).await;
    let (first, second) = (spec(&namespace, &parts[0]).await, spec(&namespace, &parts[1]).await);
    let all = [paths(&first), paths(&second)].concat();
    assert_eq!((all.len(), all.iter().filter(|path| *path == "/").count()), (32, 1));

    // Switched off, they are deleted.
    object["spec"].as_object_mut().unwrap().remove("gateway");
    namespace.apply(&object).await.unwrap();
    only(&namespace, &[]).await;
    // By now every right over HTTPRoutes was used.
    let page = controller.admin("/metrics").await;
    let role: Role = namespace.api().get(&format!("{}-orders-operator", namespace.name)).await.unwrap();
    let mut rules = role.rules.into_iter().flatten();
    let rule = rules.find(|rule| rule.resources.iter().flatten().any(|name| name == "httproutes")).unwrap();
    assert_eq!(rule.verbs, ["get", "list", "watch", "create", "patch", "delete"]);
    for verb in ["get", "patch", "delete"] {
        let counted = format!("api_requests_total{{kind=\"HTTPRoute\",verb=\"{verb}\"}}");
        assert!(page.contains(&counted), "{verb}");
    }

    // The Gateway API goes, and with it what was there.
    namespace.apply(&with(gateway)).await.unwrap();
    namespace.condition("orders", IngressReady, "False", "GatewayPending").await;
    remove_crd(&namespace).await;
    namespace.condition("orders", IngressReady, "False", "GatewayApiMissing").await;
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    assert_eq!(controller.metric(watches).await, 0.0, "that is no failure");
    namespace.remove().await;
}

/// Host and path of each rule of all routes, as a watch shows them.
#[derive(Clone, Default)]
struct Rules(Arc<std::sync::Mutex<Shown>>);

#[derive(Default)]
struct Shown {
    routes: BTreeMap<String, BTreeSet<String>>,
    /// What was missing after an event.
    lost: Vec<String>,
    is_listing: bool,
}

impl Shown {
    fn all(&self) -> BTreeSet<String> {
        self.routes.values().flatten().cloned().collect()
    }
}

impl Rules {
    /// Watches the routes; `always` is to be in some route at each moment.
    fn watch(namespace: &TestNamespace, always: BTreeSet<String>) -> Self {
        let (rules, routes) = (Self::default(), routes(namespace));
        let shown = rules.0.clone();
        tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(routes, watcher::Config::default()));
            while let Some(event) = events.next().await {
                let mut shown = shown.lock().unwrap();
                match event {
                    Ok(Event::Apply(route) | Event::InitApply(route)) => {
                        let (name, spec) = (route.name_any(), &route.data["spec"]);
                        let hosts: Vec<String> = serde_json::from_value(spec["hostnames"].clone()).unwrap();
                        let of_path = |path: String| hosts.iter().map(move |host| format!("{host}{path}"));
                        shown.routes.insert(name, paths(spec).into_iter().flat_map(of_path).collect());
                    }
                    Ok(Event::Delete(route)) => drop(shown.routes.remove(&route.name_any())),
                    Ok(Event::Init) => {
                        shown.routes.clear();
                        shown.is_listing = true;
                    }
                    Ok(Event::InitDone) => shown.is_listing = false,
                    Err(_) => continue,
                }
                let missing: Vec<_> = always.difference(&shown.all()).cloned().collect();
                if !missing.is_empty() && !shown.is_listing {
                    let routes: Vec<_> = shown.routes.keys().cloned().collect();
                    shown.lost.push(format!("{missing:?} in none of {routes:?}"));
                }
            }
        });
        rules
    }

    /// Waits until the watch shows these rules.
    async fn are(&self, expected: &BTreeSet<String>) {
        eventually("the rules are as wanted", || async {
            (self.0.lock().unwrap().all() == *expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn while_hosts_and_rules_come_and_go_no_rule_is_without_a_route_that_is_wanted_before_and_after() {
    let _alone = GATEWAY_API.lock().await;
    let namespace = TestNamespace::create("moving").await;
    namespace.secrets(MONGO).await;
    install_crds(&namespace, "httproutes").await;
    let _controller = namespace.run("controller").await;
    let host = |name: &str| format!("{name}.{}.dev", namespace.name);
    // The hosts, with a route of its own for some of them, and how many routes all of them have.
    let apply = async |hosts: &[&str], with_own: &[&str], count: usize| {
        let of_all = (0..count).map(|number| json!({"path": format!("/r{number}"), "service": "a-srv"}));
        let own = with_own
            .iter()
            .map(|name| json!({"path": format!("/of-{name}"), "service": "a-srv", "hosts": [host(name)]}));
        let names: Vec<_> = hosts.iter().map(|name| host(name)).collect();
        let gateway = json!({"parentRefs": [{"name": "public"}], "hostnames": names,
                             "routes": of_all.chain(own).collect::<Vec<_>>(), "client": {"service": "client-srv"}});
        let mut object = namespace.service("orders", json!({"gateway": gateway}));
        object["spec"].as_object_mut().unwrap().remove("ingress");
        namespace.apply(&object).await.unwrap();
        let mut rules = BTreeSet::new();
        for name in hosts {
            let of_all = (0..count).map(|number| format!("/r{number}"));
            let own = with_own.iter().filter(|own| *own == name).map(|name| format!("/of-{name}"));
            let paths = of_all.chain(own).chain(["/".to_owned(), "/api/orders".to_owned()]);
            rules.extend(paths.map(|path| format!("{}{path}", host(name))));
        }
        rules
    };
    let first = apply(&["b", "c"], &["c"], 2).await;
    let always = ["b", "c"]
        .iter()
        .flat_map(|name| ["/", "/api/orders", "/r0", "/r1"].map(|path| format!("{}{path}", host(name))));
    namespace.condition("orders", IngressReady, "False", "GatewayPending").await;
    let rules = Rules::watch(&namespace, always.collect());
    rules.are(&first).await;
    for (hosts, with_own, count) in [
        (&["a", "b", "c"][..], &["c"][..], 2),
        (&["a", "b", "c"], &["a", "c"], 2),
        (&["a", "b", "c"], &["a", "c"], 30),
        (&["a", "b", "c"], &["a", "c"], 29),
        (&["b", "c"], &[], 30),
        (&["b", "c"], &[], 2),
        (&["b", "c"], &[], 40),
        (&["b", "c"], &["b"], 2),
    ] {
        rules.are(&apply(hosts, with_own, count).await).await;
        let lost = std::mem::take(&mut rules.0.lock().unwrap().lost);
        assert!(lost.is_empty(), "{hosts:?} {with_own:?} {count}: {lost:#?}");
    }
    namespace.remove().await;
}

#[tokio::test]
async fn when_the_gateway_api_comes_nobody_takes_a_host_before_the_routes_of_others_are_listed() {
    let _alone = GATEWAY_API.lock().await;
    let mut namespace = TestNamespace::create("listed").await;
    let other = TestNamespace::create("by-hand").await;
    namespace.watch_also(&other);
    namespace.secrets(MONGO).await;
    remove_crd(&namespace).await;
    let lists = Held::between(&namespace, "controller", |path, _| path.ends_with("/httproutes")).await;
    let _controller = namespace.run_with("controller", &["--host-policy", "namespace"]).await;
    let host = format!("{}.dev", namespace.name);
    let gateways = json!([{"name": "public", "namespace": "gateways"}]);
    let with = |replicas: i32| {
        let gateway = json!({"parentRefs": gateways, "hostnames": [host]});
        let mut object = namespace.service("orders", json!({"gateway": gateway, "replicas": replicas}));
        object["spec"].as_object_mut().unwrap().remove("ingress");
        object
    };
    namespace.apply(&with(1)).await.unwrap();
    namespace.condition("orders", IngressReady, "False", "GatewayApiMissing").await;
    lists.hold(true);
    install_crds(&namespace, "httproutes").await;
    let backend = json!([{"backendRefs": [{"name": "theirs", "port": 80}]}]);
    let theirs = json!({"apiVersion": VERSION, "kind": "HTTPRoute", "metadata": {"name": "theirs"},
                        "spec": {"parentRefs": gateways, "hostnames": [host], "rules": backend}});
    let theirs: DynamicObject = serde_json::from_value(theirs).unwrap();
    routes(&other).create(&PostParams::default(), &theirs).await.unwrap();
    eventually("they are to be listed", || async { (lists.requests() >= 2).then_some(()) }).await;
    // Whatever is reconciled meanwhile.
    let generation = namespace.apply(&with(2)).await.unwrap().metadata.generation;
    eventually("the change is reconciled", || async {
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        (service.status?.observed_generation == generation).then_some(())
    })
    .await;
    namespace.condition("orders", IngressReady, "False", "GatewayApiMissing").await;
    only(&namespace, &[]).await;
    lists.hold(false);
    namespace.condition("orders", IngressReady, "False", "HostOwnedByOtherNamespace").await;
    only(&namespace, &[]).await;
    for namespace in [namespace, other] {
        namespace.remove().await;
    }
}

/// Traefik as a Gateway's controller.
struct Traefik(Server);

impl Traefik {
    /// The Service that a request goes to. It has no pods, but Traefik's log names route and rule that took
    /// the request. What arrives before its first configuration is answered and not logged, so it is asked again.
    async fn service_of(&self, namespace: &TestNamespace, host: &str, path: &str) -> Option<String> {
        let asked = format!("{path}?asked={:08x}", fastrand::u32(..));
        let (status, line) = eventually("the request is logged", || async {
            let (status, _) = self.0.ask(host, &asked).await?;
            let log = std::fs::read_to_string(self.0.folder.join("requests")).ok()?;
            let line = log.lines().rfind(|line| line.contains(&asked) && line.ends_with('}'))?;
            Some((status, line.to_owned()))
        })
        .await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let router = line["RouterName"].as_str().filter(|_| status != 404)?;
        for name in &names(namespace).await {
            let begins = format!("httproute-{}-{}-gw-", namespace.name, name.replace('.', "-"));
            if let Some(rest) = router.strip_prefix(&begins) {
                let rule: usize = rest.split_once("-ep-web-")?.1.split_once('-')?.0.parse().unwrap();
                let spec = spec(namespace, name).await;
                return spec["rules"][rule]["backendRefs"][0]["name"].as_str().map(str::to_owned);
            }
        }
        panic!("unknown router {router}")
    }
}

#[tokio::test]
async fn traefik_accepts_the_routes_and_sends_each_request_to_its_service() {
    let _alone = GATEWAY_API.lock().await;
    let namespace = TestNamespace::create("traefik").await;
    namespace.secrets(MONGO).await;
    install_crds(&namespace, "gateway.networking.k8s.io_").await;
    let traefik = Traefik(Server::traefik(&["--providers.kubernetesgateway=true"]));
    let class = json!({"apiVersion": VERSION, "kind": "GatewayClass", "metadata": {"name": namespace.name},
                       "spec": {"controllerName": "traefik.io/gateway-controller"}});
    apply_any(&namespace.client, class).await;
    let listener = json!({"name": "web", "protocol": "HTTP", "port": traefik.0.port});
    let gateway = json!({"apiVersion": VERSION, "kind": "Gateway", "metadata": {"name": "public", "namespace": namespace.name},
                         "spec": {"gatewayClassName": namespace.name, "listeners": [listener]}});
    apply_any(&namespace.client, gateway).await;
    for (service, port) in [("auth-srv", 80), ("ws-srv", 3000), ("client-srv", 3000), ("a-srv", 3000)] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": service, "namespace": namespace.name},
                             "spec": {"ports": [{"port": port}], "selector": {"app": "none"}}});
        apply_any(&namespace.client, service).await;
    }
    let _controller = namespace.run("controller").await;
    let many: Vec<_> =
        (0..20).map(|number| json!({"path": format!("/r{number}"), "service": "a-srv"})).collect();
    let mut routes = json!([{"path": "/ws", "service": "ws-srv"}, {"path": "/api/users/?(.*)", "service": "auth-srv", "port": 80}]);
    routes.as_array_mut().unwrap().extend(many);
    let host = format!("{}.dev", namespace.name);
    let mut object = namespace.service(
        "orders",
        json!({"gateway": {"parentRefs": [{"name": "public"}], "hostnames": [host], "routes": routes,
                           "client": {"service": "client-srv"}}}),
    );
    object["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&object).await.unwrap();
    // Traefik alone says that.
    namespace.ready("orders").await;
    eventually("the last rule is served", || traefik.service_of(&namespace, &host, "/")).await;
    for (path, service) in [
        ("/api/orders", "orders"),
        ("/api/orders/5", "orders"),
        ("/api/users/signup", "auth-srv"),
        ("/ws", "ws-srv"),
        ("/wsx", "client-srv"),
        ("/r19/x", "a-srv"),
        ("/api/ordersX", "client-srv"),
        ("/API/orders", "client-srv"),
        ("/", "client-srv"),
    ] {
        assert_eq!(traefik.service_of(&namespace, &host, path).await.as_deref(), Some(service), "{path}");
    }
    assert_eq!(traefik.service_of(&namespace, "other.example", "/").await, None);
    let classes = kube::discovery::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
        "gateway.networking.k8s.io",
        "v1",
        "GatewayClass",
    ));
    Api::<DynamicObject>::all_with(namespace.client.clone(), &classes)
        .delete(&namespace.name, &DeleteParams::default())
        .await
        .unwrap();
    namespace.remove().await;
}
