//! The server's error codes that the store distinguishes.

pub(super) const INTERNAL: i32 = 1;
pub(super) const NAMESPACE_EXISTS: i32 = 48;
pub(super) const CANNOT_CREATE_INDEX: i32 = 67;
pub(super) const INDEX_OPTIONS_CONFLICT: i32 = 85;
pub(super) const INDEX_KEYS_CONFLICT: i32 = 86;
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// Unauthorized, and authentication failed.
pub(super) const AUTHENTICATION: [i32; 2] = [13, 18];

/// A conflicting write, a failover or a shutdown: host unreachable and not found (6, 7), lock timeout (24), lock busy
/// (46), write concern not met in time (64), network timeout (89), shutdown (91), write conflict (112), primary stepped
/// down (189), exceeded time limit (262), socket exception (9001), not the primary (10107, 13435, 13436), interrupted by
/// a shutdown or a change of state (11600, 11602).
pub(super) const TRANSIENT: [i32; 16] =
    [6, 7, 24, 46, 64, 89, 91, 112, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436];
