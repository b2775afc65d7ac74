//! Checks whether the API server serves the Gateway API, whose CRDs may be installed at any time.

use std::time::Duration;

use crate::controller::{
    api_server::{ApiServer, RequestError},
    children::served::Served,
    claims::registry::ClaimRegistry,
    services::OrdersServices,
    trigger::Trigger,
};

/// Group and version of the HTTPRoute.
const GROUP_VERSION: &str = "gateway.networking.k8s.io/v1";

/// How soon to check again, while an OrdersService asks for HTTPRoutes and they are not served.
const INTERVAL: Duration = Duration::from_secs(3);

/// Checks at the start, and then as long as HTTPRoutes are not served and an OrdersService asks for them. Requeues these
/// when that changes. That HTTPRoutes are no longer served is noticed by their watch.
pub async fn probe(
    api: &ApiServer,
    gateway_api: &Served,
    claims: &ClaimRegistry,
    services: &OrdersServices,
    trigger: &Trigger,
) {
    let requeue_users = || {
        services
            .iter()
            .filter(|service| service.has_gateway())
            .for_each(|service| trigger.requeue(&service.key()));
    };
    let mut must_check = true;
    loop {
        if std::mem::take(&mut must_check) || services.iter().any(|service| service.has_gateway()) {
            match is_served(api).await {
                Ok(true) => {
                    gateway_api.set(true);
                    requeue_users();
                    gateway_api.wait_until(false).await;
                    claims.http_routes_gone().iter().for_each(|key| trigger.requeue(key));
                    requeue_users();
                }
                Ok(false) => gateway_api.set(false),
                Err(error) => {
                    if matches!(error, RequestError::Refused { code: 403, .. }) {
                        // It will not be known, so there is no point in waiting for it.
                        gateway_api.set(false);
                    }
                    tracing::warn!(%error, "cannot check whether HTTPRoutes are served");
                    must_check = true;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn is_served(api: &ApiServer) -> Result<bool, RequestError> {
    let resources = api.client.list_api_group_resources(GROUP_VERSION);
    match api.read("APIResourceList", "get", resources).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == "HTTPRoute")),
        Err(RequestError::Refused { code: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
