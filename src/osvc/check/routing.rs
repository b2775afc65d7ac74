//! What serves routes: the IngressClasses, and the Gateway API.

use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::report::Group;
use crate::{
    controller::{HTTPRoute, is_default_class},
    osvc::{cluster::Cluster, error::AskError},
};

/// What serves routes, as far as it is known.
pub(super) struct Routing {
    /// The names of the IngressClasses.
    pub(super) classes: Option<Vec<String>>,
    /// Whether one of them is the default.
    pub(super) has_default: bool,
    /// Whether HTTPRoutes are served.
    pub(super) has_gateways: Option<bool>,
}

/// Checks both; whether they are needed is for the OrdersServices to say.
pub(super) async fn check(cluster: &Cluster) -> (Group, Routing) {
    let mut group = Group::new("Routing");
    let api = Api::<IngressClass>::all(cluster.client.clone());
    let listed = cluster.list("list IngressClasses", &api, ListParams::default()).await;
    let mut routing = Routing { classes: None, has_default: false, has_gateways: None };
    match listed {
        Ok(classes) => {
            routing.has_default = classes.iter().any(is_default_class);
            let shown = |class: &IngressClass| {
                format!("{}{}", class.name_any(), if is_default_class(class) { " (the default)" } else { "" })
            };
            let all: Vec<_> = classes.iter().map(shown).collect();
            if all.is_empty() {
                group.warning(
                    "there is no IngressClass, so no Ingress is served",
                    "install an ingress controller, unless only spec.gateway is to be used",
                );
            } else {
                group.ok(format!("IngressClasses: {}", all.join(", ")));
            }
            routing.classes = Some(classes.iter().map(ResourceExt::name_any).collect());
        }
        Err(error) => group.unasked(&error),
    }
    let gateway_api = HTTPRoute::api_version(&());
    let kinds = cluster.client.list_api_group_resources(&gateway_api);
    match cluster.ask("list the kinds of the Gateway API", kinds).await {
        Ok(kinds) if kinds.resources.iter().any(|kind| kind.name == "httproutes") => {
            routing.has_gateways = Some(true);
            group.ok(format!("the Gateway API is served ({gateway_api})"));
        }
        Ok(_) | Err(AskError::NotFound(_)) => {
            routing.has_gateways = Some(false);
            group.ok("the Gateway API is not there, which only spec.gateway needs");
        }
        Err(error) => group.unasked(&error),
    }
    (group, routing)
}
