//! What may be the name of a subject of NATS: the same for whoever admits a resource and for whoever starts with it.

/// Whether a broker takes this name, and it names one subject only.
pub fn is_nats_subject(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>,=".contains(&byte))
    };
    name.len() <= 255 && !name.starts_with('$') && name.split('.').all(is_part)
}
