//! The CA and the certificate for TLS to the database.
//!
//! The driver takes them from files only, which it reads while the client is made. They are given to it as anonymous
//! files in memory, so that no private key is ever written to a file system.

use std::{
    fmt,
    fs::File,
    hash::{Hash, Hasher},
    io::{self, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use mongodb::options::TlsOptions;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::error::StoreError;
use crate::runtime::public_cas;

/// What a certificate in PEM begins with.
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The CA that the database's certificate must be signed by, and the certificate that is presented to it; each as PEM,
/// and optional. Clones share the text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    ca: Option<Arc<str>>,
    /// The chain, then the private key.
    certificate: Option<Arc<str>>,
}

impl ClientTls {
    /// From PEM: the CA, and a client certificate with its private key.
    ///
    /// # Errors
    /// When a text has no certificate, or no key.
    pub fn from_pem(ca: Option<&[u8]>, certificate: Option<(&[u8], &[u8])>) -> Result<Self, StoreError> {
        let text = |pem, what: &str, marker: &str| {
            std::str::from_utf8(pem).ok().filter(|text| text.contains(marker)).ok_or_else(|| {
                StoreError::InvalidTls(format!("{what} is not PEM: it has no line {marker:?}"))
            })
        };
        let ca = ca.map(|pem| text(pem, "the CA", BEGIN_CERTIFICATE)).transpose()?.map(Arc::from);
        let certificate = certificate
            .map(|(chain, key)| {
                let chain = text(chain, "the client certificate", BEGIN_CERTIFICATE)?;
                let key = text(key, "the private key of the client certificate", "PRIVATE KEY-----")?;
                Ok::<_, StoreError>(format!("{}\n{}\n", chain.trim_end(), key.trim_end()).into())
            })
            .transpose()?;
        Ok(Self { ca, certificate })
    }

    /// Whether there is a certificate to present.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// Calls `connect` with options that the driver can read the files of until it returns.
    pub(super) fn with_options<T>(
        &self,
        connect: impl FnOnce(TlsOptions) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = |pem: &Option<Arc<str>>| {
            let file = pem.as_deref().map(MemoryFile::new).transpose();
            file.map_err(|error| StoreError::InvalidTls(format!("no memory for the certificates: {error}")))
        };
        let (ca, certificate) = (file(&self.ca)?, file(&self.certificate)?);
        let mut options = TlsOptions::default();
        options.ca_file_path = ca.as_ref().map(MemoryFile::path);
        options.cert_key_file_path = certificate.as_ref().map(MemoryFile::path);
        connect(options)
    }
}

/// TLS to a database, as the driver has it: with these certificates, else with the public CAs.
///
/// # Errors
/// When a certificate cannot be parsed, or the private key is not that of the certificate.
pub(super) fn connector(tls: Option<&ClientTls>) -> Result<TlsConnector, StoreError> {
    let invalid = |what: &str| StoreError::InvalidTls(what.to_owned());
    let mut roots = RootCertStore::empty();
    match tls.and_then(|tls| tls.ca.as_deref()) {
        Some(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(invalid("no certificate of the CA can be parsed"));
            }
        }
        None => roots = public_cas(),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("this program has no version of TLS"))?
        .with_root_certificates(roots);
    let mut config = match tls.and_then(|tls| tls.certificate.as_deref()) {
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|_| invalid("the client certificate cannot be parsed"))?;
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
            let key =
                key.map_err(|_| invalid("the private key of the client certificate cannot be parsed"))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|_| invalid("the private key is not that of the client certificate"))?
        }
        None => config.with_no_client_auth(),
    };
    // What a server hands out for the next connection would be kept, by each name that it is called by, with its certificates.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config).into())
}

/// The files of [`ClientTls`] on a command line.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// PEM file with the CA that the database's certificate must be signed by; TLS is then on. Default: the public
    /// CAs
    #[arg(long, env = "MONGO_TLS_CA_FILE", value_name = "FILE", help_heading = "TLS to the database")]
    pub mongo_tls_ca_file: Option<PathBuf>,

    /// PEM file with the certificate to present to the database; TLS is then on
    #[arg(
        long,
        env = "MONGO_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "mongo_tls_key_file",
        help_heading = "TLS to the database"
    )]
    pub mongo_tls_cert_file: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(
        long,
        env = "MONGO_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "mongo_tls_cert_file",
        help_heading = "TLS to the database"
    )]
    pub mongo_tls_key_file: Option<PathBuf>,
}

impl TlsArgs {
    /// Reads the files; none if none is given.
    ///
    /// # Errors
    /// When one cannot be read, or is not PEM.
    pub fn read(&self) -> Result<Option<ClientTls>, StoreError> {
        let read = |file: &Option<PathBuf>, flag: &str| {
            let read = file.as_deref().map(std::fs::read).transpose();
            read.map_err(|error| StoreError::InvalidTls(format!("the file of {flag}: {error}")))
        };
        let ca = read(&self.mongo_tls_ca_file, "--mongo-tls-ca-file")?;
        let chain = read(&self.mongo_tls_cert_file, "--mongo-tls-cert-file")?;
        let key = read(&self.mongo_tls_key_file, "--mongo-tls-key-file")?;
        if ca.is_none() && chain.is_none() {
            return Ok(None);
        }
        ClientTls::from_pem(ca.as_deref(), chain.as_deref().zip(key.as_deref())).map(Some)
    }
}

impl Hash for ClientTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.ca, &self.certificate).hash(state);
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the private key.
        f.debug_struct("ClientTls")
            .field("ca", &self.ca.is_some())
            .field("certificate", &self.certificate.is_some())
            .finish()
    }
}

/// A file that has no name, is readable by this process only, and goes with this value.
struct MemoryFile(File);

impl MemoryFile {
    fn new(text: &str) -> io::Result<Self> {
        let mut file = File::from(memfd_create("pem", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        Ok(Self(file))
    }

    /// A path by which this process can open it.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----";
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";

    #[test]
    fn the_driver_can_read_what_it_is_given_and_nothing_is_left_of_it() {
        let tls = ClientTls::from_pem(Some(CERTIFICATE), Some((CERTIFICATE, KEY))).unwrap();
        let paths = tls.with_options(|options| {
            let (ca, both) = (options.ca_file_path.unwrap(), options.cert_key_file_path.unwrap());
            assert_eq!(std::fs::read(&ca).unwrap(), CERTIFICATE);
            let text = std::fs::read_to_string(&both).unwrap();
            assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"), "{text}");
            // What it is, since another thread may reuse the number of the descriptor.
            Ok([ca, both].map(|path| std::fs::read_link(path).unwrap()))
        });
        for name in paths.unwrap() {
            assert!(name.to_string_lossy().starts_with("/memfd:"), "{name:?}");
            assert!(!name.exists());
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_without_being_repeated() {
        for (ca, certificate) in [
            (Some(KEY), None),
            (Some(b"" as &[u8]), None),
            (None, Some((KEY, KEY))),
            (None, Some((CERTIFICATE, CERTIFICATE))),
            (None, Some((CERTIFICATE, b"\xff" as &[u8]))),
        ] {
            let error = ClientTls::from_pem(ca, certificate).unwrap_err();
            assert!(error.is_misconfigured() && !error.to_string().contains("hunter2"), "{error}");
        }
        let tls = ClientTls::from_pem(Some(CERTIFICATE), Some((CERTIFICATE, KEY))).unwrap();
        assert!(!format!("{tls:?}").contains("hunter2"));
    }
}
