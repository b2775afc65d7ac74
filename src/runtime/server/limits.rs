//! How many connections a server may have, from what the process may use.

use super::super::resources::Resources;

/// No more than this, however much there is.
const MOST_CONNECTIONS: u64 = 4096;

/// And no fewer, however little there is: a server without connections serves nobody.
const FEWEST_CONNECTIONS: u64 = 8;

/// One connection for so many bytes of memory. A connection in use, with the largest head of a request that is taken, has
/// about an eighth of it, and with one of HTTP/2 that does not end, half.
const MEMORY_PER_CONNECTION: u64 = 256 * 1024;

/// Files that are left for everything else, such as the connections to databases, if there are that many.
const OTHER_FILES: u64 = 512;

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be open.
    pub connections: usize,
    /// How many requests may be in progress beyond one for each connection, which only HTTP/2 has.
    pub more_requests: usize,
}

impl Limits {
    /// For a server that has the process's resources for itself.
    #[must_use]
    pub fn of(resources: Resources) -> Self {
        let files = resources.open_files.saturating_sub((resources.open_files / 4).min(OTHER_FILES));
        let memory = resources.memory.map_or(u64::MAX, |memory| memory / MEMORY_PER_CONNECTION);
        let connections = files.min(memory).clamp(FEWEST_CONNECTIONS, MOST_CONNECTIONS);
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        Self { connections, more_requests: connections }
    }

    /// For the admin endpoints, which few clients use.
    #[must_use]
    pub const fn admin() -> Self {
        Self { connections: 32, more_requests: 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_connections_as_files_and_memory_allow() {
        let mib = |mib: u64| Some(mib << 20);
        for (open_files, memory, connections) in [
            (1_048_576, None, 4096),
            (1024, None, 768),
            (1024, mib(512), 768),
            (1_048_576, mib(128), 512),
            (1_048_576, mib(512), 2048),
            (u64::MAX, mib(1 << 20), 4096),
            (4096, None, 3584),
            (16, mib(1), 8),
            (0, None, 8),
        ] {
            let limits = Limits::of(Resources { open_files, memory });
            assert_eq!(limits.connections, connections, "{open_files} {memory:?}");
        }
    }
}
