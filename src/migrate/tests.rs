//! Single cases of the translation.

use serde_json::{Value, json};

use super::{
    documents::Reader,
    finding::{Findings, Notes},
    output::yaml,
    plan::{Migration, Options, migrate},
};

/// The orders service beside which each Ingress stands.
pub(super) const ORDERS: &str = include_str!("../../tests/migrate/orders.yaml");

/// Ingresses of every kind.
pub(super) fn fixtures() -> Vec<&'static str> {
    vec![
        include_str!("../../tests/migrate/01-regexes.yaml"),
        include_str!("../../tests/migrate/02-exact-regexes.yaml"),
        include_str!("../../tests/migrate/03-strip-prefix.yaml"),
        include_str!("../../tests/migrate/04-no-host.yaml"),
        include_str!("../../tests/migrate/05-two-hosts.yaml"),
        include_str!("../../tests/migrate/06-api-elsewhere.yaml"),
        include_str!("../../tests/migrate/07-regex-inside.yaml"),
        include_str!("../../tests/migrate/08-default-backend.yaml"),
        include_str!("../../tests/migrate/09-exact.yaml"),
        include_str!("../../tests/migrate/10-named-port.yaml"),
        include_str!("../../tests/migrate/11-other-namespace.yaml"),
        include_str!("../../tests/migrate/12-several-ingresses.yaml"),
    ]
}

pub(super) fn with(texts: &[&str], options: &Options) -> Migration {
    let (mut reader, mut findings) = (Reader::default(), Findings::default());
    texts.iter().for_each(|text| reader.read("a.yaml", text, &mut findings));
    migrate(reader.objects, findings, options).unwrap()
}

/// The spec, and the table.
pub(super) fn translated(texts: &[&str]) -> (Value, String) {
    let migration = with(texts, &Options::default());
    (migration.service["spec"].clone(), migration.findings.table())
}

/// A workload with these variables, as YAML.
pub(super) fn orders_with(variables: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: orders-depl}}\nspec: {{template: {{metadata: {{labels: {{app: orders}}}}, \
         spec: {{containers: [{{name: orders, image: i, env: [{variables}]}}]}}}}}}\n"
    )
}

/// The paths of a host, each with its Service.
pub(super) type Paths<'a> = &'a [(&'a str, &'a str)];

/// An Ingress with these rules, each a host, or "" for any, and its paths with their Services; and with this `tls`.
pub(super) fn ingress(rules: &[(&str, Paths<'_>)], tls: Value) -> Value {
    let path = |(path, service): &(&str, &str)| json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 3000}}}});
    let rule = |(host, paths): &(&str, Paths<'_>)| {
        let paths: Vec<_> = paths.iter().map(path).collect();
        json!({"host": host, "http": {"paths": paths}})
    };
    let rules: Vec<_> = rules.iter().map(rule).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "ingress-srv"},
        "spec": {"ingressClassName": "nginx", "rules": rules, "tls": tls},
    })
}

pub(super) const API: (&str, &str) = ("/api/orders", "orders-srv");
pub(super) const SITE: (&str, &str) = ("/", "client-srv");

/// What is left to do.
pub(super) fn left(table: &str) -> Vec<&str> {
    table.lines().filter(|line| line.starts_with("left")).collect()
}

#[test]
fn the_usual_manifests_become_what_their_author_meant_and_nothing_is_left() {
    let migration = with(&[fixtures()[0], ORDERS], &Options::default());
    let table = migration.findings.table();
    assert_eq!(left(&table), [""; 0], "{table}");
    assert_eq!(
        migration.service,
        json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "orders"},
            "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                "database": {"uriSecretRef": {"name": "orders-mongo"}},
                "events": {"nats": {"servers": ["nats://nats-srv:4222"]}, "streaming": {"clusterId": "shop"}},
                "ingress": {
                    "hosts": ["shop.example"], "className": "nginx",
                    "routes": [
                        {"path": "/api/tickets", "service": "tickets-srv", "port": 4000},
                        {"path": "/api/users", "service": "auth-srv"},
                    ],
                    "client": {"service": "client-srv"},
                },
                "replicas": 2,
            }
        })
    );
    let [secret] = migration.secrets.as_slice() else { panic!("{:?}", migration.secrets) };
    assert_eq!((secret.name.as_str(), secret.key.as_str()), ("orders-mongo", "MONGO_URI"));
    assert_eq!(secret.value, "mongodb://orders-mongo-srv:27017/orders");
    for expected in [
        "path \"/api/users/?(.*)\" was a regex: it is now the prefix /api/users",
        "annotation nginx.ingress.kubernetes.io/use-regex: routes are plain prefixes",
        "the new Service is named orders: what calls http://orders-srv within the cluster must call http://orders:3000",
        "kubectl delete ingress ingress-srv",
        "MONGO_URI was a literal in the manifest",
    ] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert!(!table.contains("mongodb://"), "no value of a Secret is told: {table}");
}

#[test]
fn variables_are_found_by_other_names_and_in_other_places() {
    let ingress = fixtures()[0];
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: orders-srv}\nspec: {selector: {app: orders}, ports: [{port: 80}]}\n";
    for (variables, database, auth) in [
        (
            "{name: MONGO_URL, value: \"mongodb://h/o\"}, {name: JWT_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}",
            json!({"uriSecretRef": {"name": "orders-mongo"}}),
            json!({"name": "s", "key": "k"}),
        ),
        (
            "{name: DB, value: \"mongodb://h\"}, {name: JWT_KEY, value: asdf}",
            json!({"name": "test", "uriSecretRef": {"name": "orders-mongo"}}),
            json!({"name": "orders-jwt"}),
        ),
        (
            "{name: HOST, value: h}, {name: MONGO_URI, value: \"mongodb://$(HOST)/o\"}, {name: JWT_KEY, valueFrom: {secretKeyRef: {name: jwt-secret, key: JWT_KEY}}}",
            json!({"uriSecretRef": {"name": "orders-mongo"}}),
            json!({"name": "jwt-secret"}),
        ),
        (
            "{name: MONGO_URI, valueFrom: {secretKeyRef: {name: m, key: uri}}}, {name: JWT_KEY, valueFrom: {secretKeyRef: {name: j, key: JWT_KEY}}}",
            json!({"uriSecretRef": {"name": "m", "key": "uri"}}),
            json!({"name": "j"}),
        ),
    ] {
        let (spec, table) = translated(&[ingress, service, &orders_with(variables)]);
        assert_eq!(
            (&spec["database"], &spec["auth"]["jwtSecretRef"]),
            (&database, &auth),
            "{variables}: {table}"
        );
        assert!(table.contains("port 80 is 3000 in the new Service"), "{table}");
    }
    let composed = "{name: P, valueFrom: {secretKeyRef: {name: m, key: p}}}, {name: MONGO_URI, value: \"mongodb://u:$(P)@h/o\"}";
    let (spec, table) = translated(&[ingress, service, &orders_with(composed)]);
    assert_eq!(spec["database"], json!({"uriSecretRef": {"name": "orders-mongo"}}));
    for expected in [
        "MONGO_URI is put together from P",
        "kubectl create secret generic orders-mongo",
        "no variable has the session key",
        "no variable names a NATS server",
        "variable P: the Node.js service may have read it",
    ] {
        assert!(left(&table).iter().any(|line| line.contains(expected)), "{expected}: {table}");
    }
}

#[test]
fn variables_of_config_maps_are_resolved_and_those_of_secrets_are_referred_to() {
    let stores = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {NATS_CLUSTER_ID: shop, NATS_URL: nats-srv}\n---\n\
                  apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {MONGO_URI: hidden}\ndata: {JWT_KEY: aGlkZGVu}\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: orders-depl}\nspec:\n  template:\n    spec:\n      containers:\n\
                      \x20     - {name: orders, envFrom: [{configMapRef: {name: c}}, {secretRef: {name: s}}]}\n";
    let (spec, table) = translated(&[fixtures()[0], stores, deployment]);
    assert_eq!(spec["events"]["streaming"]["clusterId"], "shop");
    assert_eq!(spec["events"]["nats"]["servers"], json!(["nats://nats-srv"]));
    assert_eq!(spec["database"], json!({"uriSecretRef": {"name": "s"}}));
    assert_eq!(spec["auth"], json!({"jwtSecretRef": {"name": "s"}}));
    assert_eq!(left(&table), [""; 0], "{table}");
    assert!(!table.contains("hidden") && !table.contains("aGlkZGVu"), "{table}");
    let without = translated(&[fixtures()[0], deployment]).1;
    assert!(without.contains("ConfigMap \"c\", which is not among the inputs"), "{without}");
    assert!(without.contains("all keys of Secret \"s\" are variables"), "{without}");
}

#[test]
fn the_name_is_one_that_no_other_object_has() {
    let taken = "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\n";
    assert_eq!(
        with(&[fixtures()[0], ORDERS, taken], &Options::default()).service["metadata"]["name"],
        "orders-api"
    );
    let options = Options { name: Some("shop".into()), ..Options::default() };
    let migration = with(&[fixtures()[0], ORDERS], &options);
    assert_eq!(migration.service["metadata"]["name"], "shop");
    assert_eq!(migration.secrets[0].name, "shop-mongo");
}

#[test]
fn one_object_in_two_versions_is_refused_and_the_same_file_twice_is_not() {
    let mut reader = Reader::default();
    let mut findings = Findings::default();
    reader.read("dev.yaml", fixtures()[0], &mut findings);
    reader.read("prod.yaml", &fixtures()[0].replace("shop.example", "prod.example"), &mut findings);
    let error = migrate(reader.objects, findings, &Options::default()).unwrap_err().to_string();
    assert!(
        error.contains("Ingress ingress-srv is in dev.yaml and, with other contents, in prod.yaml"),
        "{error}"
    );
    assert_eq!(translated(&[fixtures()[0], fixtures()[0], ORDERS]), translated(&[fixtures()[0], ORDERS]));
    for (kind, object) in [
        ("ConfigMap", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: one}\n"),
        ("Secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {one: YQ==}\n"),
        (
            "HorizontalPodAutoscaler",
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: x}\nspec: {maxReplicas: 3, x: one}\n",
        ),
    ] {
        let (mut reader, mut findings) = (Reader::default(), Findings::default());
        reader.read("a.yaml", ORDERS, &mut findings);
        reader.read("dev.yaml", object, &mut findings);
        reader.read("prod.yaml", &object.replace("one", "two"), &mut findings);
        let error = migrate(reader.objects, findings, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("{kind} x is in dev.yaml and, with other contents,")), "{error}");
    }
}

#[test]
fn which_service_is_that_of_the_orders_is_found_or_asked_for() {
    let refused = |texts: &[&str]| {
        let (mut reader, mut findings) = (Reader::default(), Findings::default());
        texts.iter().for_each(|text| reader.read("a.yaml", text, &mut findings));
        migrate(reader.objects, findings, &Options::default()).unwrap_err().to_string()
    };
    let named = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n");
    assert!(refused(&[&named("auth-srv")]).contains("--orders SERVICE"));
    assert!(refused(&[&named("orders-srv"), &named("order-service")]).contains("order-service, orders-srv"));
    let spaced = |namespace: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: orders-srv, namespace: {namespace}}}\n")
    };
    assert!(
        refused(&[&spaced("dev"), &spaced("prod")])
            .contains("(dev, prod): name one of them with --namespace")
    );
    let options = Options { namespace: Some("prod".into()), ..Options::default() };
    let migration = with(&[&spaced("dev"), &spaced("prod")], &options);
    assert_eq!(migration.service["metadata"]["namespace"], "prod");
    for other in ["orders-mongo-srv", "orders-db", "expiration-srv"] {
        assert!(refused(&[&named(other)]).contains("no Service of the orders"), "{other}");
    }
}

#[test]
fn an_autoscaler_of_the_pods_becomes_spec_autoscaling() {
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: orders-hpa}\nspec:\n\
                  \x20 scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: orders-depl}\n  minReplicas: 2\n  maxReplicas: 9\n\
                  \x20 metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]\n";
    let (spec, table) = translated(&[fixtures()[0], ORDERS, scaler]);
    assert_eq!(
        spec["autoscaling"],
        json!({"minReplicas": 2, "maxReplicas": 9, "targetCPUUtilizationPercentage": 60})
    );
    assert!(spec.get("replicas").is_none() && left(&table).is_empty(), "{table}");
    let other = translated(&[fixtures()[0], ORDERS, &scaler.replace("orders-depl", "auth-depl")]).1;
    assert!(other.contains("HorizontalPodAutoscaler orders-hpa  scales other pods"), "{other}");
    let (spec, memory) = translated(&[fixtures()[0], ORDERS, &scaler.replace("name: cpu", "name: memory")]);
    assert!(left(&memory)[0].contains("scales by something else than CPU"), "{memory}");
    assert_eq!((spec.get("autoscaling"), &spec["replicas"]), (None, &json!(2)));
    assert!(!memory.contains("kubectl delete horizontalpodautoscaler"), "{memory}");
    let slow = format!("{scaler}  behavior: {{scaleDown: {{stabilizationWindowSeconds: 600}}}}\n");
    let (spec, slow) = translated(&[fixtures()[0], ORDERS, &slow]);
    assert_eq!(left(&slow).len(), 1, "{slow}");
    assert!(left(&slow)[0].contains("spec.behavior was left out"), "{slow}");
    assert_eq!(spec["autoscaling"]["maxReplicas"], 9);
}

#[test]
fn where_no_host_has_the_orders_and_there_are_several_all_rules_stay() {
    let rules = ingress(&[("a.example", &[SITE]), ("b.example", &[("/", "files-srv")])], json!([]));
    let (spec, table) = translated(&[&rules.to_string(), ORDERS]);
    assert!(spec.get("ingress").is_none(), "{spec}");
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("name it with --orders SERVICE"), "{table}");
    assert!(!table.contains("kubectl delete ingress"), "{table}");
}

#[test]
fn of_rules_of_any_host_and_those_of_named_ones_the_orders_decide() {
    let rules = ingress(&[("", &[API, SITE]), ("grafana.example", &[("/", "grafana")])], json!([]));
    let (spec, table) = translated(&[&rules.to_string(), ORDERS]);
    assert!(spec["ingress"].get("hosts").is_none(), "{spec}");
    assert_eq!(spec["ingress"]["client"], json!({"service": "client-srv"}));
    assert_eq!(left(&table), [""; 0], "{table}");
    assert!(table.contains("host grafana.example stays in this Ingress"), "{table}");
    assert!(table.contains("take everything out of it but grafana.example"), "{table}");
}

#[test]
fn of_too_many_hosts_those_of_the_orders_are_taken_first() {
    let mut hosts: Vec<_> = ('a'..='h').map(|letter| format!("{letter}.example")).collect();
    let others = hosts.iter().map(|host| (host.as_str(), &[SITE] as Paths<'_>));
    let rules: Vec<_> = others.chain([("z.example", &[API] as Paths<'_>)]).collect();
    let (spec, table) = translated(&[&ingress(&rules, json!([])).to_string(), ORDERS]);
    assert_eq!(hosts.pop().as_deref(), Some("h.example"));
    hosts.push("z.example".into());
    assert_eq!(spec["ingress"]["hosts"], json!(hosts));
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("host h.example: an OrdersService has at most 8 hosts"), "{table}");
}

#[test]
fn a_trial_has_the_routes_of_the_site_but_neither_its_certificate_nor_its_end() {
    let tls = json!([{"hosts": ["api.shop.example", "shop.example"], "secretName": "shop-tls"}]);
    let site = [("/api/users", "auth-srv"), API, SITE];
    let rules = ingress(&[("api.shop.example", &[API]), ("shop.example", &site)], tls).to_string();
    let at = |host: &str| {
        let options = Options { hosts: vec![host.to_owned()], ..Options::default() };
        let migration = with(&[&rules, ORDERS], &options);
        (migration.service["spec"]["ingress"].clone(), migration.findings.table())
    };
    let (ingress, table) = at("next.example");
    assert_eq!(ingress["hosts"], json!(["next.example"]));
    assert_eq!(ingress["client"], json!({"service": "client-srv"}), "{table}");
    assert!(ingress.get("tls").is_none(), "{ingress}");
    assert_eq!(left(&table).len(), 2, "{table}");
    assert!(left(&table)[0].contains("Secret shop-tls is not for next.example"), "{table}");
    assert!(left(&table)[1].contains("for a trial, write the connection string of a copy"), "{table}");
    assert!(!table.contains("kubectl delete ingress"), "{table}");
    assert!(table.contains("stays as it is, since --host names none of its hosts"), "{table}");
    // A host that it has is no trial.
    let (ingress, table) = at("shop.example");
    assert_eq!(ingress["tls"], json!({"secretName": "shop-tls"}));
    assert_eq!(left(&table), [""; 0], "{table}");
    assert!(table.contains("take everything out of it but api.shop.example"), "{table}");
}

#[test]
fn hosts_without_a_certificate_are_named() {
    let of = |hosts: &[&str]| {
        let tls = json!([{"hosts": hosts, "secretName": "shop-tls"}]);
        let rules = ingress(&[("api.shop.example", &[API]), ("shop.example", &[API, SITE])], tls);
        translated(&[&rules.to_string(), ORDERS])
    };
    let (spec, table) = of(&["shop.example"]);
    assert_eq!(spec["ingress"]["tls"], json!({"secretName": "shop-tls"}));
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("spec.tls has no certificate for api.shop.example,"), "{table}");
    for all in [&["shop.example", "*.shop.example"] as &[_], &[]] {
        let (spec, table) = of(all);
        assert_eq!(spec["ingress"]["tls"], json!({"secretName": "shop-tls"}));
        assert_eq!(left(&table), [""; 0], "{table}");
    }
}

#[test]
fn what_another_controller_has_made_is_named() {
    let by = |name: &str, owner: &str| json!({"name": name, "ownerReferences": [{"kind": owner, "name": "shop", "controller": true}]});
    let mut rules = ingress(&[("a.example", &[SITE])], json!([]));
    rules["metadata"] = by("made", "App");
    let pods = |kind: &str, owner: &str| {
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": by("pods", owner)}).to_string()
    };
    let made = [rules.to_string(), pods("StatefulSet", "App"), pods("ReplicaSet", "Deployment")];
    let (_, table) = translated(&[fixtures()[0], ORDERS, &made[0], &made[1], &made[2]]);
    for object in ["Ingress made", "StatefulSet pods"] {
        let is_named = |line: &str| line.contains(object) && line.contains("is made by App shop");
        assert!(table.lines().any(is_named), "{object}: {table}");
    }
    assert!(!table.contains("ReplicaSet pods"), "{table}");
}

#[test]
fn a_name_that_is_taken_is_neither_advised_nor_deleted() {
    let composed = "{name: P, valueFrom: {secretKeyRef: {name: orders-mongo, key: p}}}, {name: MONGO_URI, value: \"mongodb://u:$(P)@h/o\"}";
    let (spec, table) = translated(&[fixtures()[0], &orders_with(composed)]);
    assert_eq!(spec["database"], json!({"uriSecretRef": {"name": "orders-mongo-2"}}));
    assert!(table.contains("kubectl create secret generic orders-mongo-2 "), "{table}");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: orders-mongo}\n";
    let (spec, _) = translated(&[fixtures()[0], secret, &orders_with("")]);
    assert_eq!(spec["database"], json!({"uriSecretRef": {"name": "orders-mongo-2"}}));

    let theirs = "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\nspec: {ports: [{port: 3000}]}\n";
    let with_theirs =
        ingress(&[("shop.example", &[API, ("/archive", "orders"), SITE])], json!([])).to_string();
    let migration = with(&[&with_theirs, theirs, ORDERS], &Options::default());
    let table = migration.findings.table();
    assert_eq!(
        left(&table),
        [""; 0],
        "a Service of another that is called orders is one as any other: {table}"
    );
    assert_eq!(migration.service["metadata"]["name"], "orders-api");
    assert_eq!(
        migration.service["spec"]["ingress"]["routes"][0]["service"], "orders",
        "{}",
        migration.service
    );

    let options = Options { name: Some("orders-srv".into()), ..Options::default() };
    let table = with(&[fixtures()[0], ORDERS], &options).findings.table();
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("give another with --name, such as orders"), "{table}");
    assert!(!table.contains("kubectl delete service"), "{table}");
    assert!(table.contains("kubectl delete ingress ingress-srv"), "{table}");
}

/// The spec of the Ingress and the table, with `--host` so.
fn at_hosts(ingress: &Value, hosts: &[&str]) -> (Value, String) {
    let options =
        Options { hosts: hosts.iter().map(|&host| host.to_owned()).collect(), ..Options::default() };
    let migration = with(&[&ingress.to_string(), ORDERS], &options);
    (migration.service["spec"]["ingress"].clone(), migration.findings.table())
}

#[test]
fn each_host_that_is_named_has_its_own_routes_and_a_new_one_those_of_the_one_in_whose_place_it_is() {
    let api = [API, ("/api/users", "auth-srv")];
    let rules = ingress(
        &[("api.shop.example", &api), ("shop.example", &[API, SITE]), ("x.example", &[SITE])],
        json!([]),
    );
    let routes_on = |ingress: &Value, host: &str| -> Vec<String> {
        let has = |part: &Value| part["hosts"].as_array().is_none_or(|hosts| hosts.contains(&json!(host)));
        let routes = ingress["routes"].as_array().into_iter().flatten().filter(|route| has(route));
        let client = ingress.get("client").filter(|client| has(client));
        routes.chain(client).map(|part| part["service"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let (ingress, table) = at_hosts(&rules, &["shop.example", "api.shop.example"]);
    assert_eq!(ingress["hosts"], json!(["shop.example", "api.shop.example"]));
    assert_eq!(routes_on(&ingress, "shop.example"), ["client-srv"]);
    assert_eq!(routes_on(&ingress, "api.shop.example"), ["auth-srv"]);
    assert_eq!(left(&table), [""; 0], "{table}");
    assert!(table.contains("take everything out of it but x.example"), "{table}");

    let trial = ["next.example", "api.shop.example=api.next.example"];
    let (ingress, table) = at_hosts(&rules, &trial);
    assert_eq!(ingress["hosts"], json!(["next.example", "api.next.example"]));
    assert_eq!(routes_on(&ingress, "next.example"), ["client-srv"]);
    assert_eq!(routes_on(&ingress, "api.next.example"), ["auth-srv"]);
    assert!(table.contains("in place of shop.example, api.shop.example"), "{table}");
    assert!(table.contains("stays as it is, since --host names none of its hosts"), "{table}");

    let (_, table) = at_hosts(&rules, &["shop.example", "b.example=c.example"]);
    assert!(left(&table)[0].contains("--host b.example=c.example: no Ingress has that host"), "{table}");
    let (ingress, table) = at_hosts(&rules, &["shop.example", "api.shop.example=api.next.example"]);
    assert_eq!(ingress["hosts"], json!(["shop.example", "api.next.example"]));
    assert!(table.contains("take everything out of it but api.shop.example, x.example"), "{table}");
}

#[test]
fn what_stays_in_an_ingress_is_not_advised_to_be_deleted_nor_the_pods_to_which_it_leads() {
    let bucket = json!({"resource": {"apiGroup": "k8s.example", "kind": "Bucket", "name": "files"}});
    let mut files = ingress(&[("shop.example", &[API, SITE])], json!([]));
    let paths = files["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap();
    paths.push(json!({"path": "/files", "pathType": "Prefix", "backend": bucket}));
    let table = at_hosts(&files, &[]).1;
    assert!(table.contains("take everything out of it but shop.example /files\n"), "{table}");
    assert!(!table.contains("kubectl delete ingress"), "{table}");

    let mut default = ingress(&[("shop.example", &[API, SITE])], json!([]));
    default["spec"]["defaultBackend"] = bucket;
    let table = at_hosts(&default, &[]).1;
    assert!(table.contains("take everything out of it but its default backend\n"), "{table}");
    default["spec"]["defaultBackend"] = json!({"service": {"name": "other", "port": {"number": 80}}});
    let table = at_hosts(&default, &[]).1;
    assert!(table.contains("take everything out of it but its default backend\n"), "{table}");
    assert!(!table.contains("is the client now"), "{table}");
    default["spec"]["defaultBackend"] = json!({"service": {"name": "client-srv", "port": {"number": 3000}}});
    let table = at_hosts(&default, &[]).1;
    assert!(table.contains("kubectl delete ingress") && left(&table).is_empty(), "{table}");

    // The second of two paths that lead elsewhere cannot stay: it would hide the route.
    let twice = ingress(&[("shop.example", &[API, ("/x", "a"), ("/x/", "b"), SITE])], json!([]));
    let table = at_hosts(&twice, &[]).1;
    assert!(left(&table)[0].contains("take the other out of the Ingress"), "{table}");
    assert!(table.contains("kubectl delete ingress"), "{table}");

    // A path that goes on leading to the old pods.
    let elsewhere = ingress(&[("shop.example", &[API, ("/v1/orders", "orders-srv"), SITE])], json!([]));
    let whole = ingress(&[("shop.example", &[API, SITE]), ("a.example", &[("/", "orders-srv")])], json!([]));
    let mut default = ingress(&[("shop.example", &[API, SITE])], json!([]));
    default["spec"]["defaultBackend"] = json!({"service": {"name": "orders-srv", "port": {"number": 3000}}});
    for (rules, what) in [
        (elsewhere, "shop.example /v1/orders of Ingress ingress-srv"),
        (whole, "a.example / of Ingress ingress-srv"),
        (default, "the default backend of Ingress ingress-srv"),
    ] {
        let table = at_hosts(&rules, &[]).1;
        for object in ["Deployment orders-depl", "Service orders-srv"] {
            let told = format!("keep it until nothing routes to it any more ({what})");
            let is_told =
                |line: &str| line.starts_with("later") && line.contains(object) && line.contains(&told);
            assert!(table.lines().any(is_told), "{object}: {table}");
        }
    }
}

#[test]
fn passive_pods_hear_no_events_and_leave_the_ends_of_reservations_to_the_old_system() {
    let options = Options { passive: true, ..Options::default() };
    let expiration = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: expiration-depl}\n";
    let migration = with(&[fixtures()[0], ORDERS, expiration], &options);
    let spec = &migration.service["spec"];
    assert_eq!((spec.get("events"), &spec["expiration"]), (None, &json!({"suspend": true})));
    let table = migration.findings.table();
    assert!(table.contains("because of --passive"), "{table}");
    // Nobody is told to stop what runs, nor of what these pods do not have.
    let later: Vec<_> = table.lines().filter(|line| line.starts_with("later")).collect();
    assert!(later.len() == 1 && later[0].contains("nothing of the old system is to be stopped"), "{table}");
    let said = yaml(&migration).unwrap();
    for other in ["NATS", "spec.events", "http://orders-srv", "serviceName"] {
        assert!(!said.contains(other), "{other}: {said}");
    }
    let whole = with(&[fixtures()[0], ORDERS, expiration], &Options::default());
    let said = yaml(&whole).unwrap();
    for told in ["the broker stays NATS Streaming", "http://orders-srv", "serviceName"] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn what_is_unusual_of_pods_and_their_service_is_told_and_what_the_api_server_fills_in_is_not() {
    let with_fields = |pod: &str, service: &str| {
        let orders = ORDERS
            .replace("    spec:\n      containers:", &format!("    spec:\n{pod}      containers:"))
            .replace(
                "  selector: {app: orders}\n  ports:",
                &format!("{service}  selector: {{app: orders}}\n  ports:"),
            );
        translated(&[fixtures()[0], &orders]).1
    };
    let usual = with_fields(
        "      dnsPolicy: ClusterFirst\n      schedulerName: default-scheduler\n",
        "  clusterIP: 10.0.0.1\n  sessionAffinity: None\n  internalTrafficPolicy: Cluster\n",
    );
    assert_eq!(usual, with_fields("", ""));
    let unusual = with_fields(
        "      dnsPolicy: Default\n      schedulerName: own\n",
        "  clusterIP: None\n  sessionAffinity: ClientIP\n  internalTrafficPolicy: Local\n",
    );
    let expected = ["dnsPolicy of the pods", "schedulerName of the pods", "its clusterIP is None"];
    assert_eq!(left(&unusual).len(), expected.len(), "{unusual}");
    for (line, expected) in left(&unusual).iter().zip(expected) {
        assert!(line.contains(expected), "{expected}: {unusual}");
    }
    assert!(unusual.contains("sessionAffinity: the new Service has none"), "{unusual}");
    assert!(unusual.contains("internalTrafficPolicy is Cluster in the new Service"), "{unusual}");
}

#[test]
fn where_the_old_service_has_another_port_that_of_the_new_one_is_told() {
    let table =
        translated(&[fixtures()[0], &ORDERS.replace("port: 3000, targetPort", "port: 80, targetPort")]).1;
    assert!(table.contains("unless spec.serviceName keeps its name, at port 3000"), "{table}");
    assert!(table.contains("it then has port 3000 only"), "{table}");
    let same = translated(&[fixtures()[0], ORDERS]).1;
    assert!(!same.contains("at port 3000") && !same.contains("it then has port"), "{same}");
}

#[test]
fn a_daemon_set_is_deleted_since_it_cannot_be_scaled() {
    let table = translated(&[fixtures()[0], &ORDERS.replace("kind: Deployment", "kind: DaemonSet")]).1;
    assert!(table.contains("kubectl delete daemonset orders-depl"), "{table}");
    assert!(!table.contains("kubectl scale"), "{table}");
}

#[test]
fn the_commented_service_name_is_a_field_without_its_first_mark() {
    let text = yaml(&with(&[fixtures()[0], ORDERS], &Options::default())).unwrap();
    let line = "\n  # serviceName: orders-srv  # to keep this name";
    assert!(text.contains(line), "{text}");
    let text = text.replace("  # serviceName:", "  serviceName:");
    let (mut reader, mut findings) = (Reader::default(), Findings::default());
    reader.read("a.yaml", &text, &mut findings);
    let mut service = reader.objects.pop().unwrap();
    let mut notes = Notes::about("", &mut findings);
    let mut spec = service.fields.below("spec", &mut notes);
    assert_eq!(spec.text("serviceName", &mut notes).as_deref(), Some("orders-srv"), "{text}");
}

#[test]
fn of_two_annotations_that_differ_no_value_is_told() {
    let of = |name: &str, path: (&str, &str), value: &str| {
        let mut ingress = ingress(&[("shop.example", &[path])], json!([]));
        ingress["metadata"] =
            json!({"name": name, "annotations": {"nginx.ingress.kubernetes.io/auth-secret": value}});
        ingress.to_string()
    };
    let (spec, table) = translated(&[&of("a", API, "first-value"), &of("b", SITE, "second-value"), ORDERS]);
    let annotations = &spec["ingress"]["annotations"];
    assert_eq!(annotations["nginx.ingress.kubernetes.io/auth-secret"], "first-value");
    assert!(
        table.contains("auth-secret differs from that of another Ingress, which the OrdersService has"),
        "{table}"
    );
    assert!(!table.contains("-value"), "{table}");
}
