//! The results: a table, and a JSON file.

use std::{collections::BTreeMap, fs, thread, time::SystemTime};

use serde_json::{Value, json};

use crate::{
    Load, Result,
    measure::{Sample, median},
    process::folder,
};

/// The medians of the rounds of one side: the API, or the database alone.
struct Side {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: BTreeMap<&'static str, f64>,
}

impl Side {
    fn new(samples: &[Sample]) -> Option<Self> {
        let first = samples.first()?;
        let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field));
        let cpu = first.cpu.keys().map(|who| (*who, median(samples.iter().map(|sample| sample.cpu[who]))));
        Some(Self {
            rate: of(|sample| sample.rate),
            p50: of(|sample| sample.p50 / 1e3),
            p99: of(|sample| sample.p99 / 1e3),
            cpu: cpu.collect(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "requests_per_second": self.rate, "p50_ms": self.p50, "p99_ms": self.p99,
            "cpu_us_per_request": self.cpu,
        })
    }
}

/// One route.
pub struct Line {
    name: &'static str,
    api: Option<Side>,
    ceiling: Option<Side>,
    /// The median of the ratios of each round, whose sides ran one after the other.
    ratio: Option<f64>,
    rates: Value,
}

impl Line {
    pub fn new(name: &'static str, api: &[Sample], ceiling: &[Sample]) -> Self {
        let ratios = api.iter().zip(ceiling).map(|(api, ceiling)| api.rate / ceiling.rate);
        let rates = |samples: &[Sample]| samples.iter().map(|sample| sample.rate).collect::<Vec<_>>();
        Self {
            name,
            api: Side::new(api),
            ceiling: Side::new(ceiling),
            ratio: (!ceiling.is_empty()).then(|| median(ratios)),
            rates: json!({ "api": rates(api), "ceiling": rates(ceiling) }),
        }
    }
}

/// Prints each result, and writes the file at the end.
pub struct Report {
    name: &'static str,
    content: Value,
}

impl Report {
    pub fn new(load: &Load) -> Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo")?;
        let processor =
            processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let content = json!({
            "machine": { "processor": processor, "cores": thread::available_parallelism()?.get() },
            "seconds": load.seconds, "rounds": load.rounds, "connections": load.connections,
            "results": [],
        });
        Ok(Self { name: "api", content })
    }

    /// The results with this number of stored orders.
    pub fn add(&mut self, stored: u64, lines: Vec<Line>, (end, peak): (u64, u64)) {
        println!(
            "\n{stored} orders stored; memory of serve {:.1} MB, at its peak {:.1} MB",
            mb(end),
            mb(peak)
        );
        println!("{:10}{:>27}{:>32}{:>8}   CPU of an API request, µs", "", "API", "the database alone", "");
        let columns = "requests/s  p50 ms  p99 ms";
        let who = ["API", "generator", "ferretdb", "postgres"];
        let header: String = who.iter().map(|name| format!("{name:>10}")).collect();
        println!("{:10} {columns}      {columns}   ratio {header}", "");
        for line in &lines {
            let Some(api) = &line.api else { continue };
            let cpu: String = who
                .iter()
                .map(|name| api.cpu.get(name).map_or(format!("{:>10}", "-"), |spent| format!("{spent:10.0}")))
                .collect();
            println!(
                "{:10} {} {:>32} {:>7} {cpu}",
                line.name,
                columns_of(api),
                line.ceiling.as_ref().map_or("-".into(), columns_of),
                line.ratio.map_or("-".into(), |ratio| format!("{:.0} %", ratio * 100.0)),
            );
        }
        let routes: Vec<_> = lines
            .iter()
            .map(|line| {
                json!({
                    "route": line.name, "api": line.api.as_ref().map(Side::json),
                    "ceiling": line.ceiling.as_ref().map(Side::json), "ratio": line.ratio, "rates": line.rates,
                })
            })
            .collect();
        if let Some(results) = self.content["results"].as_array_mut() {
            results.push(json!({ "orders": stored, "routes": routes, "rss_kb": end, "peak_rss_kb": peak }));
        }
    }

    pub fn finish(&self) -> Result<()> {
        write(self.name, &self.content)
    }
}

/// Writes results to a new file, whose name has the time.
pub fn write(name: &str, content: &Value) -> Result<()> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let file = folder()?.join(format!("{name}-{seconds}.json"));
    fs::write(&file, serde_json::to_vec_pretty(content)?)?;
    println!("\nAll results as JSON: {}", file.display());
    Ok(())
}

fn columns_of(side: &Side) -> String {
    format!("{:10.0} {:7.2} {:7.2}", side.rate, side.p50, side.p99)
}

/// Kilobytes as megabytes.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn mb(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1000.0
}
