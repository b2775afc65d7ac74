//! The file of the hosts that each namespace may have. It is read again while the controller runs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use super::registry::ClaimRegistry;
use crate::{
    controller::{metrics::Metrics, trigger::Trigger},
    routing::{AllowedHosts, CanonicalHost, HostError},
};

/// How often the file is read again.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum HostsFileError {
    /// It cannot be read.
    #[error("the hosts file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not have the form that it must have.
    #[error(
        "the hosts file {}: {message}; write a map from namespaces to lists of hosts, such as \
         {{ticketing: [ticketing.dev, \"*.ticketing.dev\"]}}, or {{}} to allow none", path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A host is not one.
    #[error("the hosts file {}: namespace {namespace:?}: {error}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// The namespace whose host it is.
        namespace: String,
        /// Why it is not a host.
        error: HostError,
    },
}

/// A hosts file that could be read once.
#[derive(Debug)]
pub struct HostsFile {
    path: PathBuf,
    text: String,
    allowed: AllowedHosts,
}

impl HostsFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or is not a map from namespaces to hosts.
    pub fn read(path: &Path) -> Result<Self, HostsFileError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| HostsFileError::Read { path: path.to_owned(), source })?;
        let allowed = parse(path, &text)?;
        Ok(Self { path: path.to_owned(), text, allowed })
    }

    /// What it allows.
    pub fn allowed(&self) -> &AllowedHosts {
        &self.allowed
    }

    /// Reads the file again and again, without end. When it has changed, what it allows now goes to `claims`, and the
    /// OrdersServices that this concerns are requeued. A file that cannot be used changes nothing: it is logged, and
    /// counted until it can be used again.
    pub async fn follow(mut self, claims: &ClaimRegistry, trigger: &Trigger, metrics: &Metrics) {
        let mut logged = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.read_again() {
                Ok(changed) => {
                    metrics.set_hosts_file_broken(false);
                    if logged.take().is_some() || changed {
                        tracing::info!(path = %self.path.display(), "the hosts file was read again");
                    }
                    if changed {
                        claims.set_allowed(self.allowed.clone()).iter().for_each(|key| trigger.requeue(key));
                    }
                }
                Err(error) => {
                    metrics.set_hosts_file_broken(true);
                    let error = error.to_string();
                    if logged.as_ref() != Some(&error) {
                        tracing::error!(%error, "the hosts file cannot be used; the hosts that it allowed before stay in force");
                        logged = Some(error);
                    }
                }
            }
        }
    }

    /// Whether it allows something else now. The contents are compared: a ConfigMap's files are links, whose times say
    /// nothing.
    fn read_again(&mut self) -> Result<bool, HostsFileError> {
        let path = &self.path;
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| HostsFileError::Read { path: path.clone(), source })?;
        if text == self.text {
            return Ok(false);
        }
        let allowed = parse(path, &text)?;
        self.text = text;
        Ok(std::mem::replace(&mut self.allowed, allowed) != self.allowed)
    }
}

fn parse(path: &Path, text: &str) -> Result<AllowedHosts, HostsFileError> {
    let form = |message: String| HostsFileError::Form { path: path.to_owned(), message };
    let is_blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if is_blank {
        // As a file may be for a moment while it is written.
        return Err(form("it is empty".into()));
    }
    let map: BTreeMap<String, Vec<String>> =
        serde_saphyr::from_str(text).map_err(|error| form(error.without_snippet().to_string()))?;
    let mut entries = Vec::new();
    for (namespace, hosts) in map {
        if !is_namespace(&namespace) {
            return Err(form(format!("{namespace:?} is not the name of a namespace")));
        }
        let parsed: Result<Vec<_>, _> = hosts.iter().map(|text| CanonicalHost::parse_shown(text)).collect();
        match parsed {
            Ok(hosts) => entries.push((namespace, hosts)),
            Err(error) => return Err(HostsFileError::Host { path: path.to_owned(), namespace, error }),
        }
    }
    Ok(entries.into_iter().collect())
}

/// RFC 1123 label, which the name of a namespace must be.
pub fn is_namespace(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<AllowedHosts, String> {
        parse(Path::new("hosts.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_maps_namespaces_to_hosts_and_wildcards() {
        let allowed = parsed("ticketing: [Ticketing.dev., \"*.ticketing.dev\"]\nshop: []\n").unwrap();
        let host = |text: &str| CanonicalHost::parse(text).unwrap();
        assert!(allowed.allows("ticketing", &host("ticketing.dev")));
        assert!(allowed.allows("ticketing", &host("a.ticketing.dev")));
        assert!(!allowed.allows("shop", &host("ticketing.dev")));
        assert!(!allowed.allows("ticketing", &CanonicalHost::any()));
        assert_eq!(parsed("{}"), Ok(AllowedHosts::default()));
        let every = parsed("ticketing: [\"*\"]").unwrap();
        assert!(
            every.allows("ticketing", &CanonicalHost::any()) && every.allows("ticketing", &host("a.dev"))
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_and_an_empty_one_does_not_allow_nothing() {
        for (text, expected) in [
            ("", "it is empty"),
            ("# nothing\n\n", "it is empty"),
            ("- a.dev", "write a map from namespaces"),
            ("ticketing: a.dev", "write a map from namespaces"),
            ("a: [a.dev]\na: [b.dev]", "write a map from namespaces"),
            ("\"*\": [a.dev]", "\"*\" is not the name of a namespace"),
            ("Shop: [a.dev]", "is not the name of a namespace"),
            (
                "shop: [\"https://a.dev\"]",
                "namespace \"shop\": host \"https://a.dev\" is more than a host name",
            ),
            ("shop: [10.0.0.1]", "IP address"),
            ("shop: [\"*.\"]", "namespace \"shop\""),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(
                error.starts_with("the hosts file hosts.yaml: ") && error.contains(expected),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn a_file_that_breaks_keeps_what_it_allowed() {
        let path = std::env::temp_dir().join(format!("orders-operator-hosts-{}", fastrand::u64(..)));
        std::fs::write(&path, "shop: [a.dev]").unwrap();
        let mut file = HostsFile::read(&path).unwrap();
        let first = file.allowed().clone();
        assert!(!file.read_again().unwrap(), "nothing has changed");
        std::fs::write(&path, "shop: [").unwrap();
        assert!(file.read_again().is_err() && file.read_again().is_err());
        std::fs::write(&path, "shop: [a.dev] # the same").unwrap();
        assert!(!file.read_again().unwrap());
        assert_eq!(*file.allowed(), first);
        std::fs::write(&path, "shop: [b.dev]").unwrap();
        assert!(file.read_again().unwrap());
        assert_ne!(*file.allowed(), first);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.read_again(), Err(HostsFileError::Read { .. })));
        assert!(matches!(HostsFile::read(&path), Err(HostsFileError::Read { .. })));
    }
}
