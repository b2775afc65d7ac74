//! The command line of `render`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::controller::args::HostPolicy;

/// The forms of the drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DrawingFormat {
    /// For people.
    #[default]
    Text,
    /// A flow chart, as pull requests show it.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// For programs.
    Json,
}

/// Print the children that the controller would apply, without a cluster.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 if everything is valid, 1 if something is not, and then nothing is rendered, 2 for a wrong \
                  command line"
)]
pub struct RenderArgs {
    /// YAML files, folders of them, or - for the standard input. Of other kinds of objects in them, Ingresses and
    /// HTTPRoutes count where they claim the same routes; the rest is ignored
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Image for OrdersServices that name none, as the controller has it
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Whether to leave the user and group of pods unset by default, as for the controller
    #[arg(long, env = "USER_FROM_CLUSTER", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub user_from_cluster: bool,

    /// Whether Traefik has its option safeNaming, as the controller has it
    #[arg(long, env = "TRAEFIK_SAFE_NAMING", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub traefik_safe_naming: bool,

    /// Namespace of resources that name none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Who may have routes on a host, as the controller has it
    #[arg(long, env = "HOST_POLICY", value_name = "POLICY", value_enum, default_value_t)]
    pub host_policy: HostPolicy,

    /// YAML file with the hosts that each namespace may have, as the controller has it
    #[arg(long, env = "HOSTS_FILE", value_name = "FILE")]
    pub hosts_file: Option<PathBuf>,

    /// In place of the children, say which rule a request takes and why: /PATH for every host, HOST/PATH, or
    /// a URL. Without a value, and after the files, draw all hosts, their rules in order, and who else claims what
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    pub explain: Option<Option<String>>,

    /// The form of the drawing
    #[arg(long, value_enum, requires = "explain", default_value_t)]
    pub format: DrawingFormat,
}
