//! `spec.gateway`: HTTPRoutes of the real Gateway API, from before its CRDs are there until they are gone.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use super::{MONGO, Role};
use crate::cluster::{TestNamespace, apply_any, eventually, yaml_documents};

const CRD: &str = "httproutes.gateway.networking.k8s.io";
const VERSION: &str = "gateway.networking.k8s.io/v1";

/// No other test may use this CRD: this one removes it.
async fn remove_crd(namespace: &TestNamespace) {
    let crds = Api::<CustomResourceDefinition>::all(namespace.client.clone());
    drop(crds.delete(CRD, &DeleteParams::default()).await);
    eventually("there is no Gateway API", || async {
        crds.get_opt(CRD).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn install_crd(namespace: &TestNamespace) {
    let folder = std::env::var("GATEWAY_API_CRDS")
        .expect("GATEWAY_API_CRDS is not set: set it to config/crd/standard of sigs.k8s.io/gateway-api");
    let text =
        std::fs::read_to_string(format!("{folder}/gateway.networking.k8s.io_httproutes.yaml")).unwrap();
    let crd =
        yaml_documents(&text).into_iter().find(|document| document["kind"] == "CustomResourceDefinition");
    apply_any(&namespace.client, crd.unwrap()).await;
    eventually("HTTPRoutes are served", || async { routes(namespace).list(&Default::default()).await.ok() })
        .await;
}

fn routes(namespace: &TestNamespace) -> Api<DynamicObject> {
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
async fn the_routes_are_served_by_gateways_from_when_the_gateway_api_is_there() {
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
    assert!(message.contains("install its CRDs"), "{message}");
    // All else is as without it.
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let watches = "orders_operator_controller_watch_errors_total{kind=\"HTTPRoute\"}";
    assert_eq!(controller.metric(watches).await, 0.0, "what is not there is not watched");

    install_crd(&namespace).await;
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
