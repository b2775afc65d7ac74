//! A certificate authority of a test's own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// A CA, and certificates that it has signed for this machine's loopback addresses and for a client.
pub struct Pki(PathBuf);

impl Pki {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("orders-operator-pki-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let names = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost";
        std::fs::write(folder.join("server.ext"), names).unwrap();
        std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let ca =
            ["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test CA", "-days", "2"];
        openssl(&folder, &[&ca, key.as_slice()].concat());
        for name in ["server", "client"] {
            let file = |end: &str| format!("{name}.{end}");
            let (secret, request) = (file("key"), file("csr"));
            let subject = format!("/CN={name}");
            let asked = ["req", "-keyout", &secret, "-out", &request, "-subj", &subject];
            openssl(&folder, &[&asked, key.as_slice()].concat());
            let (certificate, extensions) = (file("crt"), file("ext"));
            openssl(
                &folder,
                &[
                    "x509",
                    "-req",
                    "-in",
                    &request,
                    "-CA",
                    "ca.crt",
                    "-CAkey",
                    "ca.key",
                    "-CAcreateserial",
                    "-days",
                    "2",
                    "-extfile",
                    &extensions,
                    "-out",
                    &certificate,
                ],
            );
        }
        Self(folder)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub fn pem(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    pub fn text(&self, file: &str) -> String {
        String::from_utf8(self.pem(file)).unwrap()
    }

    /// What a server of this CA accepts connections by. With `asks`, clients must present a certificate of the CA.
    pub fn acceptor(&self, asks: bool) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(self.path("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().expect("openssl is not on the PATH");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
