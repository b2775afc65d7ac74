//! What data planes make of a request's path before they compare it with a rule. Kubernetes does not say, so each has a nature
//! of its own.

/// The path without empty segments: `//ws` is `/ws`.
pub fn merged(path: &str) -> String {
    let mut merged = String::new();
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// The path without dot segments, as RFC 3986 resolves them: `/x/../ws` is `/ws`.
pub fn resolved(path: &str) -> String {
    let mut kept = Vec::new();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    for segment in &segments {
        match *segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    // A dot segment at the end stands for a folder.
    if matches!(segments.last(), Some(&("." | ".."))) {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// The same as Go's library has it: a dot segment at the end leaves no slash behind.
pub fn cleaned(path: &str) -> String {
    let resolved = resolved(path);
    if path.ends_with('/') || resolved == "/" {
        return resolved;
    }
    resolved.trim_end_matches('/').to_owned()
}

/// Whether its dot segments lead above the root.
pub fn climbs(path: &str) -> bool {
    let mut depth = 0;
    path.split('/').skip(1).any(|segment| {
        depth += match segment {
            "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// The path with the escapes decoded for which `decodes` is true: `/%77s` is `/ws`.
pub fn decoded(path: &str, decodes: impl Fn(u8) -> bool) -> String {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| decodes(*byte)) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&part[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

/// Whether RFC 3986 has a character mean the same with and without an escape.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[test]
fn paths_are_read_as_is_said() {
    for (path, expected) in [
        ("/ws", "/ws"),
        ("/x/../ws", "/ws"),
        ("/../ws", "/ws"),
        ("/./ws/.", "/ws/"),
        ("/a/b/..", "/a/"),
        ("/", "/"),
        ("/a/", "/a/"),
        ("//a", "//a"),
    ] {
        assert_eq!(resolved(path), expected, "{path}");
    }
    for (path, expected) in
        [("/a/.", "/a"), ("/a/./", "/a/"), ("/a/..", "/"), ("/a/b/..", "/a"), ("/a/", "/a/")]
    {
        assert_eq!(cleaned(path), expected, "{path}");
    }
    assert!(climbs("/..") && climbs("/a/../../b") && !climbs("/a/.././b"));
    assert_eq!(merged("//a///b/"), "/a/b/");
    assert_eq!(decoded("/%77s%2Fx%20y", is_unreserved), "/ws%2Fx%20y");
    assert_eq!(decoded("/%77s%2fx%20y%", |_| true), "/ws/x y%");
}
