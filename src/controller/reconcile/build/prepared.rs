//! The children of one OrdersService as they should be.

use std::slice;

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};

use crate::controller::{
    children::{httproute::HTTPRoute, kind::Child, middleware::Middleware},
    reconcile::validate::pods::Replicas,
};

/// The children as they should be; none of a kind that is switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Runs the orders API.
    pub deployment: Deployment,
    /// Who sets its number of pods; what is sent of that also depends on the live Deployment.
    pub replicas: Replicas,
    /// Give its pods one address: the first has the name of the OrdersService, and the second another.
    pub services: Vec<Service>,
    /// The ordered routes; those of which Traefik takes the prefix off in Ingresses of their own.
    pub ingresses: Vec<Ingress>,
    /// Whether Ingresses that exist are left as they are, since the class that these name does not exist.
    pub keeps_ingress: bool,
    /// The same routes at Gateways, split where one HTTPRoute would have too many rules.
    pub routes: Vec<HTTPRoute>,
    /// What has Traefik take prefixes off.
    pub middlewares: Vec<Middleware>,
    /// Sets the number of pods.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Bounds how many pods a drain may evict.
    pub budget: Option<PodDisruptionBudget>,
    /// The account of the pods.
    pub account: Option<ServiceAccount>,
    /// Whether the spec names the account, so that one of that name serves whoever made it.
    pub account_is_named: bool,
    /// Who may connect to them.
    pub network_policy: Option<NetworkPolicy>,
}

/// Does something with the children of each kind.
pub trait PreparedVisitor<'a> {
    /// All children of type `K`; none if the kind is switched off.
    fn visit<K: Child>(&mut self, children: &'a [K]);
}

impl Prepared {
    /// The one enumeration of the children: hands those of each kind to `visitor`, in the order of
    /// [`ChildKind::ALL`](crate::controller::children::kind::ChildKind::ALL).
    pub fn visit<'a>(&'a self, visitor: &mut impl PreparedVisitor<'a>) {
        // No `..`, so that a new child that is not visited does not compile.
        let Self {
            deployment,
            replicas: _,
            services,
            ingresses,
            keeps_ingress: _,
            routes,
            middlewares,
            autoscaler,
            budget,
            account,
            account_is_named: _,
            network_policy,
        } = self;
        visitor.visit(slice::from_ref(deployment));
        visitor.visit(services);
        visitor.visit(ingresses);
        visitor.visit(autoscaler.as_slice());
        visitor.visit(budget.as_slice());
        visitor.visit(account.as_slice());
        visitor.visit(network_policy.as_slice());
        visitor.visit(routes);
        visitor.visit(middlewares);
    }
}
