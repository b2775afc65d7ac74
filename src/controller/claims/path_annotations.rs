//! What annotations make of the paths of an Ingress. This is the one list: an OrdersService is validated by it, and an old
//! Ingress is translated by it.

/// What an annotation makes of the paths of its Ingress, for the ingress controller that heeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEffect {
    /// Every path of the host is a regex, those of other objects too, as ingress-nginx has it.
    Regexes,
    /// The same, and the Services get another path than the one that was requested.
    RegexesRewritten,
    /// The paths of this Ingress are regexes, or are tried in an order of their own.
    Order,
    /// Every Service gets another path than the one that was requested, the orders API too.
    RewritesAll,
    /// The Services or paths that its value names get another path.
    RewritesSome,
    /// Its value may have rules of its own, such as a snippet of a configuration, which nobody reads here.
    Unread,
}

/// What Go's `strconv.ParseBool` takes for false.
pub(super) const GO_FALSE: [&str; 6] = ["0", "f", "F", "false", "FALSE", "False"];

/// What this annotation makes of paths; none if it has nothing to do with them.
pub fn path_effect(name: &str, value: &str) -> Option<PathEffect> {
    if let Some(rest) = of_ingress_nginx(name) {
        match rest {
            // It takes every spelling that Go takes for true.
            "use-regex" => return (!GO_FALSE.contains(&value)).then_some(PathEffect::Regexes),
            "rewrite-target" => return Some(PathEffect::RegexesRewritten),
            _ => {}
        }
    }
    let (prefix, rest) = name.split_once('/')?;
    match (prefix, rest) {
        (_, "use-regex") => (!GO_FALSE.contains(&value)).then_some(PathEffect::Order),
        // Of HAProxy Ingress.
        (_, "path-type") if is_common(prefix) || prefix == "haproxy-ingress.github.io" => {
            value.trim().eq_ignore_ascii_case("regex").then_some(PathEffect::Order)
        }
        // Of F5 NGINX; each of its values means a regex or an exact path.
        ("nginx.org", "path-regex") => Some(PathEffect::Order),
        ("traefik.ingress.kubernetes.io", "router.priority") => Some(PathEffect::Order),
        // Of HAProxy Ingress, F5 NGINX and others.
        (_, "rewrite-target") => Some(PathEffect::RewritesAll),
        // Of Kong.
        (_, "strip-path") => value.trim().eq_ignore_ascii_case("true").then_some(PathEffect::RewritesAll),
        ("konghq.com", "rewrite") => Some(PathEffect::RewritesAll),
        // Of Azure's Application Gateway.
        (_, "backend-path-prefix") => Some(PathEffect::RewritesAll),
        // Of Caddy.
        ("caddy.ingress.kubernetes.io", "rewrite-to") => Some(PathEffect::RewritesAll),
        // Of HAProxy Technologies: one path for all, or regexes, each with what to write in its place.
        (_, "path-rewrite") => {
            let is_one = !value.trim().contains(char::is_whitespace);
            Some(if is_one { PathEffect::RewritesAll } else { PathEffect::RewritesSome })
        }
        // Of AWS ALB: a list for one Service.
        ("alb.ingress.kubernetes.io", rest) if rest.starts_with("transforms.") => {
            value.contains("url-rewrite").then_some(PathEffect::RewritesSome)
        }
        (_, rest) if is_unread(rest) => Some(PathEffect::Unread),
        // Of F5 NGINX, by Services; and of whoever else there is.
        (_, rest) if rest.contains("rewrite") && !rest.ends_with("rewrite-log") => {
            Some(PathEffect::RewritesSome)
        }
        (_, rest) if rest.contains("path-prefix") => Some(PathEffect::RewritesSome),
        _ => None,
    }
}

/// Whether an annotation of this name has parts of a configuration, or names objects that may change paths.
fn is_unread(rest: &str) -> bool {
    rest.ends_with("snippet")
        || rest.ends_with("snippets")
        // Of HAProxy Ingress.
        || rest.starts_with("config-")
        || rest.ends_with("router.middlewares")
        // Of Application Gateway: its rules may be about headers alone.
        || rest.starts_with("rewrite-rule-set")
        // Of Kong.
        || rest == "plugins"
        // Of Traefik 1.
        || rest.ends_with("rule-type")
        || rest.ends_with("request-modifier")
}

/// The name without its prefix, if the annotation may be of ingress-nginx, whose prefix is an option.
pub fn of_ingress_nginx(name: &str) -> Option<&str> {
    name.split_once('/').filter(|(prefix, _)| is_common(prefix)).map(|(_, rest)| rest)
}

/// Whether annotations with this prefix may be of ingress-nginx or HAProxy Ingress, whose prefix is an option.
fn is_common(prefix: &str) -> bool {
    prefix.ends_with("ingress.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_annotations_make_of_paths_is_known_by_their_names_and_by_values_that_matter() {
        use PathEffect::{Order, Regexes, RegexesRewritten, RewritesAll, RewritesSome, Unread};
        for (name, value, expected) in [
            ("nginx.ingress.kubernetes.io/use-regex", "t", Some(Regexes)),
            ("nginx.ingress.kubernetes.io/use-regex", "False", None),
            ("ingress.kubernetes.io/rewrite-target", "/", Some(RegexesRewritten)),
            ("k8s.example/use-regex", "true", Some(Order)),
            ("haproxy-ingress.github.io/path-type", "prefix", None),
            ("haproxy-ingress.github.io/rewrite-target", "/", Some(RewritesAll)),
            ("nginx.org/rewrite-target", "/", Some(RewritesAll)),
            ("nginx.org/rewrites", "serviceName=a rewrite=/", Some(RewritesSome)),
            ("nginx.org/location-snippets", "x", Some(Unread)),
            ("konghq.com/strip-path", "true", Some(RewritesAll)),
            ("konghq.com/strip-path", "false", None),
            ("konghq.com/plugins", "headers", Some(Unread)),
            ("appgw.ingress.kubernetes.io/backend-path-prefix", "/", Some(RewritesAll)),
            ("appgw.ingress.kubernetes.io/rewrite-rule-set", "headers", Some(Unread)),
            ("haproxy.org/path-rewrite", "/one", Some(RewritesAll)),
            ("haproxy.org/path-rewrite", "/a/(.*) /\\1", Some(RewritesSome)),
            ("alb.ingress.kubernetes.io/transforms.a", "[{\"type\":\"url-rewrite\"}]", Some(RewritesSome)),
            ("alb.ingress.kubernetes.io/transforms.a", "[{\"type\":\"host-header-rewrite\"}]", None),
            ("traefik.ingress.kubernetes.io/router.middlewares", "a-b@kubernetescrd", Some(Unread)),
            ("nginx.ingress.kubernetes.io/enable-rewrite-log", "true", None),
            ("nginx.ingress.kubernetes.io/proxy-body-size", "1m", None),
            ("rewrite-target", "/", None),
        ] {
            assert_eq!(path_effect(name, value), expected, "{name}: {value}");
        }
    }
}
