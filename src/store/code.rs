//! The server's error codes that the store distinguishes.

pub(super) const INTERNAL: i32 = 1;
pub(super) const BAD_VALUE: i32 = 2;
pub(super) const HOST_UNREACHABLE: i32 = 6;
pub(super) const AUTHENTICATION_FAILED: i32 = 18;
pub(super) const INVALID_BSON: i32 = 22;
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;
pub(super) const INDEX_NOT_FOUND: i32 = 27;
pub(super) const NAMESPACE_EXISTS: i32 = 48;
pub(super) const CANNOT_CREATE_INDEX: i32 = 67;
pub(super) const INDEX_OPTIONS_CONFLICT: i32 = 85;
pub(super) const INDEX_KEYS_CONFLICT: i32 = 86;
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// Unauthorized, and authentication failed.
pub(super) const AUTHENTICATION: [i32; 2] = [13, AUTHENTICATION_FAILED];

/// A conflicting write, a failover or a shutdown: host unreachable and not found (6, 7), lock timeout (24), lock busy
/// (46), write concern not met in time (64), network timeout (89), shutdown (91), write conflict (112), no server that
/// may be read (133), nothing that a majority has acknowledged yet (134), query plan dropped (175), primary stepped down
/// (189), network timeout between servers (202), exceeded time limit (262), socket exception (9001), no primary known
/// (10058), not the primary (10107, 13435, 13436), interrupted by a shutdown or a change of state (11600, 11602).
///
/// The driver's labels come first: these are for servers and proxies that set none.
pub(super) const TRANSIENT: [i32; 21] = [
    6, 7, 24, 46, 64, 89, 91, 112, 133, 134, 175, 189, 202, 262, 9001, 10058, 10107, 11600, 11602, 13435,
    13436,
];

/// The server has given up for now, and an immediate retry would only add to its load: out of time (50), too many
/// requests (462), interrupted (11601).
pub(super) const OVERLOADED: [i32; 3] = [50, 462, 11601];
