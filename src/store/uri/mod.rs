//! Connection strings, parsed by an allow-list.
//!
//! Whoever writes a connection string is not trusted with the process that reads it: the driver knows options that send
//! the process's own identity to the server, read its files and environment, or weaken what the store promises. So the
//! text is parsed here, and the driver gets only the typed values of options that are known to be harmless. It never
//! sees the text, so it cannot read it in another way.
//!
//! No error and no warning has a value from the string, since any part of a mistyped one may be of the password.
//!
//! ```text
//! text     errors without values
//! options  which options are allowed, which are ignored, and which are refused
//! ```

mod options;
mod text;

use mongodb::options::{AuthMechanism, ConnectionString, Credential, HostInfo, ServerAddress};

use self::{options::Options, text::invalid};
use super::error::StoreError;
use crate::runtime::percent_decoded;

pub(super) use self::options::Warning;

/// The longest connection string, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// The longest user or password, in bytes.
const MAX_CREDENTIAL: usize = 1024;

/// The most servers: as many as a replica set may have.
pub(super) const MAX_HOSTS: u32 = 50;

/// The most connections per server, unless the URI sets it; with the driver's default of 10, requests queue under
/// load.
pub(super) const DEFAULT_MAX_POOL_SIZE: u32 = 32;

/// The longest host name: that of DNS.
const MAX_HOST_LENGTH: usize = 253;

/// Characters that must be percent-encoded in a user and a password.
const RESERVED: [char; 7] = [':', '/', '?', '#', '[', ']', '@'];

/// What to write if the user or the password may be what cannot be parsed.
const HOW_TO_WRITE: &str = "write mongodb://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS, with the user and the password \
                            percent-encoded";

/// A connection string that may be used.
pub(super) struct ConnectionUri {
    /// Its typed values, without TLS and the guarantees that are not the string's to choose.
    pub driver: ConnectionString,
    /// Whether it switches TLS on or off.
    pub tls: Option<bool>,
    /// Options that have no effect.
    pub warnings: Vec<Warning>,
}

impl ConnectionUri {
    /// Parses `text`. With `has_certificate`, the client presents a certificate, which may also authenticate it.
    ///
    /// # Errors
    /// When it cannot be parsed, or has an option that is not allowed.
    pub fn parse(text: &str, has_certificate: bool) -> Result<Self, StoreError> {
        if text.len() > MAX_LENGTH {
            return Err(invalid(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let is_srv = |scheme: &str| match scheme.to_ascii_lowercase().as_str() {
            "mongodb" => Some(false),
            "mongodb+srv" => Some(true),
            _ => None,
        };
        let (srv, rest) =
            text.split_once("://").and_then(|(scheme, rest)| Some((is_srv(scheme)?, rest))).ok_or_else(
                || invalid("it has no scheme; write mongodb://HOST:PORT/DATABASE?OPTIONS, or mongodb+srv://"),
            )?;
        let (before, after) = rest.split_once('?').unwrap_or((rest, ""));
        let (userinfo, location) = match before.rsplit_once('@') {
            Some((userinfo, location)) => (Some(userinfo), location),
            None => (None, before),
        };
        if userinfo.is_none() && after.contains('@') {
            return Err(invalid(HOW_TO_WRITE));
        }
        let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
        let options = Options::parse(after)?;
        let mut driver = options.driver;
        driver.host_info = host_info(hosts, srv)?;
        driver.default_database = database_name(database)?;
        driver.credential = credential(userinfo, options.mechanism, options.auth_source, has_certificate)?;
        check_combination(&driver, srv)?;
        Ok(Self { driver, tls: options.tls, warnings: options.warnings })
    }
}

/// Checks what the database's name may be: that of the orders, or that of the users.
pub(super) fn check_database(name: &str) -> Result<(), StoreError> {
    let illegal = |c: char| c.is_control() || " /\\.\"$*<>:|?".contains(c);
    if name.is_empty() || name.len() > 63 || name.contains(illegal) {
        return Err(StoreError::InvalidDatabase(name.chars().take(80).collect()));
    }
    Ok(())
}

/// Checks where the users are: in a database, or with X.509 outside of them.
pub(super) fn check_auth_source(credential: &Credential) -> Result<(), StoreError> {
    let is_x509 = credential.mechanism == Some(AuthMechanism::MongoDbX509);
    match credential.source.as_deref() {
        Some("$external") if is_x509 => Ok(()),
        Some(source) if check_database(source).is_err() => {
            Err(invalid("authSource is not the name of a database"))
        }
        _ => Ok(()),
    }
}

fn host_info(hosts: &str, srv: bool) -> Result<HostInfo, StoreError> {
    if hosts.split(',').count() > MAX_HOSTS as usize {
        return Err(invalid(format!("it names more than {MAX_HOSTS} servers")));
    }
    let addresses: Vec<_> = hosts.split(',').map(address).collect::<Result<_, _>>()?;
    if !srv {
        return Ok(HostInfo::HostIdentifiers(addresses));
    }
    match addresses.as_slice() {
        // The driver completes a shorter one by the search list of this process, and so in its own namespace.
        [ServerAddress::Tcp { host, port: None }] if !host.contains(':') && host.contains('.') => {
            Ok(HostInfo::DnsRecord(host.clone()))
        }
        _ => Err(invalid("with mongodb+srv:// it must name one host by its whole name, without a port")),
    }
}

/// A server of the network, as `HOST` or `HOST:PORT`.
pub(super) fn address(text: &str) -> Result<ServerAddress, StoreError> {
    if text.contains('%') || text.ends_with(".sock") {
        return Err(StoreError::UnsafeUri { option: "a Unix socket".into(), instead: "write HOST:PORT" });
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) =
                rest.split_once(']').ok_or_else(|| invalid("an IPv6 address has no closing bracket"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(invalid("what is in brackets is not an IPv6 address"));
            }
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port),
                None if port.is_empty() => None,
                None => return Err(invalid("an IPv6 address is followed by something other than a port")),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let in_name =
        |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || (c == ':' && text.starts_with('['));
    if host.is_empty() || host.len() > MAX_HOST_LENGTH || !host.chars().all(in_name) {
        return Err(invalid(format!("a server has no host name that can be used; {HOW_TO_WRITE}")));
    }
    let port = port
        .map(|port| {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            port.parse().ok().filter(|port: &u16| digits && *port > 0)
        })
        .map(|port| {
            port.ok_or_else(|| invalid(format!("a port is not a number from 1 to 65535; {HOW_TO_WRITE}")))
        })
        .transpose()?;
    Ok(ServerAddress::Tcp { host: host.to_owned(), port })
}

fn database_name(text: &str) -> Result<Option<String>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let name = percent_decoded(text).ok_or_else(|| invalid("the database's name is not percent-encoded"))?;
    check_database(&name)?;
    Ok(Some(name))
}

fn credential(
    userinfo: Option<&str>,
    mechanism: Option<AuthMechanism>,
    source: Option<String>,
    has_certificate: bool,
) -> Result<Option<Credential>, StoreError> {
    let part = |text: &str| {
        let decoded = if text.contains(RESERVED) { None } else { percent_decoded(text) };
        let decoded = decoded.ok_or_else(|| invalid(HOW_TO_WRITE))?;
        // The driver remembers those of each login.
        if decoded.len() > MAX_CREDENTIAL {
            return Err(invalid(format!("its user or its password has more than {MAX_CREDENTIAL} bytes")));
        }
        Ok(decoded)
    };
    let (user, password) = match userinfo {
        Some(text) => {
            let (user, password) =
                text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
            (Some(part(user)?), password.map(part).transpose()?)
        }
        None => (None, None),
    };
    if user.as_deref() == Some("") {
        return Err(invalid(format!("it names no user before the @; {HOW_TO_WRITE}")));
    }
    let is_x509 = mechanism == Some(AuthMechanism::MongoDbX509);
    if is_x509 && !has_certificate {
        return Err(StoreError::UnsafeUri { option: options::THIS_MECHANISM.into(), instead: options::X509 });
    }
    if is_x509 && password.is_some() {
        return Err(invalid("with authMechanism=MONGODB-X509 there is no password; remove it"));
    }
    if user.is_none() && !is_x509 {
        return match mechanism {
            Some(_) => Err(invalid(format!("authMechanism is set without a user; {HOW_TO_WRITE}"))),
            None => Ok(None),
        };
    }
    let mut credential = Credential::default();
    credential.username = user;
    credential.password = password;
    credential.mechanism = mechanism;
    credential.source = source;
    check_auth_source(&credential)?;
    Ok(Some(credential))
}

/// Options that exclude each other, which the driver would only refuse later.
fn check_combination(driver: &ConnectionString, srv: bool) -> Result<(), StoreError> {
    let hosts = match &driver.host_info {
        HostInfo::HostIdentifiers(hosts) => hosts.len(),
        _ => 1,
    };
    let max_pool_size = driver.max_pool_size.unwrap_or(DEFAULT_MAX_POOL_SIZE);
    let limits_hosts = driver.srv_max_hosts.is_some_and(|most| most > 0);
    for (wrong, message) in [
        (
            driver.direct_connection == Some(true) && (srv || hosts > 1),
            "directConnection=true needs one HOST:PORT",
        ),
        (
            !srv && (driver.srv_max_hosts.is_some() || driver.srv_service_name.is_some()),
            "srvMaxHosts and srvServiceName need mongodb+srv://",
        ),
        (limits_hosts && driver.replica_set.is_some(), "srvMaxHosts and replicaSet exclude each other"),
        (
            driver.min_pool_size.is_some_and(|least| least > max_pool_size),
            "minPoolSize is larger than maxPoolSize",
        ),
    ] {
        if wrong {
            return Err(invalid(message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
