//! The options of a connection string: which are allowed, which have no effect, and which are refused.
//!
//! Only what this table allows reaches the driver. An option that it does not know is refused, because the driver may
//! come to know it.

use std::{collections::HashSet, fmt, ops::RangeInclusive, time::Duration};

use mongodb::options::{AuthMechanism, ConnectionString, ServerMonitoringMode};

use super::text::invalid;
use crate::{runtime::percent_decoded, store::error::StoreError};

/// What happens with an option.
enum Class {
    /// It is checked and used.
    Allowed(fn(&mut Options, &Value<'_>) -> Result<(), StoreError>),
    /// It is accepted, because the Node.js driver or mongoose takes it, and changes nothing.
    NoEffect,
    /// It is accepted and does not hold, for this reason; except the value that is ours, which needs no warning.
    Overridden(&'static str, &'static str),
    /// It is refused; what to do instead.
    Refused(&'static str),
}

use Class::{Allowed, NoEffect, Overridden, Refused};

const MECHANISM: &str = "only SCRAM-SHA-256, SCRAM-SHA-1 and, with a client certificate, MONGODB-X509 are; remove it, \
                         and give a user and a password";
pub(super) const THIS_MECHANISM: &str = "this authMechanism";
pub(super) const X509: &str = "MONGODB-X509 needs a client certificate: name its Secret in \
                               spec.database.tls.clientCertificateSecretRef, or its files in --mongo-tls-cert-file and \
                               --mongo-tls-key-file";
const CA: &str =
    "name the Secret with the CA in spec.database.tls.caSecretRef, or its file in --mongo-tls-ca-file";
const CERTIFICATE: &str = "name the Secret with the client certificate in \
                           spec.database.tls.clientCertificateSecretRef, or its files in --mongo-tls-cert-file and \
                           --mongo-tls-key-file";
const VERIFY: &str = "certificates are always verified; for a CA of your own, name its Secret in \
                      spec.database.tls.caSecretRef, or its file in --mongo-tls-ca-file";
const PROXY: &str = "remove it: the servers are connected to directly";
const ENCRYPTION: &str = "remove it: fields are not encrypted here";
const BALANCED: &str = "remove it, and name the servers themselves";
const UNKNOWN: &str = "remove it, or correct its name; docs/database.md lists the allowed options";

const WRITES: &str = "every write waits for a majority, so that a failover loses no order";
const READS: &str =
    "reads go to the primary and see its latest state, since a stale read could sell a ticket twice";

/// By the names that the drivers' documentation gives them; their case makes no difference.
const OPTIONS: &[(&str, Class)] = &[
    ("appName", Allowed(|to, value| value.text(128).map(|text| to.driver.app_name = Some(text)))),
    ("authMechanism", Allowed(|to, value| value.mechanism().map(|mechanism| to.mechanism = mechanism))),
    ("authSource", Allowed(|to, value| value.text(63).map(|text| to.auth_source = Some(text)))),
    (
        "connectTimeoutMS",
        Allowed(|to, value| value.millis(1..=600_000).map(|time| to.driver.connect_timeout = Some(time))),
    ),
    (
        "directConnection",
        Allowed(|to, value| value.flag().map(|flag| to.driver.direct_connection = Some(flag))),
    ),
    (
        "heartbeatFrequencyMS",
        Allowed(|to, value| {
            value.millis(500..=300_000).map(|time| to.driver.heartbeat_frequency = Some(time))
        }),
    ),
    // Behind a load balancer the driver does not check the servers, and how it fails would tell an open port from a
    // closed one.
    ("loadBalanced", Allowed(|_, value| if value.flag()? { Err(value.refused(BALANCED)) } else { Ok(()) })),
    (
        "maxConnecting",
        Allowed(|to, value| value.number(1..=32).map(|most| to.driver.max_connecting = Some(most))),
    ),
    (
        "maxIdleTimeMS",
        Allowed(|to, value| value.millis(0..=86_400_000).map(|time| to.driver.max_idle_time = Some(time))),
    ),
    (
        "maxPoolSize",
        Allowed(|to, value| value.number(1..=1000).map(|most| to.driver.max_pool_size = Some(most))),
    ),
    (
        "minPoolSize",
        Allowed(|to, value| value.number(0..=32).map(|least| to.driver.min_pool_size = Some(least))),
    ),
    ("replicaSet", Allowed(|to, value| value.text(128).map(|text| to.driver.replica_set = Some(text)))),
    ("retryReads", Allowed(|to, value| value.flag().map(|flag| to.driver.retry_reads = Some(flag)))),
    ("retryWrites", Allowed(|to, value| value.flag().map(|flag| to.driver.retry_writes = Some(flag)))),
    (
        "serverMonitoringMode",
        Allowed(|to, value| value.monitoring().map(|mode| to.driver.server_monitoring_mode = Some(mode))),
    ),
    (
        "serverSelectionTimeoutMS",
        Allowed(|to, value| {
            value.millis(1..=600_000).map(|time| to.driver.server_selection_timeout = Some(time))
        }),
    ),
    (
        "srvMaxHosts",
        Allowed(|to, value| value.number(0..=50).map(|most| to.driver.srv_max_hosts = Some(most))),
    ),
    (
        "srvServiceName",
        Allowed(|to, value| value.label().map(|name| to.driver.srv_service_name = Some(name))),
    ),
    ("ssl", Allowed(|to, value| value.flag().and_then(|on| to.set_tls(on)))),
    ("tls", Allowed(|to, value| value.flag().and_then(|on| to.set_tls(on)))),
    // Ours hold.
    ("fsync", Overridden(WRITES, "true")),
    ("j", Overridden(WRITES, "true")),
    ("journal", Overridden(WRITES, "true")),
    ("maxStalenessSeconds", Overridden(READS, "-1")),
    ("readConcernLevel", Overridden(READS, "local")),
    ("readPreference", Overridden(READS, "primary")),
    ("readPreferenceTags", Overridden(READS, "")),
    ("safe", Overridden(WRITES, "true")),
    ("secondaryOk", Overridden(READS, "false")),
    ("slaveOk", Overridden(READS, "false")),
    ("timeoutMS", Overridden("every call has a deadline of its own", "")),
    ("w", Overridden(WRITES, "majority")),
    ("wtimeout", Overridden("every call has a deadline of its own", "")),
    ("wtimeoutMS", Overridden("every call has a deadline of its own", "")),
    // Nothing here depends on them.
    ("acceptableLatencyMS", NoEffect),
    ("adaptiveRetries", NoEffect),
    ("autoCreate", NoEffect),
    ("autoIndex", NoEffect),
    ("autoReconnect", NoEffect),
    ("bsonRegExp", NoEffect),
    ("bufferCommands", NoEffect),
    ("bufferMaxEntries", NoEffect),
    ("bufferTimeoutMS", NoEffect),
    ("checkKeys", NoEffect),
    ("compressors", NoEffect),
    ("connectWithNoPrimary", NoEffect),
    ("domainsEnabled", NoEffect),
    ("enableOverloadRetargeting", NoEffect),
    ("enableUtf8Validation", NoEffect),
    ("family", NoEffect),
    ("fieldsAsRaw", NoEffect),
    ("forceServerObjectId", NoEffect),
    ("ha", NoEffect),
    ("haInterval", NoEffect),
    ("ignoreUndefined", NoEffect),
    ("keepAlive", NoEffect),
    ("keepAliveInitialDelay", NoEffect),
    ("localThresholdMS", NoEffect),
    ("loggerLevel", NoEffect),
    ("maxAdaptiveRetries", NoEffect),
    ("minSize", NoEffect),
    ("monitorCommands", NoEffect),
    ("noDelay", NoEffect),
    ("numberOfRetries", NoEffect),
    ("poolSize", NoEffect),
    ("promoteBuffers", NoEffect),
    ("promoteLongs", NoEffect),
    ("promoteValues", NoEffect),
    ("raw", NoEffect),
    ("reconnectInterval", NoEffect),
    ("reconnectTries", NoEffect),
    ("sanitizeFilter", NoEffect),
    ("serializeFunctions", NoEffect),
    ("socketTimeoutMS", NoEffect),
    ("strictQuery", NoEffect),
    ("useBigInt64", NoEffect),
    ("useCreateIndex", NoEffect),
    ("useFindAndModify", NoEffect),
    ("useNewUrlParser", NoEffect),
    ("useUnifiedTopology", NoEffect),
    ("uuidRepresentation", NoEffect),
    ("validateOptions", NoEffect),
    ("waitQueueMultiple", NoEffect),
    ("waitQueueTimeoutMS", NoEffect),
    ("zlibCompressionLevel", NoEffect),
    // Refused like any other, but it is known what to write instead.
    ("authMechanismProperties", Refused("remove it: it belongs to mechanisms that are not allowed")),
    ("autoEncryption", Refused(ENCRYPTION)),
    ("checkServerIdentity", Refused(VERIFY)),
    ("gssapiServiceName", Refused(MECHANISM)),
    ("proxyHost", Refused(PROXY)),
    ("proxyPassword", Refused(PROXY)),
    ("proxyPort", Refused(PROXY)),
    ("proxyUsername", Refused(PROXY)),
    ("sslCA", Refused(CA)),
    ("sslCert", Refused(CERTIFICATE)),
    ("sslKey", Refused(CERTIFICATE)),
    ("sslPass", Refused(CERTIFICATE)),
    ("sslValidate", Refused(VERIFY)),
    ("tlsAllowInvalidCertificates", Refused(VERIFY)),
    ("tlsAllowInvalidHostnames", Refused(VERIFY)),
    ("tlsCAFile", Refused(CA)),
    ("tlsCertificateFile", Refused(CERTIFICATE)),
    ("tlsCertificateKeyFile", Refused(CERTIFICATE)),
    ("tlsCertificateKeyFilePassword", Refused(CERTIFICATE)),
    ("tlsInsecure", Refused(VERIFY)),
];

/// An option that has no effect, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Warning {
    /// The option's name.
    pub option: &'static str,
    why: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, why } = self;
        write!(f, "the option {option} of the MongoDB URI has no effect: {why}")
    }
}

/// The options of a connection string, parsed.
#[derive(Default)]
pub(super) struct Options {
    /// Those that the driver takes as they are.
    pub driver: ConnectionString,
    pub mechanism: Option<AuthMechanism>,
    pub auth_source: Option<String>,
    pub tls: Option<bool>,
    pub warnings: Vec<Warning>,
}

impl Options {
    /// Parses what follows the `?`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        // An unencoded password may end up here.
        let may_quote = !text.contains('@');
        let mut options = Self::default();
        let mut seen = HashSet::new();
        for pair in text.split(['&', ';']).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                invalid("an option is not written NAME=VALUE; write OPTIONS as NAME=VALUE&NAME=VALUE")
            })?;
            let name =
                percent_decoded(name).ok_or_else(|| invalid("an option's name is not percent-encoded"))?;
            let (option, class) = find(&name).ok_or_else(|| unknown(&name, may_quote))?;
            if !seen.insert(option) && option != "readPreferenceTags" {
                return Err(invalid(format!("the option {option} is given twice")));
            }
            let text = percent_decoded(value)
                .ok_or_else(|| invalid(format!("the value of {option} is not percent-encoded")))?;
            options.take(class, &Value { option, text: &text })?;
        }
        Ok(options)
    }

    fn take(&mut self, class: &'static Class, value: &Value<'_>) -> Result<(), StoreError> {
        let why = match class {
            Allowed(set) => return set(self, value),
            Refused(instead) => return Err(value.refused(instead)),
            Overridden(_, ours) if value.text.eq_ignore_ascii_case(ours) => return Ok(()),
            Overridden(why, _) => why,
            NoEffect => "it is ignored here",
        };
        let warning = Warning { option: value.option, why };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        Ok(())
    }

    /// Sets TLS by `tls` or its older name `ssl`.
    fn set_tls(&mut self, on: bool) -> Result<(), StoreError> {
        if self.tls.replace(on).is_some_and(|before| before != on) {
            return Err(invalid("tls and ssl contradict each other; write only tls"));
        }
        Ok(())
    }
}

fn find(name: &str) -> Option<(&'static str, &'static Class)> {
    OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(known, class)| (*known, class))
}

fn unknown(name: &str, may_quote: bool) -> StoreError {
    let plain = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let option =
        if plain && may_quote { format!("the option {name}") } else { "an unknown option".to_owned() };
    StoreError::UnsafeUri { option, instead: UNKNOWN }
}

/// The value of an option. Its errors name the option, and never the value.
struct Value<'a> {
    option: &'static str,
    text: &'a str,
}

impl Value<'_> {
    fn refused(&self, instead: &'static str) -> StoreError {
        StoreError::UnsafeUri { option: format!("the option {}", self.option), instead }
    }

    fn wrong(&self, wanted: impl fmt::Display) -> StoreError {
        invalid(format!("the value of {} is not {wanted}", self.option))
    }

    fn text(&self, max_length: usize) -> Result<String, StoreError> {
        if self.text.is_empty() || self.text.len() > max_length || self.text.contains(char::is_control) {
            return Err(self.wrong(format_args!("a string of 1 to {max_length} characters")));
        }
        Ok(self.text.to_owned())
    }

    /// A name in a DNS query.
    fn label(&self) -> Result<String, StoreError> {
        let plain = self.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if plain { self.text(62) } else { Err(self.wrong("a name of letters, digits and hyphens")) }
    }

    fn flag(&self) -> Result<bool, StoreError> {
        match self.text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn number(&self, range: RangeInclusive<u32>) -> Result<u32, StoreError> {
        let digits = self.text.bytes().all(|byte| byte.is_ascii_digit());
        self.text
            .parse()
            .ok()
            .filter(|number| digits && range.contains(number))
            .ok_or_else(|| self.wrong(format_args!("a number from {} to {}", range.start(), range.end())))
    }

    fn millis(&self, range: RangeInclusive<u32>) -> Result<Duration, StoreError> {
        self.number(range).map(|millis| Duration::from_millis(millis.into()))
    }

    /// None for the default, by which the driver chooses one of SCRAM.
    fn mechanism(&self) -> Result<Option<AuthMechanism>, StoreError> {
        match self.text.to_ascii_uppercase().as_str() {
            "DEFAULT" => Ok(None),
            "SCRAM-SHA-1" => Ok(Some(AuthMechanism::ScramSha1)),
            "SCRAM-SHA-256" => Ok(Some(AuthMechanism::ScramSha256)),
            "MONGODB-X509" => Ok(Some(AuthMechanism::MongoDbX509)),
            _ => Err(StoreError::UnsafeUri { option: THIS_MECHANISM.into(), instead: MECHANISM }),
        }
    }

    fn monitoring(&self) -> Result<ServerMonitoringMode, StoreError> {
        match self.text.to_ascii_lowercase().as_str() {
            "auto" => Ok(ServerMonitoringMode::Auto),
            "poll" => Ok(ServerMonitoringMode::Poll),
            "stream" => Ok(ServerMonitoringMode::Stream),
            _ => Err(self.wrong("auto, poll or stream")),
        }
    }
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}
