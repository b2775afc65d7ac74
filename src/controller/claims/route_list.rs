//! The routes of a spec as they are written, and what each host gets of them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::{
    controller::problem::Problem,
    crd::{self, GatewaySpec, Host, IngressSpec, OrdersService, Reason, RouteSpec},
    routing::{
        Backend, CanonicalHost, CanonicalPath, HostRoutes, Port, RouteError, RouteTable, WrittenRoute,
    },
};

/// The path of the orders API if the spec has none.
pub const DEFAULT_PATH: &str = "/api/orders";

/// Routes as they are written in the spec.
pub(super) struct RouteList<'a> {
    /// The field in which they are.
    pub(super) field: &'static str,
    /// The path of the orders API, and its own backend.
    path: &'a str,
    own: Backend,
    /// The hosts that the path is for; empty for all.
    path_hosts: &'a [Host],
    routes: &'a [RouteSpec],
    pub(super) client: Option<&'a crd::Backend>,
    /// The lists that have every host that a route may name.
    host_lists: Vec<(&'static str, &'a [Host])>,
}

impl<'a> RouteList<'a> {
    pub(super) fn of_ingress(service: &'a OrdersService, ingress: &'a IngressSpec) -> Self {
        let gateway = service.spec.gateway.as_ref();
        let host_lists = [("spec.ingress.hosts", ingress.hosts.as_slice())].into_iter();
        let host_lists =
            host_lists.chain(gateway.map(|gateway| ("spec.gateway.hostnames", gateway.hostnames.as_slice())));
        Self {
            field: "spec.ingress",
            path: &ingress.path,
            own: own_backend(service),
            path_hosts: &ingress.path_hosts,
            routes: &ingress.routes,
            client: ingress.client.as_ref(),
            host_lists: host_lists.collect(),
        }
    }

    pub(super) fn of_gateway(service: &'a OrdersService, gateway: &'a GatewaySpec) -> Self {
        Self {
            field: "spec.gateway",
            path: gateway.path.as_deref().unwrap_or(DEFAULT_PATH),
            own: own_backend(service),
            path_hosts: &gateway.path_hosts,
            routes: &gateway.routes,
            client: gateway.client.as_ref(),
            host_lists: vec![("spec.gateway.hostnames", &gateway.hostnames)],
        }
    }

    /// The path of the orders API, and the routes of each of these hosts.
    pub(super) fn on(
        &self,
        hosts: &[CanonicalHost],
    ) -> Result<(CanonicalPath, Vec<HostRoutes>), Vec<Problem>> {
        let mut problems: Vec<_> = self.fields().flat_map(|field| field.problems()).collect();
        problems.extend(self.unknown_hosts());
        let own_path = CanonicalPath::parse(self.path).map_err(|error| {
            let text = error.to_string();
            let rest = text.strip_prefix("path ").unwrap_or(&text);
            problems.push(Problem::new(Reason::InvalidPath, format!("{}.path {rest}", self.field)));
        });
        // At / it would leave nothing to the client. The other routes are looked at all the same.
        let is_root = own_path.as_ref().is_ok_and(CanonicalPath::is_root);
        if is_root {
            let message = format!(
                "{}.path is {:?}: the orders API needs a path of its own, such as {DEFAULT_PATH}",
                self.field, self.path
            );
            problems.push(Problem::new(Reason::InvalidPath, message));
        }
        let own_in_table = own_path.as_ref().ok().filter(|_| !is_root);
        let any = [CanonicalHost::any()];
        // Where no host is valid, the routes are looked at all the same.
        let hosts = if hosts.is_empty() { any.as_slice() } else { hosts };
        // They are nearly always the same for every host.
        let are_same = self.hosts_of_fields().all(|(_, hosts)| hosts.is_empty());
        let different = if are_same { 1 } else { hosts.len() };
        let (mut tables, mut errors) = (Vec::new(), Vec::new());
        for host in hosts.iter().take(different) {
            match self.table(host, own_in_table) {
                Ok(routes) if routes.is_empty() && is_root => {}
                Ok(routes) if routes.is_empty() => problems.push(self.without_routes(host)),
                Ok(routes) => tables.push(routes),
                Err(found) => {
                    for error in found {
                        if !errors.contains(&error) {
                            errors.push(error);
                        }
                    }
                }
            }
        }
        problems.extend(errors.iter().map(|(field, error)| self.problem_of(field, error, own_in_table)));
        match own_path {
            Ok(own_path) if problems.is_empty() => {
                let tables = tables.iter().cycle().cloned();
                let on_hosts = hosts.iter().cloned().zip(tables);
                Ok((own_path, on_hosts.map(|(host, routes)| HostRoutes { host, routes }).collect()))
            }
            _ => Err(problems),
        }
    }

    /// What is wrong with the route in a field.
    fn problem_of(&self, field: &str, error: &RouteError, own_path: Option<&CanonicalPath>) -> Problem {
        let list = self.field;
        let is_own = |canonical: &str, first: &str| {
            own_path.is_some_and(|own| own.as_str() == canonical) && first == self.own.to_string()
        };
        let message = match error {
            RouteError::DuplicatePath { path, canonical, first, .. } if is_own(canonical, first) => {
                format!(
                    "{field}.path {path:?} is the path of the orders API itself, which is {list}.path ({DEFAULT_PATH} unless it \
                     is set): remove the route, or set {list}.path to another path"
                )
            }
            _ => {
                let text = error.to_string().replace("client.service", &format!("{list}.client.service"));
                format!("{field}.path {}", text.strip_prefix("path ").unwrap_or(&text))
            }
        };
        Problem::new(route_reason(error), message)
    }

    fn without_routes(&self, host: &CanonicalHost) -> Problem {
        let message = format!(
            "host {:?} has no route, since {field}.pathHosts, the routes and the client all name other hosts: remove the \
             host, or add it to one of these",
            host.to_string(),
            field = self.field
        );
        Problem::new(Reason::InvalidSpec, message)
    }

    /// The routes of one host, in rendered order; or what is wrong with them, each with the field of its route.
    fn table(
        &self,
        host: &CanonicalHost,
        own_path: Option<&CanonicalPath>,
    ) -> Result<RouteTable, Vec<(String, RouteError)>> {
        let is_for = |hosts: &[Host]| {
            hosts.is_empty() || hosts.iter().any(|Host(text)| CanonicalHost::parse(text).as_ref() == Ok(host))
        };
        let own = own_path.filter(|_| is_for(self.path_hosts));
        let own = own.map(|_| WrittenRoute::from((self.path, self.own.clone())));
        let mut client = self.client.filter(|client| is_for(&client.hosts)).and_then(|client| {
            let port = port(&client.port)?;
            Some(Backend { service: client.service.clone(), port })
        });
        let (mut routes, mut fields, mut of_host) = (Vec::new(), Vec::new(), None);
        fields.extend(own.iter().map(|_| self.field.to_owned()));
        let of_this_host = self.routes.iter().enumerate().filter(|(_, route)| is_for(&route.hosts));
        for (at, route) in of_this_host {
            // What is wrong with the port was said already.
            let port = port(&route.port).unwrap_or(Port::Number(0));
            let backend = Backend { service: route.service.clone(), port };
            let (exact, strip_prefix) = (route.exact, route.strip_prefix);
            let is_root = || CanonicalPath::parse(&route.path).is_ok_and(|path| path.is_root());
            if !exact && !route.hosts.is_empty() && of_host.is_none() && is_root() {
                // The one at / of just this host is its client.
                of_host = Some(backend);
            } else {
                routes.push(WrittenRoute { path: &route.path, exact, strip_prefix, backend });
                fields.push(format!("{}.routes[{at}]", self.field));
            }
        }
        if of_host.is_some() {
            client = of_host;
        }
        RouteTable::judged(own.into_iter().chain(routes), client).map_err(|errors| {
            let field = |number: usize| fields.get(number).cloned().unwrap_or_else(|| self.field.to_owned());
            errors.into_iter().map(|(number, error)| (field(number), error)).collect()
        })
    }

    /// The routes and the client, each with its field.
    fn fields(&self) -> impl Iterator<Item = BackendField<'_>> {
        let routes = self.routes.iter().enumerate().map(|(at, route)| BackendField {
            field: format!("{}.routes[{at}]", self.field),
            service: &route.service,
            port: &route.port,
        });
        let client = self.client.iter().map(|client| BackendField {
            field: format!("{}.client", self.field),
            service: &client.service,
            port: &client.port,
        });
        routes.chain(client)
    }

    /// The lists of hosts of the path, the routes and the client, each with its field.
    fn hosts_of_fields(&self) -> impl Iterator<Item = (String, &[Host])> {
        let routes = self.routes.iter().enumerate();
        let routes =
            routes.map(|(at, route)| (format!("{}.routes[{at}].hosts", self.field), route.hosts.as_slice()));
        let client = self
            .client
            .iter()
            .map(|client| (format!("{}.client.hosts", self.field), client.hosts.as_slice()));
        let own = [(format!("{}.pathHosts", self.field), self.path_hosts)];
        own.into_iter().chain(routes).chain(client)
    }

    /// What is wrong with the hosts that routes name: each must be one of all hosts.
    fn unknown_hosts(&self) -> Vec<Problem> {
        let all = || self.host_lists.iter().flat_map(|(_, hosts)| hosts.iter());
        let known: Vec<_> = all().filter_map(|Host(text)| CanonicalHost::parse(text).ok()).collect();
        let lists: Vec<_> = self.host_lists.iter().map(|(field, _)| *field).collect();
        let mut problems = Vec::new();
        for (field, hosts) in self.hosts_of_fields() {
            for Host(text) in hosts {
                match CanonicalHost::parse(text) {
                    Err(error) => {
                        problems.push(Problem::new(Reason::InvalidHost, format!("{field}: {error}")))
                    }
                    Ok(host) if known.contains(&host) => {}
                    Ok(_) => problems.push(Problem::new(
                        Reason::InvalidHost,
                        format!(
                            "{field} has {text:?}, which is not in {}: list it there, or remove it here",
                            lists.join(" or ")
                        ),
                    )),
                }
            }
        }
        problems
    }

    /// The ports by name: the Gateway API has numbers only.
    pub(super) fn names_of_ports(&self) -> Vec<Problem> {
        let of_field = |BackendField { field, service, port: text }: BackendField<'_>| {
            let Some(Port::Name(name)) = port(text) else { return None };
            let message = format!(
                "{field}.port is {name:?}, but with spec.gateway it must be a number, since an HTTPRoute cannot name ports: \
                 write the number that Service {service:?} has under this name"
            );
            Some(Problem::new(Reason::InvalidSpec, message))
        };
        self.fields().filter_map(of_field).collect()
    }
}

fn own_backend(service: &OrdersService) -> Backend {
    Backend { service: service.name_any(), port: service.spec.port.into() }
}

/// A backend as it is written, and where.
struct BackendField<'a> {
    field: String,
    service: &'a str,
    port: &'a IntOrString,
}

impl BackendField<'_> {
    /// What is wrong with it.
    fn problems(&self) -> Vec<Problem> {
        let Self { field, service, port: written } = self;
        let invalid = |message: String| Problem::new(Reason::InvalidSpec, message);
        let mut problems = Vec::new();
        if !is_service_name(service) {
            let with_port = service.rsplit_once(':').filter(|(name, port)| {
                is_service_name(name) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
            });
            if let Some((name, port)) = with_port {
                problems.push(format!(
                    "{field}.service is {service:?}: write {name}, and port: {port} beside it"
                ));
                return problems.into_iter().map(invalid).collect();
            }
            let elsewhere = if service.contains(['.', '/']) {
                "; one of another namespace is reached by a Service of type ExternalName in this one (docs/routes.md has an \
                 example)"
            } else {
                ""
            };
            problems.push(format!(
                "{field}.service is {service:?}, which no Service can have as its name: write lower-case letters, digits \
                 and -, beginning with a letter, such as payments-srv{elsewhere}"
            ));
        }
        if port(written).is_none() {
            let written = match written {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(text) => format!("{text:?}"),
            };
            let lower = match self.port {
                IntOrString::String(name) if is_port_name(&name.to_lowercase()) => ", in lower case",
                _ => "",
            };
            problems.push(format!(
                "{field}.port is {written}: write a number from 1 to 65535, or the name of a port of the Service{lower}, such \
                 as 3000 or http"
            ));
        }
        problems.into_iter().map(invalid).collect()
    }
}

/// The port that is meant: a number, which may be written as text, or a name.
fn port(written: &IntOrString) -> Option<Port> {
    let number = |number: i32| is_port(number).then_some(Port::Number(number));
    match written {
        IntOrString::Int(written) => number(*written),
        IntOrString::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().and_then(number)
        }
        IntOrString::String(text) => is_port_name(text).then(|| Port::Name(text.clone())),
    }
}

/// RFC 6335 service name, which the name of a port must be.
fn is_port_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn route_reason(error: &RouteError) -> Reason {
    match error {
        RouteError::InvalidPath(_) | RouteError::RouteAtRoot { .. } | RouteError::NoPrefix { .. } => {
            Reason::InvalidPath
        }
        RouteError::MultipleClients { .. } => Reason::MultipleClients,
        RouteError::DuplicatePath { .. } => Reason::DuplicatePath,
    }
}

/// Whether it is the number of a port.
pub fn is_port(port: i32) -> bool {
    (1..=65535).contains(&port)
}

/// RFC 1035 label, which a Service's name must be.
pub fn is_service_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}
