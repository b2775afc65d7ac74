//! The routes of one host, in the order in which they are rendered.

use std::fmt;

use thiserror::Error;

use super::{
    host::CanonicalHost,
    path::{CanonicalPath, PathError},
    path_match::PathMatch,
};

/// A Service and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Name of the Service.
    pub service: String,
    /// Port of the Service.
    pub port: Port,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// Its number, 1 to 65535.
    Number(i32),
    /// Its name.
    Name(String),
}

impl From<i32> for Port {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.service, self.port)
    }
}

/// A route as it is written.
#[derive(Clone, Debug)]
pub struct WrittenRoute<'a> {
    /// The path, plain or in a regex form.
    pub path: &'a str,
    /// Whether it means the path alone.
    pub exact: bool,
    /// Whether the backend gets requests without the path.
    pub strip_prefix: bool,
    /// The backend.
    pub backend: Backend,
}

impl<'a> From<(&'a str, Backend)> for WrittenRoute<'a> {
    /// A prefix, as most routes are.
    fn from((path, backend): (&'a str, Backend)) -> Self {
        Self { path, exact: false, strip_prefix: false, backend }
    }
}

/// One rule: requests that match go to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it takes.
    pub path: PathMatch,
    /// The backend.
    pub backend: Backend,
    /// Whether the backend gets requests without the path.
    pub strip_prefix: bool,
    /// Whether it is the rule of the client.
    pub client: bool,
}

/// Why routes cannot be combined into a table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RouteError {
    /// A path is not a plain prefix.
    #[error(transparent)]
    InvalidPath(#[from] PathError),
    /// A route other than the client's is at the root.
    #[error(
        "path {path:?} (service {service:?}) takes every request, which only the client may: remove the route and set \
         client.service to {service:?}, or give the route a path of its own"
    )]
    RouteAtRoot {
        /// The path as written.
        path: String,
        /// Its service.
        service: String,
    },
    /// A route other than the client's is at the root, beside the client.
    #[error(
        "path {path:?} (service {service:?}) takes every request, which only the client ({client:?}) may: remove the \
         route, or give it a path of its own; if {service:?} is the web front end, remove the route and set \
         client.service to it"
    )]
    MultipleClients {
        /// The path as written.
        path: String,
        /// Its service.
        service: String,
        /// The client's backend.
        client: String,
    },
    /// Two routes have the same canonical path.
    #[error(
        "path {path:?} goes to service {second:?} and already to {first:?} (both mean {canonical:?}): \
         each path can go to one service only; remove one of the two routes, or give it another path"
    )]
    DuplicatePath {
        /// The second path as written.
        path: String,
        /// The canonical form of both.
        canonical: String,
        /// The backend of the first path.
        first: String,
        /// The backend of the second path.
        second: String,
    },
    /// There is no prefix to take off.
    #[error(
        "path {path:?} has exact: true and stripPrefix: true, but nothing would be left of an exact path: remove \
         one of the two"
    )]
    NoPrefix {
        /// The path as written.
        path: String,
    },
}

/// Routes in rendered order: a path before all its prefixes, the client last. No other order can be represented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable(Vec<Route>);

impl RouteTable {
    /// Orders `routes` and puts `client` last. The result does not depend on the order of the input.
    ///
    /// # Errors
    /// Every problem found, in the order of the input.
    pub fn new<'a, R: Into<WrittenRoute<'a>>>(
        routes: impl IntoIterator<Item = R>,
        client: Option<Backend>,
    ) -> Result<Self, Vec<RouteError>> {
        Self::judged(routes, client).map_err(|errors| errors.into_iter().map(|(_, error)| error).collect())
    }

    /// The same, with the number of the route of which each problem is.
    ///
    /// # Errors
    /// Every problem found, in the order of the input.
    pub fn judged<'a, R: Into<WrittenRoute<'a>>>(
        routes: impl IntoIterator<Item = R>,
        client: Option<Backend>,
    ) -> Result<Self, Vec<(usize, RouteError)>> {
        let (mut table, mut errors) = (Vec::<Route>::new(), Vec::new());
        for (number, route) in routes.into_iter().enumerate() {
            let route: WrittenRoute<'_> = route.into();
            match parsed(&route, client.as_ref(), &table) {
                Ok(path) => {
                    let WrittenRoute { strip_prefix, backend, .. } = route;
                    table.push(Route { path, backend, strip_prefix, client: false });
                }
                Err(error) => errors.push((number, error)),
            }
        }
        if !errors.is_empty() {
            errors.iter_mut().for_each(|(_, error)| withdraw_taken(error, &table));
            return Err(errors);
        }
        table.sort_by(|left, right| left.path.cmp(&right.path));
        table.extend(client.map(|backend| Route {
            path: PathMatch::root(),
            backend,
            strip_prefix: false,
            client: true,
        }));
        Ok(Self(table))
    }

    /// The routes in rendered order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// The routes for which `keep` is true, in the same order.
    pub fn only(&self, keep: impl Fn(&Route) -> bool) -> Self {
        Self(self.0.iter().filter(|route| keep(route)).cloned().collect())
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the client has a rule.
    pub fn has_client(&self) -> bool {
        self.0.last().is_some_and(|route| route.client)
    }
}

/// What a route takes, if that can be rendered beside the client and the routes before it.
fn parsed(
    route: &WrittenRoute<'_>,
    client: Option<&Backend>,
    before: &[Route],
) -> Result<PathMatch, RouteError> {
    let WrittenRoute { path: text, exact, strip_prefix, backend } = route;
    let path = if *exact {
        PathMatch::exact(CanonicalPath::parse_exact(text)?)
    } else {
        PathMatch::prefix(CanonicalPath::parse(text)?)
    };
    if path.is_root() {
        let (path, service) = ((*text).to_owned(), backend.service.clone());
        return Err(match client {
            None => RouteError::RouteAtRoot { path, service },
            Some(client) => RouteError::MultipleClients { path, service, client: client.to_string() },
        });
    }
    if *strip_prefix && *exact {
        return Err(RouteError::NoPrefix { path: (*text).to_owned() });
    }
    if let Some(first) = before.iter().find(|route| route.path == path) {
        return Err(RouteError::DuplicatePath {
            path: (*text).to_owned(),
            canonical: path.to_string(),
            first: first.backend.to_string(),
            second: backend.to_string(),
        });
    }
    Ok(path)
}

/// Takes the proposals back that another route has already.
fn withdraw_taken(error: &mut RouteError, table: &[Route]) {
    let RouteError::InvalidPath(PathError::Regex { proposal, .. }) = error else { return };
    let has = |path: &str, exact: bool| {
        table.iter().any(|route| route.path.is_exact() == exact && route.path.as_str() == path)
    };
    proposal.withdraw(has);
}

/// One host and its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoutes {
    /// The host.
    pub host: CanonicalHost,
    /// Its routes in rendered order; at least one.
    pub routes: RouteTable,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(service: &str) -> Backend {
        Backend { service: service.into(), port: 3000.into() }
    }

    fn exact(path: &str) -> WrittenRoute<'_> {
        WrittenRoute { exact: true, ..(path, backend("exact")).into() }
    }

    #[test]
    fn exact_paths_come_first_may_be_the_root_and_are_no_duplicates_of_prefixes() {
        let prefix = |path| WrittenRoute::from((path, backend("prefix")));
        let written = [prefix("/login"), exact("/login"), prefix("/a/b/c"), exact("/")];
        let table = RouteTable::new(written, Some(backend("client-srv"))).unwrap();
        let shown: Vec<_> =
            table.iter().map(|route| format!("{} {}", route.path, route.backend.service)).collect();
        assert_eq!(shown, ["/login exact", "/ exact", "/a/b/c prefix", "/login prefix", "/ client-srv"]);
        let errors = RouteTable::new([exact("/a"), exact("/%61")], None).unwrap_err();
        assert!(matches!(errors.as_slice(), [RouteError::DuplicatePath { .. }]), "{errors:?}");
    }

    #[test]
    fn a_proposal_that_another_route_has_already_is_not_made() {
        let message = |routes: &[&'static str]| {
            let written = routes.iter().map(|path| (*path, backend("s")));
            RouteTable::new(written, None).unwrap_err()[0].to_string()
        };
        let elsewhere = "use another path, or a separate host";
        assert!(message(&["/posts/?(.*)/comments"]).ends_with(&format!(
            "write \"/posts\", if this Service should get everything below it; or {elsewhere}"
        )));
        for taken in [
            message(&["/posts/?(.*)/comments", "/posts/?(.*)"]),
            message(&["/posts", "/posts/[0-9]+"]),
            message(&["/posts/{id}/x", "/posts"]),
        ] {
            assert!(taken.ends_with(&format!("ending such as /?(.*)): {elsewhere}")), "{taken}");
        }
        let each = message(&["/api", "/api/(users|auth)"]);
        assert!(each.ends_with("write one route for each path that is meant"), "{each}");
        assert!(message(&["/api/users?(.*)", "/api/users"]).ends_with(elsewhere));
        let alone = message(&["/a$", "/a"]);
        assert!(alone.ends_with("write \"/a\" with exact: true for that path only"), "{alone}");
    }

    #[test]
    fn of_each_problem_the_number_of_its_route_is_known() {
        let routes =
            [("/a", backend("a")), ("/(b)", backend("b")), ("/c", backend("c")), ("/a/", backend("d"))];
        let errors = RouteTable::judged(routes, None).unwrap_err();
        assert_eq!(errors.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn of_an_exact_path_there_is_nothing_to_take_off() {
        let both = WrittenRoute { strip_prefix: true, ..exact("/a") };
        let error = RouteTable::new([both], None).unwrap_err()[0].to_string();
        assert!(error.contains("stripPrefix") && error.contains("exact: true"), "{error}");
    }

    #[test]
    fn routes_in_the_worst_order_are_rendered_correctly_with_the_client_last() {
        let written = ["/ws", "/api", "/api/orders/?(.*)", "/api/users/?(.*)"];
        let table =
            RouteTable::new(written.map(|path| (path, backend("some-srv"))), Some(backend("client-srv")))
                .unwrap();
        let paths: Vec<_> = table.iter().map(|route| route.path.as_str()).collect();
        assert_eq!(paths, ["/api/orders", "/api/users", "/api", "/ws", "/"]);
        assert!(table.has_client());
    }

    #[test]
    fn a_table_is_empty_only_without_routes_and_without_a_client() {
        let table = |routes: &[&'static str], client| {
            RouteTable::new(routes.iter().map(|path| (*path, backend("some-srv"))), client).unwrap()
        };
        assert!(table(&[], None).is_empty() && RouteTable::default().is_empty());
        assert!(!table(&["/api"], None).is_empty());
        assert!(!table(&[], Some(backend("client-srv"))).is_empty());
        assert!(!table(&["/api"], None).has_client());
        assert!(table(&["/api"], None).only(|_| false).is_empty());
    }

    #[test]
    fn every_problem_is_reported() {
        let routes = [("/a", "a"), ("/a/", "b"), ("/?(.*)", "c"), ("x", "d"), ("/(a|b)", "e")];
        let errors =
            RouteTable::new(routes.map(|(path, service)| (path, backend(service))), None).unwrap_err();
        assert!(
            matches!(
                errors.as_slice(),
                [
                    RouteError::DuplicatePath { .. },
                    RouteError::RouteAtRoot { .. },
                    RouteError::InvalidPath(PathError::NotAbsolute { .. }),
                    RouteError::InvalidPath(PathError::Regex { .. })
                ]
            ),
            "{errors:?}"
        );
    }

    #[test]
    fn a_route_at_the_root_beside_a_client_is_a_second_client() {
        let errors = RouteTable::new([("/?(.*)", backend("a"))], Some(backend("client-srv"))).unwrap_err();
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(matches!(error, RouteError::MultipleClients { .. }));
        assert!(error.to_string().contains("only the client (\"client-srv:3000\")"), "{error}");
    }
}
