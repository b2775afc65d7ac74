//! Opens the ports: where the machine has IPv6, one socket for both families.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use clap::Args;
use rustix::{io::Errno, net::sockopt::set_ipv6_v6only};
use tokio::net::{TcpListener, TcpSocket};

/// How many connections the operating system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// The size of a socket's buffers in the kernel, which it doubles. It is the container's memory too, and by default a client
/// that stops to read would have megabytes of it.
const SOCKET_BUFFER: u32 = 64 * 1024;

/// Where all ports of a process are opened.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Address at which every port is opened. Default: every address of IPv6 and of IPv4, or of IPv4 where the
    /// machine has no IPv6
    #[arg(long, env = "LISTEN_ADDRESS", value_name = "IP", default_value = "::", hide_default_value = true)]
    pub listen_address: IpAddr,
}

impl ListenArgs {
    /// The address of a port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen_address, port)
    }
}

/// Opens a port; the error names the address. At `::` it takes connections by IPv4 too, and no others where the machine
/// has no IPv6.
///
/// # Errors
/// When the address is in use or may not be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let opened = match open(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        opened => opened,
    };
    opened.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.is_ipv6() {
        // The machine's default may be another.
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit them.
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the error says that there are no sockets, or no addresses, of IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    [Some(Errno::AFNOSUPPORT), Some(Errno::ADDRNOTAVAIL)].contains(&Errno::from_io_error(error))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn at_no_address_in_particular_both_families_are_served() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for client in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let (connected, accepted) = tokio::join!(TcpStream::connect((client, port)), listener.accept());
            assert!(connected.is_ok() && accepted.is_ok(), "{client}");
        }
    }

    #[tokio::test]
    async fn an_error_names_the_address_that_was_asked_for() {
        let error = listen("[2001:db8::1]:80".parse().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("cannot listen on [2001:db8::1]:80: "), "{error}");
    }
}
