//! Step 3, pure: the children, one file per kind. All carry the resource's own name.

mod account;
mod autoscaler;
mod budget;
mod deployment;
mod gateway;
mod ingress;
mod network;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    gateway::HTTPRoute,
    validate::{Replicas, ValidatedOrdersService},
};

/// The children as they should be; `None` for a kind that the user switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Runs the orders API.
    pub deployment: Deployment,
    /// Who decides its number of pods, which also depends on the Deployment that is there.
    pub replicas: Replicas,
    /// Gives its pods one address.
    pub service: Service,
    /// The ordered routes.
    pub ingress: Option<Ingress>,
    /// The same routes at Gateways, 16 in each; none where there is no Gateway.
    pub routes: Vec<HTTPRoute>,
    /// Decides the number of pods.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Bounds how many of them a drain takes away.
    pub budget: Option<PodDisruptionBudget>,
    /// What they run as.
    pub account: Option<ServiceAccount>,
    /// Who may reach them.
    pub network_policy: Option<NetworkPolicy>,
}

/// Builds every child.
pub fn build(service: &ValidatedOrdersService) -> Prepared {
    Prepared {
        deployment: deployment::build_deployment(service),
        service: service::build_service(service),
        replicas: service.replicas,
        ingress: service.ingress.as_ref().and_then(|ingress| ingress::build_ingress(service, ingress)),
        routes: service
            .gateway
            .as_ref()
            .map_or(Vec::new(), |gateway| gateway::build_routes(service, gateway)),
        autoscaler: autoscaler::build_autoscaler(service),
        budget: service.max_unavailable.as_ref().map(|most| budget::build_budget(service, most)),
        account: account::build_account(service),
        network_policy: network::build_network_policy(service),
    }
}

/// The labels that select the pods; a Deployment's selector can never change, so neither can these.
pub fn selector_labels(name: &str) -> BTreeMap<String, String> {
    labels_of([("app.kubernetes.io/name", "orders-service"), ("app.kubernetes.io/instance", name)])
}

/// The recommended labels of every child.
fn labels(service: &ValidatedOrdersService) -> BTreeMap<String, String> {
    let mut labels = selector_labels(&service.name);
    labels.extend(labels_of([
        ("app.kubernetes.io/component", "orders-api"),
        ("app.kubernetes.io/part-of", "ticketing"),
        ("app.kubernetes.io/managed-by", "orders-operator"),
    ]));
    labels
}

fn labels_of<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The map, unless it is empty: the server would drop it, and the object would differ from ours for ever.
fn filled<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Name, labels and owner of every child.
fn metadata(service: &ValidatedOrdersService) -> ObjectMeta {
    ObjectMeta {
        name: Some(service.name.clone()),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: service.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::{Dereferenced, fixture::service, validate::validate};

    fn built(patch: Value) -> Prepared {
        build(&validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap())
    }

    /// The children that there are.
    fn as_json(prepared: &Prepared) -> Vec<Value> {
        let Prepared {
            deployment,
            replicas: _,
            service,
            ingress,
            routes,
            autoscaler,
            budget,
            account,
            network_policy,
        } = prepared;
        let children = [
            json!(deployment),
            json!(service),
            json!(ingress),
            json!(autoscaler),
            json!(budget),
            json!(account),
            json!(network_policy),
        ];
        let routes = routes.iter().map(|route| json!(route));
        children.into_iter().filter(|child| !child.is_null()).chain(routes).collect()
    }

    /// Everything that a spec can ask for.
    fn whole() -> Value {
        json!({
            "imagePullSecrets": [{"name": "regcred"}],
            "ingress": {"annotations": {"a": "b"}, "tls": {"secretName": "tls"}, "className": "nginx"},
            "gateway": {"hostnames": ["a.dev"], "parentRefs": [{"name": "public"}]},
            "autoscaling": {"maxReplicas": 5},
            "podTemplate": {
                "labels": {"team": "tickets"}, "annotations": {"note": "hello"}, "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "spot", "operator": "Exists"}],
                "affinity": {}, "priorityClassName": "high",
                "topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
                "extraEnv": [{"name": "LOG_LEVEL", "value": "debug"}, {"name": "EMPTY", "value": ""}],
            },
        })
    }

    /// The API server drops empty maps and lists, and the object would differ from ours for ever.
    fn no_empty_values(value: &Value, path: &str) {
        match value {
            Value::Array(items) => {
                assert!(!items.is_empty(), "{path} is empty");
                items.iter().for_each(|item| no_empty_values(item, path));
            }
            Value::Object(fields) => {
                assert!(!fields.is_empty(), "{path} is empty");
                fields.iter().for_each(|(name, field)| no_empty_values(field, &format!("{path}.{name}")));
            }
            _ => {}
        }
    }

    #[test]
    fn every_child_has_the_name_the_labels_and_the_owner() {
        let children = as_json(&built(whole()));
        assert_eq!(children.len(), 8);
        for child in children {
            assert_eq!(child["metadata"]["name"], "orders");
            assert_eq!(child["metadata"]["namespace"], "shop");
            assert_eq!(child["metadata"]["labels"]["app.kubernetes.io/instance"], "orders");
            assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], "u-1");
            assert_eq!(child["metadata"]["ownerReferences"][0]["controller"], true);
        }
    }

    #[test]
    fn nothing_is_applied_that_the_server_would_drop() {
        for child in as_json(&built(json!({}))).iter().chain(&as_json(&built(whole()))) {
            no_empty_values(child, child["kind"].as_str().unwrap());
        }
    }

    #[test]
    fn every_host_gets_the_same_rules_with_the_client_last_whatever_the_order_of_the_input() {
        let one = built(json!({}));
        let other = built(json!({"ingress": {
            "hosts": ["a.dev", "b.dev"],
            "routes": [{"path": "/api/users", "service": "auth-srv", "port": 80}, {"path": "/api/*", "service": "api-srv"}],
        }}));
        assert_eq!(one, other);
        let ingress = json!(one.ingress);
        for rule in ingress["spec"]["rules"].as_array().unwrap() {
            let paths: Vec<_> =
                rule["http"]["paths"].as_array().unwrap().iter().map(|path| &path["path"]).collect();
            assert_eq!(paths, ["/api/orders", "/api/users", "/api", "/"]);
        }
    }

    #[test]
    fn a_gateway_gets_the_same_rules_as_the_ingress_at_most_sixteen_in_each_route() {
        let gateway =
            json!({"hostnames": ["B.dev", "a.dev"], "parentRefs": [{"name": "public", "namespace": "gw"}]});
        let [route] = built(json!({"gateway": gateway})).routes.try_into().unwrap();
        let route = json!(route);
        assert_eq!(route["spec"]["hostnames"], json!(["a.dev", "b.dev"]));
        assert_eq!(route["spec"]["parentRefs"][0]["namespace"], "gw");
        let value = |rule: &Value| rule["matches"][0]["path"]["value"].as_str().unwrap().to_owned();
        let values =
            |route: &Value| route["spec"]["rules"].as_array().unwrap().iter().map(value).collect::<Vec<_>>();
        assert_eq!(values(&route), ["/api/orders", "/api/users", "/api", "/"]);

        let routes: Vec<_> =
            (0..64).map(|number| json!({"path": format!("/r{number}"), "service": "s"})).collect();
        let mut alone = gateway.clone();
        alone["routes"] = json!(routes);
        alone["client"] = json!({"service": "client-srv"});
        let built = built(json!({"ingress": null, "gateway": alone})).routes;
        let names: Vec<_> = built.iter().map(|route| route.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["orders", "orders.2", "orders.3", "orders.4", "orders.5"]);
        assert_eq!(names.len(), crate::controller::gateway::MOST_ROUTES);
        let all: Vec<_> = built.iter().flat_map(|route| values(&json!(route))).collect();
        assert_eq!((all.len(), all[0].as_str(), all[65].as_str()), (66, "/api/orders", "/"));
    }

    #[test]
    fn an_ingress_that_is_switched_off_is_not_built() {
        assert_eq!(built(json!({"ingress": null})).ingress, None);
    }

    #[test]
    fn the_pod_template_is_merged_with_what_the_operator_sets() {
        let deployment = json!(built(whole()).deployment);
        assert!(deployment["spec"].get("replicas").is_none(), "it is the autoscaler's");
        let template = &deployment["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["team"], "tickets");
        assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/instance"], "orders");
        assert_eq!(template["metadata"]["annotations"], json!({"note": "hello"}));
        let pod = &template["spec"];
        assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
        assert_eq!(pod["tolerations"], json!([{"key": "spot", "operator": "Exists"}]));
        assert_eq!(pod["priorityClassName"], "high");
        assert!(pod.get("affinity").is_none());
        let [spread] = pod["topologySpreadConstraints"].as_array().unwrap().as_slice() else {
            panic!("{pod}")
        };
        assert_eq!(spread["topologyKey"], "zone");
        assert_eq!(spread["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"], "orders");
        let env = pod["containers"][0]["env"].as_array().unwrap();
        assert!(
            env.contains(&json!({"name": "LOG_LEVEL", "value": "debug"}))
                && env.contains(&json!({"name": "EMPTY"}))
        );
    }

    #[test]
    fn the_pods_run_as_an_account_of_their_own_unless_another_is_named() {
        let own = built(json!({}));
        assert_eq!(json!(own.deployment)["spec"]["template"]["spec"]["serviceAccountName"], "orders");
        assert_eq!(json!(own.account)["automountServiceAccountToken"], false);
        let named = built(json!({"podTemplate": {"serviceAccountName": "mine"}}));
        assert_eq!(json!(named.deployment)["spec"]["template"]["spec"]["serviceAccountName"], "mine");
        assert_eq!(named.account, None);
    }

    #[test]
    fn anyone_may_reach_the_port_and_pods_of_the_cluster_the_admin_port() {
        let policy = json!(built(json!({"port": 4000})).network_policy);
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        assert_eq!(rules[0], json!({"ports": [{"port": 4000, "protocol": "TCP"}]}));
        assert_eq!(rules[1]["ports"], json!([{"port": 8081, "protocol": "TCP"}]));
        assert!(rules[1]["from"][0].get("namespaceSelector").is_some() && rules.len() == 2);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]), "what the pods call is left open");
        assert_eq!(built(json!({"networkPolicy": false})).network_policy, None);
    }

    #[test]
    fn the_autoscaler_scales_the_deployment_within_its_bounds() {
        let autoscaler = json!(built(whole()).autoscaler);
        assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], "orders");
        assert_eq!(
            (&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]),
            (&json!(2), &json!(5))
        );
        assert_eq!(autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        assert_eq!(built(json!({})).autoscaler, None);
    }

    #[test]
    fn settings_and_secrets_reach_the_container() {
        let prepared = built(json!({
            "port": 4000, "replicas": 5, "database": {"name": "shop"}, "imagePullPolicy": "Never",
            "expiration": {"windowSeconds": 60, "paymentGraceSeconds": 30},
        }));
        let deployment = json!(prepared.deployment);
        assert_eq!(deployment["spec"]["replicas"], 5);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Never");
        assert_eq!(container["ports"][0]["containerPort"], 4000);
        let env = |name: &str| {
            container["env"]
                .as_array()
                .unwrap()
                .iter()
                .find(|variable| variable["name"] == name)
                .unwrap()
                .clone()
        };
        for (name, value) in [
            ("EXPIRATION_WINDOW_SECONDS", "60"),
            ("PAYMENT_GRACE_SECONDS", "30"),
            ("PORT", "4000"),
            ("MONGO_DATABASE", "shop"),
        ] {
            assert_eq!(env(name)["value"], value, "{name}");
        }
        for (name, secret) in [("JWT_KEY", "jwt-secret"), ("MONGO_URI", "orders-mongo")] {
            assert_eq!(env(name)["valueFrom"]["secretKeyRef"], json!({"name": secret, "key": name}));
        }
        assert_eq!(json!(prepared.service)["spec"]["ports"][0]["port"], 4000);
    }
}
