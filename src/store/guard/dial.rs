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

/// How servers are connected to.
pub(in crate::store) struct Dialer {
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

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<_> = lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect();
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

    #[tokio::test]
    async fn addresses_that_only_this_machine_has_are_not_connected_to() {
        let dialer = Dialer { tls: None, timeout: Duration::from_secs(5) };
        for host in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::"] {
            let error = dialer.dial(host, 80).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{host}: {error}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "8.8.8.8"] {
            assert!(!is_machine_s_own(host.parse().unwrap()), "{host}");
        }
    }
}
