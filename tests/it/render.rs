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

fn render(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .arg("render")
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
fn the_output_does_not_depend_on_the_order_of_resources_routes_and_hosts() {
    let other = GOOD.replace("name: orders,", "name: another,");
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
        "there is no field spec.replica\n",
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
    assert!(refused(&["-"], "a: [").contains("is no YAML"));
}
