//! How the pods get the certificates of the database and of the broker, and the credentials there: one read-only volume,
//! from one to four Secrets, and the names of its files in the environment.

use k8s_openapi::api::core::v1::{
    KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::{
    controller::reconcile::validate::validated::ValidatedOrdersService,
    crd::{CERTIFICATES_VOLUME, DatabaseTls},
};

const FOLDER: &str = "/etc/orders-operator/database";
const CA: &str = "ca.crt";
const NATS_CA: &str = "nats-ca.crt";
const NATS_CREDS: &str = "nats.creds";

/// The files and the Secrets that they come from.
pub(super) struct Certificates(Vec<Certificate>);

/// One file.
struct Certificate {
    variable: &'static str,
    file: &'static str,
    secret: String,
    key: String,
}

impl Certificates {
    /// None if the service names no Secret for them.
    pub(super) fn of(service: &ValidatedOrdersService) -> Option<Self> {
        let ca = service.database_ca.iter().map(|ca| Certificate {
            variable: "MONGO_TLS_CA_FILE",
            file: CA,
            secret: ca.name.clone(),
            key: ca.key.clone(),
        });
        let pair = [
            ("MONGO_TLS_CERT_FILE", DatabaseTls::CERTIFICATE_KEY),
            ("MONGO_TLS_KEY_FILE", DatabaseTls::PRIVATE_KEY_KEY),
        ];
        let client = service.database_certificate.iter().flat_map(|secret| {
            pair.map(|(variable, key)| Certificate {
                variable,
                file: key,
                secret: secret.clone(),
                key: key.to_owned(),
            })
        });
        let nats = service.events.iter().flat_map(|events| {
            [("NATS_CA_FILE", NATS_CA, &events.ca), ("NATS_CREDS_FILE", NATS_CREDS, &events.creds)]
        });
        let nats = nats.filter_map(|(variable, file, secret)| {
            let secret = secret.clone()?;
            Some(Certificate { variable, file, secret: secret.name, key: secret.key })
        });
        Some(Self(ca.chain(client).chain(nats).collect())).filter(|found| !found.0.is_empty())
    }

    /// The environment variables with the paths.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        self.0.iter().map(|found| (found.variable, format!("{FOLDER}/{}", found.file))).collect()
    }

    pub(super) fn volume(&self) -> Volume {
        let same_secret = |one: &Certificate, other: &Certificate| one.secret == other.secret;
        let sources = self.0.chunk_by(same_secret).map(|files| VolumeProjection {
            secret: Some(SecretProjection {
                name: files[0].secret.clone(),
                items: Some(files.iter().map(item).collect()),
                optional: None,
            }),
            ..VolumeProjection::default()
        });
        Volume {
            name: CERTIFICATES_VOLUME.into(),
            projected: Some(ProjectedVolumeSource { sources: Some(sources.collect()), default_mode: None }),
            ..Volume::default()
        }
    }

    pub(super) fn mount(&self) -> VolumeMount {
        VolumeMount {
            name: CERTIFICATES_VOLUME.into(),
            mount_path: FOLDER.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        }
    }
}

fn item(certificate: &Certificate) -> KeyToPath {
    KeyToPath { key: certificate.key.clone(), path: certificate.file.into(), mode: None }
}
