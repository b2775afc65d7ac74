//! The chart and the examples: what they name exists.

use std::collections::BTreeSet;

use clap::{Args, Command};
use orders_operator::{api::ServeArgs, controller::ControllerArgs, crd::RESERVED_ENV, sweeper::SweeperArgs};
use serde_json::Value;

use crate::cluster::{chart, chart_with_crd, refused_chart, root, yaml_documents};

fn file(path: &str) -> Vec<Value> {
    yaml_documents(
        &std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")),
    )
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn container_names(deployment: &Value) -> Vec<&str> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    containers.iter().map(|container| container["name"].as_str().unwrap()).collect()
}

#[test]
fn the_operator_pod_has_both_containers_with_probes_and_passes_the_restricted_standard() {
    let objects = chart(&[], "release");
    let deployments = of_kind(&objects, "Deployment");
    let [deployment] = deployments.as_slice() else { panic!("{} Deployments", deployments.len()) };
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container_names(deployment), ["controller", "sweeper"]);
    let containers = pod["containers"].as_array().unwrap();
    let mut ports = BTreeSet::new();
    for container in containers {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let port = container[probe]["httpGet"]["port"].as_str().unwrap();
            assert_eq!(container["ports"][0]["name"], port, "{probe} asks another port");
        }
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        ports.insert(container["ports"][0]["containerPort"].as_i64().unwrap());
    }
    assert_eq!(ports.len(), 2, "containers of a pod share its ports");
}

#[test]
fn the_chart_installs_the_crd_unless_told_not_to_and_keeps_it() {
    let crd =
        |objects: Vec<Value>| objects.into_iter().find(|object| object["kind"] == "CustomResourceDefinition");
    let kept = crd(chart_with_crd(&[], "release")).unwrap();
    assert_eq!(kept["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let spec: Value = file("crds/ordersservices.yaml").remove(0)["spec"].take();
    assert_eq!(kept["spec"], spec);
    let dropped = crd(chart_with_crd(&["--set", "crds.keep=false"], "release")).unwrap();
    assert!(dropped["metadata"].get("annotations").is_none());
    assert!(crd(chart_with_crd(&["--set", "crds.enabled=false"], "release")).is_none());
}

#[test]
fn a_chart_for_some_namespaces_asks_for_nothing_cluster_wide_but_ingress_classes() {
    for object in chart(&["--set", "watchNamespaces={shop,other}"], "release") {
        // What Kubernetes adds to its own roles, the operator does not have.
        let is_for_people = object["metadata"]["labels"].to_string().contains("/aggregate-to-");
        if object["kind"] == "ClusterRole" && !is_for_people {
            let rules = object["rules"].as_array().unwrap();
            assert!(
                rules.len() == 1 && rules[0]["resources"] == serde_json::json!(["ingressclasses"]),
                "{object}"
            );
        }
    }
}

#[test]
fn only_who_asks_for_it_has_kubernetes_own_roles_write_orders_services() {
    for (set, verbs) in [
        ("replicas=1", vec!["get", "list", "watch"]),
        ("rbac.aggregateWrite=true,rbac.aggregateClusterRoles=false", vec![]),
        (
            "rbac.aggregateWrite=true",
            vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        ),
    ] {
        let objects = chart(&["--set", set], "release");
        let for_people = objects
            .iter()
            .filter(|object| object["metadata"]["labels"].to_string().contains("/aggregate-to-"));
        let rules = for_people.flat_map(|object| object["rules"].as_array().unwrap());
        let found: BTreeSet<_> = rules
            .flat_map(|rule| rule["verbs"].as_array().unwrap())
            .map(|verb| verb.as_str().unwrap())
            .collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), verbs, "{set}");
    }
}

#[test]
fn a_chart_for_some_namespaces_without_ingress_classes_makes_nothing_cluster_wide() {
    let set = "watchNamespaces={shop,other},ingressClasses.enabled=false,crds.enabled=false,\
               rbac.aggregateClusterRoles=false";
    for object in chart(&["--set", set], "release") {
        assert!(object["metadata"]["namespace"].is_string(), "{object}");
        if object["kind"] == "Deployment" {
            let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
            assert!(env.contains(&serde_json::json!({"name": "INGRESS_CLASSES", "value": "false"})));
        }
    }
}

#[test]
fn each_container_has_a_token_of_its_own_where_the_other_has_none_and_none_is_at_the_usual_path() {
    for set in ["sweeper.separate=false", "sweeper.separate=true"] {
        let objects = chart(&["--set", set], "release");
        for account in of_kind(&objects, "ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false);
        }
        let mut paths = BTreeSet::new();
        for deployment in of_kind(&objects, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            let mut volumes = BTreeSet::new();
            for volume in pod["volumes"].as_array().unwrap() {
                let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
                assert_eq!((&token["path"], &token["expirationSeconds"]), (&"token".into(), &3600.into()));
                volumes.insert(volume["name"].as_str().unwrap());
            }
            for container in pod["containers"].as_array().unwrap() {
                let [mount] = container["volumeMounts"].as_array().unwrap().as_slice() else {
                    panic!("{container}")
                };
                assert!(volumes.remove(mount["name"].as_str().unwrap()), "another container has it too");
                let path = mount["mountPath"].as_str().unwrap();
                assert!(!path.contains("kubernetes.io") && paths.insert(path.to_owned()), "{path}");
                let variable = serde_json::json!({"name": "SERVICE_ACCOUNT_PATH", "value": path});
                assert!(container["env"].as_array().unwrap().contains(&variable), "{container}");
            }
            assert!(volumes.is_empty(), "{volumes:?}");
        }
        assert_eq!(paths.len(), 2);
    }
}

#[test]
fn a_separate_sweeper_has_pods_of_its_own_with_all_that_goes_with_them() {
    let set = format!("sweeper.separate=true,sweeper.replicas=3,{SCRAPED}");
    let objects = chart(&["--set", &set], "release");
    let deployments = of_kind(&objects, "Deployment");
    let names: Vec<_> = deployments.iter().map(|deployment| container_names(deployment)).collect();
    assert_eq!(names, [["controller"], ["sweeper"]]);
    let replicas: Vec<_> = deployments.iter().map(|deployment| &deployment["spec"]["replicas"]).collect();
    assert_eq!(replicas, [2, 3]);
    let selected = |selector: &Value, deployment: &Value| {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value)
    };
    for (kind, path) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("PodMonitor", "/spec/selector/matchLabels"),
    ] {
        let of_kind = of_kind(&objects, kind);
        assert_eq!(of_kind.len(), 2, "{kind}");
        for (number, object) in of_kind.into_iter().enumerate() {
            let selector = object.pointer(path).unwrap();
            let selects: Vec<_> = deployments.iter().map(|pod| selected(selector, pod)).collect();
            assert_eq!(selects, [number == 0, number == 1], "{object}");
            assert_eq!(object["metadata"]["name"], deployments[number]["metadata"]["name"], "{kind}");
        }
    }
    for (monitor, name) in of_kind(&objects, "PodMonitor").into_iter().zip(["controller", "sweeper"]) {
        let ports: Vec<_> =
            monitor["spec"]["podMetricsEndpoints"].as_array().unwrap().iter().map(|e| &e["port"]).collect();
        assert_eq!(ports, [name]);
    }
    let accounts: Vec<_> =
        deployments.iter().map(|pod| &pod["spec"]["template"]["spec"]["serviceAccountName"]).collect();
    let made: Vec<_> =
        of_kind(&objects, "ServiceAccount").iter().map(|account| &account["metadata"]["name"]).collect();
    assert_eq!(accounts, made);
}

#[test]
fn only_the_admin_ports_of_the_operator_pods_can_be_reached_unless_the_chart_is_told_otherwise() {
    for set in ["sweeper.separate=false", "sweeper.separate=true"] {
        let objects = chart(&["--set", set], "release");
        let policies = of_kind(&objects, "NetworkPolicy");
        for (policy, deployment) in policies.iter().zip(of_kind(&objects, "Deployment")) {
            assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]));
            let [rule] = policy["spec"]["ingress"].as_array().unwrap().as_slice() else { panic!("{policy}") };
            // Not the pods of other namespaces: the metrics name every database.
            assert_eq!(rule["from"], serde_json::json!([{"podSelector": {}}]), "{rule}");
            let ports: Vec<_> =
                rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_str().unwrap()).collect();
            assert_eq!(ports, container_names(deployment), "each admin port is named after its container");
        }
        assert_eq!(policies.len(), of_kind(&objects, "Deployment").len());
    }
    let monitoring = "networkPolicy.from[0].namespaceSelector.matchLabels.team=monitoring";
    let narrow = chart(&["--set", monitoring], "release");
    let from = &of_kind(&narrow, "NetworkPolicy")[0]["spec"]["ingress"][0]["from"];
    let expected = serde_json::json!([{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]);
    assert_eq!(*from, expected);
    let without = chart(&["--set", "networkPolicy.enabled=false"], "release");
    assert!(of_kind(&without, "NetworkPolicy").is_empty());
    // A Prometheus that nobody lets in would find nothing, and say so to nobody who installs the chart.
    let scraped = ["--set", "monitoring.podMonitor.enabled=true"];
    let refusal = refused_chart(&scraped);
    assert!(refusal.contains("needs networkPolicy.from") && refusal.contains("your Prometheus"), "{refusal}");
    chart(&[&scraped[..], &["--set", "networkPolicy.enabled=false"]].concat(), "release");
}

#[test]
fn a_mesh_reaches_the_operator_pods_for_those_who_may_reach_their_admin_ports() {
    for (mesh, port) in [("IstioAmbient", 15008), ("Linkerd", 4143)] {
        let objects =
            chart(&["--set", &format!("networkPolicy.mesh={mesh},sweeper.separate=true")], "release");
        for policy in of_kind(&objects, "NetworkPolicy") {
            let rules = policy["spec"]["ingress"].as_array().unwrap();
            assert_eq!(rules[0]["from"], serde_json::json!([{"podSelector": {}}]));
            assert_eq!(rules[0]["ports"][1], serde_json::json!({"port": port, "protocol": "TCP"}));
            assert_eq!(rules.len(), if mesh == "IstioAmbient" { 2 } else { 1 }, "{policy}");
            if let Some(probes) = rules.get(1) {
                assert_eq!(probes["from"][0]["ipBlock"]["cidr"], "169.254.7.127/32");
                assert_eq!(probes["ports"].as_array().unwrap().len(), 1, "the admin port, and no other");
                assert_eq!(probes["ports"][0], rules[0]["ports"][0]);
            }
        }
    }
    let refusal = refused_chart(&["--set", "networkPolicy.mesh=istio"]);
    assert!(refusal.contains("'IstioAmbient', 'Linkerd'"), "{refusal}");
}

#[test]
fn the_cluster_assigns_the_users_of_all_pods_where_the_chart_is_told_so() {
    for (set, is_fixed) in [("userFromCluster=false", true), ("userFromCluster=true", false)] {
        for deployment in
            of_kind(&chart(&["--set", &format!("{set},sweeper.separate=true")], "release"), "Deployment")
        {
            let context = &deployment["spec"]["template"]["spec"]["securityContext"];
            assert_eq!(context["runAsNonRoot"], true);
            for field in ["runAsUser", "runAsGroup"] {
                assert_eq!(context.get(field).is_some(), is_fixed, "{context}");
            }
        }
    }
    let objects = chart(&["--set", "userFromCluster=true"], "release");
    let env = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    let told = serde_json::json!({"name": "USER_FROM_CLUSTER", "value": "true"});
    assert!(env.as_array().unwrap().contains(&told), "{env}");
}

#[test]
fn every_rule_of_the_chart_says_why() {
    let of = |name: &str| {
        std::fs::read_to_string(root().join("charts/orders-operator/templates").join(name)).unwrap()
    };
    let text = of("rbac.yaml") + &of("aggregated.yaml");
    let lines: Vec<_> = text.lines().collect();
    let rules: Vec<_> = (0..lines.len()).filter(|at| lines[*at].starts_with("  - apiGroups:")).collect();
    assert!(rules.len() > 5);
    for at in rules {
        assert!(lines[at - 1].starts_with("  # "), "line {} has no reason above it", at + 1);
    }
}

#[test]
fn every_service_that_the_example_s_routes_name_is_among_the_examples() {
    let services: BTreeSet<_> = file("examples/20-stand-ins.yaml")
        .iter()
        .filter(|object| object["kind"] == "Service")
        .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let ingress = file("examples/30-orders.yaml").remove(0)["spec"]["ingress"].take();
    for route in ingress["routes"].as_array().unwrap().iter().chain([&ingress["client"]]) {
        assert!(services.contains(route["service"].as_str().unwrap()), "{route}");
    }
}

#[test]
fn the_nats_of_the_examples_is_the_one_that_the_bed_has() {
    let versions = std::fs::read_to_string(root().join("dev/versions.toml")).unwrap();
    let pinned = versions.lines().find_map(|line| line.strip_prefix("nats-server = ")).unwrap();
    let deployment = file("examples/15-nats.yaml").remove(0);
    let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
    let version = image.strip_prefix("nats:").unwrap();
    assert!(pinned.contains(&format!("version = \"{version}\"")), "{image} and {pinned}");
}

#[test]
fn the_examples_have_both_brokers_and_the_older_one_keeps_the_names_of_the_course() {
    let rendered = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(["render", "examples/nats-streaming/orders.yaml", "--default-image", "i"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let objects = yaml_documents(&String::from_utf8(rendered.stdout).unwrap());
    let [deployment] = of_kind(&objects, "Deployment")[..] else { panic!("no Deployment") };
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let value_of = |name: &str| {
        let variable = env.as_array().unwrap().iter().find(|variable| variable["name"] == name);
        variable.map(|variable| variable["value"].clone())
    };
    let server = file("examples/nats-streaming/nats-streaming.yaml").remove(0);
    let arguments = &server["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(value_of("NATS_CLUSTER_ID").as_ref(), arguments.as_array().unwrap().last());
    assert_eq!(value_of("NATS_URL").unwrap(), "nats://nats-srv:4222");
}

#[test]
fn the_host_policy_of_the_chart_reaches_the_controller() {
    for (arguments, expected) in
        [(vec![], "shared"), (vec!["--set", "controller.hostPolicy=namespace"], "namespace")]
    {
        let objects = chart(&arguments, "release");
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let controller = &deployment["spec"]["template"]["spec"]["containers"][0];
        let mut env = controller["env"].as_array().unwrap().iter();
        assert_eq!(env.find(|variable| variable["name"] == "HOST_POLICY").unwrap()["value"], expected);
    }
}

#[test]
fn the_hosts_of_the_chart_reach_the_controller_as_a_file_that_it_can_read() {
    let of = |arguments: &[&str]| {
        let objects = chart(arguments, "release");
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let pod = deployment["spec"]["template"]["spec"].clone();
        let controller = pod["containers"][0].clone();
        let mut env = controller["env"].as_array().unwrap().iter();
        let file = env.find(|variable| variable["name"] == "HOSTS_FILE").map(|of| of["value"].clone());
        let map = objects.into_iter().find(|object| object["kind"] == "ConfigMap");
        (file, map, pod, controller)
    };
    let (file, map, pod, controller) = of(&[]);
    assert_eq!((file, map), (None, None));
    let none = |object: &Value, field: &str, name: &str| {
        object[field].as_array().into_iter().flatten().all(|item| item["name"] != name)
    };
    assert!(none(&pod, "volumes", "hosts") && none(&controller, "volumeMounts", "hosts"));

    let set = "controller.hosts={\"ticketing\": [\"ticketing.dev\", \"*.ticketing.dev\"], \"shop\": []}";
    let (file, map, pod, controller) = of(&["--set-json", set]);
    let map = map.unwrap();
    let named = |object: &Value, field: &str| {
        let mut items = object[field].as_array().unwrap().iter();
        items.find(|item| item["name"] == "hosts").unwrap().clone()
    };
    assert_eq!(named(&pod, "volumes")["configMap"]["name"], map["metadata"]["name"]);
    let mount = named(&controller, "volumeMounts");
    assert!(mount.get("subPath").is_none(), "the file would never change");
    let (key, text) = map["data"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(file.unwrap(), format!("{}/{key}", mount["mountPath"].as_str().unwrap()));

    // The product reads what the chart writes.
    let folder = std::env::temp_dir().join(format!("orders-operator-chart-{}", fastrand::u64(..)));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.yaml"), text.as_str().unwrap()).unwrap();
    let render = |namespace: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"))
            .args(["render", "examples/30-orders.yaml", "--default-image", "i", "--namespace", namespace])
            .arg("--hosts-file")
            .arg(folder.join("hosts.yaml"))
            .current_dir(root())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(render("ticketing"), (true, String::new()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn both_containers_send_traces_where_the_chart_is_told_and_nowhere_otherwise() {
    let endpoints = |arguments: &[&str]| -> Vec<Value> {
        let objects = chart(arguments, "release");
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        let variables = containers.into_iter().flat_map(|c| c["env"].as_array().unwrap().clone());
        variables.filter(|v| v["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT").map(|v| v["value"].clone()).collect()
    };
    assert!(endpoints(&[]).is_empty());
    let collector = "http://otel-collector:4317";
    assert_eq!(endpoints(&["--set", &format!("otlp.endpoint={collector}")]), [collector, collector]);
}

#[test]
fn both_containers_have_the_ca_of_the_collector_where_the_chart_names_one() {
    for (set, source) in [
        (
            "otlp.ca.configMap=ca",
            serde_json::json!({"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        ),
        (
            "otlp.ca.secret=ca,otlp.ca.key=CA",
            serde_json::json!({"secret": {"secretName": "ca", "items": [{"key": "CA", "path": "ca.crt"}]}}),
        ),
    ] {
        let objects = chart(&["--set", set], "release");
        let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
        let mut volumes = pod["volumes"].as_array().unwrap().iter();
        let mut volume = volumes.find(|volume| volume["name"] == "otlp-ca").unwrap().clone();
        volume.as_object_mut().unwrap().remove("name");
        assert_eq!(volume, source);
        for container in pod["containers"].as_array().unwrap() {
            let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
            let folder =
                mounts.find(|mount| mount["name"] == "otlp-ca").unwrap()["mountPath"].as_str().unwrap();
            let file = serde_json::json!({"name": "OTEL_EXPORTER_OTLP_CERTIFICATE", "value": format!("{folder}/ca.crt")});
            assert!(container["env"].as_array().unwrap().contains(&file), "{container}");
        }
    }
    let both = refused_chart(&["--set", "otlp.ca.configMap=a,otlp.ca.secret=b"]);
    assert!(both.contains("are both set: remove one"), "{both}");
}

/// The values of the chart that let a Prometheus of the operator's namespace have the metrics.
const SCRAPED: &str =
    "monitoring.podMonitor.enabled=true,networkPolicy.from[0].podSelector.matchLabels.app=prometheus";

/// What the chart makes for a Prometheus and a Grafana, when it is told to.
pub(crate) fn monitoring() -> Vec<Value> {
    let set = &format!("{SCRAPED},monitoring.alerts.enabled=true,monitoring.dashboard.enabled=true");
    let kinds = ["PodMonitor", "PrometheusRule", "ConfigMap"];
    let limits = "monitoring.alerts.overdueSeconds=77,monitoring.alerts.eventsLagSeconds=7";
    chart(&["--set", set, "--set", limits], "release")
        .into_iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)))
        .collect()
}

#[test]
fn monitoring_is_made_only_when_it_is_asked_for_and_is_whole() {
    let plain = chart(&[], "release");
    assert!(plain.iter().all(|object| object["kind"] != "PodMonitor" && object["kind"] != "ConfigMap"));
    let objects = monitoring();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (monitor, rule) = (of_kind("PodMonitor"), of_kind("PrometheusRule"));

    let deployment = plain.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"];
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][name], value);
    }
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let ports: BTreeSet<_> = containers.iter().map(|c| c["ports"][0]["name"].as_str().unwrap()).collect();
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().unwrap();
    assert_eq!(endpoints.iter().map(|e| e["port"].as_str().unwrap()).collect::<BTreeSet<_>>(), ports);

    for group in rule["spec"]["groups"].as_array().unwrap() {
        for alert in group["rules"].as_array().unwrap() {
            let annotations = &alert["annotations"];
            for part in [
                &alert["expr"],
                &alert["labels"]["severity"],
                &annotations["summary"],
                &annotations["description"],
            ] {
                assert!(part.as_str().is_some_and(|text| !text.is_empty()), "{alert}");
            }
        }
    }
    let all = rule.to_string();
    assert!(all.contains("> 77") && all.contains("> 7\""), "{all}");

    let dashboards: Vec<_> = objects.iter().filter(|object| object["kind"] == "ConfigMap").collect();
    let names: Vec<_> =
        dashboards.iter().map(|dashboard| dashboard["metadata"]["name"].as_str().unwrap()).collect();
    let parts = ["api", "controller", "events", "overview", "sweeper"];
    assert_eq!(names, parts.map(|part| format!("release-orders-operator-{part}-dashboard")));
    for dashboard in dashboards {
        assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
        let data = dashboard["data"].as_object().unwrap().values().next().unwrap();
        let json: Value = serde_json::from_str(data.as_str().unwrap()).unwrap();
        let panels = json["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "two panels of {} have one id", json["title"]);
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let text = |field: &str| panel[field].as_str().is_some_and(|text| !text.is_empty());
            assert!(
                text("title") && text("description") && panel["targets"][0]["expr"].is_string(),
                "{panel}"
            );
        }
    }
}

#[test]
fn the_pods_of_the_orders_api_are_scraped_in_the_watched_namespaces_where_that_is_asked_for() {
    let scraped = ["--set", "monitoring.ordersPodMonitor.enabled=true"];
    let everywhere = chart(&scraped, "release");
    let [monitor] = of_kind(&everywhere, "PodMonitor")[..] else { panic!("{everywhere:?}") };
    assert_eq!(monitor["spec"]["namespaceSelector"], serde_json::json!({"any": true}));
    let narrow = chart(&[&scraped[..], &["--set", "watchNamespaces={shop}"]].concat(), "release");
    let selector = &of_kind(&narrow, "PodMonitor")[0]["spec"]["namespaceSelector"];
    assert_eq!(*selector, serde_json::json!({"matchNames": ["shop"]}));

    let render = ["render", "examples/", "--default-image", "orders:1"];
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    let output = program.args(render).current_dir(root()).output().unwrap();
    let children = yaml_documents(&String::from_utf8(output.stdout).unwrap());
    let pod = &of_kind(&children, "Deployment")[0]["spec"]["template"];
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][name], value);
    }
    let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|named| named["name"] == *port), "{ports:?}");
    // So that two OrdersServices of a namespace can be told apart.
    let relabelling = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0];
    assert_eq!(relabelling["targetLabel"], "orders_service");
    let from = |label: &str| {
        let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        serde_json::json!([format!("__meta_kubernetes_pod_label_{name}")])
    };
    let mut labels = pod["metadata"]["labels"].as_object().unwrap().iter();
    let (_, service) = labels.find(|(name, _)| relabelling["sourceLabels"] == from(name)).unwrap();
    assert_eq!(service, "orders");
}

/// The environment variables that a subcommand reads.
fn variables<A: Args>() -> BTreeSet<String> {
    let command = A::augment_args(Command::new("orders-operator"));
    let names = command.get_arguments().filter_map(|argument| argument.get_env());
    names.map(|name| name.to_str().unwrap().to_owned()).collect()
}

fn variables_of(container: &Value) -> BTreeSet<String> {
    let all = container["env"].as_array().unwrap().iter();
    all.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect()
}

/// The files of the certificates of the database.
const TLS: [&str; 3] = ["MONGO_TLS_CA_FILE", "MONGO_TLS_CERT_FILE", "MONGO_TLS_KEY_FILE"];

#[test]
fn every_setting_reaches_its_container_and_no_container_has_one_that_nobody_reads() {
    let set = "watchNamespaces={shop},otlp.endpoint=https://collector:4317,otlp.ca.secret=ca,controller.hosts.shop={shop.dev}";
    let objects = chart(&["--set", set], "release");
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    assert_eq!(variables_of(&containers[0]), variables::<ControllerArgs>());
    let mut of_sweeper = variables::<SweeperArgs>();
    for without_cluster in [&["SWEEPER_URI"][..], &TLS].concat() {
        assert!(of_sweeper.remove(without_cluster), "{without_cluster} is for a sweeper without a cluster");
    }
    assert_eq!(variables_of(&containers[1]), of_sweeper);

    let render = ["render", "examples/", "--default-image", "orders:1"];
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    let output = program.args(render).current_dir(root()).output().unwrap();
    let children = yaml_documents(&String::from_utf8(output.stdout).unwrap());
    let deployment = children.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let mut of_pods = variables_of(&deployment["spec"]["template"]["spec"]["containers"][0]);
    // Set if spec.database.name, or spec.database.tls, is.
    of_pods.insert("MONGO_DATABASE".into());
    // Set if spec.ingress.path, or spec.gateway.path, is.
    of_pods.insert("BASE_PATH".into());
    of_pods.extend(TLS.map(str::to_owned));
    // Set if spec.events is.
    of_pods.extend(RESERVED_ENV.into_iter().filter(|name| name.starts_with("NATS_")).map(str::to_owned));
    let reserved = RESERVED_ENV.map(str::to_owned).into();
    assert_eq!(of_pods, reserved, "a user's variable must not replace one of ours");
    let mut of_serve = variables::<ServeArgs>();
    for by_extra_env in [
        "LISTEN_ADDRESS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert!(of_serve.remove(by_extra_env), "{by_extra_env}");
    }
    assert_eq!(of_pods, of_serve);
}

#[test]
fn every_value_of_the_chart_is_used_by_a_template() {
    fn check(path: &str, value: &Value, templates: &str) {
        let key = path.rsplit('.').next().unwrap();
        let follows =
            |text: &str, at: usize| !text[at..].starts_with(|c: char| c.is_alphanumeric() || c == '.');
        let is_used =
            |name: &str| templates.match_indices(name).any(|(at, _)| follows(templates, at + name.len()));
        let is_used_whole = is_used(&format!(".Values.{path}"));
        match value {
            Value::Object(fields)
                if !fields.is_empty() && (!is_used_whole || path.starts_with("monitoring.")) =>
            {
                // Of labels, all are used or none is.
                if key == "labels" {
                    assert!(is_used(".labels"), "no template uses {path}");
                    return;
                }
                fields.iter().for_each(|(name, value)| check(&format!("{path}.{name}"), value, templates));
            }
            // The templates about monitoring are each within a `with`.
            _ if path.starts_with("monitoring.") => {
                assert!(is_used(&format!(".{key}")), "no template uses {path}")
            }
            _ => assert!(is_used_whole, "no template uses {path}"),
        }
    }
    let mut templates = String::new();
    for entry in std::fs::read_dir(root().join("charts/orders-operator/templates")).unwrap() {
        templates.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let values = file("charts/orders-operator/values.yaml").remove(0);
    for (name, value) in values.as_object().unwrap() {
        check(name, value, &templates);
    }
}

#[test]
fn the_defaults_of_the_chart_are_those_of_the_program() {
    fn check<A: Args>(container: &Value, others: &[&str]) {
        let command = A::augment_args(Command::new("orders-operator"));
        let mut compared = 0;
        for argument in command.get_arguments() {
            let (Some(name), [default]) = (argument.get_env(), argument.get_default_values()) else {
                continue;
            };
            let (name, default) = (name.to_str().unwrap(), default.to_str().unwrap());
            let mut variables = container["env"].as_array().unwrap().iter();
            let set = variables.find(|variable| variable["name"] == name).unwrap();
            assert_eq!(
                set["value"] == default,
                !others.contains(&name),
                "{name}: {} and {default:?}",
                set["value"]
            );
            compared += 1;
        }
        assert!(compared > 5, "{compared}");
    }
    let objects = chart(&[], "release");
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    // A release has Leases of its own, and a cluster's logs are read by machines.
    let others = ["LEASE_NAME", "LOG_FORMAT"];
    check::<ControllerArgs>(&containers[0], &others);
    check::<SweeperArgs>(&containers[1], &others);
}
