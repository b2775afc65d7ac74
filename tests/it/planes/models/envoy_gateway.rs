//! Envoy Gateway 1.9.0, by its `internal/gatewayapi/sort.go` and `internal/xds/translator/route.go`: all rules of a host, of
//! whatever HTTPRoute, the exact ones first and then the prefixes, each the longest first, where the prefix `/` has no length.
//! Envoy takes the first that matches; it compares prefixes by segments.

use super::*;
use crate::planes::{reading, rendered::http_routes};

fn answer(routes: &[HostRules], host: &str, path: &str) -> Option<String> {
    let most = routes
        .iter()
        .filter_map(|of| of.host.as_deref())
        .filter(|of| is_for(of, host))
        .max_by_key(|of| (*of == host, of.len()));
    let here = routes.iter().filter(|of| of.host.as_deref() == most);
    let mut rules: Vec<_> = here.flat_map(|of| &of.rules).collect();
    let length = |path: &str| if path == "/" { 0 } else { path.len() };
    rules.sort_by_key(|rule| std::cmp::Reverse((rule.exact, length(&rule.path))));
    let takes = |rule: &&&Rule| {
        let path_of = rule.path.as_str();
        if rule.exact { path == path_of } else { crate::routes::by_segments(path_of, path) }
    };
    rules.iter().find(takes).map(|rule| rule.service.clone())
}

#[test]
fn envoy_gateway_gives_the_oracle_s_answer_to_every_request() {
    let (systems, (owners, whole)) = (systems(), shared());
    let routes = http_routes(&systems);
    let of_shared = http_routes(&owners).concat();
    let mut asked = 0;
    for (system, routes) in systems.iter().zip(&routes).chain([(&whole, &of_shared)]) {
        for (host, request) in &system.requests {
            let path = request.split('?').next().unwrap_or_default();
            let path = reading::merged(&reading::resolved(path));
            let oracle = system.oracle(host, |route| route.takes(&path));
            assert_eq!(
                answer(routes, host, &path).as_ref(),
                Some(&oracle.service),
                "{host}{path} of {system:?}"
            );
            asked += 1;
        }
    }
    assert!(asked > 500, "{asked}");
    assert!(routes.iter().any(|of| of.len() > 1), "some have more rules than one HTTPRoute may have");
}
