//! The kinds of children, named once, and what is read of each beside its metadata.

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
    gateway::{HTTPRoute, HTTPRouteSpec, RouteStatus},
    partial::{Nothing, Partly, Scale},
};

/// What all children's types have in common.
pub trait Child: Partly + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Serialize {
    /// Which kind it is.
    const KIND: Kind;
}

macro_rules! kinds {
    ($($kind:ident: $spec:ty, $status:ty;)+) => {
        /// A kind of child.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $(
                #[doc = concat!("A ", stringify!($kind), ".")]
                $kind,
            )+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; [$(stringify!($kind)),+].len()] = [$(Self::$kind),+];

            /// Its name in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),+ }
            }
        }

        $(
            impl Partly for $kind {
                type Spec = $spec;
                type Status = $status;
            }

            impl Child for $kind {
                const KIND: Kind = Kind::$kind;
            }
        )+
    };
}

kinds!(
    // Its status is part of ours.
    Deployment: Scale, DeploymentStatus;
    Service: Nothing, Nothing;
    // Those of others claim routes.
    Ingress: IngressSpec, Nothing;
    HorizontalPodAutoscaler: Nothing, Nothing;
    PodDisruptionBudget: Nothing, Nothing;
    ServiceAccount: Nothing, Nothing;
    NetworkPolicy: Nothing, Nothing;
    // What Gateways say of it is part of our status.
    HTTPRoute: HTTPRouteSpec, RouteStatus;
);

impl Kind {
    /// Whether every cluster has it; others are watched only where it is served.
    pub fn is_everywhere(self) -> bool {
        self != Self::HTTPRoute
    }
}

/// Which children of the same kind it is: nearly always the first.
pub type Part = usize;

/// The name of a part of the children of `owner`. No resource has a dot in its name, so it is none of theirs.
pub fn part_name(owner: &str, part: Part) -> String {
    if part == 0 { owner.to_owned() } else { format!("{owner}.{}", part + 1) }
}
