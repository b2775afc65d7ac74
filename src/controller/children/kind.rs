//! The kinds of children, listed once. The compiler makes whoever handles children by type handle every kind.

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, DeploymentStatus},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Service, ServiceAccount},
        networking::v1::{Ingress, IngressSpec, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    autoscaler,
    httproute::{HTTPRoute, HTTPRouteSpec, HTTPRouteStatus},
    httproute_status,
    middleware::Middleware,
    numbered::Purpose,
    partial::{Omitted, Partial, Projection, Scale, Scaling},
    rollout::Rollout,
};
use crate::controller::problem::Problem;

/// A type of children.
pub trait Child:
    Projection + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Serialize
{
    /// Its kind.
    const KIND: ChildKind;

    /// The number of this object among those of its kind: its place in their list, unless its name says another.
    fn number(&self, place: usize) -> usize {
        match Self::KIND {
            ChildKind::Ingress | ChildKind::Middleware | ChildKind::HTTPRoute => {
                Purpose::of_name(self.meta().name.as_deref().unwrap_or_default()).number()
            }
            _ => place,
        }
    }

    /// How far its rollout is; none for what is not rolled out.
    fn rollout(_: &Partial<Self>) -> Option<Rollout> {
        None
    }

    /// What Gateways report against it; nothing for what no Gateway serves.
    fn route_problems(_: &Partial<Self>) -> Vec<Problem> {
        Vec::new()
    }

    /// Since when it has had no metrics to scale by; none for what does not scale.
    fn unmeasured_since(_: &Partial<Self>) -> Option<Timestamp> {
        None
    }
}

/// A function over kinds of children that needs the type of the kind; [`ChildKind::visit`] calls it.
pub trait KindVisitor {
    /// The result of [`Self::visit`].
    type Output;

    /// Called with the type of the kind.
    fn visit<K: Child>(self) -> Self::Output;
}

macro_rules! kinds {
    ($($kind:ident: $spec:ty, $status:ty, { $($overrides:tt)* };)+) => {
        /// A kind of children.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ChildKind {
            $(
                #[doc = concat!("A ", stringify!($kind), ".")]
                $kind,
            )+
        }

        impl ChildKind {
            /// Every kind.
            pub const ALL: [Self; [$(stringify!($kind)),+].len()] = [$(Self::$kind),+];

            /// Its name in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),+ }
            }

            /// Calls `visitor` with the type of this kind.
            pub fn visit<V: KindVisitor>(self, visitor: V) -> V::Output {
                match self { $(Self::$kind => visitor.visit::<$kind>()),+ }
            }
        }

        $(
            impl Projection for $kind {
                type Spec = $spec;
                type Status = $status;
            }

            impl Child for $kind {
                const KIND: ChildKind = ChildKind::$kind;
                $($overrides)*
            }
        )+
    };
}

// For each kind: the parts of its spec and its status that are read.
kinds!(
    Deployment: Scale, DeploymentStatus, {
        fn rollout(deployment: &Partial<Self>) -> Option<Rollout> {
            Some(deployment.into())
        }
    };
    Service: Omitted, Omitted, {};
    // The Ingresses of others claim routes.
    Ingress: IngressSpec, Omitted, {};
    HorizontalPodAutoscaler: Omitted, Scaling, {
        fn unmeasured_since(autoscaler: &Partial<Self>) -> Option<Timestamp> {
            autoscaler::unmeasured_since(autoscaler)
        }
    };
    PodDisruptionBudget: Omitted, Omitted, {};
    ServiceAccount: Omitted, Omitted, {};
    NetworkPolicy: Omitted, Omitted, {};
    HTTPRoute: HTTPRouteSpec, HTTPRouteStatus, {
        fn route_problems(route: &Partial<Self>) -> Vec<Problem> {
            httproute_status::problems(route)
        }
    };
    Middleware: Omitted, Omitted, {};
);

/// Which child of an OrdersService.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId {
    /// Its kind.
    pub kind: ChildKind,
    /// Its number among those of its kind: from 0, or what [`Purpose`] makes of what it is for.
    pub index: usize,
}

impl ChildId {
    /// The child of type `K` with this number.
    pub fn of<K: Child>(index: usize) -> Self {
        Self { kind: K::KIND, index }
    }

    /// The name of this child of the OrdersService named `owner`. No OrdersService has a dot in its name, so the name of
    /// a further child is never that of another's first.
    pub fn name(self, owner: &str) -> String {
        if matches!(self.kind, ChildKind::Ingress | ChildKind::Middleware | ChildKind::HTTPRoute) {
            return Purpose::of_number(self.index).name(owner);
        }
        if self.index == 0 { owner.to_owned() } else { format!("{owner}.{}", self.index + 1) }
    }
}
