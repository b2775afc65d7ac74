//! The schema: every field has a bound and a description, and the CEL rules reject what they are for. The rules
//! are evaluated as the API server would, without one.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{
    pod_template::{CHECKSUM_ANNOTATION, RESERVED_ENV, RESERVED_LABELS},
    spec::OrdersService,
};

fn service(patch: Value) -> OrdersService {
    let mut object = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": "orders-mongo"}},
            "ingress": {"hosts": ["ticketing.dev"], "routes": [{"path": "/a", "service": "a-srv"}]}
        }
    });
    json_patch::merge(&mut object, &patch);
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_valid_resource_is_accepted_and_each_rule_rejects_what_it_is_for() {
    service(json!({})).validate_cel().unwrap();
    service(json!({"spec": {"ingress": null}})).validate_cel().unwrap();
    service(json!({"spec": {"ingress": {"hosts": ["*.Ticketing.dev.", "a-1.b"]}}})).validate_cel().unwrap();
    service(json!({"spec": {"ingress": {"hosts": ["10.0.0.1.nip.io", "1a", "0x7f.dev"]}}}))
        .validate_cel()
        .unwrap();
    for class in [
        json!({"className": "x", "annotations": {"a": "b"}}),
        json!({"annotations": {"kubernetes.io/ingress.class": "y"}}),
    ] {
        service(json!({"spec": {"ingress": class}})).validate_cel().unwrap();
    }
    let gateway = json!({"parentRefs": [{"name": "g"}], "hostnames": ["*.a.dev"]});
    service(json!({"spec": {"gateway": gateway}})).validate_cel().unwrap();
    service(json!({"spec": {"autoscaling": {"maxReplicas": 2}}})).validate_cel().unwrap();
    service(json!({"spec": {"autoscaling": {"maxReplicas": 2}, "resources": {"limits": {"cpu": 1}}}}))
        .validate_cel()
        .unwrap();
    service(json!({"spec": {"resources": {"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}}}))
        .validate_cel()
        .unwrap();
    let route = |path: &str| json!({"path": path, "service": "x"});
    let env = |variable: Value| {
        let mut object = json!({"spec": {"podTemplate": {"extraEnv": [{"name": "A"}]}}});
        json_patch::merge(&mut object["spec"]["podTemplate"]["extraEnv"][0], &variable);
        object
    };
    let events = |events: Value| json!({"spec": {"events": events}});
    let renamed = |subjects: Value| events(json!({"nats": {"servers": ["nats://h"]}, "subjects": subjects}));
    for nats in
        [json!({"servers": ["nats://h:4222", "tls://[::1]"]}), json!({"urlSecretRef": {"name": "nats"}})]
    {
        service(events(json!({"nats": nats}))).validate_cel().unwrap();
        for broker in [json!({"jetStream": {}}), json!({"streaming": {"clusterId": "ticketing"}})] {
            let mut with = json!({"nats": nats});
            json_patch::merge(&mut with, &broker);
            service(events(with)).validate_cel().unwrap();
        }
    }
    service(renamed(json!({"order:created": "orders.created", "ticket:created": "tickets.created"})))
        .validate_cel()
        .unwrap();
    let template = |template: Value| json!({"spec": {"podTemplate": template}});
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        template(json!({"volumes": [volume]}))
    };
    let mount = |path: &str, sub_path: &str| {
        let mount = json!({"name": "v", "mountPath": path, "subPath": sub_path});
        template(json!({"volumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [mount]}))
    };
    let container = |patch: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut container, &patch);
        template(json!({"initContainers": [container]}))
    };
    for good in [
        volume(json!({"projected": {"sources": [{"secret": {"name": "s"}}]}})),
        mount("/var/cache", "a/..b/c"),
        container(json!({"restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}})),
    ] {
        service(good).validate_cel().unwrap();
    }
    for (patch, expected) in [
        (volume(json!({})), "exactly one of emptyDir, configMap, secret and projected"),
        (volume(json!({"hostPath": {"path": "/"}})), "such as hostPath and csi, are not allowed"),
        (volume(json!({"csi": {"driver": "d"}})), "such as hostPath and csi, are not allowed"),
        (mount("/etc//orders-operator/database/ca.crt", "a"), "have no :"),
        (mount("/etc/./orders-operator", "a"), "have no :"),
        (mount("/etc/", "a"), "have no :"),
        (mount("/etc", "a"), "the operator's own folder"),
        (
            template(
                json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/orders-api": "unconfined"}}),
            ),
            "changes what containers may do",
        ),
        (
            template(json!({"annotations": {"sidecar.istio.io/userVolumeMount": "[]"}})),
            "changes what containers may do",
        ),
        (volume(json!({"emptyDir": {}, "secret": {"secretName": "d"}})), "exactly one of emptyDir"),
        (volume(json!({"name": "database-certificates", "emptyDir": {}})), "the operator's own volume"),
        (
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            "serviceAccountToken is not allowed",
        ),
        (
            volume(json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "../k"}]}})),
            "begins neither with / nor with ..",
        ),
        (mount("cache", "a"), "mountPath must be absolute"),
        (mount("/a:b", "a"), "mountPath must be absolute"),
        (mount("/a/../b", "a"), "mountPath must be absolute"),
        (mount("/a", "b/.."), "does not begin with / and has no .."),
        (mount("/etc/orders-operator/database", "a"), "the operator's own folder"),
        (
            template(json!({"extraVolumeMounts": [{"name": "v", "mountPath": "/a"}]})),
            "not in podTemplate.volumes",
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}]})),
            "not in podTemplate.volumes",
        ),
        (container(json!({"name": "orders-api"})), "orders-api is the container of the API itself"),
        (container(json!({"livenessProbe": {"tcpSocket": {"port": 1}}})), "set restartPolicy to Always"),
        (container(json!({"restartPolicy": "Always", "livenessProbe": {}})), "exactly one of exec, httpGet"),
        (
            container(
                json!({"restartPolicy": "Always", "livenessProbe": {"httpGet": {"path": "x", "port": 1}}}),
            ),
            "the path of a probe must begin with /",
        ),
        (json!({"metadata": {"name": "a".repeat(53)}}), "at most 52 characters"),
        (json!({"spec": {"port": 8081}}), "admin port"),
        (json!({"spec": {"replicas": 2, "autoscaling": {"maxReplicas": 3}}}), "cannot be set together"),
        (json!({"spec": {"autoscaling": {"maxReplicas": 1}}}), "minReplicas is above maxReplicas"),
        (
            json!({"spec": {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "900m"}}}}),
            "above the limit",
        ),
        (env(json!({"value": "a", "valueFrom": {}})), "either value or valueFrom"),
        (events(json!({"nats": {}})), "either servers or urlSecretRef"),
        (events(json!({"nats": {"servers": []}})), "either servers or urlSecretRef"),
        (
            events(json!({"nats": {"servers": ["nats://h"], "urlSecretRef": {"name": "s"}}})),
            "either servers or urlSecretRef",
        ),
        (events(json!({"nats": {"servers": ["nats://u:p@h"]}})), "put a URL with a password in a Secret"),
        (events(json!({"nats": {"servers": ["http://h:4222"]}})), "nats://HOST:4222"),
        (
            events(json!({
                "nats": {"servers": ["nats://h"]}, "jetStream": {}, "streaming": {"clusterId": "ticketing"},
            })),
            "cannot be set together",
        ),
        (renamed(json!({"order:made": "x"})), "the subjects are ticket:created"),
        (renamed(json!({"order:created": "a b"})), "cannot be a subject"),
        (renamed(json!({"order:created": "orders.*"})), "cannot be a subject"),
        (renamed(json!({"order:created": "a..b"})), "cannot be a subject"),
        (renamed(json!({"order:created": "$JS.API"})), "cannot be a subject"),
        (renamed(json!({"order:created": "x", "order:cancelled": "x"})), "give each its own"),
        (
            json!({"spec": {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["a.dev"], "path": "/x"}}}),
            "remove path, pathHosts, routes and client",
        ),
        (
            json!({"spec": {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["http://x"]}}}),
            "without scheme, port or path",
        ),
        (
            json!({"spec": {"ingress": null, "gateway": {
                "parentRefs": [{"name": "g"}], "hostnames": ["a.dev"], "routes": [route("/a"), route("/a")]
            }}}),
            "same path",
        ),
        (json!({"spec": {"ingress": {"hosts": ["http://x"]}}}), "without scheme, port or path"),
        (json!({"spec": {"ingress": {"hosts": ["x:1"]}}}), "without scheme, port or path"),
        (json!({"spec": {"ingress": {"hosts": ["x", "x"]}}}), "listed twice"),
        (json!({"spec": {"ingress": {"hosts": ["10.0.0.1"]}}}), "not an IP address"),
        (json!({"spec": {"ingress": {"hosts": ["*.0.0.1."]}}}), "not an IP address"),
        (json!({"spec": {"ingress": {"hosts": ["a.0xFf"]}}}), "not an IP address"),
        (json!({"spec": {"ingress": {"hosts": ["1"]}}}), "not an IP address"),
        (json!({"spec": {"ingress": {"hosts": ["::1"]}}}), "without scheme, port or path"),
        (
            json!({"spec": {"ingress": {"className": "x", "annotations": {"kubernetes.io/ingress.class": "y"}}}}),
            "are both set",
        ),
        (json!({"spec": {"ingress": {"path": "x"}}}), "must begin with /"),
        (json!({"spec": {"ingress": {"routes": [route("x")]}}}), "must begin with /"),
        (json!({"spec": {"ingress": {"routes": [route("/")]}}}), "spec.ingress.client"),
        (json!({"spec": {"ingress": {"routes": [route("/a"), route("/a")]}}}), "same path"),
        (
            json!({"spec": {"ingress": {"routes": [route("/api/orders")]}}}),
            "the path of the orders API itself",
        ),
    ] {
        let errors = service(patch.clone()).validate_cel().unwrap_err();
        assert!(errors.to_string().contains(expected), "{patch}: {errors}");
    }
}

#[test]
fn the_database_name_cannot_be_changed_set_or_removed() {
    let named = |name: Value| service(json!({"spec": {"database": {"name": name}}}));
    let (none, a, b) = (named(Value::Null), named(json!("a")), named(json!("b")));
    for (old, new) in [(&none, &a), (&a, &b), (&a, &none)] {
        let errors = new.validate_cel_update(old).unwrap_err().to_string();
        assert!(errors.contains("cannot be changed"), "{errors}");
    }
    a.validate_cel_update(&a).unwrap();
    none.validate_cel_update(&none).unwrap();
}

#[test]
fn labels_annotations_and_variables_that_the_operator_sets_itself_are_rejected() {
    let template = |template: Value| service(json!({"spec": {"podTemplate": template}})).validate_cel();
    template(json!({"labels": {"a": "b"}, "annotations": {"a": "b"}, "extraEnv": [{"name": "LOG_LEVEL"}]}))
        .unwrap();
    let labels = RESERVED_LABELS.iter().map(|name| json!({"labels": {*name: "x"}}));
    let variables = RESERVED_ENV.iter().map(|name| json!({"extraEnv": [{"name": name}]}));
    let annotations = [json!({"annotations": {CHECKSUM_ANNOTATION: "x"}})];
    for patch in labels.chain(variables).chain(annotations) {
        let errors = template(patch.clone()).unwrap_err().to_string();
        assert!(
            errors.contains("that the operator sets itself") || errors.contains("which the operator"),
            "{patch}: {errors}"
        );
    }
}

/// Adds the path of every list, map and free-form string in `schema` that has no bound to `found`.
fn unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
    let lacks = |bound: &str| schema.get(bound).is_none();
    let free = lacks("enum") && lacks("format");
    let missing = match schema["type"].as_str() {
        Some("string") => free && lacks("maxLength"),
        Some("array") => lacks("maxItems"),
        Some("object") => !lacks("additionalProperties") && lacks("maxProperties"),
        Some("integer") => lacks("minimum") || lacks("maximum"),
        _ => schema["x-kubernetes-int-or-string"] == true && lacks("maxLength"),
    };
    if missing {
        found.push(path.to_owned());
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(name) {
            unbounded(inner, &format!("{path}[]"), found);
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(inner, &format!("{path}.{name}"), found);
    }
}

#[test]
fn every_field_of_the_spec_has_a_bound_and_a_description() {
    let crd = serde_json::to_value(OrdersService::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = Vec::new();
    unbounded(spec, "spec", &mut found);
    // These integers of Kubernetes types have no bounds, and no CEL rule uses them.
    found.retain(|path| !path.contains("podTemplate.affinity") || !path.ends_with("weight"));
    found
        .retain(|path| !["tolerationSeconds", "maxSkew", "minDomains"].iter().any(|own| path.ends_with(own)));
    assert!(found.is_empty(), "{found:#?}");
    for (name, field) in spec["properties"].as_object().unwrap() {
        assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{name}: {field}");
    }
}

/// Adds the rules of `schema` that read amounts where there may be many of them.
fn reads_many_amounts(schema: &Value, is_repeated: bool, found: &mut Vec<String>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| rule["rule"].as_str()).filter(|rule| rule.contains("quantity("));
    found.extend(rules.filter(|_| is_repeated).map(str::to_owned));
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(name) {
            reads_many_amounts(inner, true, found);
        }
    }
    for inner in schema["properties"].as_object().into_iter().flat_map(|properties| properties.values()) {
        reads_many_amounts(inner, is_repeated, found);
    }
}

/// An API server before 1.34 does not see that an amount is short, takes each for as long as a request may be, and refuses the
/// CRD: `make test-kubernetes` applies it to some.
#[test]
fn no_rule_reads_the_amounts_in_a_list() {
    let crd = serde_json::to_value(OrdersService::crd()).unwrap();
    let mut found = Vec::new();
    reads_many_amounts(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], false, &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
