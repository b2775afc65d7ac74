//! The Services: one address for the pods of the orders API, or two under two names.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::metadata::{metadata, selector_labels};
use crate::controller::reconcile::validate::validated::{API_PORT, ValidatedOrdersService};

pub(super) fn build_services(service: &ValidatedOrdersService) -> Vec<Service> {
    let second = service
        .service_name
        .as_ref()
        .map(|name| ObjectMeta { name: Some(name.clone()), ..metadata(service) });
    [metadata(service)].into_iter().chain(second).map(|metadata| build_service(service, metadata)).collect()
}

fn build_service(service: &ValidatedOrdersService, metadata: ObjectMeta) -> Service {
    Service {
        metadata,
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
