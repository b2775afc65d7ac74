//! What is told: that it is about what is wrong, and that it works when it is followed literally.

use serde_json::{Value, json};

use super::{
    documents::Reader,
    finding::Findings,
    judge,
    plan::{Options, migrate},
    tests::{API, ORDERS, SITE, fixtures, ingress, left, orders_with, translated, with},
};

/// An Ingress with this annotation.
fn annotated(mut ingress: Value, name: &str, value: &str) -> String {
    ingress["metadata"]["annotations"] = json!({name: value});
    ingress.to_string()
}

/// Why nothing is translated.
fn refused(texts: &[&str], options: &Options) -> String {
    let (mut reader, mut findings) = (Reader::default(), Findings::default());
    texts.iter().for_each(|text| reader.read("a.yaml", text, &mut findings));
    migrate(reader.objects, findings, options).unwrap_err().to_string()
}

#[test]
fn more_routes_than_there_may_be_go_to_an_ingress_and_not_to_a_second_orders_api() {
    let paths: Vec<_> = (0..66).map(|at| format!("/p{at}")).collect();
    let mut all: Vec<_> = paths.iter().map(|path| (path.as_str(), "x-srv")).collect();
    all.extend([API, SITE]);
    let rules = ingress(&[("shop.example", &all)], json!([]));
    let (spec, table) = translated(&[&rules.to_string(), ORDERS]);
    assert_eq!(spec["ingress"]["routes"].as_array().unwrap().len(), 64);
    assert_eq!(left(&table).len(), 2, "{table}");
    assert!(
        left(&table)[0].contains("leave it in the old Ingress, or write it in an Ingress of your own"),
        "{table}"
    );
    assert!(!table.contains("second OrdersService"), "{table}");
    let regexes = annotated(rules, "nginx.ingress.kubernetes.io/use-regex", "true");
    let table = translated(&[&regexes, ORDERS]).1;
    assert!(left(&table)[0].contains("an Ingress of your own, without use-regex"), "{table}");
    assert!(!table.contains("leave it in the old Ingress"), "{table}");
    assert!(
        table.contains("annotation nginx.ingress.kubernetes.io/use-regex is for what stays in this Ingress"),
        "{table}"
    );
}

#[test]
fn what_stays_among_regexes_needs_another_host() {
    let rules = ingress(&[("shop.example", &[API, ("/a/(x|y)/b", "x-srv"), SITE])], json!([]));
    let table =
        translated(&[&annotated(rules.clone(), "nginx.ingress.kubernetes.io/use-regex", "true"), ORDERS]).1;
    assert!(
        left(&table)[0].contains("in Ingress ingress-srv, on a host that the OrdersService does not have"),
        "{table}"
    );
    assert!(table.contains("these need another host"), "{table}");
    assert!(!table.lines().any(|line| line.starts_with("dropped") && line.contains("use-regex")), "{table}");
    let table = translated(&[&rules.to_string(), ORDERS]).1;
    assert!(left(&table)[0].contains("it can stay in Ingress ingress-srv alone"), "{table}");
}

#[test]
fn a_certificate_for_a_host_without_rules_is_named() {
    let tls = json!([
        {"hosts": ["shop.example"], "secretName": "shop-tls"}, {"hosts": ["www.shop.example"], "secretName": "www-tls"}
    ]);
    let (spec, table) = translated(&[&ingress(&[("shop.example", &[API, SITE])], tls).to_string(), ORDERS]);
    assert_eq!(spec["ingress"]["tls"], json!({"secretName": "shop-tls"}));
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("spec.tls[1] (Secret www-tls) is for www.shop.example"), "{table}");
}

#[test]
fn a_service_that_is_named_must_be_there_and_has_the_path_of_the_orders() {
    let rules = ingress(&[("shop.example", &[API, SITE])], json!([])).to_string();
    let named = |name: &str| Options { orders: Some(name.to_owned()), ..Options::default() };
    let error = refused(&[&rules, ORDERS], &named("nosuch-srv"));
    assert!(
        error.contains("no Service nosuch-srv is among the inputs; there is client-srv, orders-srv"),
        "{error}"
    );
    let both =
        ingress(&[("shop.example", &[API, ("/api/orders", "client-srv"), SITE])], json!([])).to_string();
    for rules in [rules, both] {
        let migration = with(&[&rules, ORDERS], &named("client-srv"));
        let table = migration.findings.table();
        assert_eq!(judge::of_whole(&migration.service), [""; 0], "{table}");
        assert!(left(&table).iter().any(|line| line.contains("leads to orders-srv:3000")), "{table}");
    }
}

#[test]
fn an_ingress_of_another_namespace_reaches_no_service_of_this_one() {
    let mut rules = ingress(&[("shop.example", &[API, SITE])], json!([]));
    rules["metadata"]["namespace"] = json!("ingress");
    let orders = ORDERS.replace("metadata:\n  name:", "metadata:\n  namespace: shop\n  name:");
    let error = refused(&[&rules.to_string(), &orders], &Options::default());
    assert!(
        error.contains("Ingress ingress-srv (namespace ingress) leads to orders-srv, which is in shop: an Ingress reaches its own"),
        "{error}"
    );
}

#[test]
fn what_a_variable_lacks_is_told_as_it_is() {
    let map =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cfg}}\ndata: {data}\n");
    let from = orders_with("{name: MONGO_URI, valueFrom: {configMapKeyRef: {name: cfg, key: MONGO_URI}}}");
    for (data, told) in [
        ("{OTHER: x}", "ConfigMap \"cfg\", which has no key \"MONGO_URI\""),
        ("{MONGO_URI: 3}", "ConfigMap \"cfg\", whose key \"MONGO_URI\" is not text"),
    ] {
        let table = translated(&[fixtures()[0], &map(data), &from]).1;
        assert!(left(&table).iter().any(|line| line.contains(told)), "{table}");
        assert!(!table.contains("which is not among the inputs"), "{table}");
    }
    let id = "{name: NATS_URL, value: nats-srv}, {name: NATS_CLUSTER_ID, value: ticket ing}";
    let table = translated(&[fixtures()[0], &orders_with(id)]).1;
    assert!(table.contains("NATS_CLUSTER_ID is \"ticket ing\", which is no id of a cluster"), "{table}");
    let parts = "{name: MONGO_USER, value: u}, {name: MONGO_PASS, value: pw}, {name: EXPIRATION_WINDOW_SECONDS, value: '60'}, \
                 {name: MONGO_URI, value: \"mongodb://$(MONGO_USER):$(MONGO_PASS)@m/o\"}";
    let table = translated(&[fixtures()[0], &orders_with(parts)]).1;
    assert!(!table.contains("MONGO_USER") && !table.contains("MONGO_PASS"), "{table}");
    assert!(table.contains("write it in spec.expiration.windowSeconds"), "{table}");
}

#[test]
fn what_an_orders_service_refuses_is_not_advised() {
    let volumes = |volume: &str| {
        let pods = ORDERS.replace(
            "    spec:\n      containers:",
            &format!("    spec:\n      volumes: [{{name: v, {volume}}}]\n      containers:"),
        );
        translated(&[fixtures()[0], &pods]).1
    };
    let table = volumes("hostPath: {path: /x}");
    assert!(left(&table)[0].contains("cannot have them as they are (docs/children.md)"), "{table}");
    assert!(!table.contains("write them in spec.podTemplate.volumes"), "{table}");
    let table = volumes("emptyDir: {}");
    assert!(left(&table)[0].contains("write them in spec.podTemplate.volumes"), "{table}");
}

#[test]
fn annotations_that_are_not_in_the_output_are_not_to_be_removed_there() {
    let rules = || ingress(&[("shop.example", &[API, SITE])], json!([]));
    for (name, value) in [
        ("nginx.org/path-regex", "case_sensitive"),
        ("haproxy-ingress.github.io/path-type", "regex"),
        ("traefik.ingress.kubernetes.io/router.priority", "10"),
        ("acme.cert-manager.io/http01-edit-in-place", "true"),
    ] {
        let table = translated(&[&annotated(rules(), name, value), ORDERS]).1;
        assert_eq!(left(&table), [""; 0], "{table}");
        let is_it = |line: &str| line.starts_with("dropped") && line.contains(&format!("annotation {name}"));
        assert!(table.lines().any(is_it), "{table}");
    }
    let alias = annotated(rules(), "nginx.ingress.kubernetes.io/server-alias", "www.shop.example");
    let table = translated(&[&alias, ORDERS]).1;
    let advice = "--host shop.example --host shop.example=www.shop.example";
    assert!(left(&table).len() == 1 && left(&table)[0].contains(advice), "{table}");
    // Followed literally.
    let hosts = ["shop.example", "shop.example=www.shop.example"].map(str::to_owned).to_vec();
    let followed = with(&[&rules().to_string(), ORDERS], &Options { hosts, ..Options::default() });
    assert_eq!(followed.service["spec"]["ingress"]["hosts"], json!(["shop.example", "www.shop.example"]));
}

#[test]
fn what_is_told_names_the_fields_of_the_input_and_only_what_changes() {
    let rules = ingress(&[("shop.example", &[("/a", "Auth_srv"), API, SITE])], json!([]));
    let table = translated(&[&rules.to_string(), ORDERS]).1;
    assert!(
        left(&table)[0].contains("spec.rules[0].http.paths[0].backend.service.name is \"Auth_srv\""),
        "{table}"
    );
    assert!(!table.contains("the class is"), "{table}");
    let mut without = ingress(&[("shop.example", &[("/", "auth-srv"), API, SITE])], json!([]));
    let first = without["spec"]["rules"][0]["http"]["paths"][0].as_object_mut().unwrap();
    first.remove("path");
    let table = translated(&[&without.to_string(), ORDERS]).1;
    assert!(left(&table)[0].contains("spec.rules[0].http.paths[0] has no path, which means /"), "{table}");
    let scheme = ingress(&[("https://shop.example", &[API, SITE])], json!([])).to_string();
    let table = translated(&[&scheme, ORDERS]).1;
    assert!(left(&table).len() == 1 && left(&table)[0].contains("spec.rules[0]: host \"https://"), "{table}");
    let table = translated(&[ORDERS, "{{ template }}"]).1;
    assert!(table.contains("no Ingress is among what could be read"), "{table}");
    let table = translated(&[fixtures()[0], &ORDERS.replace("kind: Deployment", "kind: deployment")]).1;
    assert!(
        left(&table).iter().any(|line| line.contains("kind deployment") && line.contains("write Deployment")),
        "{table}"
    );
}

#[test]
fn ports_and_pods_that_are_not_there_are_told() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: client-srv}\nspec: {ports: [{name: http, port: 3000}]}\n";
    let rules = |port: Value| {
        let mut rules = ingress(&[("shop.example", &[API, SITE])], json!([]));
        rules["spec"]["rules"][0]["http"]["paths"][1]["backend"]["service"]["port"] = port;
        rules.to_string()
    };
    let table = |port: Value| translated(&[&rules(port), ORDERS, service]).1;
    let named = table(json!({"name": "web"}));
    let told = "spec.rules[0].http.paths[1].backend.service.port is \"web\", which Service client-srv does not have; it has 3000, \"http\"";
    assert!(left(&named).len() == 1 && left(&named)[0].contains(told), "{named}");
    assert!(left(&table(json!({"number": 4000})))[0].contains("is 4000, which Service client-srv"));
    for right in [json!({"number": 3000}), json!({"name": "http"})] {
        assert_eq!(left(&table(right)), [""; 0]);
    }
    let table = translated(&[
        fixtures()[0],
        &ORDERS.replace("  selector: {app: orders}", "  selector: {app: nobody}"),
    ])
    .1;
    assert!(left(&table)[0].contains("spec.selector (app=nobody) selects no pods"), "{table}");
}

#[test]
fn a_path_that_is_its_target_is_not_rewritten_and_one_of_all_requests_is() {
    let name = "nginx.ingress.kubernetes.io/rewrite-target";
    let rules = ingress(&[("shop.example", &[API, SITE])], json!([]));
    let table = translated(&[&annotated(rules, name, "/"), ORDERS]).1;
    assert_eq!(left(&table), [""; 0], "{table}");
    assert!(
        table.contains(
            "rewrite-target \"/\" at path \"/\": ingress-nginx rewrites no path that is its target"
        ),
        "{table}"
    );
    let all = ingress(&[("shop.example", &[API, ("/?(.*)", "client-srv")])], json!([]));
    let table = translated(&[&annotated(all, name, "/"), ORDERS]).1;
    assert!(left(&table)[0].contains("makes another path of it, the same of every request"), "{table}");
}
