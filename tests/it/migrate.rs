//! `migrate`: hand-written manifests become an OrdersService that `render` takes, as their author meant; or what cannot be
//! said is named with advice that works when it is followed literally.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    cluster::{root, yaml_documents},
    render::program,
};

/// The exit code when something is left to do.
const LEFT: i32 = 3;

/// What `migrate` gives.
struct Migrated {
    code: i32,
    yaml: String,
    table: String,
}

impl Migrated {
    fn of(arguments: &[&str], input: &str) -> Self {
        let output = program(&[&["migrate"], arguments].concat(), input);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), yaml: text(output.stdout), table: text(output.stderr) }
    }

    /// A case from `tests/migrate`, beside the orders service, changed by these replacements.
    fn case(name: &str, changes: &[(&str, &str)], arguments: &[&str]) -> Self {
        let read = |name: &str| std::fs::read_to_string(root().join("tests/migrate").join(name)).unwrap();
        let mut text = read(name);
        for (from, to) in changes {
            assert!(text.contains(from), "{name} has no {from:?}");
            text = text.replace(from, to);
        }
        Self::of(&[arguments, &["-"]].concat(), &format!("{text}---\n{}", read("orders.yaml")))
    }

    fn left(&self) -> Vec<&str> {
        self.table.lines().filter(|line| line.starts_with("left ")).collect()
    }

    /// Checks that nothing is left to do.
    fn whole(self) -> Self {
        assert_eq!((self.code, self.left()), (0, vec![]), "{}", self.table);
        self
    }

    /// Checks that just these things are left to do, each told in the table and in a comment.
    fn but_for(self, expected: &[&str]) -> Self {
        let left = self.left();
        assert_eq!((self.code, left.len()), (LEFT, expected.len()), "{}", self.table);
        let comments: Vec<_> = self.yaml.lines().filter_map(|line| line.strip_prefix('#')).collect();
        let comments = comments.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        for text in expected {
            assert!(left.iter().any(|line| line.contains(text)), "{text:?} is not left:\n{}", self.table);
            assert!(comments.contains(text), "{text:?} is in no comment:\n{}", self.yaml);
        }
        self
    }

    fn service(&self) -> Value {
        yaml_documents(&self.yaml).pop().unwrap()
    }

    /// The rules that `render` makes of it, beside these other documents: host, path, Service and port of each.
    fn rules(&self, beside: &str) -> Vec<String> {
        rules(&format!("{}---\n{beside}", self.yaml))
    }
}

/// The rules that are rendered.
fn rules(yaml: &str) -> Vec<String> {
    let output = program(&["render", "-", "--default-image", "i"], yaml);
    assert!(output.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&output.stderr));
    let children = yaml_documents(&String::from_utf8(output.stdout).unwrap());
    let Some(ingress) = children.iter().find(|child| child["kind"] == "Ingress") else { return Vec::new() };
    let mut rules = Vec::new();
    for rule in ingress["spec"]["rules"].as_array().unwrap() {
        for path in rule["http"]["paths"].as_array().unwrap() {
            let service = &path["backend"]["service"];
            let port = service["port"]["number"].as_i64().map_or_else(
                || service["port"]["name"].as_str().unwrap().to_owned(),
                |number| number.to_string(),
            );
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            rules.push(format!(
                "{}{} {}:{port}",
                text(&rule["host"]),
                text(&path["path"]),
                text(&service["name"])
            ));
        }
    }
    rules
}

/// The old Ingress of a case with only the paths that are named, as the advice says.
fn only(name: &str, paths: &[&str]) -> String {
    let text = std::fs::read_to_string(root().join("tests/migrate").join(name)).unwrap();
    let mut ingress = yaml_documents(&text).remove(0);
    for rule in ingress["spec"]["rules"].as_array_mut().unwrap() {
        let listed = rule["http"]["paths"].as_array_mut().unwrap();
        listed.retain(|path| paths.contains(&path["path"].as_str().unwrap()));
        assert_eq!(listed.len(), paths.len());
    }
    ingress.to_string()
}

/// What is usual in these cases.
const ORDERS: &str = "shop.example/api/orders orders:http";
const USERS: &str = "shop.example/api/users auth-srv:3000";
const CLIENT: &str = "shop.example/ client-srv:3000";

#[test]
fn regexes_of_the_oldest_version_become_prefixes_with_the_client_last() {
    let migrated = Migrated::case("01-regexes.yaml", &[], &[]).whole();
    assert_eq!(migrated.rules(""), ["shop.example/api/tickets tickets-srv:4000", ORDERS, USERS, CLIENT]);
    assert!(migrated.table.contains("changed  users"), "{}", migrated.table);
}

#[test]
fn exact_counts_for_nothing_among_regexes_and_two_hosts_with_the_same_routes_are_one_list() {
    let migrated = Migrated::case("02-exact-regexes.yaml", &[], &[]).whole();
    let ingress = &migrated.service()["spec"]["ingress"];
    assert_eq!(ingress["tls"]["secretName"], "shop-tls");
    assert_eq!(ingress["className"], "nginx");
    let annotations: Vec<_> = ingress["annotations"].as_object().unwrap().keys().collect();
    assert_eq!(
        annotations,
        ["cert-manager.io/cluster-issuer", "nginx.ingress.kubernetes.io/proxy-body-size"]
    );
    let of = |host: &str| [ORDERS, USERS, CLIENT].map(|rule| rule.replace("shop.example", host));
    assert_eq!(migrated.rules(""), [of("shop.example"), of("www.shop.example")].concat());
}

#[test]
fn a_prefix_that_is_taken_off_can_stay_in_the_old_ingress_and_that_of_the_orders_needs_none() {
    let name = "03-strip-prefix.yaml";
    let migrated = Migrated::case(name, &[], &[])
        .but_for(&["rewrite-target \"/$2\" takes the prefix off, which no Ingress says"]);
    // The advice: that path stays, on another host, and everything else is taken out of that Ingress.
    for line in migrated.left() {
        assert!(
            line.contains("in Ingress ingress-srv, on a host that the OrdersService does not have"),
            "{line}"
        );
    }
    assert!(!migrated.table.contains("rewrite-target: see the lines"), "{}", migrated.table);
    assert!(
        migrated.table.contains("rewrite-target is for what stays in this Ingress"),
        "{}",
        migrated.table
    );
    let kept = only(name, &["/api/payments(/|$)(.*)"]).replace("shop.example", "payments.example");
    assert_eq!(migrated.rules(&kept), [ORDERS, "shop.example/ client-srv:80"]);
}

#[test]
fn rules_of_any_host_stay_so_or_get_the_host_that_is_named() {
    let migrated = Migrated::case("04-no-host.yaml", &[], &[]).whole();
    assert_eq!(migrated.rules(""), [ORDERS, USERS, CLIENT].map(|rule| rule.replace("shop.example", "")));
    let migrated = Migrated::case("04-no-host.yaml", &[], &["--host", "shop.example"]).whole();
    assert_eq!(migrated.rules(""), [ORDERS, USERS, CLIENT]);
}

#[test]
fn hosts_with_other_routes_keep_each_their_own() {
    let migrated = Migrated::case("05-two-hosts.yaml", &[], &[]).whole();
    let expected = [
        "api.shop.example/api/orders orders:http",
        "files.shop.example/ files-srv:9000",
        ORDERS,
        USERS,
        CLIENT,
    ];
    assert_eq!(migrated.rules(""), expected);
    assert_eq!(migrated.service()["spec"]["ingress"]["client"]["service"], "client-srv");
}

#[test]
fn an_api_elsewhere_stays_there() {
    let migrated = Migrated::case("06-api-elsewhere.yaml", &[], &[]).whole();
    let elsewhere = |rule: &str| rule.replace("/api/", "/api/v1/");
    assert_eq!(migrated.rules(""), [elsewhere(ORDERS), elsewhere(USERS), CLIENT.to_owned()]);
}

#[test]
fn a_regex_inside_a_path_is_refused_and_may_stay() {
    let name = "07-regex-inside.yaml";
    let migrated = Migrated::case(name, &[], &[])
        .but_for(&["path \"/api/tickets/?(.*)/comments\", which leads to comments-srv"]);
    let told = "use another path, or a separate host (/api/tickets leads to tickets-srv; /comments is free)";
    assert!(migrated.left()[0].contains(told), "{}", migrated.table);
    assert!(!migrated.left()[0].contains("write \"/api/tickets\""), "{}", migrated.table);
    let expected = [ORDERS, "shop.example/api/tickets tickets-srv:3000", CLIENT];
    let kept = only(name, &["/api/tickets/?(.*)/comments"]).replace("shop.example", "comments.example");
    let mut found = migrated.rules(&kept);
    found.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_default_backend_becomes_the_client() {
    let migrated = Migrated::case("08-default-backend.yaml", &[], &[]).whole();
    assert_eq!(migrated.rules(""), [ORDERS, USERS, CLIENT]);
    assert!(migrated.table.contains("nothing of other hosts"), "{}", migrated.table);
}

#[test]
fn an_exact_path_stays_exact() {
    let migrated = Migrated::case("09-exact.yaml", &[], &[]).whole();
    assert_eq!(migrated.rules(""), ["shop.example/api/webhook payments-srv:3000", ORDERS, CLIENT]);
    assert_eq!(migrated.service()["spec"]["ingress"]["routes"][0]["exact"], true);
}

#[test]
fn a_port_by_its_name_keeps_its_name() {
    let migrated = Migrated::case("10-named-port.yaml", &[], &[]).whole();
    let expected =
        ["shop.example/api/tickets tickets-srv:http", ORDERS, "shop.example/api/users auth-srv:http", CLIENT];
    assert_eq!(migrated.rules(""), expected);
}

#[test]
fn services_that_cannot_be_are_refused_by_name() {
    let migrated = Migrated::case("11-other-namespace.yaml", &[], &[])
        .but_for(&["which leads to auth-srv.accounts", "which leads to Reports_srv"]);
    assert_eq!(migrated.rules(""), [ORDERS, CLIENT]);
}

#[test]
fn several_ingresses_become_one_and_what_is_not_concerned_stays() {
    let migrated = Migrated::case("12-several-ingresses.yaml", &[], &[]).but_for(&[
        "annotation nginx.ingress.kubernetes.io/server-alias was left out",
        "configuration-snippet is kept",
    ]);
    assert_eq!(migrated.rules(""), [ORDERS, USERS, CLIENT]);
    for expected in [
        "has no host of the orders, so it is not affected",
        "proxy-read-timeout is for all routes now",
        "kubectl delete ingress api",
        "kubectl delete ingress site",
    ] {
        assert!(migrated.table.contains(expected), "{expected}: {}", migrated.table);
    }
}

/// Each manifest in `tests/migrate/field` begins with what is to become of it: `#=` the rules in their order, `#!` what is left
/// to do, and nothing else, and `#>` what is told besides.
#[test]
fn manifests_as_people_write_them_become_what_they_meant_or_what_is_not_is_told() {
    let folder = root().join("tests/migrate/field");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "{}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let told =
            |mark: &str| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(mark)).collect() };
        let orders = if text.contains("namespace: production") {
            case("orders.yaml")
                .replace("metadata:\n  name: orders-", "metadata:\n  namespace: production\n  name: orders-")
        } else {
            case("orders.yaml")
        };
        let migrated = Migrated::of(&["-"], &format!("{text}---\n{orders}"));
        let (left, name) = (migrated.left(), file.file_name().unwrap().display());
        assert_eq!(migrated.rules(""), told("#= "), "{name}: {}", migrated.table);
        assert_eq!(left.len(), told("#! ").len(), "{name}: {}", migrated.table);
        for expected in told("#! ") {
            assert!(
                left.iter().any(|line| line.contains(expected)),
                "{name}: {expected}: {}",
                migrated.table
            );
        }
        for expected in told("#> ") {
            assert!(migrated.table.contains(expected), "{name}: {expected}: {}", migrated.table);
        }
        assert_eq!(migrated.code, if left.is_empty() { 0 } else { LEFT }, "{name}");
    }
}

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("orders-operator-migrate-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn case(name: &str) -> String {
    std::fs::read_to_string(root().join("tests/migrate").join(name)).unwrap()
}

#[test]
fn folders_and_what_a_skaffold_yaml_lists_are_read_and_nothing_outside_of_its_folder() {
    let folder = Folder::new();
    folder.write("infra/k8s/orders-depl.yaml", &case("orders.yaml"));
    folder.write("infra/k8s-dev/ingress.yml", &case("01-regexes.yaml"));
    folder.write(".hidden/ingress.yaml", &case("02-exact-regexes.yaml"));
    folder.write("node_modules/x/ingress.yaml", &case("02-exact-regexes.yaml"));
    folder.write("infra/notes.txt", "x: [");
    let whole = Migrated::of(&[&folder.path("")], "").whole();
    let skaffold = "apiVersion: skaffold/v2alpha3\nkind: Config\nbuild:\n  artifacts: [{image: registry.example/shop/orders}, {image: x/auth}]\n\
                    deploy: {kubectl: {manifests: [./infra/k8s/*, \"infra/**\"]}}\n";
    folder.write("skaffold.yaml", skaffold);
    let listed = Migrated::of(&[&folder.path("skaffold.yaml")], "").whole();
    assert_eq!(listed.service(), whole.service());
    assert!(
        listed.table.contains("take registry.example/shop/orders out of build.artifacts"),
        "{}",
        listed.table
    );
    assert!(!listed.table.contains("x/auth"), "{}", listed.table);
    folder.write("outside/skaffold.yaml", &skaffold.replace("./infra/k8s/*", "../infra/k8s/*"));
    folder.write("outside/infra/k.yaml", &case("orders.yaml"));
    let outside = Migrated::of(&[&folder.path("outside/skaffold.yaml")], "");
    assert!(outside.table.contains("lists \"../infra/k8s/*\", which was not read"), "{}", outside.table);
    let named = format!("{} {}", folder.path("outside/skaffold.yaml"), folder.path("outside/../infra/k8s"));
    assert!(outside.table.contains(&format!("as in orders-operator migrate {named}")), "{}", outside.table);
    std::fs::remove_file(folder.path("outside/infra/k.yaml")).unwrap();
    let nothing = Migrated::of(&[&folder.path("outside/skaffold.yaml")], "");
    let (error, unread) = nothing.table.split_once("It may be in what was not read:\n").unwrap();
    assert!(nothing.code == 1 && error.contains("no Service of the orders found"), "{}", nothing.table);
    assert!(unread.contains("../infra/k8s/*"), "{}", nothing.table);
    assert_eq!(outside.code, LEFT);
}

#[test]
fn what_cannot_be_read_is_named_and_does_not_take_the_rest_with_it() {
    let broken = format!(
        "{}---\n{}---\na: [\n---\nkind: {{{{ .Values.kind }}}}\n",
        case("01-regexes.yaml"),
        case("orders.yaml")
    );
    let migrated = Migrated::of(&["-"], &broken);
    assert_eq!((migrated.code, migrated.left().len()), (LEFT, 2), "{}", migrated.table);
    assert!(migrated.left()[1].contains("helm template . | orders-operator migrate -"), "{}", migrated.table);
    let nothing = Migrated::of(&["no/such/folder"], "");
    assert_eq!((nothing.code, nothing.yaml.as_str()), (1, ""));
    assert!(nothing.table.contains("no/such/folder: "), "{}", nothing.table);
    let empty = Migrated::of(&["-"], "");
    assert!(empty.code == 1 && empty.table.contains("no Service of the orders found"), "{}", empty.table);
    let folder = Folder::new();
    let bare = Migrated::of(&[&folder.path("")], "");
    assert!(bare.code == 1 && bare.table.contains("has no YAML file"), "{}", bare.table);
    let helm = "apiVersion: skaffold/v4beta1\nkind: Config\ndeploy: {helm: {releases: []}}\n";
    let helm = Migrated::of(&["-"], helm);
    assert!(
        helm.code == 1 && helm.table.contains("it deploys by deploy.helm, which was not read"),
        "{}",
        helm.table
    );
    folder.write("orders.yaml", &case("orders.yaml"));
    folder.write("empty.yaml", "# nothing\n");
    let empty = Migrated::of(&[&folder.path("empty.yaml")], "");
    assert!(empty.code == 1 && empty.table.contains("has no Kubernetes object"), "{}", empty.table);
    std::fs::write(folder.path("latin.yaml"), b"a: \xe9\n").unwrap();
    let latin = Migrated::of(&[&folder.path("")], "");
    assert!(latin.left().iter().any(|line| line.contains("is not UTF-8")), "{}", latin.table);
    assert!(Path::new(&folder.path("")).is_dir());
}

#[test]
fn without_anything_to_read_the_command_line_is_wrong() {
    assert_eq!(program(&["migrate"], "").status.code(), Some(2));
    assert_eq!(program(&["migrate", "--from-cluster", "-"], "").status.code(), Some(2));
    for wrong in
        [["-n", "Foo_X"], ["--name", "Orders_"], ["--host", "https://a.example"], ["--host", "a.example="]]
    {
        let output = program(&["migrate", "-", wrong[0], wrong[1]], "");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
