//! From a host's name to its addresses, as the pods of a namespace look it up.
//!
//! A pod completes names with the domains of its search list, of which the first is that of its namespace. The list of this
//! process is another: it is a pod itself, and what is in its own namespace is not for tenants. So names are completed here,
//! and the resolver is given whole ones only.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};

/// How long one server of the DNS may take, and how often it is asked.
const QUERY: Duration = Duration::from_secs(1);
const QUERIES: usize = 2;

/// How many names are remembered, and how long at most: a name's address changes when its pod moves.
const REMEMBERED: u64 = 1024;
const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// From so many dots on, a pod takes a name for a whole one first: `options ndots:5`.
const NDOTS: usize = 5;

/// Looks names up, without a thread for each.
#[derive(Debug)]
pub(in crate::store) struct Lookup {
    /// As this machine is set up to.
    machine: TokioResolver,
    /// The same without the file of hosts, which names what this pod alone knows.
    dns: TokioResolver,
    /// The cluster that this process is a pod of.
    cluster: Option<Cluster>,
}

impl Lookup {
    /// By the servers of the DNS that this machine has.
    ///
    /// # Errors
    /// When it has no settings for the DNS.
    pub(super) fn of_this_machine() -> io::Result<Self> {
        let (config, mut options) = read_system_conf().map_err(io::Error::other)?;
        (options.timeout, options.attempts, options.cache_size) = (QUERY, QUERIES, REMEMBERED);
        (options.positive_max_ttl, options.negative_max_ttl) =
            (Some(REMEMBERED_FOR), Some(Duration::from_secs(1)));
        Self::new(config, options)
    }

    /// By these servers, with the search list that this process has.
    pub(super) fn new(config: ResolverConfig, options: ResolverOpts) -> io::Result<Self> {
        let cluster = Cluster::of(config.search());
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let machine = builder.with_options(options).build().map_err(io::Error::other)?;
        let mut dns = machine.clone();
        dns.set_hosts(Arc::default());
        Ok(Self { machine, dns, cluster })
    }

    /// The addresses of `host`, as a pod of `namespace` finds them; outside of a cluster, or without a namespace, as this
    /// machine does.
    ///
    /// # Errors
    /// When it has none, or the DNS does not say.
    pub(super) async fn addresses(&self, host: &str, namespace: Option<&str>) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let (Some(cluster), Some(namespace)) = (&self.cluster, namespace) else {
            return Ok(self.machine.lookup_ip(host).await.map_err(io::Error::other)?.iter().collect());
        };
        for name in cluster.names(host, namespace).map_err(io::Error::other)? {
            let found = self.addresses_of(&name).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the host's name has no address"))
    }

    /// The addresses of a whole name; none if the DNS says that there are none. That it does not say is an error: the same
    /// host with the next domain may be another's.
    async fn addresses_of(&self, name: &Name) -> io::Result<Vec<IpAddr>> {
        let of = |kind| self.dns.lookup(name.clone(), kind);
        let (v4, v6) = futures::join!(of(RecordType::A), of(RecordType::AAAA));
        let (mut addresses, mut failed) = (Vec::new(), None);
        for looked_up in [v4, v6] {
            match looked_up {
                Ok(found) => {
                    addresses.extend(found.answers().iter().filter_map(|record| record.data.ip_addr()))
                }
                Err(error) if has_none(&error) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if addresses.is_empty() => Err(io::Error::other(error)),
            _ => Ok(addresses),
        }
    }
}

/// Whether this says that there is no such name, or that it has no such address.
fn has_none(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError)
}

/// What is the same for all pods of a cluster, in their order, but for the domain of the namespace: `svc.DOMAIN`, `DOMAIN`,
/// and the search list of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cluster {
    /// `svc.DOMAIN`, in which each namespace has its own.
    services: Name,
    search: Vec<Name>,
}

impl Cluster {
    /// The cluster of a pod with this search list; none if it is not that of a pod.
    fn of(search: &[Name]) -> Option<Self> {
        let search: Vec<_> = search.iter().map(whole).collect();
        let services = search.iter().find_map(services_of)?;
        let domain = services.base_name();
        // The namespaces of others are no business of a tenant's pod: that of this process, and what its pod has more.
        let more = search.iter().filter(|name| !services.zone_of(name) && **name != domain).cloned();
        let more: Vec<_> = more.collect();
        Some(Self { search: [vec![services.clone(), domain], more].concat(), services })
    }

    /// The whole names under which a pod of the namespace looks for a host, in its order.
    fn names(&self, host: &str, namespace: &str) -> Result<Vec<Name>, NetError> {
        let name = Name::from_utf8(host)?;
        if name.is_fqdn() || name.is_localhost() {
            return Ok(vec![whole(&name)]);
        }
        let own = Name::from_ascii(namespace)?.append_domain(&self.services)?;
        // One that becomes too long is no name.
        let completed = std::iter::once(&own)
            .chain(&self.search)
            .filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut names: Vec<_> = completed.collect();
        let place = if host.matches('.').count() < NDOTS { names.len() } else { 0 };
        names.insert(place, whole(&name));
        Ok(names)
    }
}

/// `svc.DOMAIN`, if this is it, or a namespace's part of it.
fn services_of(domain: &Name) -> Option<Name> {
    let is_services = |name: &Name| {
        name.num_labels() > 1 && name.iter().next().is_some_and(|label| label.eq_ignore_ascii_case(b"svc"))
    };
    // The operator may be in a namespace of that name.
    [domain.base_name(), domain.clone()].into_iter().find(is_services)
}

fn whole(name: &Name) -> Name {
    let mut name = name.clone();
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::guard::test_dns::{Answer, Dns, OWN};

    const SHOP: Option<&str> = Some("shop");

    fn names(search: &[&str], host: &str) -> Vec<String> {
        let search: Vec<_> = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        let names = Cluster::of(&search).unwrap().names(host, "shop").unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_host_is_completed_as_a_pod_of_the_namespace_does_it() {
        let all = |host: &str| {
            [".shop.svc.cluster.local.", ".svc.cluster.local.", ".cluster.local.", ".c.example.internal."]
                .map(|domain| format!("{host}{domain}"))
                .to_vec()
        };
        for host in
            ["mongo", "mongo-0.mongo", "mongo.other", "mongo-0.mongo.shop.svc.cluster", "db.example.com"]
        {
            let wanted = [all(host), vec![format!("{host}.")]].concat();
            assert_eq!(names(&OWN, host), wanted);
        }
        let whole = "mongo-0.mongo.shop.svc.cluster.local";
        assert_eq!(names(&OWN, whole), [vec![format!("{whole}.")], all(whole)].concat());
        assert_eq!(names(&OWN, "mongo."), ["mongo."]);
        assert_eq!(names(&OWN, "localhost"), ["localhost."]);
        // Of a label that cannot be longer nothing is left to be completed.
        let long = vec!["a".repeat(60); 4].join(".");
        assert_eq!(names(&OWN, &long), [format!("{long}.")]);
    }

    #[test]
    fn of_the_search_list_only_what_all_pods_have_is_for_tenants() {
        let domains = ["mongo.shop.svc.c.example.", "mongo.svc.c.example.", "mongo.c.example.", "mongo."];
        for search in [
            &["operator.svc.c.example", "svc.c.example", "c.example"][..],
            &["operator.svc.c.example."],
            &["svc.svc.c.example", "svc.c.example", "c.example"],
            &["SVC.c.example", "databases.svc.c.example"],
            &["operator.svc.c.example", "a.b.svc.c.example", "C.example", "databases.svc.c.example"],
        ] {
            assert_eq!(
                names(search, "mongo").iter().map(|name| name.to_lowercase()).collect::<Vec<_>>(),
                domains
            );
        }
        for search in [&[][..], &["example.com"], &["svc"], &["a.b.svc.example.com"]] {
            let search: Vec<_> = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
            assert_eq!(Cluster::of(&search), None);
        }
    }

    #[tokio::test]
    async fn a_host_that_only_the_operator_s_namespace_has_is_not_found() {
        let dns = Dns::start(&[
            ("mongo.orders-operator.svc.cluster.local.", Answer::Address([127, 0, 0, 2])),
            ("mongo-0.mongo.shop.svc.cluster.local.", Answer::Address([127, 0, 0, 3])),
            ("mongo.other.svc.cluster.local.", Answer::Address([127, 0, 0, 4])),
            ("db.example.com.", Answer::Address([127, 0, 0, 5])),
            ("nas.c.example.internal.", Answer::Address([127, 0, 0, 6])),
        ])
        .await;
        let lookup = dns.lookup();
        let error = lookup.addresses("mongo", SHOP).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        for (host, last) in [
            ("mongo-0.mongo", 3),
            ("mongo.other", 4),
            ("mongo.other.svc", 4),
            ("mongo.other.svc.cluster.local", 4),
            ("db.example.com", 5),
            ("nas", 6),
        ] {
            assert_eq!(
                lookup.addresses(host, SHOP).await.unwrap(),
                [IpAddr::from([127, 0, 0, last])],
                "{host}"
            );
        }
        let asked = dns.asked();
        assert!(asked.iter().all(|name| !name.contains("orders-operator")), "{asked:?}");
        // What an administrator names is looked up as this process does.
        assert_eq!(lookup.addresses("mongo", None).await.unwrap(), [IpAddr::from([127, 0, 0, 2])]);
    }

    #[tokio::test]
    async fn while_the_dns_does_not_say_whether_a_name_exists_the_next_one_is_not_asked_for() {
        for trouble in
            [Answer::Code(ResponseCode::ServFail), Answer::Code(ResponseCode::Refused), Answer::Silence]
        {
            let dns = Dns::start(&[
                ("mongo.shop.svc.cluster.local.", trouble),
                ("mongo.svc.cluster.local.", Answer::Address([127, 0, 0, 2])),
                ("mongo.", Answer::Address([127, 0, 0, 3])),
            ])
            .await;
            let error = dns.hasty_lookup().addresses("mongo", SHOP).await.unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{error}");
            let asked = dns.asked();
            assert!(asked.iter().all(|name| name == "mongo.shop.svc.cluster.local."), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn that_only_one_kind_of_address_cannot_be_looked_up_matters_where_there_is_no_other() {
        let dns = Dns::start(&[
            ("both.shop.svc.cluster.local.", Answer::AddressOrCode([127, 0, 0, 2], ResponseCode::ServFail)),
            ("none.shop.svc.cluster.local.", Answer::NoneOrCode(ResponseCode::ServFail)),
            ("none.svc.cluster.local.", Answer::Address([127, 0, 0, 3])),
        ])
        .await;
        let lookup = dns.lookup();
        assert_eq!(lookup.addresses("both", SHOP).await.unwrap(), [IpAddr::from([127, 0, 0, 2])]);
        assert!(lookup.addresses("none", SHOP).await.is_err());
    }
}
