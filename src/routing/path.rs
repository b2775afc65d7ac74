//! Path prefixes in canonical form, the only form that every ingress controller interprets alike.

use std::{cmp::Ordering, fmt, sync::Arc};

use thiserror::Error;

/// A path prefix: begins with `/`, no trailing `/` (but for `/` itself), no empty or dot segments,
/// no regex, percent escapes only where needed and in upper case.
///
/// Clones share the string, since the index of claims has several clones of each path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalPath(Arc<str>);

/// Why a string is not a path prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("path {path:?} must begin with /{}", absolute(.path))]
    NotAbsolute {
        /// The path as written.
        path: String,
    },
    /// It has a regex other than the known forms of a prefix.
    #[error(
        "path {path:?} has the regex character {character:?}, but routes are plain prefixes (the only regex \
         accepted is an ending such as /?(.*)): {proposal}"
    )]
    Regex {
        /// The path as written.
        path: String,
        /// The first regex character.
        character: char,
        /// What to write in place of it.
        proposal: Proposal,
    },
    /// It has a query, as the address of a page may have.
    #[error("path {path:?} has a ?, but a path has no query, and routes do not look at it: write {plain:?}")]
    Query {
        /// The path as written.
        path: String,
        /// What is before the query.
        plain: String,
    },
    /// A route that is to take one path alone is written as a prefix.
    #[error(
        "path {path:?} means a path and everything below it, but the route has exact: true, which takes one path alone: \
         write {plain:?}, or remove exact"
    )]
    ExactPattern {
        /// The path as written.
        path: String,
        /// The path alone.
        plain: String,
    },
    /// It has a character that must be escaped in the path of a request.
    #[error(
        "path {path:?} has the character {character:?}, which a path cannot have: write a path without it ({} is \
         accepted, but some ingress controllers match no path that has an escape)", escaped(*.character)
    )]
    Character {
        /// The path as written.
        path: String,
        /// The offending character.
        character: char,
    },
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "path {path:?} has a % that is not followed by two hexadecimal digits: write a path without it (%25 is accepted, \
         but some ingress controllers match no path that has an escape)"
    )]
    Escape {
        /// The path as written.
        path: String,
    },
    /// It has a slash as `%2F`, which the API server refuses in an Ingress.
    #[error(
        "path {path:?} has %2F, an escaped slash, which some servers read as a slash and others refuse: write a plain \
         / for it, as in {plain:?}"
    )]
    EscapedSlash {
        /// The path as written.
        path: String,
        /// The same path with plain slashes.
        plain: String,
    },
    /// It has an empty segment, or `.` or `..`.
    #[error(
        "path {path:?} has {segment}, which servers resolve in different ways: write the path that is meant, such as \
         {plain:?}"
    )]
    Segment {
        /// The path as written.
        path: String,
        /// The segment, as the message names it.
        segment: &'static str,
        /// The path that a browser would request.
        plain: String,
    },
}

/// What to write in place of a regex: nothing that another route has, nor `/`, which is the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// The regex only says where the path ends.
    Alone {
        /// The path, if it may be a prefix and if it may be exact.
        path: String,
        /// Whether no other route has it as a prefix.
        as_prefix: bool,
        /// Whether no other route has it alone.
        as_exact: bool,
    },
    /// A prefix with a slip in the regex behind it.
    Prefix(Option<String>),
    /// A route for each of several paths; or the prefix of them all.
    Each(Option<String>),
    /// More paths than can be listed: their prefix, if there is one.
    Below(Option<String>),
}

impl Proposal {
    /// What is meant by a path with a regex, of which the first character is at `at`.
    fn of(path: &str, at: usize) -> Self {
        // As /api/users?(.*), where a slash was left out.
        let without_end = ["?(.*)", "?.*", "?"].iter().find_map(|end| path.strip_suffix(end));
        if let Some(prefix) = without_end.filter(|prefix| !prefix.ends_with('/'))
            && let Ok(prefix) = CanonicalPath::parse_exact(prefix)
        {
            return Self::Prefix(Some(prefix.to_string()));
        }
        let alone = path.strip_suffix('$').map(|rest| rest.strip_suffix("/?").unwrap_or(rest));
        if let Some(alone) = alone.and_then(|rest| CanonicalPath::parse_exact(rest).ok()) {
            return Self::Alone { path: alone.to_string(), as_prefix: !alone.is_root(), as_exact: true };
        }
        // The segment in which it is may mean anything.
        let before = path.get(..at).and_then(|before| before.rsplit_once('/'));
        let whole = before.and_then(|(before, _)| CanonicalPath::parse(before).ok());
        let whole = whole.filter(|whole| !whole.is_root()).map(|whole| whole.to_string());
        // Of a regex for the rest, as /?(.*), the paths are those before it.
        let middle = CanonicalPath::split_regex(path).map_or(path, |(middle, _)| middle);
        if middle.contains(['*', '+', '.', '[', '{', '\\']) { Self::Below(whole) } else { Self::Each(whole) }
    }

    /// Takes back what another route has: `has` tells that of a path, and whether it is meant alone.
    pub(super) fn withdraw(&mut self, has: impl Fn(&str, bool) -> bool) {
        match self {
            Self::Alone { path, as_prefix, as_exact } => {
                *as_prefix &= !has(path, false);
                *as_exact &= !has(path, true);
            }
            Self::Prefix(path) | Self::Each(path) | Self::Below(path) => {
                path.take_if(|path| has(path, false));
            }
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ELSEWHERE: &str = "use another path, or a separate host";
        let alone = "with exact: true for that path only";
        let all = "if this Service should get everything below it";
        match self {
            Self::Alone { path, as_prefix: true, as_exact: true } => {
                write!(formatter, "write {path:?} {alone}, or without it for all paths below it too")
            }
            Self::Alone { path, as_exact: true, .. } => write!(formatter, "write {path:?} {alone}"),
            Self::Alone { path, as_prefix: true, .. } => write!(formatter, "write {path:?}, {all}"),
            Self::Alone { .. } | Self::Prefix(None) | Self::Below(None) => formatter.write_str(ELSEWHERE),
            Self::Prefix(Some(prefix)) => write!(formatter, "write {prefix:?}"),
            Self::Each(None) => formatter.write_str("write one route for each path that is meant"),
            Self::Each(Some(prefix)) => {
                write!(formatter, "write one route for each path that is meant; or {prefix:?}, {all}")
            }
            Self::Below(Some(prefix)) => write!(formatter, "write {prefix:?}, {all}; or {ELSEWHERE}"),
        }
    }
}

/// What is before the query of a path that has one, such as `/api/users?page=1`.
fn before_query(text: &str) -> Option<CanonicalPath> {
    let (path, query) = text.split_once('?')?;
    let is_query = !query.is_empty()
        && query.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=&%_-~,:;".contains(&byte));
    let path = CanonicalPath::parse(path).ok().filter(|path| !path.is_root())?;
    is_query.then_some(path)
}

/// Suggests the same path with a slash before it, unless that is no path either.
fn absolute(path: &str) -> String {
    let rest = path.trim_start_matches('^');
    let absolute = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    match CanonicalPath::parse(&absolute) {
        Ok(path) if !path.is_root() => format!(": write {:?}", path.as_str()),
        _ => ", such as /api/users".to_owned(),
    }
}

fn escaped(character: char) -> String {
    let mut bytes = [0; 4];
    character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The regexes for "this prefix and everything below" in common Ingress manifests, each with the number of the group that has
/// what is below, without a slash before it, if there is one. A form that ends as another does comes before it.
const PREFIX_FORMS: [(&str, Option<u8>); 12] = [
    ("/?(.*)", Some(1)),
    ("(?:/|$)(.*)", Some(1)),
    ("(/|$)(.*)", Some(2)),
    ("/()(.*)", Some(2)),
    ("/(.*)", Some(1)),
    ("(/.*)?", None),
    ("/?.*", None),
    ("/.*", None),
    ("/*", None),
    ("(.*)", None),
    (".*", None),
    // Not a regex, but how some ingress controllers of clouds write it.
    ("*", None),
];

impl CanonicalPath {
    /// The path of the client, which gets every request that no other route matches.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Parses a path as a user writes it, including the known regexes for a prefix.
    ///
    /// # Errors
    /// When it is not a prefix, or servers would interpret it differently.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let path = || text.to_owned();
        let plain = Self::split_regex(text).map_or(text, |(plain, _)| plain);
        if plain.is_empty() && !text.is_empty() {
            return Ok(Self::root());
        }
        if !plain.starts_with('/') {
            return Err(PathError::NotAbsolute { path: path() });
        }
        if let Some((at, character)) = plain.char_indices().find(|(_, character)| is_regex(*character)) {
            if let Some(plain) = before_query(text) {
                return Err(PathError::Query { path: path(), plain: plain.to_string() });
            }
            return Err(PathError::Regex { path: path(), character, proposal: Proposal::of(text, at) });
        }
        if let Some(character) = plain.chars().find(|character| !is_path_character(*character)) {
            return Err(PathError::Character { path: path(), character });
        }
        let decoded = normalise_escapes(plain).ok_or_else(|| PathError::Escape { path: path() })?;
        if decoded.contains("%2F") {
            return Err(PathError::EscapedSlash {
                path: path(),
                plain: resolved(&decoded.replace("%2F", "/")),
            });
        }
        let trimmed = decoded.strip_suffix('/').unwrap_or(&decoded);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        let named = |segment| match segment {
            "" => Some("an empty segment (//)"),
            "." => Some("the segment \".\""),
            ".." => Some("the segment \"..\""),
            _ => None,
        };
        if let Some(segment) = trimmed.split('/').skip(1).find_map(named) {
            return Err(PathError::Segment { path: path(), segment, plain: resolved(trimmed) });
        }
        Ok(Self(trimmed.into()))
    }

    /// Parses a path that is meant alone, without all that is below it.
    ///
    /// # Errors
    /// When it is no path, or is written as a prefix is, by a regex or with a slash at its end.
    pub fn parse_exact(text: &str) -> Result<Self, PathError> {
        let path = Self::parse(text)?;
        if Self::split_regex(text).is_some() || (text.ends_with('/') && !path.is_root()) {
            return Err(PathError::ExactPattern { path: text.to_owned(), plain: path.to_string() });
        }
        Ok(path)
    }

    /// Takes a known regex for everything below a prefix off: gives what is before it, and the number of the group that has what
    /// is below, if there is one.
    pub fn split_regex(text: &str) -> Option<(&str, Option<u8>)> {
        PREFIX_FORMS.iter().find_map(|(form, group)| Some((text.strip_suffix(form)?, *group)))
    }

    /// Whether it is `/`, which matches every request.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request for `path` matches, by the rule of `pathType: Prefix`: segment by segment.
    pub fn takes(&self, path: &str) -> bool {
        self.is_root()
            || path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The number of its segments; the root has none.
    pub fn segments(&self) -> usize {
        if self.is_root() { 0 } else { self.0.matches('/').count() }
    }
}

impl Ord for CanonicalPath {
    /// Rendered order: more segments first, then more bytes, then lexicographically. So a path comes before all its
    /// prefixes.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |path: &Self| (path.segments(), path.0.len());
        key(other).cmp(&key(self)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for CanonicalPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The path without empty and dot segments; a browser resolves the latter in the same way.
fn resolved(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn is_regex(character: char) -> bool {
    matches!(character, '(' | ')' | '[' | ']' | '{' | '}' | '*' | '+' | '?' | '^' | '$' | '|' | '\\')
}

/// RFC 3986 `pchar`, `/` and `%`.
fn is_path_character(character: char) -> bool {
    is_unreserved(character)
        || matches!(character, '!' | '&' | '\'' | ',' | ';' | '=' | ':' | '@' | '/' | '%')
}

fn is_unreserved(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~')
}

/// Converts escapes to upper case, and decodes those of unreserved characters; `None` when one is malformed.
pub(super) fn normalise_escapes(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut normal = parts.next()?.to_owned();
    for part in parts {
        // The characters were checked to be ASCII, so a byte offset is a character boundary.
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let character = char::from(u8::from_str_radix(digits, 16).ok()?);
        if is_unreserved(character) {
            normal.push(character);
        } else {
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
        }
        normal.push_str(rest);
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        CanonicalPath::parse(text).unwrap().to_string()
    }

    #[test]
    fn the_regex_forms_of_a_prefix_are_translated() {
        for form in [
            "/api/users/?(.*)",
            "/api/users(/|$)(.*)",
            "/api/users/(.*)",
            "/api/users/.*",
            "/api/users/*",
            "/api/users/",
            "/api/users",
            "/api/users.*",
            "/api/users(.*)",
            "/api/users/?.*",
            "/api/users(/.*)?",
            "/api/users/()(.*)",
            "/api/users(?:/|$)(.*)",
            "/api/users*",
        ] {
            assert_eq!(canonical(form), "/api/users", "{form}");
        }
        for form in ["/", "/?(.*)", "/.*", "/*", "/(.*)", "/()(.*)", "(.*)"] {
            assert_eq!(canonical(form), "/", "{form}");
        }
    }

    #[test]
    fn escapes_are_normalised() {
        assert_eq!(canonical("/%61pi/%c3%a9%3a"), "/api/%C3%A9%3A");
    }

    #[test]
    fn an_invalid_prefix_is_refused() {
        for text in [
            "",
            "api",
            "/a//b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a%2fb",
            "/a b",
            "/a#b",
            "/é",
            "/a\u{7f}",
            "/%",
            "/%4",
            "/%zz",
        ] {
            assert!(CanonicalPath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_says_what_to_write_instead() {
        for (text, expected) in [
            ("/api/(users|auth)/x", "has the regex character '('"),
            ("/api/(users|auth)/x", "one route for each path that is meant; or \"/api\", if"),
            ("/a/../b", "has the segment \"..\""),
            ("/a/../b", "such as \"/b\""),
            ("/a/./b", "such as \"/a/b\""),
            ("/../a//b", "such as \"/a/b\""),
            ("/a//b", "an empty segment (//)"),
            ("/a%2fb", "as in \"/a/b\""),
            ("/a%2f..%2F%2fb", "as in \"/b\""),
            ("/a b", "(%20 is accepted"),
            ("/é", "(%C3%A9 is accepted"),
            ("/100%", "(%25 is accepted"),
            ("a", "write \"/a\""),
            ("^/api/x", "must begin with /: write \"/api/x\""),
            ("^/(a|b)", "must begin with /, such as /api/users"),
            (
                "/student/.*/courses",
                "write \"/student\", if this Service should get everything below it; or use another",
            ),
            ("/posts/?(.*)/comments", "write \"/posts\", if"),
            ("/api/v1/products[0-9]+", "write \"/api/v1\", if"),
            ("/{id}", "ending such as /?(.*)): use another path, or a separate host"),
            ("/api/(users|auth)/?(.*)", "one route for each path that is meant; or \"/api\", if"),
            ("/api/users?(.*)", "ending such as /?(.*)): write \"/api/users\""),
            ("/api/users?", "ending such as /?(.*)): write \"/api/users\""),
            ("/api/users?x=1", "has no query, and routes do not look at it: write \"/api/users\""),
            ("/api/users$", "write \"/api/users\" with exact: true"),
            ("/api/users/?$", "write \"/api/users\" with exact: true"),
        ] {
            let error = CanonicalPath::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let everything = CanonicalPath::parse("/(a|b)").unwrap_err().to_string();
        assert!(everything.ends_with("that is meant"), "the client's place is no advice: {everything}");
    }

    #[test]
    fn a_path_that_is_meant_alone_is_not_written_as_a_prefix() {
        assert_eq!(CanonicalPath::parse_exact("/%61").unwrap().as_str(), "/a");
        assert!(CanonicalPath::parse_exact("/").unwrap().is_root());
        for text in ["/a/", "/a/?(.*)", "/a.*", "/(.*)"] {
            let error = CanonicalPath::parse_exact(text).unwrap_err();
            let plain = if text == "/(.*)" { "/" } else { "/a" };
            assert!(error.to_string().contains(&format!("write {plain:?}, or remove exact")), "{error}");
        }
        assert!(CanonicalPath::parse_exact("/(a|b)").is_err());
    }

    proptest! {
        #![proptest_config(crate::routing::cases::cases())]

        #[test]
        fn what_a_regex_is_answered_by_is_a_path_that_is_understood(text in "(/[a-z.]{0,3}[()*+?|$^]{0,3}){1,4}") {
            let Err(PathError::Regex { path, proposal, .. }) = CanonicalPath::parse(&text) else { return Ok(()) };
            let (plain, is_whole) = match proposal {
                Proposal::Each(Some(plain)) | Proposal::Below(Some(plain)) => (plain, true),
                Proposal::Prefix(Some(plain)) | Proposal::Alone { path: plain, .. } => (plain, false),
                _ => return Ok(()),
            };
            prop_assert_eq!(CanonicalPath::parse(&plain).map(|known| known.to_string()), Ok(plain.clone()));
            if is_whole {
                let rest = path.strip_prefix(plain.as_str());
                prop_assert!(rest.is_some_and(|rest| rest.starts_with('/')), "whole segments: {} {}", path, plain);
            }
        }

        #[test]
        fn a_path_comes_before_every_prefix_of_it(base in "(/[a-z]{1,3}){1,3}", below in "(/[a-z]{1,3}){1,2}") {
            let (short, long) = (CanonicalPath::parse(&base).unwrap(), CanonicalPath::parse(&format!("{base}{below}")).unwrap());
            prop_assert!(long < short && short < CanonicalPath::root());
        }
    }
}
