//! Ingress controllers that read some rules in another way than they are meant.

/// Such an ingress controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressController {
    /// That of the Kubernetes project.
    IngressNginx,
    /// Traefik.
    Traefik,
    /// Kong.
    Kong,
    /// That of Google Cloud.
    Gce,
    /// Any other that is known by the IngressClass.
    Other,
}

impl IngressController {
    /// The one of an IngressClass, by the name that its spec has of the controller.
    pub fn of_class(controller: &str) -> Self {
        match controller.split_once('/') {
            // A second one in the same cluster is named in some such way as `k8s.io/internal-ingress-nginx`.
            Some(("k8s.io", name)) if name.contains("ingress-nginx") => Self::IngressNginx,
            Some(("traefik.io", _)) => Self::Traefik,
            Some(("ingress-controllers.konghq.com", _)) => Self::Kong,
            _ => Self::Other,
        }
    }

    /// Whether by an annotation of one Ingress all paths of its hosts are read as regexes. Nobody but ingress-nginx does so,
    /// unless it is not known who serves the class.
    pub fn may_switch_to_regexes(controller: Option<Self>) -> bool {
        matches!(controller, Some(Self::IngressNginx) | None)
    }

    /// The one that is probably meant by the name of a class of which there is no IngressClass to be read.
    pub fn named(class: &str) -> Option<Self> {
        match class {
            "nginx" | "ingress-nginx" => Some(Self::IngressNginx),
            "traefik" => Some(Self::Traefik),
            "kong" => Some(Self::Kong),
            // Of which GKE has no IngressClass.
            "gce" | "gce-internal" => Some(Self::Gce),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_known_by_their_names_and_classes_without_an_object_by_theirs() {
        use IngressController::{Gce, IngressNginx, Kong, Other, Traefik};
        for (name, expected) in [
            ("k8s.io/ingress-nginx", IngressNginx),
            ("k8s.io/internal-ingress-nginx", IngressNginx),
            ("traefik.io/ingress-controller", Traefik),
            ("ingress-controllers.konghq.com/kong", Kong),
            ("nginx.org/ingress-controller", Other),
            ("ingress.k8s.aws/alb", Other),
        ] {
            assert_eq!(IngressController::of_class(name), expected, "{name}");
        }
        assert_eq!(IngressController::named("nginx"), Some(IngressNginx));
        assert_eq!(
            (IngressController::named("kong"), IngressController::named("gce")),
            (Some(Kong), Some(Gce))
        );
        assert_eq!(
            (IngressController::named("traefik"), IngressController::named("public")),
            (Some(Traefik), None)
        );
    }
}
