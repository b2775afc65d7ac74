//! A closed loop: for some seconds, each client sends its next request as soon as it has the last response.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Barrier, task::JoinSet, time::timeout};

use crate::Result;

/// How much longer than planned a loop may take before the benchmark fails.
const GRACE: Duration = Duration::from_secs(15);

/// A client of the API, or of the database directly.
pub trait Client: Send + 'static {
    /// Sends one request, and checks the response; `false` when there are no more requests.
    fn request(&mut self) -> impl Future<Output = Result<bool>> + Send;
}

/// The measurements of one loop.
#[derive(Debug)]
pub struct Sample {
    /// Responses per second.
    pub rate: f64,
    /// The median latency, in microseconds.
    pub p50: f64,
    /// The 99th percentile of the latency, in microseconds.
    pub p99: f64,
    /// Microseconds of CPU per response, by process.
    pub cpu: BTreeMap<&'static str, f64>,
}

/// Runs `clients` for `length`, and measures the CPU time that `processes` spend meanwhile.
pub async fn closed_loop<C: Client>(
    clients: Vec<C>,
    length: Duration,
    processes: &Processes,
) -> Result<Sample> {
    let barrier = Arc::new(Barrier::new(clients.len() + 1));
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let barrier = barrier.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            barrier.wait().await;
            let started = Instant::now();
            loop {
                let sent = Instant::now();
                if sent - started >= length || !client.request().await? {
                    return Result::Ok(latencies);
                }
                latencies.push(sent.elapsed());
            }
        });
    }
    let before = processes.cpu();
    barrier.wait().await;
    let started = Instant::now();
    let mut latencies = Vec::new();
    while let Some(done) = timeout(length + GRACE, tasks.join_next()).await.map_err(|_| "a request hangs")? {
        latencies.extend(done??);
    }
    let (took, after) = (started.elapsed(), processes.cpu());
    if latencies.is_empty() {
        return Err("there was no response".into());
    }
    latencies.sort_unstable();
    let count = latencies.len();
    let percentile = |percent: usize| latencies[(count * percent / 100).min(count - 1)].as_secs_f64() * 1e6;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let responses = count as f64;
    Ok(Sample {
        rate: responses / took.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
        cpu: after.iter().map(|(who, spent)| (*who, (spent - before[who]) * 1e6 / responses)).collect(),
    })
}

/// The processes whose CPU time is measured, by name.
#[derive(Clone, Default)]
pub struct Processes(pub Vec<(&'static str, u32)>);

impl Processes {
    /// Seconds of CPU time that all have spent so far.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, pid)| self.cpu_of(*pid)).sum()
    }

    /// Seconds of CPU time that each has spent so far, including its children unless they are listed themselves.
    fn cpu(&self) -> BTreeMap<&'static str, f64> {
        self.0.iter().map(|(name, pid)| (*name, self.cpu_of(*pid))).collect()
    }

    /// 0 for a process that has ended.
    fn cpu_of(&self, pid: u32) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // utime, stime, cutime and cstime, in ticks of 10 ms.
        let ticks: f64 = fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let others = children.split_whitespace().filter_map(|child| child.parse().ok());
        let others = others.filter(|child| self.0.iter().all(|(_, listed)| listed != child));
        ticks / 100.0 + others.map(|child| self.cpu_of(child)).sum::<f64>()
    }
}

/// The resident memory of a process in kB: now, and at its peak.
pub fn memory_of(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[even / 2 - 1], values[even / 2]),
        odd => values[odd / 2],
    }
}
