//! The path under which the API is served.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// One order, below the base path, as the router has it.
pub(super) const ORDER: &str = "/{orderId}";

/// The path of the list of orders; everything else is below it. Clones share the string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

/// Why a text is no base path.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a path under which the API can be served: write one that begins with / and has no //, . or .. segment, \
     query or space, such as /api/orders"
)]
pub struct BasePathError(String);

impl BasePath {
    /// That of the Node.js service.
    pub const DEFAULT: &str = "/api/orders";

    /// The path as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of something below it, as the router has it: requests are matched in lower case.
    pub(super) fn route(&self, below: &str) -> String {
        format!("{}{below}", self.0.to_ascii_lowercase())
    }

    /// What a route of the router has below this path.
    pub(super) fn below<'a>(&self, route: &'a str) -> Option<&'a str> {
        let (before, below) = route.split_at_checked(self.0.len())?;
        before.eq_ignore_ascii_case(&self.0).then_some(below)
    }
}

impl Default for BasePath {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for BasePath {
    type Err = BasePathError;

    fn from_str(text: &str) -> Result<Self, BasePathError> {
        let error = || BasePathError(text.to_owned());
        let path = text.strip_suffix('/').unwrap_or(text);
        let segments = path.strip_prefix('/').ok_or_else(error)?.split('/');
        let is_plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!&',;=:@%".contains(&byte))
        };
        if segments.into_iter().all(is_plain) { Ok(Self(path.into())) } else { Err(error()) }
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_absolute_and_needs_no_normalising() {
        for (text, path) in
            [("/orders", "/orders"), ("/API/v1/Orders/", "/API/v1/Orders"), ("/:x/a%20b", "/:x/a%20b")]
        {
            assert_eq!(text.parse::<BasePath>().map(|base| base.to_string()).as_deref(), Ok(path), "{text}");
        }
        for text in ["", "/", "orders", "//orders", "/a//b", "/a/../b", "/a?b", "/a b", "/{id}", "/a*", "/é"]
        {
            let error = text.parse::<BasePath>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("such as /api/orders"), "{error}");
        }
        assert_eq!(BasePath::default(), BasePath::DEFAULT.parse().unwrap());
    }

    #[test]
    fn routes_are_in_lower_case_and_known_by_what_is_below_the_base() {
        let base: BasePath = "/API/Orders".parse().unwrap();
        assert_eq!(base.route("/{orderId}"), "/api/orders/{orderId}");
        assert_eq!(base.below(&base.route("/{orderId}")), Some("/{orderId}"));
        assert_eq!((base.below("/api"), base.below("/other/path")), (None, None));
    }
}
