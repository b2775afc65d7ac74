//! `render`: what the controller would apply, without a cluster.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::cluster::{root, yaml_documents};

const GOOD: &str = "
apiVersion: ticketing.dev/v1alpha1
kind: OrdersService
metadata: {name: orders, namespace: shop}
spec:
  auth: {jwtSecretRef: {name: jwt-secret}}
  database: {uriSecretRef: {name: orders-mongo}}
  ingress:
    hosts: [ticketing.dev]
    routes:
      - {path: /ws, service: ws-srv}
      - {path: \"/api/users/?(.*)\", service: auth-srv}
    client: {service: client-srv}
";

/// Runs the program with this input, without a cluster.
pub(crate) fn program(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(arguments)
        .env_remove("DEFAULT_IMAGE")
        .env_remove("KUBECONFIG")
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn render(arguments: &[&str], input: &str) -> Output {
    program(&[&["render"], arguments].concat(), input)
}

fn rendered(arguments: &[&str], input: &str) -> String {
    let output = render(arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The complaint, after checking that nothing was rendered.
fn refused(arguments: &[&str], input: &str) -> String {
    let output = render(arguments, input);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    String::from_utf8(output.stderr).unwrap()
}

/// Whether a spec passes the validation with this line in it.
pub(crate) fn validates(line: &str) -> bool {
    render(&["-", "--default-image", "i"], &GOOD.replace("spec:\n", &format!("spec:\n  {line}\n")))
        .status
        .success()
}

fn paths(ingress: &Value) -> Vec<&str> {
    let paths = ingress["spec"]["rules"][0]["http"]["paths"].as_array().unwrap();
    paths.iter().map(|path| path["path"].as_str().unwrap()).collect()
}

#[test]
fn the_examples_render_with_the_client_last_and_without_a_cluster() {
    let children = yaml_documents(&rendered(&["examples", "--default-image", "image:1"], ""));
    let kinds: Vec<_> = children.iter().map(|child| child["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["Deployment", "Service", "Ingress", "PodDisruptionBudget", "ServiceAccount", "NetworkPolicy"]
    );
    assert_eq!(paths(&children[2]), ["/api/payments", "/api/tickets", "/api/orders", "/api/users", "/"]);
    for child in &children {
        assert_eq!(child["metadata"]["namespace"], "ticketing");
        assert!(child["metadata"].get("ownerReferences").is_none(), "only a cluster knows the owner's UID");
    }
}

#[test]
fn the_orders_api_has_the_same_path_at_gateways_as_in_an_ingress_where_none_is_written() {
    let gateway = "  gateway: {parentRefs: [{name: public}], hostnames: [ticketing.dev]}\n";
    let at_gateway = GOOD.split("  ingress:").next().unwrap().to_owned() + gateway;
    let rendered = [GOOD, &at_gateway].map(|input| rendered(&["-", "--default-image", "i"], input));
    let [in_ingress, at_gateway] = rendered.map(|text| yaml_documents(&text));
    let of_kind =
        |documents: &[Value], kind| documents.iter().find(|object| object["kind"] == kind).cloned().unwrap();
    let route = of_kind(&at_gateway, "HTTPRoute");
    let own = route["spec"]["rules"][0]["matches"][0]["path"]["value"].as_str().unwrap();
    assert!(paths(&of_kind(&in_ingress, "Ingress")).contains(&own), "{own}");
}

#[test]
fn the_output_does_not_depend_on_the_order_of_resources_routes_and_hosts() {
    let other = GOOD.replace("name: orders,", "name: another,").replace("[ticketing.dev]", "[other.dev]");
    let shuffled = GOOD
        .replace("      - {path: /ws, service: ws-srv}\n", "")
        .replace("    client:", "      - {path: /ws, service: ws-srv}\n    client:");
    assert_ne!(GOOD, shuffled);
    let arguments = ["-", "--default-image", "image:1"];
    let one = rendered(&arguments, &format!("{GOOD}---\n{other}"));
    assert_eq!(one, rendered(&arguments, &format!("{other}---\nkind: Secret\n---\n{shuffled}")));
    assert_eq!(yaml_documents(&one).len(), 12);
}

#[test]
fn every_problem_is_named_by_file_resource_and_field_and_nothing_is_rendered() {
    let bad = GOOD
        .replace("spec:\n", "spec:\n  replica: 3\n  port: 8081\n")
        .replace("path: /ws", "path: /(a|b)")
        .replace("[ticketing.dev]", "[\"http://ticketing.dev\"]");
    let said = refused(&["-"], &format!("{GOOD}---\n{bad}"));
    for expected in [
        "standard input: OrdersService \"orders\": ",
        "unknown field spec.replica: did you mean replicas?",
        "spec.port is 8081",
        "write only \"ticketing.dev\"",
        "path \"/(a|b)\" has the regex character",
        "set spec.image",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
    let twice = refused(&["-", "--default-image", "i"], &format!("{GOOD}---\n{GOOD}"));
    assert!(twice.contains("is in standard input already"), "{twice}");
    let wrong_type = refused(&["-"], &GOOD.replace("spec:\n", "spec:\n  replicas: many\n"));
    assert!(wrong_type.contains("\"orders\"") && wrong_type.contains("many"), "{wrong_type}");
}

#[test]
fn an_input_without_any_resource_and_one_that_cannot_be_read_are_errors() {
    assert!(refused(&["-"], "kind: Secret\n").contains("there is no OrdersService"));
    assert!(refused(&["no/such/file.yaml"], "").contains("no/such/file.yaml"));
    assert!(refused(&["-"], "a: [").contains("is not YAML"));
}

#[test]
fn what_two_resources_claim_is_named_by_file_resource_and_field_and_nothing_is_rendered() {
    let folder = tempfile();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("a.yaml", GOOD);
    let other =
        GOOD.replace("orders, namespace: shop", "other, namespace: team").replace("/ws", "/api/orders/");
    write("b.yaml", &other.replace("  ingress:", "  ingress:\n    path: /api/other"));
    let arguments = [folder.to_str().unwrap(), "--default-image", "i"];
    let said = refused(&arguments, "");
    let other_file = format!("{}/b.yaml: OrdersService \"other\"", folder.display());
    for expected in [
        "spec.ingress.routes[0].path: ticketing.dev/api/orders is also a route of OrdersService shop/orders",
        "spec.ingress.routes[1].path: ticketing.dev/api/users is also",
        "spec.ingress.client: ticketing.dev/ is also",
        "/a.yaml)",
        "write another path or host",
        &other_file,
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
    assert!(!said.contains("a.yaml: "), "the first is not at fault: {said}");
    let by_namespace = refused(&[&arguments[..], &["--host-policy", "namespace"]].concat(), "");
    assert!(
        by_namespace.contains("spec.ingress.hosts[0]: host \"ticketing.dev\" belongs to namespace \"shop\""),
        "{by_namespace}"
    );

    // A wildcard above another namespace's host, and a class written as an annotation, are no way around.
    let wild = other.replace("[ticketing.dev]", "[\"*.dev\"]").replace("/api/users", "/u");
    write(
        "b.yaml",
        &wild.replace(
            "  ingress:",
            "  ingress:\n    path: /api/other\n    annotations: {kubernetes.io/ingress.class: x}",
        ),
    );
    let by_namespace = refused(&[&arguments[..], &["--host-policy", "namespace"]].concat(), "");
    assert!(
        by_namespace.contains("spec.ingress.hosts[0]: host \"*.dev\" belongs to namespace \"shop\""),
        "{by_namespace}"
    );

    // Nor is a host that the hosts file does not allow for the namespace.
    let list = folder.join("hosts.list");
    std::fs::write(&list, "shop: [\"*.ticketing.dev\"]\nteam: [\"*.dev\"]").unwrap();
    let by_list = refused(&[&arguments[..], &["--hosts-file", list.to_str().unwrap()]].concat(), "");
    let expected = "spec.ingress.hosts[0]: host \"ticketing.dev\" is not allowed by the hosts file for namespace \"shop\"";
    assert!(by_list.contains(expected) && !by_list.contains("b.yaml: "), "{by_list}");
    std::fs::write(&list, "shop: [ticketing.dev]\nteam: [\"*.dev\"]").unwrap();
    rendered(&[&arguments[..], &["--hosts-file", list.to_str().unwrap()]].concat(), "");
    std::fs::write(&list, "shop: ticketing.dev").unwrap();
    let broken = refused(&[&arguments[..], &["--hosts-file", list.to_str().unwrap()]].concat(), "");
    assert!(broken.contains("hosts.list: ") && broken.contains("write a map from namespaces"), "{broken}");

    // An Ingress beside it, as the course writes it, counts too; one that the operator made does not.
    let ingress = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: course, namespace: zoo}
spec:
  rules:
    - host: ticketing.dev
      http: {paths: [{path: \"/api/users/?(.*)\", pathType: ImplementationSpecific, backend: {service: {name: auth, port: {number: 80}}}}]}
";
    let said = refused(&["-", "--default-image", "i"], &format!("{GOOD}---{ingress}"));
    assert!(said.contains("ticketing.dev/api/users is also a route of Ingress zoo/course"), "{said}");
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: zoo}
spec:
  parentRefs: [{name: public, namespace: gw}]
  hostnames: [ticketing.dev]
  rules: [{matches: [{path: {type: PathPrefix, value: /ws}}], backendRefs: [{name: x, port: 80}]}]
";
    let at_gateway = GOOD.replace(
        "  ingress:",
        "  gateway: {parentRefs: [{name: public, namespace: gw}], hostnames: [ticketing.dev]}\n  ingress:",
    );
    let said = refused(&["-", "--default-image", "i"], &format!("{at_gateway}---{route}"));
    assert!(
        said.contains("routes[0].path: ticketing.dev/ws is also a route of HTTPRoute zoo/theirs"),
        "{said}"
    );
    rendered(&["-", "--default-image", "i"], &format!("{GOOD}---{route}"));
    let arguments = ["-", "--default-image", "i", "--host-policy", "namespace"];
    let said = refused(&arguments, &format!("{GOOD}---{route}"));
    assert!(said.contains("belongs to namespace \"zoo\" by HTTPRoute zoo/theirs"), "{said}");
    let owned = ingress.replace(
        "namespace: zoo",
        "namespace: zoo, ownerReferences: [{apiVersion: ticketing.dev/v1alpha1, kind: OrdersService, name: x, uid: y, controller: true}]",
    );
    rendered(&["-", "--default-image", "i"], &format!("{GOOD}---{owned}"));
    std::fs::remove_dir_all(folder).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("orders-operator-render-{}", fastrand::u64(..)));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_request_is_explained_for_every_host_or_the_one_that_it_names() {
    let more = GOOD
        .replace("name: orders,", "name: more,")
        .replace("[ticketing.dev]", "[\"*.ticketing.dev\", b.dev]");
    let input = format!("{GOOD}---\n{more}");
    let explain = |request: &str| rendered(&["-", "--default-image", "i", "--explain", request], &input);
    let said = explain("/api/users/5");
    for expected in [
        "ticketing.dev/api/users/5 goes to auth-srv:3000 by rule /api/users of OrdersService shop/orders:",
        "*.ticketing.dev/api/users/5 goes to auth-srv:3000 by rule /api/users of OrdersService shop/more:",
        "b.dev/api/users/5 goes to",
        ">  2. /api/users ",
        "prefix, 2 segments, 10 bytes, to auth-srv:3000: takes it",
        "client, 0 segments, 1 bytes, to client-srv:3000: would take it, but comes later",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
    let said = explain("https://ticketing.dev:443/wsx?y=1");
    assert!(said.starts_with("ticketing.dev/wsx goes to client-srv:3000 by rule /"), "{said}");
    assert!(said.contains("a prefix matches whole segments, and /wsx is not below /ws/"), "{said}");
    assert_eq!(said.matches(" goes to ").count(), 1, "{said}");
    assert!(explain("/API/users").contains("upper and lower case differ"));
    assert!(explain("b.dev/a//b").contains("note: /a//b has an empty"));
    // A wildcard takes the hosts one label below that have no rules of their own.
    assert!(explain("x.ticketing.dev/ws").starts_with("*.ticketing.dev/ws goes to ws-srv:3000"));
    assert!(
        explain("y.x.ticketing.dev/ws")
            .starts_with("no rule has host y.x.ticketing.dev: there are rules for")
    );
    let gateway = GOOD.replace(
        "  ingress:",
        "  gateway: {parentRefs: [{name: public, sectionName: https}], hostnames: [g.dev, ticketing.dev]}\n  ingress:",
    );
    let both = rendered(&["-", "--default-image", "i", "--explain", "other.dev/ws"], &gateway);
    assert_eq!(both.trim(), "no rule has host other.dev: there are rules for g.dev, ticketing.dev");
    let said = rendered(&["-", "--default-image", "i", "--explain", "g.dev/ws"], &gateway);
    assert!(
        said.starts_with("g.dev/ws (Gateway shop/public, listener https) goes to ws-srv:3000 by rule /ws"),
        "{said}"
    );
    let documents = yaml_documents(&rendered(&["-", "--default-image", "i"], &gateway));
    assert_eq!(documents.last().unwrap()["kind"], "HTTPRoute");
    let lonely = GOOD.replace("    client: {service: client-srv}\n", "");
    let said = rendered(&["-", "--default-image", "i", "--explain", "/x"], &lonely);
    assert!(said.starts_with("ticketing.dev/x is not served: no rule matches"), "{said}");
    assert!(refused(&["-", "--explain", "/a b"], GOOD).contains("percent-encode it"));
}

/// Of which two paths are no conflict with those of an OrdersService, and one makes regexes of all.
const OLD: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: old
  namespace: shop
  annotations: {kubernetes.io/ingress.class: nginx, nginx.ingress.kubernetes.io/use-regex: \"true\"}
spec:
  rules:
    - host: ticketing.dev
      http:
        paths:
          - {path: /api/users/admin, pathType: Prefix, backend: {service: {name: admin-srv, port: {number: 80}}}}
          - {path: \"/a(b|c)\", pathType: ImplementationSpecific, backend: {service: {name: x, port: {number: 80}}}}
    - host: admin.dev
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: admin-srv, port: {number: 80}}}}]}
";

#[test]
fn an_explanation_counts_the_rules_of_other_objects_in_the_same_files() {
    let input = format!("{}---\n{OLD}", GOOD.replace("    hosts:", "    className: nginx\n    hosts:"));
    let explain = |request: &str| rendered(&["-", "--default-image", "i", "--explain", request], &input);
    let said = explain("ticketing.dev/api/users/admin/5");
    assert!(said.starts_with("ticketing.dev/api/users/admin/5 (class nginx) goes "), "{said}");
    assert!(
        said.lines().next().unwrap().ends_with("by rule /api/users/admin of Ingress shop/old:"),
        "{said}"
    );
    assert!(said.contains("to auth-srv:3000: would take it, but comes later"), "{said}");
    assert!(
        explain("ticketing.dev/api/users/5")
            .contains("goes to auth-srv:3000 by rule /api/users of OrdersService")
    );
    assert!(explain("admin.dev/x").contains("by rule / of Ingress shop/old"));
    // By HTTPRoutes likewise, whichever listener of the Gateway is named.
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: old, namespace: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [ticketing.dev]
  rules: [{matches: [{path: {type: PathPrefix, value: /ws/admin}}], backendRefs: [{name: admin-srv, port: 80}]}]
";
    let spec = GOOD.replace("    client:", "    parentRefs: [{name: public, sectionName: http}, {name: public, sectionName: https}]\n    client:");
    let spec = spec.replace("  ingress:", "  gateway:").replace("    hosts:", "    hostnames:");
    let input = format!("{spec}---{route}");
    let said = rendered(&["-", "--default-image", "i", "--explain", "ticketing.dev/ws/admin/5"], &input);
    assert!(
        said.starts_with("ticketing.dev/ws/admin/5 (Gateway shop/public, listeners http, https) goes "),
        "{said}"
    );
    assert!(said.lines().next().unwrap().ends_with("by rule /ws/admin of HTTPRoute shop/old:"), "{said}");
    assert_eq!(said.matches(" goes ").count(), 1, "{said}");
}

#[test]
fn what_others_in_the_same_files_have_on_a_host_is_told_as_the_controller_tells_it() {
    let warnings = |input: &str| {
        let output = render(&["-", "--default-image", "i"], input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let regexes = "ticketing.dev by Ingress shop/old. A route /ws then also matches /wsx and /WS";
    let said =
        warnings(&format!("{}---\n{OLD}", GOOD.replace("    hosts:", "    className: nginx\n    hosts:")));
    assert_eq!(said.matches(regexes).count(), 1, "{said}");
    assert!(
        said.starts_with("warning: standard input: OrdersService \"orders\": ingress-nginx reads"),
        "{said}"
    );
    // Of another ingress controller's rules it says nothing.
    let traefik = GOOD.replace("    hosts:", "    className: traefik\n    hosts:");
    assert_eq!(warnings(&format!("{traefik}---\n{OLD}")), "");
    // A client of another object is one.
    let lonely = GOOD.replace("    client: {service: client-srv}\n", "");
    assert!(warnings(&lonely).contains("and no other object sets a client"));
    let client =
        GOOD.replace("name: orders,", "name: site,").replace("    hosts:", "    path: /api/site\n    hosts:");
    let routes = client.split("    routes:").next().unwrap();
    let site = format!("{routes}    client: {{service: client-srv}}\n");
    let said = warnings(&format!("{lonely}---\n{site}"));
    assert!(said.contains("that no route takes go to the client of OrdersService shop/site"), "{said}");
}

const HOSTS: &str = "
apiVersion: ticketing.dev/v1alpha1
kind: OrdersService
metadata: {name: orders, namespace: shop}
spec:
  auth: {jwtSecretRef: {name: jwt-secret}}
  database: {uriSecretRef: {name: orders-mongo}}
  ingress:
    className: nginx
    hosts: [ticketing.dev, files.ticketing.dev]
    pathHosts: [ticketing.dev]
    routes:
      - {path: /login, exact: true, service: auth-srv, port: http}
      - {path: /, hosts: [files.ticketing.dev], service: minio, port: \"9000\"}
    client: {service: client-srv}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: old, namespace: shop, annotations: {kubernetes.io/ingress.class: nginx}}
spec:
  rules:
    - host: ticketing.dev
      http: {paths: [{path: \"/?(.*)\", pathType: ImplementationSpecific, backend: {service: {name: x, port: {number: 80}}}}]}
";

#[test]
fn all_hosts_are_drawn_with_their_rules_in_order_and_with_who_else_claims_what() {
    let draw = |format: &[&str]| {
        rendered(&[&["-", "--default-image", "i"][..], format, &["--explain"]].concat(), HOSTS)
    };
    let old = "Ingress shop/old (standard input)";
    let text = draw(&[]);
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "files.ticketing.dev (class nginx)".to_owned(),
        "   1. /login (exact) -> auth-srv:http  OrdersService shop/orders".into(),
        "   2. / (client)     -> minio:9000  OrdersService shop/orders".into(),
        String::new(),
        "ticketing.dev (class nginx)".into(),
        "   1. /login (exact) -> auth-srv:http  OrdersService shop/orders".into(),
        "   2. /api/orders    -> orders:3000  OrdersService shop/orders".into(),
        format!("   3. /              -> {old}"),
        format!(
            "   4. / (client)     -x client-srv:3000  OrdersService shop/orders: not rendered, since {old} has it"
        ),
    ];
    assert_eq!(lines, expected);
    let mermaid = draw(&["--format", "mermaid"]);
    for line in [
        "flowchart LR",
        "  host0[\"files.ticketing.dev (class nginx)\"]",
        "  host0 -->|\"1) /login (exact)\"| target0([\"auth-srv:http\"])",
        "  host1 -->|\"1) /login (exact)\"| target0",
        &format!("  host1 -.->|\"4) / (client): {old} has it\"| target4([\"client-srv:3000\"])"),
    ] {
        assert!(mermaid.lines().any(|drawn| drawn == line), "{line}\n{mermaid}");
    }
    let dot = draw(&["--format", "dot"]);
    assert!(dot.starts_with("digraph routes {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("  host1 -> target2 [label=\"2) /api/orders\"];"), "{dot}");
    let json: Value = serde_json::from_str(&draw(&["--format", "json"])).unwrap();
    assert_eq!(
        (json[1]["host"].as_str(), json[1]["at"].as_str()),
        (Some("ticketing.dev"), Some("class nginx"))
    );
    assert_eq!(json[1]["rules"][0]["kind"], "exact");
    assert_eq!(json[1]["rules"][3]["notRendered"], format!("{old} has it"));
    // What is only drawn may conflict; what is rendered may not.
    assert!(refused(&["-", "--default-image", "i"], HOSTS).contains("is also a route of Ingress shop/old"));
    let said = refused(&["-", "--explain", "/x", "--format", "dot"], GOOD);
    assert!(said.contains("--format is for the drawing"), "{said}");
}

#[test]
fn who_makes_regexes_of_all_paths_of_a_host_is_drawn_and_warned_of_where_that_is_heeded() {
    let annotations = "kubernetes.io/ingress.class: nginx, nginx.ingress.kubernetes.io/use-regex: \"true\"";
    let input = HOSTS
        .replace("kubernetes.io/ingress.class: nginx", annotations)
        .replace("path: \"/?(.*)\"", "path: \"/legacy/(a|b)\"");
    let old = "Ingress shop/old (standard input)";
    let draw = |format: &str, input: &str| {
        rendered(&["-", "--default-image", "i", "--format", format, "--explain"], input)
    };
    let text = draw("text", &input);
    let told = format!(
        "  !   ingress-nginx reads every path here as a regex: {old} has use-regex or rewrite-target"
    );
    let lines: Vec<_> = text.lines().collect();
    let at = lines.iter().position(|line| *line == told).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(lines[at - 1], "ticketing.dev (class nginx)");
    assert_eq!(text.matches("as a regex").count(), 1, "the other host is not concerned: {text}");
    let title = format!("ticketing.dev (class nginx): every path is a regex, by {old}");
    assert!(draw("mermaid", &input).contains(&title) && draw("dot", &input).contains(&title));
    let json: Value = serde_json::from_str(&draw("json", &input)).unwrap();
    assert_eq!((&json[1]["regexesBy"], &json[0]["regexesBy"]), (&Value::from(old), &Value::Null));
    for arguments in
        [&["-", "--default-image", "i"][..], &["-", "--default-image", "i", "--explain", "/login"]]
    {
        let output = render(arguments, &input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("ticketing.dev by Ingress shop/old"), "{said}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let is_noted =
            shown.contains("note: the rules may mean something else: ingress-nginx reads every path");
        assert_eq!(is_noted, arguments.contains(&"--explain"), "{shown}");
    }
    let heeded_by_nobody =
        input.replace("nginx,", "traefik,").replace("className: nginx", "className: traefik");
    assert!(!draw("text", &heeded_by_nobody).contains("regex"));
}

#[test]
fn nothing_that_is_written_in_the_files_draws_a_line_of_its_own() {
    let forged = "x\\n   9. /forged -> evil\\x1b[2J \\\" end";
    let class = format!("\"{forged}\"");
    let input = HOSTS
        .replace(
            "    className: nginx\n",
            &format!("    annotations: {{kubernetes.io/ingress.class: {class}}}\n"),
        )
        .replace("kubernetes.io/ingress.class: nginx", &format!("kubernetes.io/ingress.class: {class}"))
        .replace("name: old,", &format!("name: {class},"));
    let draw =
        |format: &str| rendered(&["-", "--default-image", "i", "--explain", "--format", format], &input);
    for format in ["text", "mermaid", "dot"] {
        let drawn = draw(format);
        assert!(drawn.contains("(class x\\") && drawn.matches("forged").count() > 2, "{drawn}");
        assert!(!drawn.lines().any(|line| line.trim_start().starts_with("9.")), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
    }
    let json: Value = serde_json::from_str(&draw("json")).unwrap();
    assert_eq!(json[0]["at"], "class x\n   9. /forged -> evil\u{1b}[2J \" end");
    let said = rendered(
        &["-", "--default-image", "i", "--explain", "files.ticketing.dev/x"],
        &input.replace("/?(.*)", "/old"),
    );
    assert!(
        !said.lines().any(|line| line.trim_start().starts_with("9.")) && !said.contains('\u{1b}'),
        "{said:?}"
    );
}

#[test]
fn what_the_api_server_would_refuse_is_refused_with_its_field() {
    for (from, to, expected) in [
        ("[ticketing.dev]", "[]", "spec.ingress.hosts is empty: for every host, omit it"),
        (
            "    client:",
            "    tls: [{secretName: x}]\n    client:",
            "spec.ingress.tls is a list, but must be an object",
        ),
        ("    client:", "    annotations: {a/b: true}\n    client:", "quote it, \"true\""),
        ("ws-srv", "ws_srv", "spec.ingress.routes[0].service is \"ws_srv\""),
        ("/ws,", "/ws, port: -1,", "spec.ingress.routes[0].port is -1"),
        (
            "/ws,",
            "/ws, exact: true, stripPrefix: true,",
            "spec.ingress.routes[0].path \"/ws\" has exact: true and stripPrefix: true",
        ),
    ] {
        let said = refused(&["-", "--default-image", "i"], &GOOD.replace(from, to));
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
}

#[test]
fn what_is_probably_unintended_is_a_warning_on_the_standard_error() {
    let dotted = GOOD.replace("/ws", "/socket.io").replace("    hosts:", "    className: nginx\n    hosts:");
    let output = render(&["-", "--default-image", "i"], &dotted);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !output.stdout.is_empty());
    assert!(said.starts_with("warning: standard input: OrdersService \"orders\": spec.ingress."), "{said}");
    assert!(said.contains("/socket.io"), "{said}");
}

#[test]
fn two_resources_with_the_same_subjects_at_one_broker_and_a_database_each_are_warned_of() {
    let with = |name: &str, database: &str| {
        let events = "  events: {nats: {servers: [\"nats://nats:4222\"]}}\n";
        let host = format!("{name}.dev");
        let of = GOOD
            .replace("name: orders,", &format!("name: {name},"))
            .replace("ticketing.dev]", &format!("{host}]"));
        of.replace("orders-mongo}", &format!("orders-mongo}}, name: {database}"))
            .replace("  ingress:", &format!("{events}  ingress:"))
    };
    let warnings = |input: &str| {
        let output = render(&["-", "--default-image", "i"], input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said.lines().filter(|line| line.contains("same subjects")).map(str::to_owned).collect::<Vec<_>>()
    };
    let said = warnings(&format!("{}---\n{}", with("one", "a"), with("two", "b")));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with(
            "warning: standard input: OrdersService \"one\": spec.events: OrdersService \"two\" has the same"
        ),
        "{said:?}"
    );
    assert_eq!(warnings(&format!("{}---\n{}", with("one", "a"), with("two", "a"))), Vec::<String>::new());
}
