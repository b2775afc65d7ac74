//! The routes of one host, in the order in which they are rendered.

use std::fmt;

use thiserror::Error;

use super::path::{CanonicalPath, PathError};

/// A Service and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Name of the Service.
    pub service: String,
    /// Port of the Service, 1 to 65535.
    pub port: i32,
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.service, self.port)
    }
}

/// One rule: requests at the path or below it go to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub path: CanonicalPath,
    /// The backend.
    pub backend: Backend,
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
}

/// Routes in rendered order: a path before all its prefixes, the client last. No other order can be represented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable(Vec<Route>);

impl RouteTable {
    /// Orders `routes` (path as written, backend) and puts `client` last. The result does not
    /// depend on the order of the input.
    ///
    /// # Errors
    /// Every problem found, in the order of the input.
    pub fn new<'a>(
        routes: impl IntoIterator<Item = (&'a str, Backend)>,
        client: Option<Backend>,
    ) -> Result<Self, Vec<RouteError>> {
        let (mut table, mut errors) = (Vec::<Route>::new(), Vec::new());
        for (text, backend) in routes {
            let path = match CanonicalPath::parse(text) {
                Ok(path) if path.is_root() => {
                    let (path, service) = (text.to_owned(), backend.service);
                    errors.push(match &client {
                        None => RouteError::RouteAtRoot { path, service },
                        Some(client) => {
                            RouteError::MultipleClients { path, service, client: client.to_string() }
                        }
                    });
                    continue;
                }
                Ok(path) => path,
                Err(error) => {
                    errors.push(error.into());
                    continue;
                }
            };
            if let Some(first) = table.iter().find(|route| route.path == path) {
                errors.push(RouteError::DuplicatePath {
                    path: text.to_owned(),
                    canonical: path.to_string(),
                    first: first.backend.to_string(),
                    second: backend.to_string(),
                });
                continue;
            }
            table.push(Route { path, backend, client: false });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        table.sort_by(|left, right| left.path.cmp(&right.path));
        table.extend(client.map(|backend| Route { path: CanonicalPath::root(), backend, client: true }));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(service: &str) -> Backend {
        Backend { service: service.into(), port: 3000 }
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
