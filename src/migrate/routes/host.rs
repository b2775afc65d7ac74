//! A host of an Ingress.

use crate::routing::CanonicalHost;

/// A host; none for rules of any host.
pub(super) type Host = Option<CanonicalHost>;

/// The hosts that are named, as far as they are host names: `render` says what is wrong with the others.
pub(super) fn parsed(hosts: &[String]) -> Vec<Host> {
    hosts.iter().filter_map(|text| CanonicalHost::parse(text).ok()).map(Some).collect()
}

/// Whether a rule's host is this one.
pub(super) fn is(host: Option<&str>, canonical: &Host) -> bool {
    match (host, canonical) {
        (None, None) => true,
        (Some(text), Some(host)) => CanonicalHost::parse(text).is_ok_and(|parsed| parsed == *host),
        _ => false,
    }
}

/// A host as it is shown.
pub(super) fn shown(host: &Host) -> String {
    host.as_ref().map_or_else(|| "(any)".into(), ToString::to_string)
}
