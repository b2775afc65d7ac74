//! What is told for the trial and for the switch of docs/migration.md.

use serde_json::{Value, json};

use super::{
    plan::Options,
    tests::{API, ORDERS, Paths, SITE, fixtures, ingress, left, orders_with, translated, with},
};

/// An Ingress with these annotations, of this class.
fn annotated(mut ingress: Value, class: &str, annotations: Value) -> String {
    ingress["metadata"]["annotations"] = annotations;
    ingress["spec"]["ingressClassName"] = json!(class);
    ingress.to_string()
}

/// The lines of one kind that are about an object.
fn lines<'a>(table: &'a str, kind: &str, object: &str) -> Vec<&'a str> {
    table.lines().filter(|line| line.starts_with(kind) && line.contains(object)).collect()
}

#[test]
fn a_regex_that_has_the_whole_path_in_a_group_is_rewritten_to_what_it_is() {
    let paths: Paths<'_> = &[
        ("/(api/orders/?.*)", "orders-srv"),
        ("/(api/users/?.*)", "auth-srv"),
        ("/(api/(a|b)/?.*)", "letters-srv"),
        ("/(.*)", "client-srv"),
    ];
    let rewritten = json!({
        "nginx.ingress.kubernetes.io/use-regex": "true", "nginx.ingress.kubernetes.io/rewrite-target": "/$1",
    });
    let rules = annotated(ingress(&[("shop.example", paths)], json!([])), "nginx", rewritten);
    let (spec, table) = translated(&[&rules, ORDERS]);
    let of = &spec["ingress"];
    assert_eq!(of["routes"], json!([{"path": "/api/users", "service": "auth-srv"}]), "{table}");
    assert_eq!(of["client"], json!({"service": "client-srv"}), "{table}");
    assert!(of.get("path").is_none(), "{of}");
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(left(&table)[0].contains("letters-srv"), "{table}");
    assert!(
        table.contains("path \"/(api/users/?.*)\" was a regex: it is now the prefix /api/users"),
        "{table}"
    );
    assert!(!table.contains("the new pods get requests as they are"), "none was rewritten: {table}");
}

#[test]
fn what_is_left_over_from_another_ingress_controller_makes_no_regexes() {
    let rules = || ingress(&[("shop.example", &[API, ("/api/payments", "payments-srv"), SITE])], json!([]));
    for annotation in ["use-regex", "rewrite-target"] {
        let left_over = json!({format!("nginx.ingress.kubernetes.io/{annotation}"): "true"});
        let (spec, table) = translated(&[&annotated(rules(), "traefik", left_over.clone()), ORDERS]);
        assert_eq!(spec["ingress"]["routes"][0]["path"], "/api/payments", "{table}");
        assert!(left(&table).is_empty() && !table.contains("a regex"), "{annotation}: {table}");
        let heeded = translated(&[&annotated(rules(), "nginx", left_over), ORDERS]).1;
        let told = heeded.contains("was a regex") || heeded.contains("makes another path of it");
        assert!(told, "{annotation}: {heeded}");
    }
}

#[test]
fn the_orders_are_at_no_host_that_never_had_them() {
    let paths = |own: &'static str| -> Vec<(&'static str, &'static str)> { vec![(own, "orders-srv"), SITE] };
    let admin: Paths<'_> = &[("/", "admin-srv")];
    let at = |own: &'static str, hosts: &[&str]| {
        let rules = ingress(&[("shop.example", &paths(own)), ("admin.shop.example", admin)], json!([]));
        let options =
            Options { hosts: hosts.iter().map(ToString::to_string).collect(), ..Options::default() };
        let migration = with(&[&rules.to_string(), ORDERS], &options);
        (migration.service["spec"]["ingress"].clone(), migration.findings.table())
    };
    // Whether or not it is a path that they can have.
    for own in ["/api/orders", "/(v1|api)/orders"] {
        let (ingress, table) = at(own, &[]);
        assert_eq!(ingress["hosts"], json!(["admin.shop.example", "shop.example"]), "{table}");
        assert_eq!(ingress["pathHosts"], json!(["shop.example"]), "{own}: {table}");
    }
    let told = "is one that the orders API can have: it is at /api/orders of shop.example now";
    let table = at("/(v1|api)/orders", &[]).1;
    assert!(table.contains(told), "{table}");
    assert_eq!(left(&table).len(), 1, "{table}");
    assert!(!at("/api/orders", &[]).1.contains("can have"));
    let (ingress, table) = at("/(v1|api)/orders", &["admin.shop.example"]);
    assert!(ingress.get("pathHosts").is_none(), "{ingress}");
    assert!(table.contains("no host that --host names led to the orders"), "{table}");
}

#[test]
fn a_trial_is_asked_for_a_database_of_its_own_and_the_switch_is_not() {
    let rules = ingress(&[("shop.example", &[API, SITE])], json!([])).to_string();
    let at = |texts: &[&str], hosts: &[&str]| {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        with(texts, &Options { hosts, passive: true, name: Some("orders-next".into()), ..Options::default() })
            .findings
            .table()
    };
    let asked = |table: &str| left(table).iter().filter(|line| line.contains("for a trial")).count();
    let table = at(&[&rules, ORDERS], &["next.example"]);
    assert_eq!((left(&table).len(), asked(&table)), (1, 1), "{table}");
    assert!(table.contains("a copy in Secret \"orders-next-mongo\" below"), "{table}");
    let of_secret = orders_with(
        "{name: MONGO_URI, valueFrom: {secretKeyRef: {name: live, key: MONGO_URI}}}, \
         {name: JWT_KEY, valueFrom: {secretKeyRef: {name: jwt-secret, key: JWT_KEY}}}",
    );
    let table = at(&[&rules, &of_secret], &["next.example"]);
    assert_eq!(asked(&table), 1, "{table}");
    assert!(table.contains("name it in spec.database.uriSecretRef in place of \"live\""), "{table}");
    let without = ingress(&[("", &[API, SITE])], json!([])).to_string();
    let own: &[&str] = &["shop.example"];
    for (rules, hosts) in [(&rules, &[] as &[&str]), (&rules, own), (&without, own)] {
        let table = at(&[rules, ORDERS], hosts);
        assert_eq!(asked(&table), 0, "{hosts:?}: {table}");
    }
}

#[test]
fn an_ingress_without_hosts_is_told_to_name_them() {
    let rules = ingress(&[("", &[API, SITE])], json!([])).to_string();
    let table = translated(&[&rules, ORDERS]).1;
    let told = lines(&table, "later", "Ingress ingress-srv");
    assert!(told.len() == 1 && told[0].contains("with your hosts named with --host"), "{table}");
    let options = Options { hosts: vec!["shop.example".into()], ..Options::default() };
    let table = with(&[&rules, ORDERS], &options).findings.table();
    let told = lines(&table, "later", "Ingress ingress-srv");
    assert!(told.len() == 1 && told[0].contains("kubectl delete ingress ingress-srv"), "{table}");
    assert!(!told[0].contains("--host, once"), "{table}");
    let named = ingress(&[("shop.example", &[API, SITE])], json!([])).to_string();
    assert!(!translated(&[&named, ORDERS]).1.contains("--host"));
}

#[test]
fn expiration_is_stopped_with_the_old_pods_and_its_redis_goes_with_it() {
    let named = |version: &str, kind: &str, name: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n")
    };
    let all = [
        named("apps/v1", "Deployment", "expiration-depl"),
        named("apps/v1", "Deployment", "expiration-redis-depl"),
        named("v1", "Service", "expiration-redis-srv"),
        named("v1", "Service", "auth-srv"),
    ];
    let table = translated(&[fixtures()[0], ORDERS, &all.join("---\n")]).1;
    for (object, told) in [
        (
            "Deployment expiration-depl ",
            "kubectl scale deployment expiration-depl --replicas=0; and delete it once",
        ),
        (
            "Deployment expiration-redis-depl",
            "once you are sure not to go back: kubectl delete deployment expiration-redis-depl",
        ),
        (
            "Service expiration-redis-srv",
            "once you are sure not to go back: kubectl delete service expiration-redis-srv",
        ),
    ] {
        let of = lines(&table, "later", object);
        assert!(of.len() == 1 && of[0].contains(told), "{object}: {table}");
    }
    assert!(table.contains("not touched: auth-srv\n"), "{table}");
}

#[test]
fn why_it_has_another_name_than_usual_is_told() {
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: orders}\nspec:\n\
                  \x20 scaleTargetRef: {kind: Deployment, name: orders-depl}\n  maxReplicas: 3\n";
    let texts: &[&str] = &[fixtures()[0], ORDERS, scaler];
    let table = translated(texts).1;
    let told = lines(&table, "changed", "OrdersService orders-api");
    assert!(
        told.len() == 1
            && told[0].contains("because HorizontalPodAutoscaler orders already has the name orders"),
        "{table}"
    );
    let named =
        |name: &str| with(texts, &Options { name: Some(name.into()), ..Options::default() }).findings.table();
    assert!(!named("shop").contains("has the name orders"), "{}", named("shop"));
    assert!(left(&named("orders"))[0].contains("HorizontalPodAutoscaler orders has this name already"));
    assert!(!translated(&[fixtures()[0], ORDERS]).1.contains("has the name"));
}

#[test]
fn of_what_the_api_reads_as_well_it_is_not_said_that_it_does_not() {
    let variables = ["LOG_LEVEL", "OTEL_EXPORTER_OTLP_ENDPOINT", "SHOP"];
    let list: Vec<_> = variables.iter().map(|name| format!("{{name: {name}, value: debug}}")).collect();
    let table = translated(&[fixtures()[0], &orders_with(&list.join(", "))]).1;
    let told = lines(&table, "changed", "LOG_LEVEL");
    assert!(told.len() == 1 && told[0].contains("[{name: LOG_LEVEL, value: debug}]"), "{table}");
    let told = lines(&table, "left", "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert!(told.len() == 1 && told[0].contains("this service reads it too"), "{table}");
    assert!(lines(&table, "left", "variable SHOP")[0].contains("this one does not"), "{table}");
}
