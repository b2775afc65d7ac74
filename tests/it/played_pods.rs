//! Pods that are played, where a cluster has no nodes: each becomes ready, gets an address, and is in the EndpointSlices of
//! the Services that select it. An HTTP proxy is their network: it answers a request for an address as the pod would.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Request, http::StatusCode};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::interval};

use crate::cluster::TestNamespace;

/// The pods of one namespace. They are no longer played once this is dropped.
pub struct PlayedPods {
    /// The port of the proxy.
    pub port: u16,
    tasks: [JoinHandle<()>; 2],
}

/// What an address leads to: a Deployment, and whether its pod still answers.
type Addresses = Arc<Mutex<BTreeMap<String, (String, bool)>>>;

impl PlayedPods {
    pub async fn start(namespace: &TestNamespace) -> Self {
        Self::start_in(&namespace.client, &namespace.name).await
    }

    /// In a namespace of this name, which may be made later.
    pub async fn start_in(client: &Client, namespace: &str) -> Self {
        let addresses = Addresses::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = addresses.clone();
        let answer = move |request: Request| std::future::ready(answer(&known, &request));
        let network =
            tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        let pods = Api::namespaced(client.clone(), namespace);
        let services = Api::namespaced(client.clone(), namespace);
        let slices = Api::namespaced(client.clone(), namespace);
        let kubelet = tokio::spawn(async move {
            let (mut tick, mut written) = (interval(Duration::from_millis(50)), BTreeMap::new());
            loop {
                tick.tick().await;
                let ready = play(&pods, &addresses).await;
                lead(&services, &slices, &ready, &mut written).await;
            }
        });
        Self { port, tasks: [network, kubelet] }
    }
}

impl Drop for PlayedPods {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The name of the Deployment that a pod is of, if it still answers.
fn answer(addresses: &Addresses, request: &Request) -> (StatusCode, String) {
    let address = request.uri().host().unwrap_or_default();
    match addresses.lock().unwrap().get(address) {
        Some((deployment, true)) => (StatusCode::OK, deployment.clone()),
        Some((deployment, false)) => (StatusCode::BAD_GATEWAY, format!("a pod of {deployment} is gone")),
        None => (StatusCode::BAD_GATEWAY, format!("no pod has the address {address}")),
    }
}

/// Makes every pod ready, with an address of its own. Gives the labels of each by its address.
async fn play(pods: &Api<Pod>, addresses: &Addresses) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut ready = BTreeMap::new();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let address = match address {
            Some(address) => address,
            None => {
                let address = free(addresses, &pod);
                let now = jiff::Timestamp::now();
                let status = json!({"status": {
                    "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now.to_string()}],
                }});
                // It may be gone by now.
                if pods
                    .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
                    .await
                    .is_err()
                {
                    continue;
                }
                address
            }
        };
        ready.insert(address, pod.labels().clone());
    }
    for (address, (deployment, answers)) in addresses.lock().unwrap().iter_mut() {
        // The product's pods finish what comes for some seconds more. Those of the old system do not.
        *answers =
            ready.contains_key(address) || deployment.starts_with("orders") && deployment != "orders-depl";
    }
    ready
}

fn free(addresses: &Addresses, pod: &Pod) -> String {
    let mut addresses = addresses.lock().unwrap();
    let address = format!("10.66.{}.{}", addresses.len() / 200, addresses.len() % 200 + 1);
    // The ReplicaSet has the name of its Deployment and a hash.
    let owner = pod.owner_references().first().map(|owner| owner.name.as_str()).unwrap_or_default();
    let deployment = owner.rsplit_once('-').map_or(owner, |(deployment, _)| deployment);
    addresses.insert(address.clone(), (deployment.to_owned(), true));
    address
}

/// Has each Service lead to the ready pods that it selects.
async fn lead(
    services: &Api<Service>,
    slices: &Api<EndpointSlice>,
    ready: &BTreeMap<String, BTreeMap<String, String>>,
    written: &mut BTreeMap<String, BTreeSet<String>>,
) {
    for service in services.list(&ListParams::default()).await.unwrap() {
        let Some(spec) = &service.spec else { continue };
        let Some(selector) = &spec.selector else { continue };
        let selected = |labels: &BTreeMap<String, String>| {
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let to: BTreeSet<String> =
            ready.iter().filter(|(_, labels)| selected(labels)).map(|(address, _)| address.clone()).collect();
        let key = service.uid().unwrap_or_default();
        if written.get(&key) == Some(&to) {
            continue;
        }
        let name = service.name_any();
        // Or else Traefik asks the proxy for the host of the request, and not for the address of a pod.
        let by_address = json!({"metadata": {"annotations": {"traefik.ingress.kubernetes.io/service.passhostheader": "false"}}});
        // It may be gone by now.
        if services.patch(&name, &PatchParams::default(), &Patch::Merge(by_address)).await.is_err() {
            continue;
        }
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| json!({"name": port.name.as_deref().unwrap_or_default(), "port": port.port}))
            .collect();
        let endpoints: Vec<Value> =
            to.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-played"),
                "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "played"},
            },
            "endpoints": endpoints, "ports": ports,
        });
        let by = PatchParams::apply("played").force();
        slices.patch(&format!("{name}-played"), &by, &Patch::Apply(slice)).await.unwrap();
        written.insert(key, to);
    }
}
