//! The command line of the controller.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::{
    routing,
    runtime::{client::ClientArgs, server::ListenArgs, telemetry::LogArgs, watch::WatchArgs},
};

/// Reconciles OrdersServices: creates their children, and keeps these as the spec says
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Image for OrdersServices that name none; usually the image that this controller itself runs
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Whether to leave the user and group of pods unset where an OrdersService does not say otherwise, so that the
    /// cluster assigns them, as OpenShift does
    #[arg(long, env = "USER_FROM_CLUSTER", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub user_from_cluster: bool,

    /// Whether Traefik's provider kubernetesCRD has its option safeNaming, which changes how it names Middlewares
    #[arg(long, env = "TRAEFIK_SAFE_NAMING", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub traefik_safe_naming: bool,

    /// Namespace to watch; repeat it, or separate several by commas. Default: all
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,

    /// How many OrdersServices are reconciled at the same time
    #[arg(long, env = "CONCURRENCY", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,

    /// Seconds after which a Secret that OrdersServices refer to is read again; a change rolls the pods
    #[arg(long, env = "SECRET_REFRESH_SECONDS", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub secret_refresh: u32,

    /// When the default image is a new one: how many OrdersServices that name none are moved to it at the same time
    #[arg(long, env = "ROLLOUT_MAX_CONCURRENT", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub rollout_max_concurrent: u16,

    /// Seconds that the pods of one of these must have served without interruption before the next one is moved
    #[arg(long, env = "ROLLOUT_PAUSE_SECONDS", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub rollout_pause: u32,

    /// Number of these that fail with it, for example because pods crash, at which no more are moved
    #[arg(long, env = "ROLLOUT_STOP_AFTER_FAILURES", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub rollout_stop_after_failures: u16,

    /// Whether an OrdersService is ready only once a sweeper has reported on it; false is for a controller without a sweeper,
    /// whose orders never expire
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub await_sweeper: bool,

    /// Who may have routes on a host: every namespace, or the one that was first to claim it, a wildcard above it
    /// or a host below it
    #[arg(long, env = "HOST_POLICY", value_name = "POLICY", value_enum, default_value_t)]
    pub host_policy: HostPolicy,

    /// Whether to watch the IngressClasses, which needs a right over the whole cluster. Without it, no class is
    /// checked, and routes of the default class count as routes of no class
    #[arg(long, env = "INGRESS_CLASSES", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub ingress_classes: bool,

    /// YAML file with the hosts that each namespace may have, such as {ticketing: [ticketing.dev,
    /// "*.ticketing.dev"]}; no other host gets routes. It is read again when it changes. Default: every host
    #[arg(long, env = "HOSTS_FILE", value_name = "FILE")]
    pub hosts_file: Option<PathBuf>,

    /// Namespace of the Lease for leader election among several controllers. Default: no election, for a
    /// controller that is the only one
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of that Lease
    #[arg(long, env = "LEASE_NAME", value_name = "NAME", default_value = "orders-operator-controller")]
    pub lease_name: String,

    /// Seconds without renewal after which another controller may take over the Lease
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(4..=3600))]
    pub lease_duration: u16,

    /// Seconds without renewal after which a controller that cannot renew its Lease exits; less than --lease-duration
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(3..=3599))]
    pub renew_deadline: u16,

    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", default_value_t = 8081)]
    pub admin_port: u16,

    /// Where that port is opened
    #[command(flatten)]
    pub listen: ListenArgs,

    /// How to reach the API server
    #[command(flatten)]
    pub client: ClientArgs,

    /// The watches on the API server
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Who may have routes on a host.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Every namespace; each path goes to the oldest object that claims it
    #[default]
    Shared,
    /// The namespace that was first to claim the host, or one that overlaps with it
    Namespace,
}

impl From<HostPolicy> for routing::HostPolicy {
    fn from(policy: HostPolicy) -> Self {
        match policy {
            HostPolicy::Shared => Self::Shared,
            HostPolicy::Namespace => Self::Namespace,
        }
    }
}
