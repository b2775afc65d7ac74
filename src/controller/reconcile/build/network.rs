//! The NetworkPolicy: who may reach the pods.
//!
//! Anyone may reach the port of the API: who calls it (an ingress controller in the network of its
//! node, a load balancer, another service) cannot be known here. The admin port, with its metrics, is
//! open to the pods of the cluster only, so that a Prometheus in any namespace can scrape it. Probes
//! need no rule: a pod's own node always reaches it. What the pods call (the database, DNS) is left open.
//!
//! A mesh brings what pods of the mesh send to a port of its own, and says itself who may send what. In Istio's ambient
//! mode the probes come from an address that is no node's.

use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};

use super::metadata::{metadata, selector_labels};
use crate::{
    controller::reconcile::validate::validated::{ADMIN_PORT_NAME, API_PORT, ValidatedOrdersService},
    crd::Mesh,
};

/// From where Istio's ambient mode has the kubelet's probes come.
const AMBIENT_PROBES: [&str; 2] = ["169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"];

/// The port at which a pod takes what comes by its mesh.
fn port_of(mesh: Mesh) -> i32 {
    match mesh {
        Mesh::IstioAmbient => 15008,
        Mesh::Linkerd => 4143,
    }
}

pub(super) fn build_network_policy(service: &ValidatedOrdersService) -> Option<NetworkPolicy> {
    // By name: while spec.port is changed, old pods and new ones have different numbers.
    let by_name = |name: &str| port(IntOrString::String(name.into()));
    // Every namespace has this label. An empty selector would mean the same, but reads like a mistake.
    let any_namespace = LabelSelectorRequirement {
        key: "kubernetes.io/metadata.name".into(),
        operator: "Exists".into(),
        values: None,
    };
    let any_pod = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_expressions: Some(vec![any_namespace]),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    let mut admitted = vec![any_pod];
    if service.mesh == Some(Mesh::IstioAmbient) {
        admitted.extend(AMBIENT_PROBES.map(|cidr| NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: cidr.into(), except: None }),
            ..NetworkPolicyPeer::default()
        }));
    }
    let rule = |port, from| NetworkPolicyIngressRule { ports: Some(vec![port]), from };
    let mut rules =
        vec![rule(by_name(API_PORT), None), rule(by_name(ADMIN_PORT_NAME), Some(admitted.clone()))];
    // By it a mesh leads to every other port, so it is open to those to whom the admin port is.
    rules.extend(service.mesh.map(|mesh| rule(port(IntOrString::Int(port_of(mesh))), Some(admitted))));
    service.network_policy.then(|| NetworkPolicy {
        metadata: metadata(service),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(&service.name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(rules),
            egress: None,
        }),
    })
}

fn port(port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(port), protocol: Some("TCP".into()), end_port: None }
}
