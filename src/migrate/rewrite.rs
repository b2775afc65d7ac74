//! What `rewrite-target` of ingress-nginx makes of a path.

use crate::routing::CanonicalPath;

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
    let Some((prefix, Some(rest))) = CanonicalPath::split_regex(path) else { return Rewrite::Other };
    let prefix = prefix.trim_end_matches('/');
    let is_plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if !is_plain {
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
        ] {
            assert_eq!(of(path, target), expected, "{path} {target}");
        }
    }
}
