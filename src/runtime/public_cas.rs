//! The CAs that are trusted where nobody names another: those of the program, since its image has none.

use tokio_rustls::rustls::RootCertStore;
use webpki_roots::TLS_SERVER_ROOTS;

/// The public CAs, as Mozilla has them.
#[must_use]
pub fn public_cas() -> RootCertStore {
    TLS_SERVER_ROOTS.iter().cloned().collect()
}
