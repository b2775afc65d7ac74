//! The list of the hosts that each namespace may have.

use std::collections::BTreeMap;

use super::host::CanonicalHost;

/// The hosts that each namespace may have, and no others. A wildcard allows every name below it, at any depth, and
/// every host allows rules that name none, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(BTreeMap<String, Vec<CanonicalHost>>);

impl FromIterator<(String, Vec<CanonicalHost>)> for AllowedHosts {
    fn from_iter<T: IntoIterator<Item = (String, Vec<CanonicalHost>)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl AllowedHosts {
    /// Whether `namespace` may have `host`.
    pub fn allows(&self, namespace: &str, host: &CanonicalHost) -> bool {
        self.0.get(namespace).into_iter().flatten().any(|allowed| allowed.covers(host))
    }

    /// The hosts that only one of both lists allows to some namespace.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a CanonicalHost> {
        let lacking = |from: &'a Self, to: &'a Self| {
            let entries =
                from.0.iter().flat_map(|(namespace, hosts)| hosts.iter().map(move |host| (namespace, host)));
            entries
                .filter(|(namespace, host)| !to.0.get(*namespace).is_some_and(|hosts| hosts.contains(host)))
        };
        lacking(self, other).chain(lacking(other, self)).map(|(_, host)| host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> CanonicalHost {
        CanonicalHost::parse(text).unwrap()
    }

    fn list(entries: &[(&str, &[&str])]) -> AllowedHosts {
        let of_entry = |(namespace, hosts): &(&str, &[&str])| {
            ((*namespace).to_owned(), hosts.iter().map(|text| host(text)).collect())
        };
        entries.iter().map(of_entry).collect()
    }

    #[test]
    fn a_namespace_may_have_what_is_listed_for_it_and_what_a_wildcard_of_its_covers() {
        let allowed = list(&[("a", &["t.dev", "*.t.dev"]), ("b", &["u.dev"]), ("none", &[])]);
        for (namespace, name, expected) in [
            ("a", "t.dev", true),
            ("a", "x.t.dev", true),
            ("a", "y.x.t.dev", true),
            ("a", "*.t.dev", true),
            ("a", "u.dev", false),
            ("a", "*.dev", false),
            ("b", "u.dev", true),
            ("b", "x.u.dev", false),
            ("b", "*.u.dev", false),
            ("b", "t.dev", false),
            ("none", "t.dev", false),
            ("other", "t.dev", false),
        ] {
            assert_eq!(allowed.allows(namespace, &host(name)), expected, "{namespace} {name}");
        }
        assert!(!AllowedHosts::default().allows("a", &host("t.dev")), "an empty list allows nothing");
    }

    #[test]
    fn only_every_host_allows_every_host() {
        let entry = |namespace: &str, host: CanonicalHost| (namespace.to_owned(), vec![host]);
        let list = [entry("a", CanonicalHost::any()), entry("b", host("*.dev"))];
        let allowed: AllowedHosts = list.into_iter().collect();
        assert!(allowed.allows("a", &CanonicalHost::any()) && allowed.allows("a", &host("t.dev")));
        assert!(!allowed.allows("b", &CanonicalHost::any()));
    }

    #[test]
    fn two_lists_differ_by_what_only_one_allows() {
        let (one, other) =
            (list(&[("a", &["t.dev", "u.dev"])]), list(&[("a", &["t.dev"]), ("b", &["v.dev"])]));
        let shown: Vec<_> = one.differences(&other).map(ToString::to_string).collect();
        assert_eq!(shown, ["u.dev", "v.dev"]);
        assert_eq!(one.differences(&one).count(), 0);
    }
}
