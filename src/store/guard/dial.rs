//! From a host name to a connection, with TLS where it is on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
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

/// How servers are connected to.
pub(in crate::store) struct Dialer {
    /// The namespace whose pods know the servers by these names.
    pub(in crate::store) namespace: Option<String>,
    /// TLS, unless it is off.
    pub(in crate::store) tls: Option<TlsConnector>,
    /// How long it may take, all in all.
    pub(in crate::store) timeout: Duration,
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
        let mut last = Err(io::Error::new(io::ErrorKind::NotFound, "the host's name has no address"));
        for name in candidates(host, self.namespace.as_deref()) {
            match lookup_host((name.as_str(), port)).await {
                Ok(found) => {
                    let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
                    if !addresses.is_empty() {
                        return Ok(addresses);
                    }
                }
                Err(error) => last = Err(error),
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

/// Whether only this machine, or nobody in particular, is reached there: the metadata of a cloud, for one, which has
/// credentials for whoever asks.
fn is_machine_s_own(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified(),
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
        let dialer = Dialer { namespace: None, tls: None, timeout: Duration::from_secs(5) };
        for host in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::"] {
            let error = dialer.dial(host, 80).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{host}: {error}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "8.8.8.8"] {
            assert!(!is_machine_s_own(host.parse().unwrap()), "{host}");
        }
    }
}
