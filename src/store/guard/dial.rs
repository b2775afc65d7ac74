//! From a host name to a connection, with TLS where it is on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tokio_util::either::Either;

use super::lookup::Lookup;

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The least time for one of several addresses.
const LEAST: Duration = Duration::from_millis(250);

/// A connection to a server.
pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// How servers are connected to.
pub(super) struct Dialer {
    /// The namespace whose pods know the servers by these names.
    pub(super) namespace: Option<String>,
    /// TLS, unless it is off.
    pub(super) tls: Option<TlsConnector>,
    /// How long it may take, all in all.
    pub(super) timeout: Duration,
    pub(super) lookup: Arc<Lookup>,
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

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut addresses = self.lookup.addresses(host, self.namespace.as_deref()).await?;
        addresses.truncate(MAX_ADDRESSES);
        let share = u32::try_from(addresses.len()).map_or(self.timeout, |count| self.timeout / count.max(1));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
        for address in addresses {
            match timeout(share.max(LEAST), connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no connection in time"),
            }
        }
        Err(last)
    }
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

    #[tokio::test]
    async fn addresses_that_only_this_machine_has_are_not_connected_to() {
        let dialer = Dialer {
            namespace: None,
            tls: None,
            timeout: Duration::from_secs(5),
            lookup: Arc::new(Lookup::of_this_machine().unwrap()),
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
