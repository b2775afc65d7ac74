//! Checks whether the API server serves kinds of others, whose CRDs may be installed at any time: HTTPRoutes of the Gateway
//! API, and Middlewares of Traefik.

use std::{fmt, time::Duration};

use kube::Resource;

use super::refusals::Refusals;
use crate::controller::{
    api_server::{ApiServer, RequestError},
    children::{httproute::HTTPRoute, middleware::Middleware, served::Served},
    claims::registry::ClaimRegistry,
    raw_orders_service::RawOrdersService,
    services::OrdersServices,
    trigger::Trigger,
};

/// How soon to check again, while an OrdersService asks for objects of the kind and they are not served.
const INTERVAL: Duration = Duration::from_secs(3);

/// A kind whose CRD must be installed first.
pub struct OptionalApi<'a> {
    kind: &'static str,
    version: String,
    served: &'a Served,
    is_used: fn(&RawOrdersService) -> bool,
    has_claims: bool,
}

impl<'a> OptionalApi<'a> {
    /// HTTPRoutes.
    pub fn gateway(served: &'a Served) -> Self {
        let version = HTTPRoute::api_version(&()).into_owned();
        Self { kind: "HTTPRoute", version, served, is_used: RawOrdersService::has_gateway, has_claims: true }
    }

    /// Middlewares.
    pub fn traefik(served: &'a Served) -> Self {
        let version = Middleware::api_version(&()).into_owned();
        let is_used = RawOrdersService::strips_prefixes;
        Self { kind: "Middleware", version, served, is_used, has_claims: false }
    }

    /// Checks at the start, and then as long as they are not served and an OrdersService asks for them. Requeues these when
    /// that changes. That they are no longer served is noticed by their watch.
    pub async fn probe(
        &self,
        api: &ApiServer,
        claims: &ClaimRegistry,
        services: &OrdersServices,
        trigger: &Trigger,
    ) {
        let is_user = |service: &RawOrdersService| (self.is_used)(service);
        let requeue_users = || {
            services
                .iter()
                .filter(|service| is_user(service))
                .for_each(|service| trigger.requeue(&service.key()));
        };
        let (mut must_check, mut refusals) = (true, Refusals::default());
        loop {
            if std::mem::take(&mut must_check) || services.iter().any(|service| is_user(&service)) {
                let answer = self.is_served(api).await;
                match known(&answer, &mut refusals) {
                    Some(true) => {
                        self.served.set(true);
                        // Before they are listed none is written.
                        self.served.settled().await;
                        requeue_users();
                        self.served.wait_until(false).await;
                        if self.has_claims {
                            claims.http_routes_gone().iter().for_each(|key| trigger.requeue(key));
                        }
                        requeue_users();
                    }
                    Some(false) => self.served.set(false),
                    None => {}
                }
                if let Err(error) = answer {
                    tracing::warn!(%error, "cannot check whether {self} are served");
                    must_check = true;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn is_served(&self, api: &ApiServer) -> Result<bool, RequestError> {
        let resources = api.client.list_api_group_resources(&self.version);
        match api.read("APIResourceList", "get", resources).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == self.kind)),
            Err(RequestError::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for OptionalApi<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}s", self.kind)
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
