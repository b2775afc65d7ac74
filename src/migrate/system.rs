//! Which of the objects are the system's orders service, and what is around it.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{
    documents::Object,
    environment::Stores,
    finding::{Findings, Kind, Whom},
    ingress::{self, OldIngress},
    rewrite,
    workload::{self, OldService},
};
use crate::routing::CanonicalPath;

/// Why there is nothing to translate.
#[derive(Debug, Error)]
pub enum SystemError {
    /// The same object is there twice, with other contents.
    #[error(
        "{object} is in {first} and, with other contents, in {second}: name only the files of one environment, such as those of \
         production"
    )]
    Twice {
        /// The object.
        object: String,
        /// Where it is.
        first: String,
        /// Where it is too.
        second: String,
    },
    /// Nothing looks like the orders service.
    #[error(
        "no Service of the orders found: no path such as /api/orders leads to one, and no Service or Deployment is \
         named after orders; name the Service with --orders SERVICE, or add its files to the inputs"
    )]
    NoOrders,
    /// Several things look like the orders service.
    #[error("any of these may be the Service of the orders: {}; name the right one with --orders \
         SERVICE", .0.join(", "))]
    SeveralOrders(Vec<String>),
    /// The Service that the command line names is not there.
    #[error("no Service {name} is among the inputs; there is {}: name one of these with --orders, or add its file", there.join(", "))]
    NoSuchOrders {
        /// The name.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// An Ingress of another namespace leads to it.
    #[error(
        "{ingress} (namespace {from}) leads to {service}, which is in {namespace}: an Ingress reaches its own \
         namespace only; correct metadata.namespace, or leave that Ingress out with --namespace {namespace}"
    )]
    IngressElsewhere {
        /// The Ingress.
        ingress: String,
        /// Its namespace.
        from: String,
        /// The Service.
        service: String,
        /// The namespace of the Service.
        namespace: String,
    },
    /// It is in several namespaces.
    #[error("Service {service} is in several namespaces ({}): name one of them with --namespace", namespaces.join(", "))]
    SeveralNamespaces {
        /// The Service.
        service: String,
        /// The namespaces.
        namespaces: Vec<String>,
    },
}

/// How many names are listed in an error.
const SHOWN: usize = 20;

/// Kinds that have pods by a template.
const WORKLOADS: [&str; 4] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"];

/// Other kinds that are read, beside Ingresses.
const READ: [&str; 4] = ["Service", "ConfigMap", "Secret", "HorizontalPodAutoscaler"];

/// Kinds that carry routes and are not read.
const ROUTES_OF_OTHERS: [&str; 12] = [
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "IngressRoute",
    "IngressRouteTCP",
    "VirtualService",
    "HTTPProxy",
    "VirtualServer",
    "VirtualServerRoute",
    "Mapping",
    "Route",
];

/// Kinds of objects that the operator makes under the name of an OrdersService.
const CHILDREN: [&str; 7] = [
    "Deployment",
    "Service",
    "Ingress",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "ServiceAccount",
    "NetworkPolicy",
];

/// The objects of one system, sorted.
#[derive(Default)]
pub(super) struct System {
    /// The namespace, if the objects name one.
    pub(super) namespace: Option<String>,
    /// The name of the Service of the orders.
    pub(super) orders: String,
    /// That Service, if it was read.
    pub(super) service: Option<(Object, OldService)>,
    /// The pods behind it, if they were read.
    pub(super) workload: Option<Object>,
    /// The Ingresses that share a host with the orders.
    pub(super) ingresses: Vec<OldIngress>,
    /// The ports of all Services.
    pub(super) services: BTreeMap<String, OldService>,
    /// ConfigMaps and Secrets.
    pub(super) stores: Stores,
    /// Names under which the operator could not make its objects, and an object that has each.
    pub(super) taken: BTreeMap<String, String>,
    /// Autoscalers.
    pub(super) autoscalers: Vec<Object>,
    /// Configurations of Skaffold.
    pub(super) skaffold: Vec<Object>,
    /// Everything else.
    pub(super) others: Vec<Object>,
}

impl System {
    /// Finds the system in the objects. `orders` is the name of its Service and `namespace` its namespace, if they are given.
    pub(super) fn find(
        objects: Vec<Object>,
        orders: Option<&str>,
        namespace: Option<&str>,
        findings: &mut Findings,
    ) -> Result<Self, SystemError> {
        let mut objects = without_owned(distinct(objects)?, findings);
        let skaffold = objects.extract_if(.., |object| object.group == "skaffold").collect();
        let mut ingresses = Vec::new();
        for object in objects.extract_if(.., |object| is_ingress(object)) {
            let mut said = Findings::default();
            let namespace = object.namespace.clone();
            ingresses.push((namespace, ingress::read(object, &mut said), said));
        }
        let name = match orders {
            Some(name) => named(name, &ingresses, &objects)?,
            None => {
                let name = orders_service(&ingresses, &objects)?;
                let leads = |path: &ingress::OldPath| path.backend.service == name;
                let mut paths =
                    ingresses.iter().flat_map(|(_, of, _)| &of.rules).flat_map(|rule| &rule.paths);
                // Where there are several hosts, none of which has the orders, it is said that all rules stay.
                let hosts: BTreeSet<_> =
                    ingresses.iter().flat_map(|(_, of, _)| &of.rules).map(|rule| &rule.host).collect();
                if hosts.len() == 1 && !paths.any(leads) {
                    let told = "was taken for that of the orders by its name alone, since no path of an Ingress leads to it: if it is \
                                something else, name the right one with --orders SERVICE";
                    findings.add(Kind::Left, Whom::You, &format!("Service {name}"), told);
                }
                name
            }
        };
        let chosen = the_namespace(&name, &ingresses, &objects, namespace)?;
        let mut elsewhere = BTreeMap::<String, usize>::new();
        let mut is_here = |of: &Option<String>| {
            let here = is_of(of, &chosen);
            if !here {
                *elsewhere.entry(of.clone().unwrap_or_else(|| "(none)".into())).or_default() += 1;
            }
            here
        };
        ingresses.retain(|(of, _, _)| is_here(of));
        objects.retain(|object| is_here(&object.namespace));
        for (namespace, number) in elsewhere {
            let are = if number == 1 { "object of it is" } else { "objects of it are" };
            let told = format!("{number} {are} not of this system: none of it was read");
            findings.add(Kind::Stays, Whom::You, &format!("Namespace {namespace}"), told);
        }
        let mut system = Self { namespace: chosen, orders: name, skaffold, ..Self::default() };
        system.taken.extend(
            objects
                .iter()
                .filter(|object| CHILDREN.contains(&object.kind.as_str()))
                .map(|object| (object.name.clone(), object.label())),
        );
        system
            .taken
            .extend(ingresses.iter().map(|(_, ingress, _)| (ingress.name.clone(), ingress.label.clone())));
        system.take_ingresses(ingresses, findings);
        system.sort(objects, findings);
        Ok(system)
    }

    /// Takes the Ingresses that share a host with the orders; all, if none leads to them.
    fn take_ingresses(&mut self, read: Vec<(Option<String>, OldIngress, Findings)>, findings: &mut Findings) {
        let leads = |ingress: &OldIngress| {
            let paths = ingress
                .rules
                .iter()
                .filter(|rule| rule.paths.iter().any(|path| path.backend.service == self.orders));
            paths.map(|rule| rule.host.clone()).collect::<Vec<_>>()
        };
        let hosts: BTreeSet<_> = read.iter().flat_map(|(_, ingress, _)| leads(ingress)).collect();
        for (_, ingress, said) in read {
            let is_concerned =
                hosts.is_empty() || ingress.rules.iter().any(|rule| hosts.contains(&rule.host));
            if is_concerned && ingress.is_canary {
                let told = "is a canary of ingress-nginx, and was not translated: delete it before the switch, since it is older and would have \
                            its paths; a new one needs the paths of the new Ingress, word by word";
                findings.add(Kind::Left, Whom::Users, &ingress.label, told);
            } else if is_concerned {
                findings.extend(said);
                self.ingresses.push(ingress);
            } else {
                let told = "has no host of the orders, so it is not affected";
                findings.add(Kind::Stays, Whom::Users, &ingress.label, told);
            }
        }
    }

    fn sort(&mut self, objects: Vec<Object>, findings: &mut Findings) {
        let mut workloads = Vec::new();
        for object in objects {
            match object.kind.as_str() {
                "Service" if object.group.is_empty() => {
                    let read = workload::service(&object);
                    if object.name == self.orders {
                        self.service = Some((object.clone(), read.clone()));
                    }
                    self.services.insert(object.name, read);
                }
                "ConfigMap" | "Secret" if object.group.is_empty() => self.stores.add(object, findings),
                "HorizontalPodAutoscaler" => self.autoscalers.push(object),
                kind if WORKLOADS.contains(&kind) => workloads.push(object),
                _ => self.others.push(object),
            }
        }
        let selector = self
            .service
            .as_ref()
            .map(|(_, service)| &service.selector)
            .filter(|selector| !selector.is_empty());
        let mut found: Vec<usize> = match selector {
            Some(selector) => positions(&workloads, |object| {
                let labels = workload::labels_of_pods(object);
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            }),
            None => Vec::new(),
        };
        if let (true, Some(selector), Some((object, _))) =
            (found.is_empty() && !workloads.is_empty(), selector, &self.service)
        {
            let labels: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let told = format!(
                "spec.selector ({}) selects no pods that are among the inputs: if there are such, add their file; if not, correct it, since \
                 no request has reached them by this Service",
                labels.join(", ")
            );
            findings.add(Kind::Left, Whom::Pods, &object.label(), told);
        }
        if found.is_empty() {
            found = positions(&workloads, |object| is_named_after_orders(&object.name));
        }
        if let [first, _, ..] = found.as_slice() {
            let all: Vec<_> = found.iter().filter_map(|at| workloads.get(*at)).map(Object::label).collect();
            let name = workloads.get(*first).map(Object::label).unwrap_or_default();
            let told = format!(
                "several have the pods of the orders ({}): {name} was read; see that it is the right one",
                all.join(", ")
            );
            findings.add(Kind::Left, Whom::Pods, &name, told);
        }
        if let Some(at) = found.first() {
            self.workload = Some(workloads.remove(*at));
        }
        self.others.append(&mut workloads);
    }
}

/// Whether an object carries routes that are not read.
pub(super) fn carries_routes(object: &Object) -> bool {
    ROUTES_OF_OTHERS.contains(&object.kind.as_str())
}

fn positions(objects: &[Object], is_it: impl Fn(&Object) -> bool) -> Vec<usize> {
    objects.iter().enumerate().filter(|(_, object)| is_it(object)).map(|(at, _)| at).collect()
}

fn is_ingress(object: &Object) -> bool {
    object.kind == "Ingress" && ["extensions", "networking.k8s.io"].contains(&object.group.as_str())
}

fn is_of(namespace: &Option<String>, chosen: &Option<String>) -> bool {
    namespace.is_none() || namespace == chosen
}

/// Every object once; the same file may be named twice.
fn distinct(objects: Vec<Object>) -> Result<Vec<Object>, SystemError> {
    let mut places = BTreeMap::<(String, String, Option<String>, String), usize>::new();
    let mut distinct = Vec::<Object>::new();
    for object in objects {
        let key = (object.group.clone(), object.kind.clone(), object.namespace.clone(), object.name.clone());
        let matters = is_ingress(&object)
            || READ.contains(&object.kind.as_str())
            || WORKLOADS.contains(&object.kind.as_str());
        match places.get(&key).and_then(|at| distinct.get(*at)) {
            Some(known) if known.is_same(&object) => {}
            Some(known) if matters => {
                return Err(SystemError::Twice {
                    object: object.label(),
                    first: known.source.clone(),
                    second: object.source,
                });
            }
            _ => {
                places.insert(key, distinct.len());
                distinct.push(object);
            }
        }
    }
    Ok(distinct)
}

/// The objects that people write: without pods and what else others have made.
fn without_owned(mut objects: Vec<Object>, findings: &mut Findings) -> Vec<Object> {
    for object in objects.extract_if(.., |object| object.owner.is_some()) {
        let owner = object.owner.as_deref().unwrap_or_default();
        if owner.starts_with("OrdersService ") {
            let told = format!("is made by {owner} already");
            findings.add(Kind::Stays, Whom::You, &object.label(), told);
            continue;
        }
        // A ReplicaSet says nothing that its Deployment does not.
        let is_of_deployment = object.kind == "ReplicaSet" && owner.starts_with("Deployment ");
        if is_ingress(&object) || (WORKLOADS.contains(&object.kind.as_str()) && !is_of_deployment) {
            let told = format!(
                "is made by {owner}, and was not read: if it is of the orders, add it as a file without metadata.ownerReferences, and \
                 see that {owner} does not make it again"
            );
            let whom = if is_ingress(&object) { Whom::Users } else { Whom::You };
            findings.add(Kind::Stays, whom, &object.label(), told);
        }
    }
    objects
}

/// The words of a name, as in `orders-depl`.
fn is_named_after_orders(name: &str) -> bool {
    let mut words = name.split(['-', '_', '.']);
    let of_others = ["mongo", "mongodb", "db", "redis", "postgres", "mysql", "expiration", "config", "test"];
    words.next().is_some_and(|first| ["order", "orders", "orderservice", "ordersservice"].contains(&first))
        && !words.any(|word| of_others.contains(&word))
}

/// The Service that the command line names, if it is there: its file is, or a path leads to it; or, of inputs that have no
/// Services, its workload is.
fn named(
    name: &str,
    ingresses: &[(Option<String>, OldIngress, Findings)],
    objects: &[Object],
) -> Result<String, SystemError> {
    let of_kinds = |kinds: &[&str]| -> BTreeSet<String> {
        let of = objects.iter().filter(|object| kinds.contains(&object.kind.as_str()));
        of.map(|object| object.name.clone()).collect()
    };
    let mut there = of_kinds(&["Service"]);
    let paths = ingresses.iter().flat_map(|(_, ingress, _)| &ingress.rules).flat_map(|rule| &rule.paths);
    there.extend(paths.map(|path| path.backend.service.clone()));
    there.extend(
        ingresses.iter().filter_map(|(_, ingress, _)| Some(ingress.default.as_ref()?.service.clone())),
    );
    if there.is_empty() {
        there = of_kinds(&WORKLOADS);
    }
    if there.is_empty() {
        return Err(SystemError::NoOrders);
    }
    if there.contains(name) {
        return Ok(name.to_owned());
    }
    let more = there.len() > SHOWN;
    let shown = there.into_iter().take(SHOWN).chain(more.then(|| "...".to_owned())).collect();
    Err(SystemError::NoSuchOrders { name: name.to_owned(), there: shown })
}

/// The Service of the orders: that to which `/api/orders` leads, or else another path with that word, or else one that is
/// named so.
fn orders_service(
    ingresses: &[(Option<String>, OldIngress, Findings)],
    objects: &[Object],
) -> Result<String, SystemError> {
    let whole = || ingresses.iter().filter(|(_, ingress, _)| !ingress.is_canary);
    let paths = || whole().flat_map(|(_, ingress, _)| &ingress.rules).flat_map(|rule| &rule.paths);
    let by_path = |is_it: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        paths()
            .filter(|path| {
                let canonical = rewrite::canonical(&path.text);
                is_it(canonical.as_ref().map_or(path.text.as_str(), CanonicalPath::as_str))
            })
            .map(|path| path.backend.service.clone())
            .collect()
    };
    let has_word = |path: &str| {
        path.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| ["orders", "order"].contains(&word.to_ascii_lowercase().as_str()))
    };
    let by_kind = |kinds: &[&str]| -> BTreeSet<String> {
        let named = objects.iter().filter(|object| kinds.contains(&object.kind.as_str()));
        named.filter(|object| is_named_after_orders(&object.name)).map(|object| object.name.clone()).collect()
    };
    let groups = [
        by_path(&|path| path == "/api/orders"),
        by_path(&|path| has_word(path)),
        by_kind(&["Service"]),
        by_kind(&WORKLOADS),
    ];
    let found = groups.into_iter().find(|group| !group.is_empty()).ok_or(SystemError::NoOrders)?;
    match found.len() {
        1 => found.into_iter().next().ok_or(SystemError::NoOrders),
        _ => Err(SystemError::SeveralOrders(found.into_iter().collect())),
    }
}

fn the_namespace(
    orders: &str,
    ingresses: &[(Option<String>, OldIngress, Findings)],
    objects: &[Object],
    wanted: Option<&str>,
) -> Result<Option<String>, SystemError> {
    if let Some(wanted) = wanted {
        return Ok(Some(wanted.to_owned()));
    }
    let leads = |ingress: &OldIngress| {
        ingress.rules.iter().flat_map(|rule| &rule.paths).any(|path| path.backend.service == orders)
    };
    let leading = || ingresses.iter().filter(|(_, ingress, _)| leads(ingress));
    let services = objects.iter().filter(|object| object.kind == "Service" && object.name == orders);
    let of_services: BTreeSet<_> = services.filter_map(|object| object.namespace.as_ref()).collect();
    if let [namespace] = of_services.iter().collect::<Vec<_>>().as_slice()
        && let Some((Some(from), ingress, _)) =
            leading().find(|(from, _, _)| from.as_ref().is_some_and(|from| from != **namespace))
    {
        return Err(SystemError::IngressElsewhere {
            ingress: ingress.label.clone(),
            from: from.clone(),
            service: orders.to_owned(),
            namespace: (**namespace).clone(),
        });
    }
    let of_ingresses = leading().filter_map(|(namespace, _, _)| namespace.as_ref());
    let namespaces: BTreeSet<_> = of_ingresses.chain(of_services).cloned().collect();
    match namespaces.len() {
        0 | 1 => Ok(namespaces.into_iter().next()),
        _ => Err(SystemError::SeveralNamespaces {
            service: orders.to_owned(),
            namespaces: namespaces.into_iter().collect(),
        }),
    }
}
