//! Step 2, pure: turns a spec into one that children can be built from, or names every problem in it.
//!
//! The API server has checked most of this at admission. But the object may have been stored under an older schema, or
//! come from a file, so everything is checked again.
//!
//! ```text
//! validated  the result
//! settings   its name, image, ports and times, and the name of the database
//! pods       the number, the size and the placement of the pods
//! containers the containers before the API and beside it
//! volumes    the volumes of the pods
//! events     the broker
//! conflicts  the routes that other objects have
//! misread    the routes that an ingress controller reads in another way
//! names      the names of Secrets and other objects
//! quantity   quantities, such as 50m or 128Mi
//! strip      prefixes that the ingress controller is to take off
//! ```

mod conflicts;
pub mod containers;
mod events;
pub mod misread;
mod names;
pub mod pods;
mod quantity;
mod settings;
mod strip;
pub mod validated;
mod volumes;

use kube::ResourceExt;

use self::validated::{SecretKey, ValidatedGateway, ValidatedIngress, ValidatedOrdersService};
use crate::{
    controller::{
        children::owner::reference_to,
        claims::requested::{GatewayRoutes, RequestedRoutes, requested, requested_at_gateway},
        problem::Problem,
        reconcile::dereference::Dereferenced,
    },
    crd::{OrdersService, Reason},
};

/// Checks everything and names every problem.
///
/// `default_image` is the image of the controller itself, if it was told.
///
/// # Errors
/// All problems in the spec, and the Secrets that it refers to and that do not exist.
pub fn validate(
    service: &OrdersService,
    found: &Dereferenced,
    default_image: Option<&str>,
) -> Result<ValidatedOrdersService, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut invalid = |message: String| problems.push(Problem::new(Reason::InvalidSpec, message));
    let spec = &service.spec;
    let name = service.name_any();
    settings::check_name(service, &mut invalid);
    own_services(service, &mut invalid);
    let image = settings::image(spec, default_image, &mut invalid);
    names::check(spec, &mut invalid);
    let replicas = pods::replicas(spec, &mut invalid);
    let max_unavailable = pods::max_unavailable(spec, replicas, &mut invalid);
    let validated_pods = pods::validate(spec, found.user_from_cluster, &mut invalid);
    settings::check_ports(spec, &mut invalid);
    settings::check_times(spec, &mut invalid);
    let events = events::validate(spec, &mut invalid);
    settings::check_database(spec, &mut invalid);
    let ingress = validated_ingress(service, found, &mut problems);
    let gateway = validated_gateway(service, ingress.as_ref(), found, &mut problems);
    // Missing Secrets come last: that a spec can never work is the more urgent message.
    problems.extend(found.missing.iter().cloned());
    if !problems.is_empty() {
        return Err(problems);
    }
    let (jwt, uri) = (&spec.auth.jwt_secret_ref, &spec.database.uri_secret_ref);
    let tls = spec.database.tls.as_ref();
    Ok(ValidatedOrdersService {
        namespace: service.namespace().unwrap_or_default(),
        owner: reference_to(service),
        image: image.to_owned(),
        image_pull_policy: spec.image_pull_policy,
        image_pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
        replicas,
        max_unavailable,
        pods: validated_pods,
        network_policy: spec.network_policy,
        mesh: spec.mesh,
        port: spec.port,
        service_name: spec.service_name.clone().filter(|other| *other != name),
        drain_seconds: spec.drain_seconds,
        jwt_secret: SecretKey::new(&jwt.name, &jwt.key),
        uri_secret: SecretKey::new(&uri.name, &uri.key),
        database_ca: tls
            .and_then(|tls| tls.ca_secret_ref.as_ref())
            .map(|ca| SecretKey::new(&ca.name, &ca.key)),
        database_certificate: tls
            .and_then(|tls| tls.client_certificate_secret_ref.as_ref())
            .map(|secret| secret.name.clone()),
        database: spec.database.name.clone(),
        window_seconds: spec.expiration.window_seconds,
        payment_grace_seconds: spec.expiration.payment_grace_seconds,
        events,
        secrets_checksum: found.secrets_checksum.clone(),
        ingress,
        gateway,
        name,
    })
}

/// Tells of routes that lead to a Service of the OrdersService itself, and so to the pods of the orders API, by whose name
/// another service is meant.
fn own_services(service: &OrdersService, invalid: &mut impl FnMut(String)) {
    let spec = &service.spec;
    let name = service.name_any();
    let lists = [
        ("spec.ingress", spec.ingress.as_ref().map(|of| (&of.routes, &of.client))),
        ("spec.gateway", spec.gateway.as_ref().map(|of| (&of.routes, &of.client))),
    ];
    for (field, (routes, client)) in lists.into_iter().filter_map(|(field, list)| Some((field, list?))) {
        let of_routes = routes.iter().enumerate();
        let of_routes = of_routes.map(|(at, route)| (format!("{field}.routes[{at}]"), &route.service));
        let of_client = client.iter().map(|client| (format!("{field}.client"), &client.service));
        for (leads, to) in of_routes.chain(of_client) {
            if spec.service_name.as_ref() == Some(to) {
                invalid(format!(
                    "spec.serviceName is {to:?}, to which {leads} leads: name another, since this one leads to the orders API"
                ));
            } else if *to == name {
                invalid(format!(
                    "{leads}.service is {to:?}, which is the Service of this OrdersService itself and leads to the orders API: \
                     name the Service that is meant, or remove it; the orders API has {field}.path"
                ));
            }
        }
    }
}

/// The requested routes of the Ingress, without those that other objects have.
fn validated_ingress(
    service: &OrdersService,
    found: &Dereferenced,
    problems: &mut Vec<Problem>,
) -> Option<ValidatedIngress> {
    let requested = match requested(service) {
        Ok(requested) => requested,
        Err(wrong) => {
            problems.extend(wrong);
            return None;
        }
    };
    let ingress = service.spec.ingress.as_ref();
    problems.extend(ingress.iter().flat_map(|ingress| strip::problems(ingress, found)));
    let (requested, ingress) = requested.zip(ingress)?;
    let namespace = service.namespace().unwrap_or_default();
    let missing_class = found.missing_class.as_deref().map(conflicts::missing_class);
    Some(ValidatedIngress {
        problems: missing_class.into_iter().chain(conflicts::problems(&requested, found)).collect(),
        warnings: [
            misread::warnings(&requested, Some(ingress), found),
            conflicts::warnings(&requested, found, &namespace),
        ]
        .concat(),
        hosts: conflicts::hosts(&requested, found),
        class_name: ingress.class_name.clone(),
        lacks_class: found.missing_class.is_some(),
        annotations: ingress.annotations.clone(),
        tls_secret: ingress.tls.as_ref().map(|tls| tls.secret_name.clone()),
        traefik_safe_naming: found.traefik_safe_naming,
        own_path: requested.own_path,
    })
}

/// The routes at Gateways, without those that other objects have there.
fn validated_gateway(
    service: &OrdersService,
    ingress: Option<&ValidatedIngress>,
    found: &Dereferenced,
    problems: &mut Vec<Problem>,
) -> Option<ValidatedGateway> {
    let routes = match requested_at_gateway(service) {
        Ok(routes) => routes?,
        Err(wrong) => {
            problems.extend(wrong);
            return None;
        }
    };
    let GatewayRoutes { parents, requested } = routes;
    let mut conflicts = conflicts::problems(&requested, found);
    // Of a host that the Ingress has as well, it may be the same.
    conflicts.retain(|problem| !ingress.is_some_and(|ingress| ingress.problems.contains(problem)));
    let hosts = conflicts::hosts(&requested, found);
    let RequestedRoutes { own_path, has_client, .. } = requested;
    Some(ValidatedGateway { parents, hosts, has_client, own_path, problems: conflicts })
}

#[cfg(test)]
mod tests {
    use super::{pods::Replicas, *};
    use crate::controller::fixture::service;

    fn problems(patch: serde_json::Value) -> Vec<Problem> {
        validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap_err()
    }

    #[test]
    fn defaults_are_filled_in_and_routes_are_ordered() {
        let valid =
            validate(&service(serde_json::json!({})), &Dereferenced::default(), Some("image:1")).unwrap();
        assert_eq!(
            (valid.image.as_str(), valid.replicas, valid.port, valid.window_seconds),
            ("image:1", Replicas::Unset, 3000, 900)
        );
        assert_eq!(valid.jwt_secret, SecretKey { name: "jwt-secret".into(), key: "JWT_KEY".into() });
        let ingress = valid.ingress.unwrap();
        let hosts: Vec<_> = ingress.hosts.iter().map(|host| host.host.to_string()).collect();
        assert_eq!(hosts, ["a.dev", "b.dev"]);
        let routes = ingress.hosts[0].routes.iter();
        let rules: Vec<_> = routes.map(|route| format!("{} {}", route.path, route.backend)).collect();
        assert_eq!(
            rules,
            ["/api/orders orders:3000", "/api/users auth-srv:80", "/api api-srv:3000", "/ client-srv:3000"]
        );
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let found = problems(serde_json::json!({
            "replicas": -1, "port": 8081, "expiration": {"windowSeconds": 0},
            "ingress": {"hosts": ["http://x"], "routes": [{"path": "/api/orders/", "service": "Other"}, {"path": "/", "service": "c"}]}
        }));
        let reasons: Vec<_> = found.iter().map(|problem| problem.reason).collect();
        use Reason::*;
        assert_eq!(
            reasons,
            [InvalidSpec, InvalidSpec, InvalidSpec, InvalidHost, InvalidSpec, DuplicatePath, MultipleClients],
            "{found:#?}"
        );
    }

    #[test]
    fn annotations_that_make_prefixes_regexes_or_change_their_order_or_all_paths_are_refused() {
        let with = |name: &str, value: &str| {
            let ingress = serde_json::json!({"ingress": {"annotations": {name: value}}});
            validate(&service(ingress), &Dereferenced::default(), Some("i"))
        };
        for (name, value) in [
            ("nginx.ingress.kubernetes.io/use-regex", "true"),
            ("nginx.ingress.kubernetes.io/use-regex", "True"),
            ("nginx.ingress.kubernetes.io/use-regex", "t"),
            ("nginx.ingress.kubernetes.io/use-regex", "1"),
            ("nginx.ingress.kubernetes.io/use-regex", " true"),
            ("nginx.ingress.kubernetes.io/rewrite-target", "/$1"),
            ("nginx.org/path-regex", "case_insensitive"),
            ("haproxy-ingress.github.io/path-type", "regex"),
            ("haproxy-ingress.github.io/path-type", "Regex"),
            ("ingress.kubernetes.io/path-type", "regex"),
            ("traefik.ingress.kubernetes.io/router.priority", "42"),
            // By these the orders API would get no request at its path.
            ("haproxy-ingress.github.io/rewrite-target", "/"),
            ("nginx.org/rewrite-target", "/"),
            ("konghq.com/strip-path", "true"),
            ("konghq.com/rewrite", "/v1"),
            ("appgw.ingress.kubernetes.io/backend-path-prefix", "/"),
            ("haproxy.org/path-rewrite", "/one"),
        ] {
            let found = with(name, value).unwrap_err();
            assert!(found.len() == 1 && found[0].message.contains(name), "{found:?}");
        }
        for value in ["false", "False", "FALSE", "f", "F", "0"] {
            assert!(with("nginx.ingress.kubernetes.io/use-regex", value).is_ok(), "{value}");
        }
        assert!(with("haproxy-ingress.github.io/path-type", "prefix").is_ok());
        assert!(with("traefik.ingress.kubernetes.io/router.entrypoints", "websecure").is_ok());
        assert!(with("nginx.ingress.kubernetes.io/proxy-body-size", "1m").is_ok());
        // Some Services may get another path, which is told.
        for (name, value) in
            [("nginx.org/rewrites", "serviceName=a rewrite=/"), ("haproxy.org/path-rewrite", "/a/(.*) /\\1")]
        {
            let warnings = with(name, value).unwrap().ingress.unwrap().warnings;
            let is_told =
                |warning: &Problem| warning.reason == Reason::RouteMisread && warning.message.contains(name);
            assert!(warnings.iter().any(is_told), "{name}: {warnings:?}");
        }
        for (name, value) in
            [("konghq.com/strip-path", "false"), ("nginx.ingress.kubernetes.io/configuration-snippet", "x")]
        {
            let warnings = with(name, value).unwrap().ingress.unwrap().warnings;
            assert!(!warnings.iter().any(|warning| warning.message.contains(name)), "{name}: {warnings:?}");
        }
    }

    #[test]
    fn cert_manager_must_not_write_into_the_ingress_since_the_operator_takes_it_out_again() {
        let with = |value: &str| {
            let annotations = serde_json::json!({"acme.cert-manager.io/http01-edit-in-place": value});
            let ingress = serde_json::json!({"ingress": {"annotations": annotations}});
            validate(&service(ingress), &Dereferenced::default(), Some("i"))
        };
        let found = with("true").unwrap_err();
        assert!(found.len() == 1 && found[0].message.contains("a separate Ingress for each challenge"));
        assert!(with("false").is_ok());
    }

    #[test]
    fn what_an_annotation_says_of_class_or_hosts_is_refused_where_a_field_says_it() {
        let with = |ingress: serde_json::Value| {
            validate(&service(serde_json::json!({"ingress": ingress})), &Dereferenced::default(), Some("i"))
        };
        let class = serde_json::json!({"kubernetes.io/ingress.class": "nginx"});
        for name in ["nginx", "other"] {
            let found =
                with(serde_json::json!({"className": name, "annotations": class.clone()})).unwrap_err();
            assert!(found.len() == 1 && found[0].message.contains("are both set"), "{found:?}");
        }
        assert!(with(serde_json::json!({"annotations": class})).is_ok());
        for name in [
            "nginx.ingress.kubernetes.io/server-alias",
            "haproxy-ingress.github.io/server-alias-regex",
            "haproxy-ingress.github.io/redirect-from",
            "haproxy-ingress.github.io/redirect-from-regex",
            "konghq.com/host-aliases",
            "alb.ingress.kubernetes.io/conditions.some-srv",
        ] {
            let found = with(serde_json::json!({"annotations": {name: "t.dev"}})).unwrap_err();
            assert!(found.len() == 1 && found[0].message.contains(name), "{found:?}");
        }
    }

    #[test]
    fn an_annotation_gives_dns_records_and_certificates_to_the_hosts_of_the_spec_only() {
        let with = |name: &str, value: &str| {
            let ingress =
                serde_json::json!({"hosts": ["shop.dev", "*.shop.dev"], "annotations": {name: value}});
            validate(&service(serde_json::json!({"ingress": ingress})), &Dereferenced::default(), Some("i"))
        };
        for name in [
            "external-dns.alpha.kubernetes.io/hostname",
            "external-dns.kubernetes.io/internal-hostname",
            "cert-manager.io/common-name",
            "cert-manager.io/alt-names",
        ] {
            for value in ["shop.dev", "Shop.dev., *.shop.dev"] {
                assert!(with(name, value).is_ok(), "{name}: {value}");
            }
            for value in ["pay.dev", "shop.dev,pay.dev", "a.shop.dev", "shop.dev,", ""] {
                let found = with(name, value).unwrap_err();
                assert!(found.len() == 1 && found[0].message.contains(name), "{name}: {value}: {found:?}");
            }
        }
        assert!(with("external-dns.alpha.kubernetes.io/ttl", "60").is_ok());
        assert!(with("cert-manager.io/cluster-issuer", "letsencrypt").is_ok());
    }

    #[test]
    fn each_host_at_gateways_has_the_routes_that_are_left_and_what_is_refused_is_told_once() {
        use crate::routing::{Claimant, ClaimantId, ClaimantKind, PathMatch, Refusal, Verdict};
        let gateway = serde_json::json!({
            "parentRefs": [{"name": "one"}, {"name": "two"}], "hostnames": ["a.dev", "b.dev", "c.dev"]
        });
        let object = service(serde_json::json!({"gateway": gateway}));
        let id = ClaimantId { namespace: "team".into(), name: "x".into(), kind: ClaimantKind::HTTPRoute };
        let other = std::sync::Arc::new(Claimant { created: 1, id });
        let mut found = Dereferenced::default();
        let requested = requested_at_gateway(&object).unwrap().unwrap().requested;
        for site in requested.sites() {
            let mut verdict = Verdict::default();
            match site.host.to_string().as_str() {
                "a.dev" => verdict.refused = Some(Refusal::NotAllowed),
                // Of one Gateway only; but the rules are the same at both.
                "b.dev" if site.entry_point == requested.entry_points[1] => {
                    verdict.lost.insert(PathMatch::prefix(requested.own_path.clone()), other.clone());
                }
                _ => {}
            }
            found.verdicts.insert(site, verdict);
        }
        let gateway = validate(&object, &found, Some("i")).unwrap().gateway.unwrap();
        let left: Vec<_> =
            gateway.hosts.iter().map(|host| (host.host.to_string(), host.routes.iter().count())).collect();
        assert_eq!(left, [("b.dev".to_owned(), 3), ("c.dev".to_owned(), 4)]);
        let reasons: Vec<_> = gateway.problems.iter().map(|problem| problem.reason).collect();
        assert_eq!(reasons, [Reason::HostNotAllowed, Reason::HostPathConflict], "{:?}", gateway.problems);
        let said = &gateway.problems[1].message;
        assert!(
            said.starts_with("HTTPRoute team/x is older") && said.contains("set spec.ingress.path"),
            "{said}"
        );
        let built =
            crate::controller::reconcile::build::build(&validate(&object, &found, Some("i")).unwrap());
        let shown: Vec<_> =
            built.routes.iter().map(|route| (&route.spec.hostnames, route.spec.rules.len())).collect();
        assert_eq!(shown, [(&vec!["b.dev".to_owned()], 3), (&vec!["c.dev".to_owned()], 4)]);
    }

    #[test]
    fn without_any_image_the_message_says_what_to_set() {
        let found = validate(&service(serde_json::json!({})), &Dereferenced::default(), None).unwrap_err();
        assert!(found[0].message.contains("set spec.image"), "{found:?}");
    }

    #[test]
    fn missing_secrets_are_problems() {
        let missing = Problem::new(Reason::SecretNotFound, "no such secret");
        let found = Dereferenced { missing: vec![missing.clone()], ..Dereferenced::default() };
        assert_eq!(validate(&service(serde_json::json!({})), &found, Some("i")).unwrap_err(), [missing]);
    }

    #[test]
    fn a_route_never_leads_to_a_service_of_the_orders_service_itself() {
        let routes = |to: &str| serde_json::json!({"routes": [{"path": "/pay", "service": to}]});
        let gateway = serde_json::json!({"parentRefs": [{"name": "g"}], "client": {"service": "orders"}});
        for (patch, expected) in [
            (
                serde_json::json!({"serviceName": "pay-srv", "ingress": routes("pay-srv")}),
                "spec.serviceName is \"pay-srv\", to which spec.ingress.routes[0] leads: name another",
            ),
            (
                serde_json::json!({"serviceName": "client-srv"}),
                "spec.serviceName is \"client-srv\", to which spec.ingress.client leads: name another",
            ),
            (
                serde_json::json!({"ingress": routes("orders")}),
                "spec.ingress.routes[0].service is \"orders\", which is the Service of this OrdersService itself",
            ),
            (
                serde_json::json!({"ingress": null, "gateway": gateway}),
                "spec.gateway.client.service is \"orders\", which is the Service of this OrdersService itself",
            ),
        ] {
            let found = problems(patch.clone());
            assert!(found.len() == 1 && found[0].message.starts_with(expected), "{patch}: {found:?}");
        }
    }

    #[test]
    fn of_a_name_or_an_image_one_thing_is_told() {
        let with = |name: &str, patch: serde_json::Value| {
            let mut object = service(patch);
            object.metadata.name = Some(name.to_owned()).filter(|name| !name.is_empty());
            object.metadata.generate_name = object.metadata.name.is_none().then(|| "orders-".to_owned());
            let found = validate(&object, &Dereferenced::default(), Some("image:1")).unwrap_err();
            found.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        let long = "o".repeat(64);
        for (name, image, expected) in [
            (long.as_str(), "i", "has 64 characters: at most 52"),
            ("orders-", "i", "it must begin with a letter, end with a letter or digit, and have only"),
            ("", "i", "metadata.name is not set: write the name, such as orders; generateName is not enough"),
            ("orders", "", "spec.image is empty: remove it, or name an image"),
            ("orders", "orders operator:1", "spec.image is \"orders operator:1\", and no image has a space"),
        ] {
            let found = with(name, serde_json::json!({"image": image}));
            assert!(found.len() == 1 && found[0].contains(expected), "{name}: {found:?}");
        }
    }
}
