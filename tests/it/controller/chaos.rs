//! What `render` prints is what the cluster has, also after everything went wrong that can.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use orders_operator::crd::{CONTROLLER_MANAGER, OrdersService};
use serde_json::{Value, json};

use super::{CHILDREN, MONGO, child_api, whole};
use crate::{
    bed::{number, seed},
    cluster::{PATIENCE, TestNamespace, eventually, yaml_documents},
};

/// What `render` prints for the resource as the API server has it.
pub(super) fn rendered(service: &OrdersService) -> Vec<Value> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(["render", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut object = serde_json::to_value(service).unwrap();
    object.as_object_mut().unwrap().remove("status");
    object["metadata"].as_object_mut().unwrap().retain(|field, _| field == "name" || field == "namespace");
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{object}");
    yaml_documents(&String::from_utf8(output.stdout).unwrap())
}

/// What of an object is compared: all but what changes with every write, and what its own controllers say.
fn comparable(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    value.as_object_mut().unwrap().remove("status");
    let metadata = value["metadata"].as_object_mut().unwrap();
    for field in ["resourceVersion", "generation"] {
        metadata.remove(field);
    }
    let managed = metadata.remove("managedFields").unwrap_or_default();
    let ours = managed.as_array().unwrap().iter().find(|entry| entry["manager"] == CONTROLLER_MANAGER);
    // Which fields the controller has applied: no more than those that are rendered.
    value["ours"] = ours.map(|entry| entry["fieldsV1"].clone()).unwrap_or_default();
    value
}

/// Why the children of the resource are not just what `render` prints; none when they are.
async fn difference(namespace: &TestNamespace, name: &str) -> Option<String> {
    let service: OrdersService = namespace.api().get(name).await.unwrap();
    let documents: BTreeMap<_, _> = rendered(&service)
        .into_iter()
        .map(|document| (document["kind"].as_str().unwrap().to_owned(), document))
        .collect();
    for child in CHILDREN {
        let api = child_api(namespace, child);
        let live = api.get_opt(name).await.unwrap();
        let (mut document, live) = match (documents.get(child.0).cloned(), live) {
            (Some(document), Some(live)) => (document, live),
            (None, None) => continue,
            (Some(_), None) => return Some(format!("there is no {}", child.0)),
            (None, Some(_)) => return Some(format!("there is a {}", child.0)),
        };
        // What only a cluster knows.
        document["metadata"]["ownerReferences"] = json!(live.owner_references());
        let checksum = "/spec/template/metadata/annotations/ticketing.dev~1secrets-checksum";
        if let Some(found) = serde_json::to_value(&live).unwrap().pointer(checksum) {
            document["spec"]["template"]["metadata"]["annotations"]["ticketing.dev/secrets-checksum"] =
                found.clone();
        }
        // Were it applied now, nothing would change: neither the object, nor which fields are ours.
        let dry = PatchParams::apply(CONTROLLER_MANAGER).force().dry_run();
        let applied = api.patch(name, &dry, &Patch::Apply(&document)).await.unwrap();
        let (applied, live) = (comparable(&applied), comparable(&live));
        if applied != live {
            return Some(format!("{} is {live}, and not {applied}", child.0));
        }
    }
    None
}

async fn is_as_rendered(namespace: &TestNamespace, name: &str) {
    let last = std::sync::Mutex::new(String::new());
    let probe = || async {
        let found = difference(namespace, name).await;
        *last.lock().unwrap() = found.clone().unwrap_or_default();
        found.is_none().then_some(())
    };
    let waited = tokio::time::timeout(PATIENCE, eventually("it is as rendered", probe)).await;
    assert!(waited.is_ok(), "{}/{name}: {}", namespace.name, last.lock().unwrap());
}

#[tokio::test]
async fn the_children_are_what_render_prints() {
    let namespace = TestNamespace::create("rendered").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let own_pods = json!({
        "replicas": 1, "networkPolicy": false, "database": {"name": "shop"},
        "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "1.5Gi"}},
        "podTemplate": {
            "labels": {"team": "tickets"}, "annotations": {"note": "hello"}, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists"}], "serviceAccountName": "default",
            "topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
            "extraEnv": [
                {"name": "LOG_LEVEL", "value": "debug"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "EMPTY", "value": ""},
            ],
        },
        "ingress": {"annotations": {"a": "b"}, "tls": {"secretName": "tls"}},
    });
    for (name, spec) in [("plain", json!({})), ("whole", whole()), ("own-pods", own_pods)] {
        let host = json!({"ingress": {"hosts": [format!("{name}.dev")]}});
        let mut object = namespace.service(name, spec);
        json_patch::merge(&mut object["spec"], &host);
        namespace.apply(&object).await.unwrap();
        is_as_rendered(&namespace, name).await;
    }
    namespace.remove().await;
}

/// A spec that is as likely as any other.
fn any_spec(random: &mut fastrand::Rng) -> Value {
    let mut spec = json!({
        "port": random.i32(3000..3003), "networkPolicy": random.bool(),
        "podDisruptionBudget": if random.bool() { json!({}) } else { Value::Null },
        "expiration": {"windowSeconds": random.i32(60..900)},
        "podTemplate": {"serviceAccountName": if random.bool() { json!("default") } else { Value::Null }},
    });
    if random.u8(..4) == 0 {
        spec["replicas"] = Value::Null;
        spec["autoscaling"] = json!({"minReplicas": 1, "maxReplicas": random.i32(1..4)});
    }
    if random.u8(..3) == 0 {
        spec["ingress"] = Value::Null;
    }
    spec
}

#[tokio::test]
#[ignore = "make test-chaos"]
async fn after_half_a_minute_of_chaos_every_child_is_what_render_prints_and_nothing_is_left_over() {
    let seed = seed();
    let (seconds, spaces) = (number("CHAOS_SECONDS", 30), number("CHAOS_NAMESPACES", 4));
    let each = number("CHAOS_RESOURCES", 20) / spaces;
    eprintln!("CHAOS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut first = TestNamespace::create("chaos").await;
    let mut others = Vec::new();
    for _ in 1..spaces {
        let other = TestNamespace::create("chaos").await;
        first.watch_also(&other);
        others.push(other);
    }
    let namespaces: Vec<_> = std::iter::once(&first).chain(&others).collect();
    for namespace in &namespaces {
        namespace.secrets(MONGO).await;
    }
    let mut controller = first.run("controller").await;
    let mut there = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let (at, number) = (random.usize(..spaces), random.usize(..each));
        let (namespace, name) = (namespaces[at], format!("orders-{number}"));
        match random.u8(..20) {
            // Made, or changed.
            0..10 => {
                let mut object = namespace.service(&name, any_spec(&mut random));
                if let Some(ingress) = object["spec"].get_mut("ingress").filter(|ingress| ingress.is_object())
                {
                    // Of a host that several share, `render` would have to be given all of them.
                    ingress["hosts"] = json!([format!("{name}.{}.dev", namespace.name)]);
                }
                object["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
                namespace.apply(&object).await.unwrap();
                there.insert((at, name));
            }
            10..13 => {
                drop(namespace.api::<OrdersService>().delete(&name, &DeleteParams::background()).await);
                there.remove(&(at, name));
            }
            // A child is deleted, or edited, by someone else.
            13..16 => {
                let child = random.choice(CHILDREN).unwrap();
                drop(child_api(namespace, child).delete(&name, &DeleteParams::background()).await);
            }
            16..19 => {
                let child = random.choice(CHILDREN).unwrap();
                let edit =
                    Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "chaos"}}}));
                drop(child_api(namespace, child).patch(&name, &PatchParams::default(), &edit).await);
            }
            _ => {
                controller.kill();
                controller = first.run("controller").await;
            }
        }
    }
    for (at, name) in &there {
        is_as_rendered(namespaces[*at], name).await;
    }
    for (at, namespace) in namespaces.iter().enumerate() {
        for child in CHILDREN {
            let ours = ListParams::default().labels("app.kubernetes.io/managed-by=orders-operator");
            eventually(&format!("no {} is left over", child.0), || async {
                let found = child_api(namespace, child).list(&ours).await.unwrap();
                found.iter().all(|child| there.contains(&(at, child.name_any()))).then_some(())
            })
            .await;
        }
    }
    drop(controller);
    for other in others {
        other.remove().await;
    }
    first.remove().await;
}
