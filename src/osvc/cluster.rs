//! The way to the API server: which one, as whom, in which namespace, and how long an answer may take.

use std::{fmt::Debug, future::Future, path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;

use super::error::{AskError, OsvcError};
use crate::runtime::{client::ClientArgs, with_causes};

/// The most objects in one page of a list.
const PAGE: u32 = 500;

/// The flags that every command has.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(long, short, value_name = "NAMESPACE", help_heading = "Cluster")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "CONTEXT", help_heading = "Cluster")]
    pub context: Option<String>,

    /// The kubeconfig [default: $KUBECONFIG, or else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,

    /// User to impersonate (requires the impersonate permission)
    #[arg(long = "as", value_name = "USER", help_heading = "Cluster")]
    pub as_user: Option<String>,

    /// Group to impersonate; may be repeated
    #[arg(long = "as-group", value_name = "GROUP", requires = "as_user", help_heading = "Cluster")]
    pub as_groups: Vec<String>,

    /// Timeout of each request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600), help_heading = "Cluster")]
    pub request_timeout: u32,

    /// Of a pod: where its account is
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A cluster, and the namespace that is meant.
pub(super) struct Cluster {
    /// For the [`Api`]s whose requests go through [`Self::ask`].
    pub(super) client: Client,
    /// The namespace that is named, or else that of the kubeconfig.
    pub(super) namespace: String,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

impl Cluster {
    /// The cluster that the flags name. No request is sent.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn of(args: &ClusterArgs) -> Result<Self, OsvcError> {
        let mut config = config(args).await?;
        if let Some(user) = &args.as_user {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups =
                Some(args.as_groups.clone()).filter(|groups| !groups.is_empty());
        }
        let patience = Duration::from_secs(args.request_timeout.into());
        // Later than the deadline of `ask`, which says more.
        let at_last = Some(patience + Duration::from_secs(2));
        (config.connect_timeout, config.read_timeout) = (at_last, at_last);
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| OsvcError::Client(unusable(&error)))?;
        Ok(Self { client, namespace, patience })
    }

    /// The answer to a request; `what` it does is told when there is none, such as `list pods`. Without the deadline, the
    /// client's own attempts could go on for minutes.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, AskError> {
        match tokio::time::timeout(self.patience, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(match status.code {
                403 => AskError::Forbidden(what.into()),
                404 => AskError::NotFound(what.into()),
                _ => AskError::Failed(what.into(), status.message.clone()),
            }),
            Ok(Err(error)) => Err(AskError::Failed(what.into(), with_causes(&error))),
            Err(_) => Err(AskError::Timeout(what.into(), self.patience.as_secs())),
        }
    }

    /// Every object that `params` select, page by page.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn list<K: Clone + Debug + DeserializeOwned>(
        &self,
        what: &str,
        api: &Api<K>,
        params: ListParams,
    ) -> Result<Vec<K>, AskError> {
        let (mut params, mut items) = (params.limit(PAGE), Vec::new());
        loop {
            let page = self.ask(what, api.list(&params)).await?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(items),
            }
        }
    }
}

/// Why no client can be made of a configuration. What kube says of a proxy has its URL, and with it the password.
fn unusable(error: &kube::Error) -> String {
    match error {
        kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. } => {
            "it names a proxy (proxy-url, or HTTPS_PROXY), and this program uses none: unset HTTPS_PROXY"
                .into()
        }
        error => error.to_string(),
    }
}

async fn config(args: &ClusterArgs) -> Result<Config, OsvcError> {
    if args.context.is_none() && args.kubeconfig.is_none() {
        return Ok(args.client.config().await?);
    }
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(path) => match Kubeconfig::read_from(path) {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&options).await,
    };
    config.map_err(|error| OsvcError::Kubeconfig(with_causes(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_proxy_that_cannot_be_used_no_password_is_told() {
        let proxy_url = Box::new("http://user:secret@proxy.example".parse().unwrap());
        let told = unusable(&kube::Error::ProxyProtocolUnsupported { proxy_url });
        assert!(told.contains("HTTPS_PROXY") && !told.contains("secret"), "{told}");
    }
}
