//! What `rewrite-target` of ingress-nginx makes of a path, and regexes that are only there for it.

use crate::routing::{CanonicalPath, PathError};

/// What becomes of the path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// It stays.
    Same,
    /// The prefix is taken off.
    Strip,
    /// Anything else.
    Other,
}

/// What a rewrite to `target` makes of requests that `path` takes.
pub(super) fn of(path: &str, target: &str) -> Rewrite {
    // ingress-nginx leaves such a path alone.
    if path == target {
        return Rewrite::Same;
    }
    if ungrouped(path).is_some() {
        return if target == "/$1" { Rewrite::Same } else { Rewrite::Other };
    }
    let Some((prefix, Some(rest))) = CanonicalPath::split_regex(path) else { return Rewrite::Other };
    let prefix = prefix.trim_end_matches('/');
    if !is_plain(prefix) {
        return Rewrite::Other;
    }
    let named = format!("${rest}");
    let with_rest = |before: &str| target == format!("{before}/{named}");
    match prefix {
        "" if with_rest("") => Rewrite::Same,
        _ if with_rest(prefix) => Rewrite::Same,
        _ if with_rest("") => Rewrite::Strip,
        _ => Rewrite::Other,
    }
}

/// What a path of an Ingress means as a prefix, be it written for a rewrite or not.
///
/// # Errors
/// When it means nothing that a prefix can say.
pub(super) fn canonical(path: &str) -> Result<CanonicalPath, PathError> {
    CanonicalPath::parse(path)
        .or_else(|error| ungrouped(path).map_or(Err(error), |text| CanonicalPath::parse(&text)))
}

/// A regex that has the whole path in its first group, such as `/(api/users/?.*)`, without that group: `/api/users/?.*`.
fn ungrouped(path: &str) -> Option<String> {
    let whole = path.strip_prefix("/(")?.strip_suffix(')')?;
    let (prefix, _) = CanonicalPath::split_regex(whole)?;
    (is_plain(prefix) && !whole.starts_with('/')).then(|| format!("/{whole}"))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_strips_the_prefix_or_changes_nothing_or_is_something_else() {
        for (path, target, expected) in [
            ("/api/users/(.*)", "/$1", Rewrite::Strip),
            ("/api/users/?(.*)", "/$1", Rewrite::Strip),
            ("/api/users(/|$)(.*)", "/$2", Rewrite::Strip),
            ("/?(.*)", "/$1", Rewrite::Same),
            ("/(.*)", "/$1", Rewrite::Same),
            ("/()(.*)", "/$2", Rewrite::Same),
            ("/(/|$)(.*)", "/$2", Rewrite::Same),
            ("/api/users/?(.*)", "/api/users/$1", Rewrite::Same),
            ("/api/users(/|$)(.*)", "/$1", Rewrite::Other),
            ("/api/users(?:/|$)(.*)", "/$1", Rewrite::Strip),
            ("/api/users(.*)", "/$1", Rewrite::Other),
            ("/api/users/?(.*)", "/", Rewrite::Other),
            ("/api/users", "/$1", Rewrite::Other),
            ("/", "/", Rewrite::Same),
            ("/api/(users|auth)/(.*)", "/$1", Rewrite::Other),
            ("/api/users/(.*)", "/v1/$1", Rewrite::Other),
            ("/(api/users/?.*)", "/$1", Rewrite::Same),
            ("/(api/users/(.*))", "/$1", Rewrite::Same),
            ("/(api/users.*)", "/v1/$1", Rewrite::Other),
            ("/(api/users/?.*)", "/api/users/$1", Rewrite::Other),
            ("/(api|v1)/(.*)", "/$1", Rewrite::Other),
        ] {
            assert_eq!(of(path, target), expected, "{path} {target}");
        }
    }

    #[test]
    fn a_group_of_the_whole_path_is_taken_off_and_no_other() {
        for (path, expected) in [
            ("/(api/users/?.*)", Some("/api/users/?.*")),
            ("/(api/users/(.*))", Some("/api/users/(.*)")),
            ("/(api/users)", None),
            ("/(api)/users(.*)", None),
            ("/(a|b/.*)", None),
            ("/(/|$)(.*)", None),
            ("/()(.*)", None),
            ("/(", None),
            ("/api/(users/.*)", None),
        ] {
            assert_eq!(ungrouped(path).as_deref(), expected, "{path}");
            if expected.is_some() {
                assert_eq!(canonical(path), CanonicalPath::parse("/api/users"), "{path}");
            }
        }
    }
}
