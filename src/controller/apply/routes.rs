//! The HTTPRoutes: applied where the Gateway API is served, and what the Gateways say of them.

use super::{Children, Owner, delete_if_ours, send};
use crate::{
    controller::{
        gateway::{HTTPRoute, MOST_ROUTES, answers},
        kind::Kind,
        memory::Settled,
        print::Print,
        problem::Problem,
        watched::Shown,
    },
    crd::Reason,
};

/// Applies the routes, and deletes those that are not needed any more; gives what keeps Gateways from
/// serving them.
pub(super) async fn apply_routes(
    children: &Children,
    owner: &Owner,
    routes: Vec<HTTPRoute>,
) -> Result<Vec<Problem>, Problem> {
    if !children.gateways.are_served() {
        if routes.is_empty() {
            return Ok(Vec::new());
        }
        let message = "spec.gateway is set, but this cluster has no Gateway API (HTTPRoute of \
                       gateway.networking.k8s.io/v1): install its CRDs and a controller for them (this operator need \
                       not be restarted), or set spec.ingress in place of spec.gateway";
        return Ok(vec![Problem::new(Reason::GatewayApiMissing, message)]);
    }
    let mut problems = Vec::new();
    let needed = routes.len();
    for (part, route) in routes.into_iter().enumerate() {
        problems.extend(apply_route(children, owner, part, route).await?);
    }
    for part in needed..MOST_ROUTES {
        delete_if_ours::<HTTPRoute>(children, owner, part).await?;
    }
    Ok(problems)
}

async fn apply_route(
    children: &Children,
    owner: &Owner,
    part: usize,
    route: HTTPRoute,
) -> Result<Vec<Problem>, Problem> {
    let print = Print::of(&route);
    let memory = &children.memory;
    let shown = children.watched.get(Kind::HTTPRoute, &owner.namespace, &owner.part(part));
    let known = match (memory.settled(&owner.uid, (Kind::HTTPRoute, part), print, &shown), &shown) {
        // The watch may be behind the answer.
        (Settled::Untouched, _) => memory.answers(&owner.uid, part),
        // What a Gateway says, most likely.
        (Settled::Elsewhere, Shown::There(seen)) => Some(seen.answers.clone()),
        _ => None,
    };
    if let Some(answers) = known {
        return Ok(answers);
    }
    let live = send(children, owner, part, route, shown).await?;
    let answers = answers(&live);
    memory.applied(&owner.uid, part, print, &live);
    memory.answered(&owner.uid, part, answers.clone());
    Ok(answers)
}
