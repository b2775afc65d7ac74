//! Checks whether the API server serves the Gateway API, whose CRDs may be installed at any time.

use std::time::Duration;

use kube::Resource;

use super::refusals::Refusals;
use crate::controller::{
    api_server::{ApiServer, RequestError},
    children::{httproute::HTTPRoute, served::Served},
    claims::registry::ClaimRegistry,
    services::OrdersServices,
    trigger::Trigger,
};

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
    let (mut must_check, mut refusals) = (true, Refusals::default());
    loop {
        if std::mem::take(&mut must_check) || services.iter().any(|service| service.has_gateway()) {
            let answer = is_served(api).await;
            match known(&answer, &mut refusals) {
                Some(true) => {
                    gateway_api.set(true);
                    requeue_users();
                    gateway_api.wait_until(false).await;
                    claims.http_routes_gone().iter().for_each(|key| trigger.requeue(key));
                    requeue_users();
                }
                Some(false) => gateway_api.set(false),
                None => {}
            }
            if let Err(error) = answer {
                tracing::warn!(%error, "cannot check whether HTTPRoutes are served");
                must_check = true;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What is known by this answer. If it is refused for long, nothing will be known, and nobody must wait for it: then none are
/// served, as far as the controller may know.
fn known(answer: &Result<bool, RequestError>, refusals: &mut Refusals) -> Option<bool> {
    match answer {
        Err(RequestError::Forbidden(_) | RequestError::Denied(_)) => refusals.refused().then_some(false),
        answer => {
            refusals.ended();
            answer.as_ref().ok().copied()
        }
    }
}

async fn is_served(api: &ApiServer) -> Result<bool, RequestError> {
    let version = HTTPRoute::api_version(&());
    let resources = api.client.list_api_group_resources(&version);
    match api.read("APIResourceList", "get", resources).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == "HTTPRoute")),
        Err(RequestError::Refused { code: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn where_it_may_not_be_asked_for_long_none_are_served_and_any_answer_counts_at_once() {
        let mut refusals = Refusals::default();
        let forbidden = || Err(RequestError::Forbidden("User \"x\" cannot get path".into()));
        let mut seen = Vec::new();
        for answer in
            [forbidden(), Err(RequestError::Timeout), forbidden(), forbidden(), Ok(true), forbidden()]
        {
            seen.push(known(&answer, &mut refusals));
            tokio::time::advance(Duration::from_secs(40)).await;
        }
        assert_eq!(seen, [None, None, None, Some(false), Some(true), None]);
        assert_eq!(known(&Ok(false), &mut refusals), Some(false));
    }
}
