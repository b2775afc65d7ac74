//! Completion by kubectl: the candidates for the word that is typed after `kubectl osvc`.
//!
//! kubectl runs a file `kubectl_complete-osvc` with the words so far, the last of which may be empty, and reads from it a
//! candidate a line and, in the last line, what the shell is to do. That file calls the plugin with [`COMPLETE`] before the words.
//! Commands and flags are those of the command line as it is; names are asked of the cluster that the words name.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write,
    time::Duration,
};

use clap::{Command, FromArgMatches};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete as candidates};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use tokio::{runtime::Builder, time::timeout};

use super::cluster::{Cluster, ClusterArgs};
use crate::crd::OrdersService;

/// What comes before the words, as in programs that are made with Cobra.
pub const COMPLETE: &str = "__complete";

/// How long a shell waits for names. Whoever presses Tab again asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bits of Cobra's ShellCompDirective: not to add a space, and not to offer files where there is no candidate.
const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;

/// A flag that only commands with [`ClusterArgs`] have.
const OF_CLUSTER: &str = "as_user";

/// The candidates for the last of `words`, and what the shell is to do with them, in the form of Cobra.
#[must_use]
pub fn complete(command: Command, mut words: Vec<OsString>) -> String {
    if words.is_empty() {
        words.push(OsString::new());
    }
    let at = words.len();
    words.insert(0, command.get_name().into());
    let typed = words[at].to_string_lossy().into_owned();
    let mut command = with_names(command.clone(), cluster_args(command, &words[..at]));
    let folder = env::current_dir().ok();
    let found = candidates(&mut command, words, at, folder.as_deref()).unwrap_or_default();
    printed(&found, &typed)
}

/// The candidates in the form of Cobra.
fn printed(found: &[CompletionCandidate], typed: &str) -> String {
    let is_flag = typed.starts_with('-');
    // Shells replace only what follows the `=`.
    let before = if is_flag { typed.find('=').map_or("", |at| &typed[..=at]) } else { "" };
    let (mut text, mut directive) = (String::new(), NO_FILES);
    for candidate in found {
        let value = candidate.get_value().to_string_lossy();
        // As kubectl: flags only where a flag is begun.
        if value.starts_with('-') && !is_flag {
            continue;
        }
        let value = value.strip_prefix(before).unwrap_or(&value);
        if value.ends_with('/') {
            directive |= NO_SPACE;
        }
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = match help.lines().next() {
            Some(help) => writeln!(text, "{value}\t{help}"),
            None => writeln!(text, "{value}"),
        };
    }
    let _ = writeln!(text, ":{directive}");
    text
}

/// The way to the API server that the words name; none if their command does not go there.
fn cluster_args(command: Command, words: &[OsString]) -> Option<ClusterArgs> {
    let named = |name: &str| command.find_subcommand(name).cloned();
    let matches = command.clone().ignore_errors(true).try_get_matches_from(words).ok()?;
    let (name, matches) = matches.subcommand()?;
    let goes_there = named(name)?.get_arguments().any(|arg| arg.get_id() == OF_CLUSTER);
    goes_there.then(|| ClusterArgs::from_arg_matches(matches).ok())?
}

/// The command whose arguments have their candidates from the cluster, where they are names of something in it.
fn with_names(command: Command, cluster: Option<ClusterArgs>) -> Command {
    let Some(cluster) = cluster else { return command };
    let namespaces = of_cluster(cluster.clone(), |of| {
        Api::all_with(of.client.clone(), &ApiResource::erase::<Namespace>(&()))
    });
    let services = of_cluster(cluster, |of| {
        let resource = ApiResource::erase::<OrdersService>(&());
        Api::namespaced_with(of.client.clone(), &of.namespace, &resource)
    });
    command.mut_subcommands(|command| {
        if command.get_arguments().all(|arg| arg.get_id() != OF_CLUSTER) {
            return command;
        }
        command.mut_args(|arg| match arg.get_id().as_str() {
            "namespace" | "operator_namespace" => arg.add(namespaces.clone()),
            "name" => arg.add(services.clone()),
            _ => arg,
        })
    })
}

/// The names of what `api` lists; none where it cannot be listed, since nobody reads an error while typing.
fn of_cluster(args: ClusterArgs, api: fn(&Cluster) -> Api<DynamicObject>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let names = async {
            let cluster = Cluster::of(&args).await.ok()?;
            let listed = cluster.list("list names", &api(&cluster), ListParams::default()).await.ok()?;
            Some(listed.iter().map(ResourceExt::name_any).collect::<Vec<_>>())
        };
        let runtime = Builder::new_current_thread().enable_all().build().ok();
        let names =
            runtime.and_then(|runtime| runtime.block_on(async { timeout(PATIENCE, names).await.ok()? }));
        let typed = typed.to_string_lossy();
        let begun = names.unwrap_or_default().into_iter().filter(|name| name.starts_with(&*typed));
        begun.map(CompletionCandidate::new).collect()
    })
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Parser)]
    #[command(name = "kubectl-osvc")]
    struct Plugin {
        #[command(subcommand)]
        _command: PluginCommand,
    }

    #[derive(Subcommand)]
    enum PluginCommand {
        #[command(flatten)]
        Osvc(crate::osvc::OsvcCommand),
    }

    fn of(words: &[&str]) -> String {
        complete(<Plugin as clap::CommandFactory>::command(), words.iter().map(Into::into).collect())
    }

    #[test]
    fn commands_come_with_the_first_line_of_their_help_and_flags_only_where_one_is_begun() {
        assert_eq!(
            of(&["st"]),
            "status\tShow one OrdersService: conditions, routes in order, pods, expiry and events\n:4\n"
        );
        for nothing_typed in [&[][..], &[""]] {
            let all = of(nothing_typed);
            assert!(all.contains("\nexplain\t") && !all.contains("\n-") && all.ends_with("\n:4\n"), "{all}");
        }
        assert_eq!(
            of(&["sweep", "orders", "--dr"]),
            "--dry-run\tOnly count the orders that are due; nothing is changed\n:4\n"
        );
    }

    #[test]
    fn a_value_follows_its_flag_or_its_equals_sign_without_the_flag() {
        for words in [&["status", "-o", ""][..], &["status", "--output", ""], &["status", "--output="]] {
            assert_eq!(
                of(words),
                "text\tFor people\njson\tFor programs\nyaml\tThe same as YAML\n:4\n",
                "{words:?}"
            );
        }
        assert_eq!(of(&["status", "orders", "--output=j"]), "json\tFor programs\n:4\n");
    }

    #[test]
    fn a_folder_is_a_candidate_that_goes_on() {
        let paths = of(&["status", "--kubeconfig", "sr"]);
        assert_eq!(paths, "src/\n:6\n");
    }

    #[test]
    fn without_an_answer_there_are_no_names_and_no_error() {
        let flags = ["status", "--kubeconfig", "/nonexistent", ""];
        assert_eq!(of(&flags), ":4\n");
        assert_eq!(of(&["sweep", "-n", "x", "--kubeconfig=/nonexistent", "o"]), ":4\n");
    }
}
