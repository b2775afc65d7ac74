//! The order of routes, compared with the rules of Kubernetes and the behaviour of ingress controllers.

use orders_operator::routing::{Backend, CanonicalPath, Route, RouteTable, WrittenRoute};
use proptest::{prelude::*, sample::subsequence, strategy::ValueTree};

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) }
}

pub fn backend(service: &str) -> Backend {
    Backend { service: service.to_owned(), port: 3000.into() }
}

/// Paths that are similar: some are prefixes of others by characters or by segments, others are not.
pub fn paths() -> impl Strategy<Value = Vec<String>> {
    let near: Vec<String> = [
        "/a",
        "/ab",
        "/abc",
        "/abcdefg",
        "/a/b",
        "/a/bc",
        "/a/b/c",
        "/a/b/c/d",
        "/ab/c",
        "/ab/cd",
        "/b",
        "/ws",
        "/api",
        "/api/v1",
        "/api/orders",
        "/api/ordersX",
        "/api/orders/x",
        "/API",
        "/api/users",
        "/a%20b",
        "/a.b",
    ]
    .map(str::to_owned)
    .to_vec();
    let most = near.len();
    subsequence(near, 1..=most).prop_shuffle()
}

/// Paths that are prefixes of [`paths`], too.
pub const EXACT: [&str; 5] = ["/", "/a", "/a/b", "/api/orders", "/ws/x"];

/// Requests that match a rule, that nearly match one, and others.
pub fn request(paths: &[String]) -> impl Strategy<Value = String> + use<> {
    let of_a_rule = proptest::sample::select(paths.to_vec()).prop_flat_map(|path| {
        prop_oneof![
            Just(path.clone()),
            Just(format!("{path}/")),
            Just(format!("{path}X")),
            Just(format!("{path}/x/y")),
            Just(path.to_uppercase()),
            Just(path.to_lowercase()),
            Just(format!("/{path}")),
            Just(path.replacen("/", "//", 2)),
            Just(format!("{path}%2Fx")),
            (1..=path.len()).prop_map(move |end| path
                .get(..end)
                .unwrap_or("/")
                .trim_end_matches('%')
                .to_owned()),
        ]
    });
    prop_oneof![4 => of_a_rule, 1 => "/[ab/]{0,6}", 1 => Just("/".to_owned())]
}

pub fn table(paths: &[String]) -> RouteTable {
    let routes = paths.iter().map(|path| (path.as_str(), backend(path)));
    RouteTable::new(routes, Some(backend("client"))).unwrap()
}

/// Whether a prefix matches a request segment by segment, as Kubernetes specifies.
pub fn by_segments(prefix: &str, request: &str) -> bool {
    prefix == "/" || request.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a prefix matches a request character by character, as in some controllers.
pub fn by_text(prefix: &str, request: &str) -> bool {
    request.starts_with(prefix)
}

/// The oracle, as Kubernetes specifies: the longest matching path.
pub fn longest<'a>(
    routes: &'a [Route],
    matches: impl Fn(&str, &str) -> bool,
    request: &str,
) -> Option<&'a Backend> {
    let matching = routes.iter().filter(|route| matches(route.path.as_str(), request));
    matching.max_by_key(|route| route.path.as_str().len()).map(|route| &route.backend)
}

/// A server that uses the first matching route.
fn first<'a>(
    routes: &'a [Route],
    matches: impl Fn(&str, &str) -> bool,
    request: &str,
) -> Option<&'a Backend> {
    routes.iter().find(|route| matches(route.path.as_str(), request)).map(|route| &route.backend)
}

/// A server that sorts routes by `length`, keeps the order of equals, and uses the first matching route.
fn sorted_by<'a>(
    routes: &'a [Route],
    length: impl Fn(&Route) -> usize,
    matches: impl Fn(&str, &str) -> bool,
    request: &str,
) -> Option<&'a Backend> {
    let mut sorted: Vec<_> = routes.iter().collect();
    sorted.sort_by_key(|route| std::cmp::Reverse(length(route)));
    sorted.into_iter().find(|route| matches(route.path.as_str(), request)).map(|route| &route.backend)
}

/// Traefik's priority: the length of the rule.
fn rule_text(route: &Route) -> usize {
    format!("Host(`ticketing.dev`) && PathPrefix(`{}`)", route.path).len()
}

/// Whether every kind of server chooses the same backend as the oracle.
fn agreed(routes: &[Route], request: &str) -> Result<(), String> {
    for (how, matches) in [("segments", by_segments as fn(&str, &str) -> bool), ("text", by_text)] {
        let oracle = longest(routes, matches, request);
        let length = |route: &Route| route.path.as_str().len();
        for (who, answer) in [
            ("first match", first(routes, matches, request)),
            ("the longest path", sorted_by(routes, length, matches, request)),
            ("the longest rule", sorted_by(routes, rule_text, matches, request)),
        ] {
            if answer != oracle {
                return Err(format!("{request} by {how}: {who} gives {answer:?}, and not {oracle:?}"));
            }
        }
    }
    Ok(())
}

/// Whether every route is reachable: no earlier route matches everything that it matches.
fn all_reachable(routes: &[Route]) -> bool {
    routes.iter().enumerate().all(|(at, route)| {
        let before = routes.iter().take(at);
        before.into_iter().all(|earlier| !by_segments(earlier.path.as_str(), route.path.as_str()))
    })
}

fn client_is_last(routes: &[Route]) -> bool {
    routes.iter().position(|route| route.client) == routes.len().checked_sub(1)
        && routes.iter().filter(|route| route.client).count() == 1
}

fn paths_and_requests() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    paths().prop_flat_map(|paths| {
        let requests = proptest::collection::vec(request(&paths), 1..12);
        (Just(paths), requests)
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_order_of_the_input_does_not_matter(
        (one, other) in paths().prop_flat_map(|paths| (Just(paths.clone()), Just(paths).prop_shuffle()))
    ) {
        prop_assert_eq!(table(&one), table(&other));
    }

    #[test]
    fn the_client_is_last_and_every_route_is_reachable(paths in paths()) {
        let routes: Vec<_> = table(&paths).iter().cloned().collect();
        prop_assert_eq!(routes.len(), paths.len() + 1);
        prop_assert!(client_is_last(&routes));
        prop_assert!(all_reachable(&routes));
    }

    #[test]
    fn servers_of_every_kind_choose_the_backend_that_kubernetes_specifies((paths, requests) in paths_and_requests()) {
        let routes: Vec<_> = table(&paths).iter().cloned().collect();
        for request in requests {
            prop_assert_eq!(agreed(&routes, &request), Ok(()));
        }
    }

    #[test]
    fn with_exact_paths_the_first_match_is_what_kubernetes_specifies(
        (paths, requests) in paths_and_requests(),
        exact in subsequence(EXACT.to_vec(), 1..=EXACT.len()),
    ) {
        let written = exact.iter().map(|path| WrittenRoute { exact: true, ..(*path, backend(&format!("={path}"))).into() });
        let prefixes = paths.iter().map(|path| WrittenRoute::from((path.as_str(), backend(path))));
        let routes: Vec<_> =
            RouteTable::new(prefixes.chain(written), Some(backend("client"))).unwrap().iter().cloned().collect();
        prop_assert!(client_is_last(&routes));
        for request in requests.iter().map(String::as_str).chain(EXACT) {
            // The longest path, and of two that are equally long the exact one.
            let taking = routes.iter().filter(|route| route.path.takes(request));
            let oracle = taking.max_by_key(|route| (route.path.as_str().len(), route.path.is_exact()));
            let first = routes.iter().find(|route| route.path.takes(request));
            prop_assert_eq!(first, oracle, "{}", request);
        }
    }

    #[test]
    fn canonical_paths_are_stable_and_accept_the_regex_form(text in "\\PC{0,20}|(/[a-z.%()?*$|]{0,4}){0,4}") {
        if let Ok(path) = CanonicalPath::parse(&text) {
            prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path.clone()));
            let all_of_it = format!("{}/?(.*)", path.as_str().trim_end_matches('/'));
            prop_assert_eq!(CanonicalPath::parse(&all_of_it), Ok(path));
        }
    }
}

/// Wrongly ordered tables are detected; otherwise the properties above would prove nothing.
#[test]
fn unsorted_and_reversed_routes_and_a_client_that_comes_first_are_detected() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut found = [0; 3];
    let tries = 200;
    for _ in 0..tries {
        let (paths, requests) = paths_and_requests().new_tree(&mut runner).unwrap().current();
        let routes: Vec<_> = table(&paths).iter().cloned().collect();
        let mut as_written = routes.clone();
        let written = |route: &Route| paths.iter().position(|path| path == route.path.as_str());
        as_written.sort_by_key(|route| written(route).unwrap_or(paths.len()));
        let reversed: Vec<_> = routes.iter().rev().cloned().collect();
        let mut client_first = routes.clone();
        client_first.rotate_right(1);
        for (count, wrong_table) in found.iter_mut().zip([as_written, reversed, client_first]) {
            let is_wrong = requests.iter().any(|request| agreed(&wrong_table, request).is_err());
            *count += u32::from(is_wrong || !all_reachable(&wrong_table) || !client_is_last(&wrong_table));
        }
    }
    // A list as written may happen to be in the right order.
    let [as_written, reversed, client_first] = found;
    assert!(as_written > tries / 2, "{as_written} of {tries}");
    assert_eq!((reversed, client_first), (tries, tries));
}
