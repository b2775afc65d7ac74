//! Step 3, pure: builds the children, one file for each kind. All have the name of the OrdersService.
//!
//! ```text
//! prepared    the children that are built, and the one enumeration of them
//! metadata    name, labels and owner of every child
//! account     the ServiceAccount
//! autoscaler  the HorizontalPodAutoscaler
//! budget      the PodDisruptionBudget
//! containers  the containers before and beside the API
//! certificates  how the pods get the certificates of the database
//! deployment  the Deployment
//! gateway     the HTTPRoutes
//! ingress     the Ingresses
//! network     the NetworkPolicy
//! service     the Services
//! strip       what Traefik needs for prefixes that are taken off
//! ```

mod account;
mod autoscaler;
mod budget;
mod certificates;
mod containers;
mod deployment;
mod gateway;
mod ingress;
pub mod metadata;
mod network;
pub mod prepared;
#[cfg(test)]
mod route_tests;
mod service;
mod strip;

use super::validate::validated::ValidatedOrdersService;
use prepared::Prepared;

/// Builds every child.
pub fn build(service: &ValidatedOrdersService) -> Prepared {
    Prepared {
        deployment: deployment::build_deployment(service),
        services: service::build_services(service),
        replicas: service.replicas,
        ingresses: service.ingress.as_ref().map_or(Vec::new(), |ingress| {
            let plain = ingress::build_ingress(service, ingress);
            plain.into_iter().chain(strip::build_ingresses(service, ingress)).collect()
        }),
        keeps_ingress: service.ingress.as_ref().is_some_and(|ingress| ingress.lacks_class),
        routes: service
            .gateway
            .as_ref()
            .map_or(Vec::new(), |gateway| gateway::build_routes(service, gateway)),
        middlewares: service
            .ingress
            .as_ref()
            .map_or(Vec::new(), |ingress| strip::build_middlewares(service, ingress)),
        autoscaler: autoscaler::build_autoscaler(service),
        budget: service.max_unavailable.as_ref().map(|most| budget::build_budget(service, most)),
        account: account::build_account(service),
        account_is_named: service.pods.service_account_name.is_some(),
        network_policy: network::build_network_policy(service),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::{BTreeMap, BTreeSet},
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::controller::{
        children::{
            httproute::{HTTPRoute, MAX_RULES},
            kind::{Child, ChildKind},
        },
        fixture::service,
        reconcile::{build::prepared::PreparedVisitor, dereference::Dereferenced, validate::validate},
    };

    fn built(patch: Value) -> Prepared {
        build(&validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap())
    }

    /// The children that there are, as JSON.
    #[derive(Default)]
    struct Json(Vec<Value>);

    impl<'a> PreparedVisitor<'a> for Json {
        fn visit<K: Child>(&mut self, children: &'a [K]) {
            self.0.extend(children.iter().map(|child| json!(child)));
        }
    }

    fn as_json(prepared: &Prepared) -> Vec<Value> {
        let mut json = Json::default();
        prepared.visit(&mut json);
        json.0
    }

    /// The kinds that are visited.
    struct Kinds(Vec<ChildKind>);

    impl<'a> PreparedVisitor<'a> for Kinds {
        fn visit<K: Child>(&mut self, _: &'a [K]) {
            self.0.push(K::KIND);
        }
    }

    #[test]
    fn every_kind_of_child_is_visited_once() {
        let mut kinds = Kinds(Vec::new());
        built(json!({})).visit(&mut kinds);
        assert_eq!(kinds.0, ChildKind::ALL);
    }

    /// Everything that a spec can ask for.
    fn whole() -> Value {
        json!({
            "database": {"tls": {"caSecretRef": {"name": "mongo-ca"}, "clientCertificateSecretRef": {"name": "mongo-client"}}},
            "events": {
                "nats": {"servers": ["nats://nats"], "caSecretRef": {"name": "nats-ca"}, "credsSecretRef": {"name": "nats-user"}},
                "ticketDeleted": "ticket:deleted", "paymentStarted": "payment:started",
            },
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
                "volumes": [
                    {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Ki"}},
                    {"name": "config", "configMap": {"name": "c", "items": [{"key": "k", "path": "p/k"}], "optional": true}},
                    {"name": "keys", "secret": {"secretName": "s", "items": []}},
                    {"name": "all", "projected": {"sources": [
                        {"secret": {"name": "s"}}, {"configMap": {"name": "c"}},
                        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    ]}},
                ],
                "extraVolumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": true}],
                "initContainers": [
                    {"name": "migrate", "image": "migrate:1", "command": ["/migrate"], "args": ["up"]},
                    {
                        "name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "runAsUser": 1000,
                        "readOnlyRootFilesystem": false, "env": [{"name": "MODE", "value": "tcp"}],
                        "volumeMounts": [{"name": "cache", "mountPath": "/cache", "subPath": "proxy"}],
                        "resources": {"requests": {"cpu": "1000m"}},
                        "startupProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1},
                        "readinessProbe": {"httpGet": {"port": 5001}},
                        "livenessProbe": {"exec": {"command": ["/check"]}},
                    },
                ],
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
        let ingress = json!(one.ingresses[0]);
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
        assert_eq!(built.len(), 66_usize.div_ceil(MAX_RULES));
        let all: Vec<_> = built.iter().flat_map(|route| values(&json!(route))).collect();
        assert_eq!((all.len(), all[0].as_str(), all[65].as_str()), (66, "/api/orders", "/"));
    }

    /// The HTTPRoutes by name, each with the hosts and paths of its rules.
    fn rules_by_route(gateway: Value) -> BTreeMap<String, BTreeSet<String>> {
        let built = built(json!({"ingress": null, "gateway": gateway})).routes;
        let rules_of = |route: &HTTPRoute| {
            let paths = route.spec.rules.iter().map(|rule| rule.matches[0].path.value.clone());
            let of_host = |path: String| route.spec.hostnames.iter().map(move |host| format!("{host}{path}"));
            paths.flat_map(of_host).collect()
        };
        built.iter().map(|route| (route.metadata.name.clone().unwrap(), rules_of(route))).collect()
    }

    #[test]
    fn whatever_changes_no_http_route_loses_a_rule_that_another_one_gets() {
        let gateway = |hosts: &[&str], routes: &[(&str, Option<&str>)]| {
            let route = |(path, host): &(&str, Option<&str>)| {
                let mut route = json!({"path": path, "service": "s"});
                if let Some(host) = host {
                    route["hosts"] = json!([host]);
                }
                route
            };
            json!({"hostnames": hosts, "parentRefs": [{"name": "g"}], "client": {"service": "client-srv"},
                   "routes": routes.iter().map(route).collect::<Vec<_>>()})
        };
        let paths: Vec<_> = (0..40).map(|number| format!("/r{number:02}")).collect();
        let first =
            |count: usize| paths[..count].iter().map(|path| (path.as_str(), None)).collect::<Vec<_>>();
        let mut without_one = first(40);
        without_one.remove(3);
        let (on_b, on_c) = (("/x", Some("b.dev")), ("/y", Some("c.dev")));
        let specs = [
            gateway(&["b.dev"], &first(2)),
            gateway(&["b.dev"], &first(14)),
            gateway(&["b.dev"], &first(15)),
            gateway(&["b.dev"], &first(40)),
            gateway(&["b.dev"], &without_one),
            gateway(&["a.dev", "b.dev"], &without_one),
            gateway(&["b.dev", "c.dev"], &[on_c]),
            gateway(&["a.dev", "b.dev", "c.dev"], &[on_c]),
            gateway(&["a.dev", "b.dev", "c.dev"], &[on_b, on_c]),
            gateway(&["a.dev", "c.dev"], &first(20)),
        ]
        .map(rules_by_route);
        assert_eq!(specs[1].keys().collect::<Vec<_>>(), ["orders"], "16 rules");
        assert_eq!(specs[2].len(), 2, "17 rules");
        for before in &specs {
            for after in &specs {
                let wanted: BTreeSet<_> = after.values().flatten().collect();
                for (name, rules) in before {
                    let Some(now) = after.get(name) else { continue };
                    let moved: Vec<_> = rules.difference(now).filter(|rule| wanted.contains(rule)).collect();
                    assert!(moved.is_empty(), "{name} loses {moved:?}");
                }
            }
        }
    }

    #[test]
    fn a_second_service_has_another_name_and_nothing_else() {
        let [first, second] = built(json!({"serviceName": "orders-srv"})).services.try_into().unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("orders"));
        assert_eq!(second.metadata.name.as_deref(), Some("orders-srv"));
        assert_eq!(second.spec, first.spec);
        assert_eq!(built(json!({"serviceName": "orders"})).services.len(), 1);
        let problems =
            validate(&service(json!({"serviceName": "Orders_srv"})), &Dereferenced::default(), Some("i"));
        assert!(problems.unwrap_err()[0].message.contains("spec.serviceName is \"Orders_srv\""));
    }

    #[test]
    fn an_ingress_that_is_switched_off_is_not_built() {
        assert_eq!(built(json!({"ingress": null})).ingresses, []);
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

    fn pod(patch: Value) -> Value {
        json!(built(patch).deployment)["spec"]["template"]["spec"].clone()
    }

    #[test]
    fn volumes_and_containers_of_the_template_are_in_the_pods_without_any_privilege() {
        let pod = pod(whole());
        let names = |field: &str| -> Vec<String> {
            let items = pod[field].as_array().unwrap().iter();
            items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("volumes"), ["database-certificates", "cache", "config", "keys", "all"]);
        assert_eq!(pod["volumes"][1]["emptyDir"], json!({"medium": "Memory", "sizeLimit": "1Mi"}));
        assert_eq!(pod["volumes"][3]["secret"], json!({"secretName": "s"}));
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        assert_eq!(mounts[1], json!({"name": "keys", "mountPath": "/keys", "readOnly": true}));
        assert_eq!((names("initContainers"), mounts.len()), (vec!["migrate".into(), "proxy".into()], 2));
        let [migrate, proxy] = pod["initContainers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
        assert!(migrate.get("restartPolicy").is_none() && migrate.get("env").is_none());
        assert_eq!(migrate["resources"]["limits"], json!({"memory": "128Mi"}), "a bound by default");
        assert_eq!(
            (&proxy["restartPolicy"], &proxy["resources"]["requests"]["cpu"]),
            (&json!("Always"), &json!("1"))
        );
        assert_eq!(proxy["readinessProbe"]["httpGet"], json!({"path": "/", "port": 5001, "scheme": "HTTP"}));
        let security = |container: &Value| container["securityContext"].clone();
        let api = security(&pod["containers"][0]);
        assert_eq!(security(migrate), api);
        let mut of_proxy = security(proxy);
        assert_eq!(of_proxy["runAsUser"].take(), 1000);
        of_proxy.as_object_mut().unwrap().remove("runAsUser");
        of_proxy["readOnlyRootFilesystem"] = json!(true);
        assert_eq!(of_proxy, api);
    }

    #[test]
    fn the_last_words_of_a_container_are_what_it_has_logged_unless_it_has_written_others() {
        let pod = pod(whole());
        let containers = ["containers", "initContainers"].map(|field| pod[field].as_array().unwrap().clone());
        for container in containers.iter().flatten() {
            assert_eq!(
                container["terminationMessagePolicy"], "FallbackToLogsOnError",
                "{}",
                container["name"]
            );
        }
    }

    #[test]
    fn the_cluster_assigns_the_user_of_the_pods_where_the_spec_or_the_operator_says_so() {
        let users = |patch: Value, by_default: bool| {
            let found = Dereferenced { user_from_cluster: by_default, ..Dereferenced::default() };
            let deployment = json!(build(&validate(&service(patch), &found, Some("i")).unwrap()).deployment);
            let context = deployment["spec"]["template"]["spec"]["securityContext"].clone();
            assert!(context["runAsNonRoot"] == true && context.get("fsGroup").is_none(), "{context}");
            (context.get("runAsUser").is_some(), context.get("runAsGroup").is_some())
        };
        let says = |value: Value| json!({"podTemplate": {"userFromCluster": value}});
        assert_eq!(users(json!({}), false), (true, true));
        assert_eq!(users(json!({}), true), (false, false));
        assert_eq!(users(says(json!(true)), false), (false, false));
        assert_eq!(users(says(json!(false)), true), (true, true));
    }

    #[test]
    fn a_mesh_reaches_the_pods_by_its_port_and_the_probes_of_the_ambient_mode_come_through() {
        let rules = |patch: Value| json!(built(patch).network_policy)["spec"]["ingress"].clone();
        for (mesh, port, blocks) in [("IstioAmbient", 15008, 2), ("Linkerd", 4143, 0)] {
            let with = rules(json!({"mesh": mesh}));
            let only = |port: Value| json!([{"port": port, "protocol": "TCP"}]);
            assert_eq!((&with[0]["ports"], with[0].get("from")), (&only(json!("http")), None), "{mesh}");
            assert_eq!(with[1]["ports"], only(json!("admin")));
            assert_eq!(with[2]["ports"], only(json!(port)));
            assert_eq!(with[1]["from"], with[2]["from"], "by it a mesh leads to the admin port too");
            let from = with[1]["from"].as_array().unwrap();
            assert_eq!(from.iter().filter(|peer| peer.get("ipBlock").is_some()).count(), blocks);
            assert_eq!(from[0], rules(json!({}))[1]["from"][0]);
        }
        assert_eq!(built(json!({"mesh": "Linkerd", "networkPolicy": false})).network_policy, None);
    }

    #[test]
    fn the_pods_run_as_an_account_of_their_own_unless_another_is_named() {
        let own = built(json!({}));
        assert_eq!(json!(own.deployment)["spec"]["template"]["spec"]["serviceAccountName"], "orders");
        assert_eq!(json!(own.account)["automountServiceAccountToken"], false);
        let named = built(json!({"podTemplate": {"serviceAccountName": "mine"}}));
        assert_eq!(json!(named.deployment)["spec"]["template"]["spec"]["serviceAccountName"], "mine");
        assert_eq!((named.account, named.account_is_named), (None, true));
        let own_by_name = built(json!({"podTemplate": {"serviceAccountName": "orders"}}));
        assert_eq!((own_by_name.account, own_by_name.account_is_named), (own.account, true));
        assert!(!own.account_is_named);
    }

    #[test]
    fn anyone_may_reach_the_port_and_pods_of_the_cluster_the_admin_port() {
        let policy = json!(built(json!({"port": 4000})).network_policy);
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        assert_eq!(rules[0], json!({"ports": [{"port": "http", "protocol": "TCP"}]}));
        assert_eq!(rules[1]["ports"], json!([{"port": "admin", "protocol": "TCP"}]));
        assert!(rules[1]["from"][0].get("namespaceSelector").is_some() && rules.len() == 2);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]), "what the pods call is left open");
        assert_eq!(built(json!({"networkPolicy": false})).network_policy, None);
    }

    #[test]
    fn what_leads_to_the_pods_names_their_port_so_that_its_number_may_change() {
        let [before, after] = [3000, 4000].map(|port| built(json!({"port": port})));
        assert_eq!(before.network_policy, after.network_policy);
        assert_eq!(before.ingresses, after.ingresses);
        let backend =
            &json!(after.ingresses[0])["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        assert_eq!(*backend, json!({"name": "orders", "port": {"name": "http"}}));
        let port = &json!(after.services[0])["spec"]["ports"][0];
        assert_eq!(*port, json!({"name": "http", "port": 4000, "targetPort": "http", "protocol": "TCP"}));
        let container = &json!(after.deployment)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["ports"][0], json!({"name": "http", "containerPort": 4000, "protocol": "TCP"}));
    }

    #[test]
    fn a_pod_has_its_drain_and_time_for_the_requests_in_flight() {
        for (patch, drain, grace) in [(json!({}), "5", 36), (json!({"drainSeconds": 120}), "120", 151)] {
            let deployment = json!(built(patch).deployment);
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["terminationGracePeriodSeconds"], grace);
            let env = pod["containers"][0]["env"].as_array().unwrap();
            assert!(env.contains(&json!({"name": "DRAIN_SECONDS", "value": drain})), "{env:?}");
        }
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
    fn the_certificates_of_the_database_are_mounted_and_named_in_the_environment() {
        let pod = |database: Value| {
            let deployment = json!(built(json!({"database": {"tls": database}})).deployment);
            deployment["spec"]["template"]["spec"].clone()
        };
        let both = pod(
            json!({"caSecretRef": {"name": "mongo-ca", "key": "CA"}, "clientCertificateSecretRef": {"name": "mongo-client"}}),
        );
        let sources = &both["volumes"][0]["projected"]["sources"];
        let ca = json!({"name": "mongo-ca", "items": [{"key": "CA", "path": "ca.crt"}]});
        assert_eq!(sources[0]["secret"], ca);
        let keys = json!([{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}]);
        assert_eq!(sources[1]["secret"], json!({"name": "mongo-client", "items": keys}));
        let container = &both["containers"][0];
        let mount = &container["volumeMounts"][0];
        assert_eq!((&mount["name"], &mount["readOnly"]), (&both["volumes"][0]["name"], &json!(true)));
        let files = |container: &Value| -> Vec<String> {
            let env = container["env"].as_array().unwrap().iter();
            let ours = env.filter(|variable| variable["name"].as_str().unwrap().starts_with("MONGO_TLS_"));
            ours.map(|variable| format!("{}={}", variable["name"], variable["value"]).replace('"', ""))
                .collect()
        };
        let at = mount["mountPath"].as_str().unwrap();
        assert_eq!(
            files(container),
            [
                format!("MONGO_TLS_CA_FILE={at}/ca.crt"),
                format!("MONGO_TLS_CERT_FILE={at}/tls.crt"),
                format!("MONGO_TLS_KEY_FILE={at}/tls.key")
            ]
        );
        let only_ca = pod(json!({"caSecretRef": {"name": "mongo-ca"}}));
        assert_eq!(files(&only_ca["containers"][0]).len(), 1);
        assert_eq!(only_ca["volumes"][0]["projected"]["sources"][0]["secret"]["items"][0]["key"], "ca.crt");
        assert!(pod(Value::Null).get("volumes").is_none());
    }

    #[test]
    fn the_broker_of_events_reaches_the_container_and_its_password_stays_in_the_secret() {
        let seen = RefCell::new(BTreeSet::new());
        let env = |events: Value| {
            let deployment = json!(built(json!({"events": events})).deployment);
            let pod = deployment["spec"]["template"]["spec"].clone();
            let env = pod["containers"][0]["env"].as_array().unwrap().clone();
            let ours =
                env.into_iter().filter(|variable| variable["name"].as_str().unwrap().starts_with("NATS_"));
            let (marks, ours): (Vec<_>, Vec<_>) =
                ours.partition(|variable| variable["name"] == "NATS_SETTINGS_MARK");
            seen.borrow_mut().extend(marks.iter().map(|mark| mark["value"].to_string()));
            (ours, pod)
        };
        let (listed, pod) = env(json!({
            "nats": {
                "servers": ["nats://a:4222", "nats://b:4222"],
                "caSecretRef": {"name": "nats-ca", "key": "CA"}, "credsSecretRef": {"name": "nats-user"},
            },
            "jetStream": {"stream": "shop", "durable": "orders", "replicas": 3, "maxAgeSeconds": 7200},
            "subjects": {"order:created": "orders.created"},
            "ticketDeleted": "ticket:deleted", "paymentStarted": "payments.started",
        }));
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let wanted = [
            variable("NATS_URL", "nats://a:4222,nats://b:4222"),
            variable("NATS_DURABLE", "orders"),
            variable("NATS_STREAM", "shop"),
            variable("NATS_STREAM_REPLICAS", "3"),
            variable("NATS_STREAM_MAX_AGE_SECONDS", "7200"),
            variable("NATS_SUBJECTS", "order:created=orders.created"),
            variable("NATS_TICKET_DELETED", "ticket:deleted"),
            variable("NATS_PAYMENT_STARTED", "payments.started"),
            variable("NATS_CA_FILE", "/etc/orders-operator/database/nats-ca.crt"),
            variable("NATS_CREDS_FILE", "/etc/orders-operator/database/nats.creds"),
        ];
        assert_eq!(listed, wanted);
        let ca = json!({"name": "nats-ca", "items": [{"key": "CA", "path": "nats-ca.crt"}]});
        assert_eq!(pod["volumes"][0]["projected"]["sources"][0]["secret"], ca);
        let creds = json!({"name": "nats-user", "items": [{"key": "nats.creds", "path": "nats.creds"}]});
        assert_eq!(pod["volumes"][0]["projected"]["sources"][1]["secret"], creds);

        let (streaming, _) = env(json!({
            "nats": {"servers": ["nats://nats-srv:4222"]}, "streaming": {"clusterId": "ticketing"},
        }));
        let pod_name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
        let wanted = [
            variable("NATS_URL", "nats://nats-srv:4222"),
            variable("NATS_DURABLE", "orders-service"),
            variable("NATS_CLUSTER_ID", "ticketing"),
            json!({"name": "NATS_CLIENT_ID", "valueFrom": pod_name}),
        ];
        assert_eq!(streaming, wanted);

        let (secret, pod) = env(json!({"nats": {"urlSecretRef": {"name": "nats"}}}));
        let reference = json!({"secretKeyRef": {"name": "nats", "key": "NATS_URL"}});
        assert_eq!(secret[0], json!({"name": "NATS_URL", "valueFrom": reference}));
        assert!(secret.len() == 5 && pod.get("volumes").is_none(), "{secret:?}");
        assert_eq!(env(Value::Null).0, [Value::Null; 0]);
        assert_eq!(seen.into_inner().len(), 3, "each of these settings has a mark of its own");
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
        assert_eq!(json!(prepared.services[0])["spec"]["ports"][0]["port"], 4000);
    }
}
