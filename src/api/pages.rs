//! The OpenAPI description and the page that shows it, ready to be sent.

use axum::body::Bytes;

/// What was made once for a base path. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// The description; none if it could not be written.
    pub(super) json: Option<Bytes>,
    /// The page.
    pub(super) html: Bytes,
    /// The script that starts it.
    pub(super) script: Bytes,
}
