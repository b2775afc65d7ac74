//! The NetworkPolicy: who may reach the pods.
//!
//! Anyone may reach the port of the API: who calls it (an ingress controller in the network of its
//! node, a load balancer, another service) cannot be known here. The admin port, with its metrics, is
//! open to the pods of the cluster only, so that a Prometheus in any namespace can scrape it. Probes
//! need no rule: a pod's own node always reaches it. What the pods call (the database, DNS) is left open.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};

use super::metadata::{metadata, selector_labels};
use crate::controller::reconcile::validate::validated::{ADMIN_PORT_NAME, API_PORT, ValidatedOrdersService};

pub(super) fn build_network_policy(service: &ValidatedOrdersService) -> Option<NetworkPolicy> {
    // By name: while spec.port is changed, old pods and new ones have different numbers.
    let port = |name: &str| NetworkPolicyPort {
        port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        end_port: None,
    };
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
    service.network_policy.then(|| NetworkPolicy {
        metadata: metadata(service),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(&service.name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule { ports: Some(vec![port(API_PORT)]), from: None },
                NetworkPolicyIngressRule {
                    ports: Some(vec![port(ADMIN_PORT_NAME)]),
                    from: Some(vec![any_pod]),
                },
            ]),
            egress: None,
        }),
    })
}
