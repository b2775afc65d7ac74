//! The Service: one address for the pods of the orders API.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata::{metadata, selector_labels};
use crate::controller::reconcile::validate::validated::{API_PORT, ValidatedOrdersService};

pub(super) fn build_service(service: &ValidatedOrdersService) -> Service {
    Service {
        metadata: metadata(service),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            // An address of each family that the cluster has.
            ip_family_policy: Some("PreferDualStack".into()),
            selector: Some(selector_labels(&service.name)),
            ports: Some(vec![ServicePort {
                name: Some(API_PORT.into()),
                port: service.port,
                target_port: Some(IntOrString::String(API_PORT.into())),
                // Always set: server-side apply merges ports by number and protocol.
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
