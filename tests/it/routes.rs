//! The order of routes, against what Kubernetes says and what ingress controllers do. `ROUTE_CASES` sets how many
//! cases each property is tried with.

use orders_operator::routing::{Backend, CanonicalPath, Route, RouteTable};
use proptest::{prelude::*, sample::subsequence, strategy::ValueTree};

use crate::bed::number;

fn config() -> ProptestConfig {
    let cases = number("ROUTE_CASES", 10_000);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

pub fn backend(service: &str) -> Backend {
    Backend { service: service.to_owned(), port: 3000 }
}

/// Some paths that are near each other: prefixes of one another by text, by segments, or not at all.
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

/// Requests for what a rule takes, for what it nearly takes, and for something else.
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

/// Whether a prefix takes a request by whole segments, as Kubernetes has it.
pub fn by_segments(prefix: &str, request: &str) -> bool {
    prefix == "/" || request.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a prefix takes a request by its text alone, as some controllers have it.
pub fn by_text(prefix: &str, request: &str) -> bool {
    request.starts_with(prefix)
}

/// Kubernetes' rule, the oracle: of all that take it, the longest.
pub fn longest<'a>(
    routes: &'a [Route],
    takes: impl Fn(&str, &str) -> bool,
    request: &str,
) -> Option<&'a Backend> {
    let taking = routes.iter().filter(|route| takes(route.path.as_str(), request));
    taking.max_by_key(|route| route.path.as_str().len()).map(|route| &route.backend)
}

/// What a server does that takes the first that matches.
fn first<'a>(routes: &'a [Route], takes: impl Fn(&str, &str) -> bool, request: &str) -> Option<&'a Backend> {
    routes.iter().find(|route| takes(route.path.as_str(), request)).map(|route| &route.backend)
}

/// What a server does that sorts by the length of the text, and leaves equals as they are listed.
fn sorted_by<'a>(
    routes: &'a [Route],
    length: impl Fn(&Route) -> usize,
    takes: impl Fn(&str, &str) -> bool,
    request: &str,
) -> Option<&'a Backend> {
    let mut sorted: Vec<_> = routes.iter().collect();
    sorted.sort_by_key(|route| std::cmp::Reverse(length(route)));
    sorted.into_iter().find(|route| takes(route.path.as_str(), request)).map(|route| &route.backend)
}

/// Traefik's priority: the length of the rule's text.
fn rule_text(route: &Route) -> usize {
    format!("Host(`ticketing.dev`) && PathPrefix(`{}`)", route.path).len()
}

/// Whether every kind of server gives the oracle's answer.
fn agreed(routes: &[Route], request: &str) -> Result<(), String> {
    for (how, takes) in [("segments", by_segments as fn(&str, &str) -> bool), ("text", by_text)] {
        let oracle = longest(routes, takes, request);
        let length = |route: &Route| route.path.as_str().len();
        for (who, answer) in [
            ("first match", first(routes, takes, request)),
            ("the longest path", sorted_by(routes, length, takes, request)),
            ("the longest rule", sorted_by(routes, rule_text, takes, request)),
        ] {
            if answer != oracle {
                return Err(format!("{request} by {how}: {who} gives {answer:?}, and not {oracle:?}"));
            }
        }
    }
    Ok(())
}

/// Whether no rule is hidden by one before it.
fn alive(routes: &[Route]) -> bool {
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
    fn the_client_is_last_and_no_rule_is_dead(paths in paths()) {
        let routes: Vec<_> = table(&paths).iter().cloned().collect();
        prop_assert_eq!(routes.len(), paths.len() + 1);
        prop_assert!(client_is_last(&routes));
        prop_assert!(alive(&routes));
    }

    #[test]
    fn servers_of_every_kind_give_kubernetes_answer((paths, requests) in paths_and_requests()) {
        let routes: Vec<_> = table(&paths).iter().cloned().collect();
        for request in requests {
            prop_assert_eq!(agreed(&routes, &request), Ok(()));
        }
    }

    #[test]
    fn any_text_is_a_path_in_one_form_or_none(text in "\\PC{0,20}|(/[a-z.%()?*$|]{0,4}){0,4}") {
        if let Ok(path) = CanonicalPath::parse(&text) {
            prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path.clone()));
            let all_of_it = format!("{}/?(.*)", path.as_str().trim_end_matches('/'));
            prop_assert_eq!(CanonicalPath::parse(&all_of_it), Ok(path));
        }
    }
}

/// A table that someone has spoilt is found out, or else what finds none in ours proves nothing.
#[test]
fn routes_that_are_not_sorted_reversed_or_begin_with_the_client_are_found_out() {
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
        for (count, spoilt) in found.iter_mut().zip([as_written, reversed, client_first]) {
            let wrong = requests.iter().any(|request| agreed(&spoilt, request).is_err());
            *count += u32::from(wrong || !alive(&spoilt) || !client_is_last(&spoilt));
        }
    }
    // As written, a list may happen to be in order.
    let [as_written, reversed, client_first] = found;
    assert!(as_written > tries / 2, "{as_written} of {tries}");
    assert_eq!((reversed, client_first), (tries, tries));
}
