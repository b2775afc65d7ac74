//! From a host name to a connection, with TLS where it is on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::TokioResolver;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tokio_util::either::Either;

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The least time for one of several addresses.
const LEAST: Duration = Duration::from_millis(250);

/// A connection to a server.
pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// A name with more dots than these is complete. Those of a cluster's own Services and pods need them all:
/// `mongo-0.mongo.ticketing`.
const MAX_DOTS: usize = 2;

/// How long one server of the DNS may take, and how often it is asked.
const QUERY: Duration = Duration::from_secs(1);
const QUERIES: usize = 2;

/// How many names are remembered, and how long at most: a name's address changes when its pod moves.
const REMEMBERED: u64 = 1024;
const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// Resolves names as this machine is set up to, without a thread for each.
pub(super) fn resolver() -> io::Result<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    let options = builder.options_mut();
    (options.timeout, options.attempts, options.cache_size) = (QUERY, QUERIES, REMEMBERED);
    (options.positive_max_ttl, options.negative_max_ttl) =
        (Some(REMEMBERED_FOR), Some(Duration::from_secs(1)));
    builder.build().map_err(io::Error::other)
}

/// How servers are connected to.
pub(super) struct Dialer {
    /// The namespace whose pods know the servers by these names.
    pub(super) namespace: Option<String>,
    /// TLS, unless it is off.
    pub(super) tls: Option<TlsConnector>,
    /// How long it may take, all in all.
    pub(super) timeout: Duration,
    pub(super) resolver: TokioResolver,
}

impl Dialer {
    /// Connects to `host`, which is a name or an address.
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<Connection> {
        timeout(self.timeout, async {
            let stream = self.connect(host, port).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| io::Error::other("the host's name cannot be in a certificate"))?;
            Ok(Either::Right(tls.connect(name, stream).await?))
        })
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")))
    }

    /// The addresses of the first name that has any.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut last = Err(io::Error::new(io::ErrorKind::NotFound, "the host's name has no address"));
        for name in candidates(host, self.namespace.as_deref()) {
            match self.resolver.lookup_ip(name).await {
                Ok(found) => {
                    let addresses: Vec<_> =
                        found.iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect();
                    if !addresses.is_empty() {
                        return Ok(addresses);
                    }
                }
                Err(error) => last = Err(io::Error::other(error)),
            }
        }
        last
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolve(host, port).await?;
        let share = u32::try_from(addresses.len()).map_or(self.timeout, |count| self.timeout / count.max(1));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
        for address in addresses {
            match timeout(share.max(LEAST), connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no connection in time"),
            }
        }
        Err(last)
    }
}

/// The names under which a pod of the namespace looks for a host, in its order: as a Service or a StatefulSet's pod of
/// that namespace, as one of another namespace, and as a name of the world. What is left of a pod's search list, the
/// cluster's domain, is in this process's own.
fn candidates(host: &str, namespace: Option<&str>) -> Vec<String> {
    let dots = host.matches('.').count();
    let is_name = host != "localhost" && !host.ends_with('.') && host.parse::<IpAddr>().is_err();
    let mut names = Vec::new();
    if let Some(namespace) = namespace.filter(|_| is_name && dots <= MAX_DOTS) {
        names.push(format!("{host}.{namespace}.svc"));
        if dots > 0 {
            names.push(format!("{host}.svc"));
        }
    }
    names.push(host.to_owned());
    names
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    if is_machine_s_own(address.ip()) {
        let why = "link-local and multicast addresses are not connected to";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
    }
    TcpStream::connect(address).await
}

/// Addresses at which clouds have metadata, credentials among them, beside the link-local ones.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether only this machine, or nobody in particular, is reached there.
fn is_machine_s_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    METADATA.contains(&ip)
        || match ip {
            IpAddr::V4(ip) => {
                ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified()
            }
            // An IPv4 address behind a NAT64 is that address.
            IpAddr::V6(ip) => match (ip.segments(), ip.octets()) {
                ([0x64, 0xff9b, 0, 0, 0, 0, _, _], [.., a, b, c, d]) => {
                    is_machine_s_own(Ipv4Addr::new(a, b, c, d).into())
                }
                _ => ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified(),
            },
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_as_a_pod_of_the_namespace_does() {
        for (host, names) in [
            ("mongo", vec!["mongo.ticketing.svc", "mongo"]),
            ("mongo-0.mongo", vec!["mongo-0.mongo.ticketing.svc", "mongo-0.mongo.svc", "mongo-0.mongo"]),
            (
                "mongo.example.com",
                vec!["mongo.example.com.ticketing.svc", "mongo.example.com.svc", "mongo.example.com"],
            ),
            ("mongo-0.mongo.ticketing.svc", vec!["mongo-0.mongo.ticketing.svc"]),
            ("a.mongodb.example.net", vec!["a.mongodb.example.net"]),
            ("mongo.", vec!["mongo."]),
            ("localhost", vec!["localhost"]),
            ("10.0.0.1", vec!["10.0.0.1"]),
            ("::1", vec!["::1"]),
        ] {
            assert_eq!(candidates(host, Some("ticketing")), names);
            assert_eq!(candidates(host, None), [host]);
        }
    }

    #[tokio::test]
    async fn addresses_that_only_this_machine_has_are_not_connected_to() {
        let dialer = Dialer {
            namespace: None,
            tls: None,
            timeout: Duration::from_secs(5),
            resolver: resolver().unwrap(),
        };
        for host in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "0.0.0.0",
            "::",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "168.63.129.16",
        ] {
            let error = dialer.dial(host, 80).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{host}: {error}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "8.8.8.8", "64:ff9b::808:808"] {
            assert!(!is_machine_s_own(host.parse().unwrap()), "{host}");
        }
    }
}
