//! What `render` makes of systems: the rules of Ingresses and HTTPRoutes, in their order.

use serde_json::{Value, json};

use super::questions::{Entry, System};
use crate::{cluster::yaml_documents, render::program};

/// The paths of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRules {
    /// None for every host.
    pub host: Option<String>,
    pub rules: Vec<Rule>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub path: String,
    pub exact: bool,
    pub service: String,
}

/// The Ingress of each system.
pub fn ingresses(systems: &[System]) -> Vec<Vec<HostRules>> {
    let objects = rendered(systems, Entry::Ingress);
    let of_system = |system: &System| {
        let mut own = objects.iter().filter(|object| object["metadata"]["name"] == *system.name);
        let ingress = own.find(|object| object["kind"] == "Ingress").unwrap();
        ingress["spec"]["rules"].as_array().unwrap().iter().map(host_rules).collect()
    };
    systems.iter().map(of_system).collect()
}

fn host_rules(rule: &Value) -> HostRules {
    let path = |path: &Value| Rule {
        path: text(&path["path"]),
        exact: path["pathType"] == "Exact",
        service: text(&path["backend"]["service"]["name"]),
    };
    HostRules {
        host: rule["host"].as_str().map(str::to_owned),
        rules: rule["http"]["paths"].as_array().unwrap().iter().map(path).collect(),
    }
}

/// The HTTPRoutes of each system, as hosts and rules: one after the other, as they are named.
pub fn http_routes(systems: &[System]) -> Vec<Vec<HostRules>> {
    let objects = rendered(systems, Entry::Gateway);
    let of_system = |system: &System| {
        let own = objects.iter().filter(|object| object["kind"] == "HTTPRoute" && is_of(object, system));
        own.flat_map(of_http_route).collect()
    };
    systems.iter().map(of_system).collect()
}

fn is_of(object: &Value, system: &System) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap();
    name.split('.').next() == Some(system.name.as_str())
}

fn of_http_route(object: &Value) -> Vec<HostRules> {
    let spec = &object["spec"];
    let rule = |rule: &Value| {
        let path = &rule["matches"][0]["path"];
        Rule {
            path: text(&path["value"]),
            exact: path["type"] == "Exact",
            service: text(&rule["backendRefs"][0]["name"]),
        }
    };
    let rules: Vec<_> = spec["rules"].as_array().unwrap().iter().map(rule).collect();
    let hosts = spec["hostnames"].as_array().map(|names| names.iter().map(|name| Some(text(name))).collect());
    let hosts: Vec<_> = hosts.unwrap_or_else(|| vec![None]);
    hosts.into_iter().map(|host| HostRules { host, rules: rules.clone() }).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rendered(systems: &[System], entry: Entry) -> Vec<Value> {
    let object = |system: &System| {
        let mut spec = json!({
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}}, "database": {"uriSecretRef": {"name": "orders-mongo"}}
        });
        let mut routes = system.spec(entry, |_| 3000);
        // What is null in a patch is absent.
        routes.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        match entry {
            Entry::Ingress => spec["ingress"] = routes,
            Entry::Gateway => {
                routes["parentRefs"] = json!([{"name": "public"}]);
                spec["gateway"] = routes;
            }
        }
        json!({"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
               "metadata": {"name": system.name, "namespace": "shop"}, "spec": spec})
        .to_string()
    };
    let input: Vec<_> = systems.iter().map(object).collect();
    let output = program(&["render", "-", "--default-image", "i"], &input.join("\n---\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yaml_documents(&String::from_utf8(output.stdout).unwrap())
}
