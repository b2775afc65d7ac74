//! The command line of `migrate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::judge;

/// Translate the manifests of a hand-written system into an OrdersService
///
/// It reads the Ingress (in every version of its API), the Deployment and the Service of the Node.js orders service, beside
/// whatever else is in the files, and prints an OrdersService with the Secrets that it needs. What changes, what is left out
/// and what is left to do is in comments, and in a table on the standard error. It changes nothing.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct MigrateArgs {
    /// YAML files, folders of them with what is below (but for hidden ones), or - for the standard input. Of a skaffold.yaml,
    /// the manifests that it lists are read too
    #[arg(value_name = "FILE", required_unless_present = "from_cluster", conflicts_with = "from_cluster")]
    pub inputs: Vec<PathBuf>,

    /// Read the Ingresses, Deployments, Services, ConfigMaps and autoscalers of a namespace of the current cluster instead; no
    /// Secret is read
    #[arg(long)]
    pub from_cluster: bool,

    /// Namespace of the system [default: that of the objects, or, with --from-cluster, that of the kubeconfig]
    #[arg(long, short, value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,

    /// Name of the Service of the orders [default: the one that /api/orders leads to, or that is named so]
    #[arg(long, value_name = "SERVICE")]
    pub orders: Option<String>,

    /// Name of the OrdersService, and so of everything that is made for it [default: orders, or if that is taken, orders-api]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,

    /// For pods beside the old ones, on the same database or on a copy: leave events out, and suspend the sweeper
    #[arg(long)]
    pub passive: bool,

    /// Host to use instead of those of the Ingress, for a trial beside the old system, or where the Ingress has none;
    /// may be repeated. A host of the Ingress keeps its routes; another gets those of the host OLD, if given as
    /// OLD=HOST, or else those of the host with the client
    #[arg(long = "host", value_name = "[OLD=]HOST", value_parser = host)]
    pub hosts: Vec<String>,
}

fn namespace(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(is_allowed)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_label {
        Ok(text.to_owned())
    } else {
        Err("no namespace can have that name: at most 63 lower-case letters, digits and -, such as ticketing"
            .into())
    }
}

fn name(text: &str) -> Result<String, String> {
    judge::of_name(text).into_iter().next().map_or_else(|| Ok(text.to_owned()), Err)
}

fn host(text: &str) -> Result<String, String> {
    let new = text.split_once('=').map_or(text, |(_, new)| new);
    let problem = judge::of_ingress(json!({"hosts": [new]})).into_iter().next();
    problem.map_or_else(|| Ok(text.to_owned()), Err)
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
Exit status:
  0   everything is translated
  1   nothing is translated: an input cannot be read, or no orders service is in it
  2   the command line is wrong
  3   it is translated, except what the table lists as left, for you to decide

Examples:
  orders-operator migrate infra/k8s infra/k8s-prod > orders.yaml
  orders-operator migrate skaffold.yaml > orders.yaml
  orders-operator migrate --from-cluster -n ticketing > orders.yaml
  helm template . | orders-operator migrate - > orders.yaml
  orders-operator migrate infra/k8s --passive > orders-first.yaml
  orders-operator render orders.yaml --default-image orders:1   what it becomes";
