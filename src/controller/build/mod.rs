//! Step 3, pure: the children, one file per kind. All carry the resource's own name.

mod deployment;
mod ingress;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::validate::ValidatedOrdersService;

/// The children as they should be; `None` for a kind that the user switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Runs the orders API.
    pub deployment: Deployment,
    /// Gives its pods one address.
    pub service: Service,
    /// The ordered routes.
    pub ingress: Option<Ingress>,
}

/// Builds every child.
pub fn build(service: &ValidatedOrdersService) -> Prepared {
    Prepared {
        deployment: deployment::build_deployment(service),
        service: service::build_service(service),
        ingress: service.ingress.as_ref().map(|ingress| ingress::build_ingress(service, ingress)),
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

    fn as_json(prepared: &Prepared) -> [Value; 3] {
        let Prepared { deployment, service, ingress } = prepared;
        [json!(deployment), json!(service), json!(ingress)]
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
        for child in as_json(&built(json!({}))) {
            assert_eq!(child["metadata"]["name"], "orders");
            assert_eq!(child["metadata"]["namespace"], "shop");
            assert_eq!(child["metadata"]["labels"]["app.kubernetes.io/instance"], "orders");
            assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], "u-1");
            assert_eq!(child["metadata"]["ownerReferences"][0]["controller"], true);
        }
    }

    #[test]
    fn nothing_is_applied_that_the_server_would_drop() {
        for child in as_json(&built(json!({}))).iter().chain(&as_json(&built(json!({
            "imagePullSecrets": [{"name": "regcred"}],
            "ingress": {"annotations": {"a": "b"}, "tls": {"secretName": "tls"}, "className": "nginx"},
        })))) {
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
    fn an_ingress_that_is_switched_off_is_not_built() {
        assert_eq!(built(json!({"ingress": null})).ingress, None);
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
