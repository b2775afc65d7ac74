//! What every data plane is asked: systems as their owners write them, requests, and the oracle, which knows from what was
//! written who has to answer.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::{dataplane::distinct, routes, server::Server};

/// How many systems have plain routes, and how many requests each gets.
const PLAIN: usize = 8;
const REQUESTS: usize = 70;

/// A route as its owner writes it.
#[derive(Clone, Debug)]
pub struct Written {
    /// None for all of the system's.
    pub hosts: Vec<String>,
    pub path: String,
    pub exact: bool,
    /// Of Gateways only.
    pub strip: bool,
    pub service: String,
}

impl Written {
    fn new(path: &str, service: &str) -> Self {
        Self { hosts: Vec::new(), path: path.into(), exact: false, strip: false, service: service.into() }
    }

    fn at(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        self
    }

    fn exact(path: &str, service: &str) -> Self {
        Self { exact: true, ..Self::new(path, service) }
    }

    /// Whether it takes a path, as Kubernetes has it: a prefix is compared segment by segment.
    pub fn takes(&self, path: &str) -> bool {
        self.takes_by(routes::by_segments, path)
    }

    /// The same with another comparison of prefixes.
    pub fn takes_by(&self, compares: fn(&str, &str) -> bool, path: &str) -> bool {
        if self.exact { path == self.path } else { compares(&self.path, path) }
    }

    /// As a field of the spec. The port is the one that its Service has here.
    fn field(&self, entry: Entry, port: u16) -> Value {
        let mut field = json!({"path": self.path, "service": self.service, "port": port});
        if !self.hosts.is_empty() {
            field["hosts"] = json!(self.hosts);
        }
        if self.exact {
            field["exact"] = json!(true);
        }
        if self.strip && entry == Entry::Gateway {
            field["stripPrefix"] = json!(true);
        }
        field
    }
}

/// By what the routes are served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Ingress,
    Gateway,
}

/// An OrdersService, and what is asked of it.
#[derive(Clone, Debug)]
pub struct System {
    /// Of the OrdersService, and so of its own Service.
    pub name: String,
    /// None for every host.
    pub hosts: Vec<String>,
    pub own: Written,
    /// The paths of further orders APIs, whose Services have no pods either.
    pub beside: Vec<Written>,
    pub routes: Vec<Written>,
    /// None where another OrdersService has that of the host.
    pub client: Option<Written>,
    /// Hosts and paths.
    pub requests: Vec<(String, String)>,
}

impl System {
    /// The spec's field of this entry; `port` knows the port of each Service.
    pub fn spec(&self, entry: Entry, port: impl Fn(&str) -> u16) -> Value {
        let names = if entry == Entry::Ingress { "hosts" } else { "hostnames" };
        let written = |route: &Written| route.field(entry, port(&route.service));
        let client = self.client.as_ref().map(|client| {
            let mut client = written(client);
            client.as_object_mut().unwrap().remove("path");
            client
        });
        json!({
            names: Some(&self.hosts).filter(|hosts| !hosts.is_empty()),
            "path": self.own.path,
            "pathHosts": Some(&self.own.hosts).filter(|hosts| !hosts.is_empty()),
            "routes": self.routes.iter().map(written).collect::<Vec<_>>(),
            "client": client,
        })
    }

    /// The Services that it names, without its own.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().chain(&self.client).map(|route| route.service.as_str())
    }

    /// Its rules, in no order of theirs: the client is first, so that a host's own route at / is behind it.
    pub fn all(&self) -> impl Iterator<Item = &Written> {
        self.client.iter().chain(&self.routes).chain(&self.beside).chain([&self.own])
    }

    /// The oracle: of the rules of the request's host, the longest path that takes the request, and of two that are equally
    /// long the exact one.
    pub fn oracle(&self, host: &str, takes: impl Fn(&Written) -> bool) -> &Written {
        let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let of_wildcard = self.hosts.iter().find(|of| Some(*of) == parent.as_ref());
        let entry = self.hosts.iter().find(|of| *of == host).or(of_wildcard);
        let is_here = |route: &&Written| {
            route.hosts.is_empty() || entry.is_some_and(|entry| route.hosts.contains(entry))
        };
        let taking = self.all().filter(is_here).filter(|route| takes(route));
        // Of equals the last.
        taking.max_by_key(|route| (route.path.len(), route.exact)).unwrap()
    }
}

/// How a data plane reads a request, beyond what Kubernetes says.
#[derive(Clone, Copy)]
pub struct Reading {
    /// The path that is compared; none if such a request is refused.
    pub compared: fn(&str) -> Option<String>,
    /// Whether a route takes that path.
    pub takes: fn(&Written, &str) -> bool,
}

/// Requests near to the rules, and the same in other spellings.
fn request(paths: &[String]) -> impl Strategy<Value = String> + use<> {
    routes::request(paths).prop_flat_map(|path| {
        let escaped = path
            .chars()
            .nth(1)
            .filter(char::is_ascii_alphanumeric)
            .map_or_else(|| path.clone(), |letter| format!("/%{:02X}{}", u32::from(letter), &path[2..]));
        prop_oneof![
            5 => Just(path.clone()),
            1 => Just(format!("/x/..{path}")),
            1 => Just(format!("/.{path}")),
            1 => Just(format!("/x/%2e%2e{path}")),
            1 => Just(format!("{path}/.")),
            1 => Just(format!("{path}/../ws")),
            1 => Just(format!("{path}//")),
            1 => Just(escaped),
            1 => Just(format!("{path}?next=/ws")),
        ]
    })
}

/// A request line must begin with a slash, and no escape may be cut.
fn is_sound(request: &str) -> bool {
    let is_escape = |part: &str| part.get(..2).is_some_and(|digits| u8::from_str_radix(digits, 16).is_ok());
    request.starts_with('/') && request.split('%').skip(1).all(is_escape)
}

fn requests(runner: &mut TestRunner, paths: &[String], hosts: &[&str]) -> Vec<(String, String)> {
    let request = request(paths);
    let asked = (0..REQUESTS).map(|_| request.new_tree(runner).unwrap().current());
    let mut asked: Vec<_> = asked.filter(|path| is_sound(path)).collect();
    asked.extend(paths.iter().cloned());
    // What other hosts have.
    asked.extend(["/orders", "/ws", "/api/v1/x"].map(str::to_owned));
    asked.sort();
    asked.dedup();
    asked.into_iter().zip(hosts.iter().cycle()).map(|(path, host)| ((*host).to_owned(), path)).collect()
}

/// The systems, always the same.
pub fn systems() -> Vec<System> {
    let mut runner = TestRunner::deterministic();
    let mut systems: Vec<_> = (0..PLAIN).map(|number| plain(number, &mut runner)).collect();
    systems.extend([of_hosts(&mut runner), of_any_host(&mut runner), of_few_services(&mut runner)]);
    systems
}

/// Many paths that are near to each other, each with a Service of its own; some are exact, some are taken off.
fn plain(number: usize, runner: &mut TestRunner) -> System {
    let own = "/api/orders";
    let mut paths = distinct(routes::paths().new_tree(runner).unwrap().current());
    paths.retain(|path| path != own);
    let mut written: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| Written { strip: at % 3 == 0, ..Written::new(path, &format!("s{at}")) })
        .collect();
    let exact = routes::EXACT.into_iter().skip(number % 4).step_by(1 + number % 2);
    written.extend(exact.enumerate().map(|(at, path)| Written::exact(path, &format!("e{at}"))));
    paths.extend(written.iter().filter(|route| route.exact).map(|route| route.path.clone()));
    paths.push(own.to_owned());
    let host = format!("plain-{number}.dev");
    let name = format!("plain-{number}");
    System {
        requests: requests(runner, &paths, &[&host]),
        hosts: vec![host],
        own: Written::new(own, &name),
        beside: Vec::new(),
        name,
        routes: written,
        client: Some(Written::new("/", "client")),
    }
}

/// Hosts with different routes, one of them a wildcard.
fn of_hosts(runner: &mut TestRunner) -> System {
    let hosts = ["shop.dev", "files.shop.dev", "*.w.dev", "x.w.dev"];
    let routes = vec![
        Written::new("/", "minio").at(&["files.shop.dev"]),
        Written::exact("/long-enough/for/all", "login"),
        Written::new("/api", "api"),
        Written::new("/api/v1", "old").at(&["*.w.dev"]),
        Written::new("/api/v1/x", "new").at(&["x.w.dev", "shop.dev"]),
    ];
    let paths: Vec<_> = routes.iter().map(|route| route.path.clone()).collect();
    System {
        name: "hosts".into(),
        requests: requests(runner, &paths, &["shop.dev", "files.shop.dev", "y.w.dev", "x.w.dev"]),
        hosts: hosts.map(str::to_owned).into(),
        own: Written::new("/api/orders", "hosts").at(&["shop.dev", "*.w.dev"]),
        beside: Vec::new(),
        routes,
        client: Some(Written::new("/", "client")),
    }
}

/// No host: the rules of every host that has none of its own.
fn of_any_host(runner: &mut TestRunner) -> System {
    let routes = vec![Written::new("/ws", "ws"), Written::exact("/ws/health-of-all", "health")];
    let paths: Vec<_> = routes.iter().map(|route| route.path.clone()).chain(["/orders".to_owned()]).collect();
    System {
        name: "any".into(),
        requests: requests(runner, &paths, &["other.dev", "localhost", "a.b.c.dev"]),
        hosts: Vec::new(),
        own: Written::new("/orders", "any"),
        beside: Vec::new(),
        routes,
        client: Some(Written::new("/", "rest")),
    }
}

/// Services that have several paths each, the client among them.
fn of_few_services(runner: &mut TestRunner) -> System {
    let routes = vec![
        Written::new("/a", "x"),
        Written::new("/a/b/c/d/e", "x"),
        Written::new("/a/b", "y"),
        Written::new("/static/images/large", "client"),
        Written::new("/static", "y"),
    ];
    let paths: Vec<_> = routes.iter().map(|route| route.path.clone()).collect();
    System {
        name: "few".into(),
        requests: requests(runner, &paths, &["few.dev"]),
        hosts: vec!["few.dev".into()],
        own: Written::new("/api/orders", "few"),
        beside: Vec::new(),
        routes,
        client: Some(Written::new("/", "client")),
    }
}

/// Two OrdersServices of one host, of which the first has the client and a path above one of the second; and both as one, of
/// which everything is asked.
pub fn shared() -> ([System; 2], System) {
    let system = |name: &str, own: &str, routes: &[(&str, &str)], client: Option<&str>| System {
        name: name.into(),
        hosts: vec!["shared.dev".into()],
        own: Written::new(own, name),
        beside: Vec::new(),
        routes: routes.iter().map(|(path, service)| Written::new(path, service)).collect(),
        client: client.map(|service| Written::new("/", service)),
        requests: Vec::new(),
    };
    let first =
        system("first", "/api/orders", &[("/api/users", "auth"), ("/files", "files")], Some("client"));
    let routes = [("/ws", "chat"), ("/api/users/admin", "admin"), ("/files/of/all", "all")];
    let second = system("second", "/api/second", &routes, None);
    let mut whole = first.clone();
    whole.routes.extend(second.routes.iter().cloned());
    whole.beside.push(second.own.clone());
    let paths: Vec<_> = whole.all().map(|route| route.path.clone()).collect();
    whole.requests = requests(&mut TestRunner::deterministic(), &paths, &["shared.dev"]);
    ([first, second], whole)
}

/// What is applied to a cluster, and what is asked of it: the same, but that those which share a host are asked as one.
pub fn applied_and_asked() -> (Vec<System>, Vec<System>) {
    let (mut applied, (owners, whole)) = (systems(), shared());
    let mut asked = applied.clone();
    applied.extend(owners);
    asked.push(whole);
    (applied, asked)
}

/// Asks a server every question, and has each answered by whom the oracle names; gives the number of questions. An answer
/// begins with the name of a Service; a Service without pods is answered for with 503. With `stripped`, what follows the
/// name is the path that the Service got.
pub async fn ask_all(server: &Server, systems: &[System], reading: &Reading, stripped: bool) -> usize {
    let (mut asked, mut wrong) = (0, Vec::new());
    for system in systems {
        for (host, request) in &system.requests {
            let path = request.split('?').next().unwrap_or_default();
            let answer = server.ask(host, request).await;
            let (status, body) = answer.unwrap_or_else(|| panic!("no answer to {host}{request}"));
            asked += 1;
            let Some(compared) = (reading.compared)(path) else {
                if status != 400 {
                    wrong.push(format!("{host}{request}: {status} {body:?}, and not 400"));
                }
                continue;
            };
            let oracle = system.oracle(host, |route| (reading.takes)(route, &compared));
            let (service, got) = body.split_once(' ').unwrap_or((&body, ""));
            let is_right = match status {
                503 => {
                    let mut own = system.beside.iter().chain([&system.own]);
                    own.any(|own| own.service == oracle.service)
                }
                200 if stripped && oracle.strip => {
                    let rest = compared[oracle.path.len()..].trim_start_matches('/');
                    service == oracle.service && got.split('?').next() == Some(&format!("/{rest}"))
                }
                200 => service == oracle.service,
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{host}{request}: {status} {body:?}, and not by {oracle:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} are answered wrongly:\n{}", wrong.len(), wrong.join("\n"));
    asked
}

#[test]
fn the_oracle_knows_hosts_exact_paths_and_prefixes() {
    let (_, systems) = applied_and_asked();
    let system = |name: &str| systems.iter().find(|system| system.name == name).unwrap();
    for (name, host, path, expected) in [
        ("hosts", "shop.dev", "/api/v1/x/y", "new"),
        ("hosts", "shop.dev", "/api/orders/1", "hosts"),
        ("hosts", "shop.dev", "/x", "client"),
        ("hosts", "files.shop.dev", "/x", "minio"),
        ("hosts", "files.shop.dev", "/api/orders", "api"),
        ("hosts", "y.w.dev", "/api/v1/x", "old"),
        ("hosts", "y.w.dev", "/long-enough/for/all", "login"),
        ("hosts", "y.w.dev", "/long-enough/for/all/", "client"),
        ("hosts", "x.w.dev", "/api/v1/x", "new"),
        ("hosts", "x.w.dev", "/api/v1", "api"),
        ("any", "other.dev", "/wsx", "rest"),
        ("any", "other.dev", "/orders", "any"),
        ("few", "few.dev", "/a/b/c/d/e/f", "x"),
        ("few", "few.dev", "/a/b/c", "y"),
        ("first", "shared.dev", "/api/users/admin/1", "admin"),
        ("first", "shared.dev", "/api/second/1", "second"),
    ] {
        let taken = system(name).oracle(host, |route| route.takes(path));
        assert_eq!(taken.service, expected, "{host}{path}");
    }
    // Or else nothing of this would tell one order from another.
    let all: Vec<_> = systems.iter().flat_map(|system| &system.requests).collect();
    for spelling in ["//", "/../", "/./", "%2F", "%2e", "?", "/API"] {
        assert!(all.iter().filter(|(_, path)| path.contains(spelling)).count() > 2, "{spelling}");
    }
    assert!(all.len() > 500, "{}", all.len());
}
