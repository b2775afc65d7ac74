//! What a rule takes: one path alone, or a path and everything below it.

use std::{cmp::Ordering, fmt};

use super::path::CanonicalPath;

/// The requests that a rule takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathMatch {
    exact: bool,
    path: CanonicalPath,
}

impl PathMatch {
    /// Requests for just this path.
    pub fn exact(path: CanonicalPath) -> Self {
        Self { exact: true, path }
    }

    /// Requests for this path and for every path below it.
    pub fn prefix(path: CanonicalPath) -> Self {
        Self { exact: false, path }
    }

    /// Every request: what the client takes, after all others.
    pub fn root() -> Self {
        Self::prefix(CanonicalPath::root())
    }

    /// Whether it is every request.
    pub fn is_root(&self) -> bool {
        !self.exact && self.path.is_root()
    }

    /// Whether it is one path alone.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The path.
    pub fn path(&self) -> &CanonicalPath {
        &self.path
    }

    /// The path as a string.
    pub fn as_str(&self) -> &str {
        self.path.as_str()
    }

    /// Whether a request for `path` is taken. A prefix is compared segment by segment, as Kubernetes has it.
    pub fn takes(&self, path: &str) -> bool {
        if self.exact { path == self.path.as_str() } else { self.path.takes(path) }
    }
}

impl Ord for PathMatch {
    /// Rendered order: exact paths first, and then a path before all its prefixes. A request that an exact path takes is
    /// longer than every other prefix of it, so the first match is also the longest.
    fn cmp(&self, other: &Self) -> Ordering {
        (!self.exact, &self.path).cmp(&(!other.exact, &other.path))
    }
}

impl PartialOrd for PathMatch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_path_takes_itself_alone_and_comes_before_every_prefix() {
        let path = |text: &str| CanonicalPath::parse(text).unwrap();
        let exact = PathMatch::exact(path("/a"));
        assert!(exact.takes("/a") && !exact.takes("/a/") && !exact.takes("/a/b") && !exact.takes("/"));
        let prefix = PathMatch::prefix(path("/a"));
        assert!(prefix.takes("/a") && prefix.takes("/a/b") && !prefix.takes("/ab"));
        assert!(exact < PathMatch::prefix(path("/a/b/c")) && PathMatch::prefix(path("/a/b")) < prefix);
        let home = PathMatch::exact(CanonicalPath::root());
        assert!(home.takes("/") && !home.takes("/x") && !home.is_root() && home < PathMatch::root());
        assert!(PathMatch::root().is_root() && PathMatch::root().takes("/x"));
    }
}
