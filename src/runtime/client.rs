//! The configuration of the client: where the API server is, and who this process is there.

use std::{
    env, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::Args;
use kube::{Config, config::InferConfigError};
use thiserror::Error;

/// The flags of the client.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// Folder with the token, ca.crt and namespace of a service account, for a pod in which they are not mounted at
    /// the usual path. Token and certificate are read again as they rotate. Default: the kubeconfig, or else the
    /// usual path in a pod
    #[arg(long, env = "SERVICE_ACCOUNT_PATH", value_name = "FOLDER")]
    pub service_account_path: Option<PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no usable kubeconfig, and the process does not run in a cluster.
    #[error("cannot find a cluster: {0}; set KUBECONFIG, or run inside a cluster")]
    NoCluster(#[source] InferConfigError),
    /// A file of the service account cannot be read.
    #[error(
        "cannot read {0}: {1}; --service-account-path is the folder with a service account's files, in a pod"
    )]
    File(PathBuf, #[source] io::Error),
    /// A file has no certificate in PEM.
    #[error("{0} is not PEM: {1}")]
    Certificate(PathBuf, #[source] pem::PemError),
    /// The process does not run in a pod.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not name an API server")]
    Address,
}

impl ClientArgs {
    /// The configuration of a client: that of the service account in the folder, or else of the kubeconfig, or else of the
    /// pod that this process runs in.
    ///
    /// # Errors
    /// When there is none.
    pub async fn config(&self) -> Result<Config, ClientError> {
        match &self.service_account_path {
            Some(folder) => service_account(folder, |name| env::var(name).ok()),
            None => Config::infer().await.map_err(ClientError::NoCluster),
        }
    }
}

/// As [`Config::incluster`], which reads the usual path only. The client reads the token and the certificate about once
/// a minute.
fn service_account(
    folder: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Config, ClientError> {
    let variable = |name| environment(name).ok_or(ClientError::Address);
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let port: u16 = port.parse().map_err(|_| ClientError::Address)?;
    let authority = match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    let url = format!("https://{authority}").parse().map_err(|_| ClientError::Address)?;
    let read = |name| {
        let path = folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(ClientError::File(path, error)),
        }
    };
    let mut config = Config::new(url);
    config.default_namespace = read("namespace")?.1.trim().to_owned();
    let (path, text) = read("ca.crt")?;
    // Both: without the certificates themselves the client also asks for those of the system, of which an image from
    // scratch has none; the file is for their rotation.
    config.root_cert =
        Some(certificates(&text).map_err(|error| ClientError::Certificate(path.clone(), error))?);
    config.root_cert_file = Some(path);
    config.auth_info.token_file = Some(read("token")?.0.to_string_lossy().into_owned());
    Ok(config)
}

/// The certificates in a PEM text, as DER.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, pem::PemError> {
    let blocks = pem::parse_many(text)?.into_iter();
    Ok(blocks.filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nZGVy\n-----END CERTIFICATE-----\n";

    fn config(host: &str, port: &str, files: &[&str]) -> Result<String, String> {
        let folder = env::temp_dir().join(format!("orders-operator-account-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        for file in files {
            let text = if *file == "ca.crt" { CA } else { "text\n" };
            fs::write(folder.join(file), text).unwrap();
        }
        let environment = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some(port.to_owned()),
            _ => None,
        };
        let config = service_account(&folder, environment);
        fs::remove_dir_all(&folder).unwrap();
        let config = config.map_err(|error| error.to_string())?;
        let token = Path::new(config.auth_info.token_file.as_deref().unwrap_or_default());
        assert_eq!((token, config.default_namespace.as_str()), (&*folder.join("token"), "text"));
        assert_eq!(config.root_cert_file, Some(folder.join("ca.crt")));
        assert_eq!(config.root_cert, Some(vec![b"der".to_vec()]), "those of the system are not asked for");
        Ok(config.cluster_url.to_string())
    }

    #[test]
    fn the_api_server_is_the_one_of_the_pod_and_the_files_are_those_of_the_folder() {
        let all = ["token", "ca.crt", "namespace"];
        assert_eq!(config("10.0.0.1", "443", &all).as_deref(), Ok("https://10.0.0.1:443/"));
        assert_eq!(config("fd00::1", "6443", &all).as_deref(), Ok("https://[fd00::1]:6443/"));
        assert_eq!(config("api.example", "443", &all).as_deref(), Ok("https://api.example:443/"));
        assert!(config("10.0.0.1", "https", &all).is_err());
        let without_token = config("10.0.0.1", "443", &["ca.crt", "namespace"]).unwrap_err();
        assert!(without_token.contains("token: No such file"), "{without_token}");
    }
}
