//! The kinds of children, named once.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use super::gateway::HTTPRoute;

/// What all children's types have in common.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// Which kind it is.
    const KIND: Kind;
}

macro_rules! kinds {
    ($($kind:ident),+ $(,)?) => {
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

        $(impl Child for $kind { const KIND: Kind = Kind::$kind; })+
    };
}

kinds!(
    Deployment,
    Service,
    Ingress,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    ServiceAccount,
    NetworkPolicy,
    HTTPRoute,
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
