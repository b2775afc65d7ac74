//! The families of addresses that the node has, as `make test-node FAMILIES=ipv6` chooses them: by each of them the API is reached,
//! and reaches its database with the sweeper.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::{core::v1::Service, networking::v1::NetworkPolicy};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};
use tokio::process::Command;

use super::OnNode;
use crate::{
    bed::setting,
    cluster::{apply_any, eventually},
    mongo::TestDatabase,
    sweeper::{cancelled, order, service},
};

/// The node's address in each of its families, the first one first.
fn addresses_of_node() -> Vec<IpAddr> {
    setting("NODE_ADDRESSES").split(',').map(|address| address.parse().unwrap()).collect()
}

/// As Kubernetes calls it.
fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// These addresses, of which there must be one of each family of the node, in the same order.
fn of_each_family<T: AsRef<str>>(addresses: impl IntoIterator<Item = T>) -> Vec<IpAddr> {
    let addresses: Vec<IpAddr> =
        addresses.into_iter().map(|address| address.as_ref().parse().unwrap()).collect();
    let families = |addresses: &[IpAddr]| addresses.iter().map(family).collect::<Vec<_>>();
    assert_eq!(families(&addresses), families(&addresses_of_node()), "{addresses:?}");
    addresses
}

/// Waits until a request that the node itself makes, as its kubelet does, is answered with this status.
async fn answers_the_node(address: IpAddr, port: i32, path: &str, status: &str) {
    let url = format!("http://{}{path}", SocketAddr::new(address, port.try_into().unwrap()));
    eventually(&format!("{status} at {url}"), || async {
        let output = Command::new(setting("NODE_INSIDE"))
            .args(["curl", "--globoff", "--silent", "--max-time", "20", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", &url])
            .output()
            .await
            .unwrap();
        (output.stdout == status.as_bytes()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_api_is_reached_by_each_family_at_its_services_at_its_pods_and_by_the_ingress_controller() {
    let on = OnNode::new("families").await;
    on.apply(json!({"replicas": 2, "serviceName": "orders-srv"})).await;
    on.namespace.ready("orders").await;
    for name in ["orders", "orders-srv"] {
        let spec = on.namespace.api::<Service>().get(name).await.unwrap().spec.unwrap();
        for address in of_each_family(spec.cluster_ips.unwrap()) {
            answers_the_node(address, spec.ports.as_ref().unwrap()[0].port, "/api/orders", "401").await;
        }
    }
    let pods = on.pods().await;
    assert_eq!(pods.len(), 2);
    let mut servers = Vec::new();
    for pod in pods {
        let (spec, status) = (pod.spec.unwrap(), pod.status.unwrap());
        assert_eq!(status.container_statuses.unwrap()[0].restart_count, 0, "its probes have succeeded");
        let port = |name: &str| {
            let mut ports = spec.containers[0].ports.iter().flatten();
            ports.find(|port| port.name.as_deref() == Some(name)).unwrap().container_port
        };
        for address in of_each_family(status.pod_ips.unwrap().into_iter().map(|each| each.ip)) {
            answers_the_node(address, port("http"), "/api/orders", "401").await;
            answers_the_node(address, port("admin"), "/readyz", "200").await;
            servers.push(format!("http://{}", SocketAddr::new(address, port("http").try_into().unwrap())));
        }
    }
    on.namespace.api::<NetworkPolicy>().get("orders").await.unwrap();
    on.entry.up(&on.host, "/api/orders", "orders").await;
    servers.sort();
    eventually(&format!("the ingress controller balances among {servers:?}"), || async {
        let mut known = servers_of_traefik(&on.namespace.name).await;
        known.sort();
        (known == servers).then_some(())
    })
    .await;
    on.remove().await;
}

/// Where Traefik sends requests for what is in a namespace.
async fn servers_of_traefik(namespace: &str) -> Vec<String> {
    let url = format!("{}/http/services", setting("INGRESS_API_URL"));
    let services: Vec<Value> = reqwest::get(url).await.unwrap().json().await.unwrap();
    let ours = |service: &&Value| service["name"].as_str().unwrap().starts_with(namespace);
    let servers =
        services.iter().filter(ours).filter_map(|service| service["loadBalancer"]["servers"].as_array());
    servers.flatten().map(|server| server["url"].as_str().unwrap().to_owned()).collect()
}

/// Has a Service of this name lead to the database in these families.
async fn lead_to_the_database(on: &OnNode, name: &str, policy: &str, addresses: &[IpAddr]) {
    let metadata = json!({"name": name, "namespace": on.namespace.name});
    let ports = json!([{"name": "mongo", "port": 27017, "protocol": "TCP"}]);
    let families: Vec<_> = addresses.iter().map(family).collect();
    let spec = json!({"ports": ports, "ipFamilyPolicy": policy, "ipFamilies": families});
    apply_any(
        &on.namespace.client,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}),
    )
    .await;
    for address in addresses {
        let mut metadata = metadata.clone();
        metadata["name"] = json!(format!("{name}-slice-{}", family(address).to_lowercase()));
        metadata["labels"] = json!({"kubernetes.io/service-name": name});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": family(address), "ports": ports, "endpoints": [{"addresses": [address]}],
        });
        apply_any(&on.namespace.client, slice).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn pods_and_the_sweeper_reach_a_database_at_an_address_of_each_family_and_at_services_that_have_them() {
    let on = OnNode::new("families-uri").await;
    let addresses = addresses_of_node();
    let mut ways = Vec::new();
    for address in &addresses {
        let of_one = format!("mongo-{}", family(address).to_lowercase());
        lead_to_the_database(&on, &of_one, "SingleStack", &[*address]).await;
        ways.push((format!("address-{of_one}"), SocketAddr::new(*address, 27017).to_string()));
        ways.push((format!("service-{of_one}"), of_one));
    }
    lead_to_the_database(&on, "mongo", "PreferDualStack", &addresses).await;
    ways.push(("service-mongo".to_owned(), "mongo".to_owned()));

    let mut overdue = Vec::new();
    for (name, host) in &ways {
        let database = TestDatabase::new().await;
        on.namespace.secret(name, "MONGO_URI", &database.at_server(&format!("mongodb://{host}"))).await;
        let id = order(&database, "created", -60_000).await;
        let spec = json!({
            "image": setting("OPERATOR_IMAGE"), "replicas": 1, "database": {"uriSecretRef": {"name": name}}
        });
        on.namespace.apply(&service(&on.namespace, name, &database, spec)).await.unwrap();
        overdue.push((name, database, id));
    }
    for (name, database, id) in &overdue {
        cancelled(database, *id).await;
        on.namespace.condition(name, DatabaseReady, "True", "AsExpected").await;
        on.namespace.ready(name).await;
    }
    on.remove().await;
    drop(overdue);
}
