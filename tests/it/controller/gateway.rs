//! `spec.gateway`: HTTPRoutes of the real Gateway API, from before its CRDs are there until they are gone,
//! and served by Traefik.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{MONGO, Role};
use crate::{
    bed::setting,
    cluster::{TestNamespace, apply_any, eventually, yaml_documents},
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

    // More rules than one route may have, without an Ingress. The second is someone else's for now.
    let foreign = json!({"apiVersion": VERSION, "kind": "HTTPRoute", "metadata": {"name": "orders.2"},
                         "spec": {"hostnames": ["theirs.example"]}});
    let foreign: DynamicObject = serde_json::from_value(foreign).unwrap();
    routes(&namespace).create(&PostParams::default(), &foreign).await.unwrap();
    let many: Vec<_> =
        (0..30).map(|number| json!({"path": format!("/r{number}"), "service": "a-srv"})).collect();
    let mut alone = gateway.clone();
    alone["routes"] = json!(many);
    alone["client"] = json!({"service": "client-srv"});
    let mut object = with(alone);
    object["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&object).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    assert!(message.contains("HTTPRoute \"orders.2\" is there already"), "{message}");
    assert_eq!(spec(&namespace, "orders.2").await["hostnames"], json!(["theirs.example"]));
    routes(&namespace).delete("orders.2", &DeleteParams::default()).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let (first, second) = (spec(&namespace, "orders").await, spec(&namespace, "orders.2").await);
    assert_eq!((paths(&first).len(), paths(&second).len()), (16, 16));
    assert_eq!(paths(&second).last().map(String::as_str), Some("/"), "the client is last");
    namespace.condition("orders", IngressReady, "False", "GatewayPending").await;
    for name in ["orders", "orders.2"] {
        answer(&namespace, name, "True", "True").await;
    }
    namespace.ready("orders").await;

    // Switched off, they are deleted.
    object["spec"].as_object_mut().unwrap().remove("gateway");
    namespace.apply(&object).await.unwrap();
    eventually("both are deleted", || async {
        routes(&namespace).list(&Default::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
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

/// Traefik as a Gateway's controller.
struct Traefik(Server);

impl Traefik {
    /// The Service that a request goes to. It has no pods, but Traefik's log names route and rule that took
    /// the request.
    async fn service_of(&self, namespace: &TestNamespace, host: &str, path: &str) -> Option<String> {
        let requests = self.0.folder.join("requests");
        let before = std::fs::read_to_string(&requests).unwrap_or_default().lines().count();
        let (status, _) = self.0.ask(host, path).await?;
        let line = eventually("the request is logged", || async {
            let log = std::fs::read_to_string(&requests).ok()?;
            log.lines().nth(before).filter(|line| line.ends_with('}')).map(str::to_owned)
        })
        .await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let router = line["RouterName"].as_str().filter(|_| status != 404)?;
        for name in ["orders", "orders.2"] {
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
