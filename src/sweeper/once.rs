//! The one-shot mode: sweeps or counts what is due now, and prints a summary.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::{Client, ResourceExt, api::ListParams, core::DeserializeGuard};
use prometheus_client::registry::Registry;

use super::{
    args::SweeperArgs,
    error::SweeperError,
    lookahead::DEFAULT_MAX_SLEEP,
    metrics::{Metrics, TargetMetrics},
    peers::Schedule,
    resolve::Resolver,
    sweep::Sweep,
    targets::{Target, resource_key},
};
use crate::{
    crd::{OrdersService, without_value},
    runtime::{Escape, cluster, watch},
    store::{Pools, StoreError},
};

/// The longest that a list of OrdersServices may take, which the client sends again where the API server is too busy.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// How many databases are swept at the same time.
const CONCURRENCY: usize = 16;

/// Sweeps or counts, and prints a summary.
///
/// # Errors
/// When the targets cannot be determined, or some could not be swept.
pub async fn run(args: &SweeperArgs) -> Result<(), SweeperError> {
    let (targets, unresolved) = targets(args).await?;
    process_all(targets, unresolved, args.dry_run).await
}

/// The OrdersService whose database is swept.
#[derive(Clone, Copy, Debug)]
pub struct One<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How long the API server may take for each Secret.
    pub call_timeout: Duration,
}

/// The same for the database of one OrdersService. Others of its namespace may share the database, so `services` are all that
/// there are: the most cautious of their settings holds.
///
/// # Errors
/// When there is no such resource, or it is being deleted, or its database could not be swept.
pub async fn run_one(
    client: Client,
    services: Vec<DeserializeGuard<OrdersService>>,
    one: &One<'_>,
    dry_run: bool,
) -> Result<(), SweeperError> {
    let One { namespace, name, call_timeout } = *one;
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let key = format!("{namespace}/{name}");
    let found = services.iter().find(|guarded| guarded.name_any() == name);
    let service = found.ok_or_else(|| SweeperError::NoSuchService(key.clone()))?;
    if let Err(error) = &service.0 {
        return Err(SweeperError::Unreadable(key, without_value(&error.error)));
    }
    let mut resolver = Resolver::new(client).with_call_timeout(call_timeout);
    let mut targets: Vec<_> = resolver.resolve(&services, |_| false).await.into_values().collect();
    targets.retain(|target| target.resources.contains(&key));
    let mut unresolved = unresolved(&services, &resolver);
    unresolved.retain(|(other, _)| *other == key);
    // It was found above, and only one that is being deleted has neither a target nor a reason.
    if targets.is_empty() && unresolved.is_empty() {
        return Err(SweeperError::BeingDeleted(key));
    }
    process_all(targets, unresolved, dry_run).await
}

async fn process_all(
    targets: Vec<Target>,
    unresolved: Vec<(String, String)>,
    dry_run: bool,
) -> Result<(), SweeperError> {
    let metrics = Metrics::register(&mut Registry::default());
    let pools = Pools::guarded();
    let mut lines: Vec<_> =
        unresolved.into_iter().map(|(name, why)| Line { name, result: TargetResult::Failed(why) }).collect();
    let results = stream::iter(targets).map(|target| {
        let (metrics, pools) = (metrics.of(&target.key), &pools);
        async move {
            let result = process(&target, dry_run, &metrics, pools).await;
            Line { name: target.key.to_string(), result }
        }
    });
    lines.extend(results.buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await);
    lines.sort_by(|left, right| left.name.cmp(&right.name));
    let summary = Summary { lines, only_counted: dry_run };
    // That the reader has closed the pipe is not an error.
    for line in summary.to_string().lines() {
        drop(writeln!(io::stdout(), "{}", Escape::Text.line(line)));
    }
    match summary.failed() {
        0 => Ok(()),
        failed => Err(SweeperError::Incomplete { failed, all: summary.lines.len() }),
    }
}

/// The targets, and the resources whose target cannot be determined, each with the reason.
async fn targets(args: &SweeperArgs) -> Result<(Vec<Target>, Vec<(String, String)>), SweeperError> {
    if let Some(target) = args.target()? {
        return Ok((vec![target], Vec::new()));
    }
    let client = cluster(&args.client, &args.watch).await?;
    let mut all = Vec::new();
    for namespace in watch::scopes(&args.namespace) {
        all.extend(services(&client, namespace.as_deref()).await?);
    }
    let mut resolver = Resolver::new(client);
    let targets = resolver.resolve(&all, |_| false).await;
    Ok((targets.into_values().collect(), unresolved(&all, &resolver)))
}

/// The OrdersServices of a namespace, or of all.
async fn services(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<Arc<DeserializeGuard<OrdersService>>>, SweeperError> {
    let api = watch::api::<DeserializeGuard<OrdersService>>(client, namespace);
    let of = || namespace.map(|name| format!(" of namespace {name}")).unwrap_or_default();
    let listed = tokio::time::timeout(LIST_TIMEOUT, api.list(&ListParams::default()))
        .await
        .map_err(|_| SweeperError::ListTimeout(of(), LIST_TIMEOUT.as_secs()))?
        .map_err(|error| SweeperError::List(of(), error))?;
    Ok(listed.items.into_iter().map(Arc::new).collect())
}

/// The resources whose target cannot be determined, each with the reason.
fn unresolved(
    services: &[Arc<DeserializeGuard<OrdersService>>],
    resolver: &Resolver,
) -> Vec<(String, String)> {
    let reason = |guarded: &Arc<DeserializeGuard<OrdersService>>| {
        let key = resource_key(guarded.0.as_ref().ok()?);
        let why = resolver.target_of(&key)?.err()?.message.clone();
        Some((key, why))
    };
    services.iter().filter_map(reason).collect()
}

async fn process(target: &Target, only_count: bool, metrics: &TargetMetrics, pools: &Pools) -> TargetResult {
    if target.suspended {
        return TargetResult::Suspended;
    }
    let mut sweep = match Sweep::connect(target, owner(), pools).await {
        Ok(sweep) => sweep,
        Err(error) => return TargetResult::Failed(error.to_string()),
    };
    let result = if only_count {
        sweep.count_overdue(metrics).await.map(TargetResult::Counted)
    } else {
        sweep_all(&mut sweep, target, metrics).await
    };
    sweep.close().await;
    result.unwrap_or_else(|error| TargetResult::Failed(error.to_string()))
}

/// The schedule of a sweeper without peers.
fn owner() -> Schedule {
    Schedule::of_rank(0, DEFAULT_MAX_SLEEP)
}

async fn sweep_all(
    sweep: &mut Sweep,
    target: &Target,
    metrics: &TargetMetrics,
) -> Result<TargetResult, StoreError> {
    let started = Instant::now();
    sweep.prepare(target).await?;
    let (mut expired, mut conflicts) = (0, 0);
    loop {
        let step = sweep.step(target, metrics).await?;
        expired += step.expired;
        conflicts += step.attempted.saturating_sub(step.expired);
        if !step.is_backlog {
            return Ok(TargetResult::Swept { expired, conflicts, took: started.elapsed() });
        }
        tokio::time::sleep(step.pause).await;
    }
}

/// The result for one database.
#[derive(Debug)]
enum TargetResult {
    Swept { expired: u64, conflicts: u64, took: Duration },
    Counted(u64),
    Suspended,
    Failed(String),
}

/// A line of the summary: a database, or a resource whose database cannot be determined.
#[derive(Debug)]
struct Line {
    name: String,
    result: TargetResult,
}

#[derive(Debug)]
struct Summary {
    lines: Vec<Line>,
    /// Whether nothing was to be cancelled.
    only_counted: bool,
}

impl Summary {
    fn failed(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.result, TargetResult::Failed(_))).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut expired, mut due) = (0, 0);
        for Line { name, result } in &self.lines {
            match result {
                TargetResult::Swept { expired: now, conflicts, took } => {
                    expired += now;
                    write!(f, "{name}: {} expired in {:.1} s", orders(*now), took.as_secs_f64())?;
                    if *conflicts > 0 {
                        write!(f, ", {} moved meanwhile", orders(*conflicts))?;
                    }
                    writeln!(f)?;
                }
                TargetResult::Counted(now) => {
                    due += now;
                    writeln!(f, "{name}: {} due", orders(*now))?;
                }
                TargetResult::Suspended => writeln!(f, "{name}: suspended, left alone")?,
                TargetResult::Failed(why) => writeln!(f, "{name}: failed: {why}")?,
            }
        }
        let what = if self.only_counted {
            format!("{} due", orders(due))
        } else {
            format!("{} expired", orders(expired))
        };
        let (all, failed) = (self.lines.len(), self.failed());
        write!(f, "{what} in {all} {}, {failed} failed", if all == 1 { "database" } else { "databases" })
    }
}

fn orders(count: u64) -> String {
    format!("{count} {}", if count == 1 { "order" } else { "orders" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_line_for_each_database_and_a_total() {
        let line = |name: &str, result| Line { name: name.into(), result };
        let swept = TargetResult::Swept { expired: 1, conflicts: 2, took: Duration::from_millis(1250) };
        let failed = || line("c/orders", TargetResult::Failed("the database is unavailable".into()));
        let lines = vec![line("a/orders", swept), line("b/orders", TargetResult::Suspended), failed()];
        let summary = Summary { lines, only_counted: false };
        assert_eq!(
            summary.to_string(),
            "a/orders: 1 order expired in 1.2 s, 2 orders moved meanwhile\n\
             b/orders: suspended, left alone\n\
             c/orders: failed: the database is unavailable\n\
             1 order expired in 3 databases, 1 failed"
        );
        let counted = |lines| Summary { lines, only_counted: true }.to_string();
        let twelve = vec![line("a/orders", TargetResult::Counted(12))];
        assert_eq!(counted(twelve), "a/orders: 12 orders due\n12 orders due in 1 database, 0 failed");
        let away = "c/orders: failed: the database is unavailable\n0 orders due in 1 database, 1 failed";
        assert_eq!(counted(vec![failed()]), away);
    }
}
