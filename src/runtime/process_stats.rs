//! What every process says of itself on `/metrics`, under the names that Prometheus's own client libraries use: its version,
//! and what it takes of the machine.

use std::{fmt, fs};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use rustix::process::{Resource, getrlimit};

use super::telemetry;

/// In how many parts of a second the kernel tells programs how long they have run: `USER_HZ`, the same on all
/// architectures that Kubernetes runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers what every process has: its version, what it takes of the machine, and what is counted of its log.
pub fn register(registry: &mut Registry) {
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("orders_operator_build", "The version of the program", version);
    registry.register_collector(Box::new(Process { started: Timestamp::now() }));
    telemetry::register(registry);
}

/// This process, which is looked at whenever the metrics are read.
#[derive(Debug)]
struct Process {
    started: Timestamp,
}

/// What a process has taken of the machine; nothing where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    open_files: Option<f64>,
    most_open_files: Option<f64>,
}

impl Usage {
    fn now() -> Self {
        let (stat, status) = (fs::read_to_string("/proc/self/stat"), fs::read_to_string("/proc/self/status"));
        // The folder itself is open while it is read.
        let open_files =
            fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64);
        let most_open_files = getrlimit(Resource::Nofile).current.map(|files| files as f64);
        Self {
            open_files,
            most_open_files,
            ..Self::of(&stat.unwrap_or_default(), &status.unwrap_or_default())
        }
    }

    /// From the contents of `/proc/self/stat` and `/proc/self/status`.
    fn of(stat: &str, status: &str) -> Self {
        // The name, which may have any character, is in parentheses; after it come the third field and the others.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = |field: usize| fields.split_whitespace().nth(field - 3)?.parse::<f64>().ok();
        let (user, system) = (ticks(14), ticks(15));
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse::<f64>().ok()
        };
        let bytes = |name| number(name).map(|kilobytes| kilobytes * 1024.0);
        Self {
            cpu_seconds: user.zip(system).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: bytes("VmRSS"),
            virtual_bytes: bytes("VmSize"),
            threads: number("Threads"),
            ..Self::default()
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let usage = Usage::now();
        if let Some(seconds) = usage.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = "How long the processors have worked for this process.";
            let unit = Some(&Unit::Seconds);
            counter.encode(encoder.encode_descriptor("process_cpu", help, unit, counter.metric_type())?)?;
        }
        let started = Some(self.started.as_duration().as_secs_f64());
        for (name, unit, help, value) in [
            (
                "process_resident_memory",
                Some(Unit::Bytes),
                "Memory that the process has.",
                usage.resident_bytes,
            ),
            (
                "process_virtual_memory",
                Some(Unit::Bytes),
                "Address space of the process.",
                usage.virtual_bytes,
            ),
            ("process_threads", None, "Threads of the process.", usage.threads),
            ("process_open_fds", None, "Files and sockets that are open.", usage.open_files),
            ("process_max_fds", None, "How many may be open.", usage.most_open_files),
            ("process_start_time", Some(Unit::Seconds), "Unix time at which the process began.", started),
        ] {
            let Some(gauge) = value.map(ConstGauge::new) else { continue };
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_whatever_the_name_of_the_program_is() {
        let stat =
            "7 (an (odd) name 1 2) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 5 0 1234 999424 321 1";
        let status =
            "Name:\tan (odd) name\nVmPeak:\t  9 kB\nVmSize:\t  976 kB\nVmRSS:\t  12 kB\nThreads:\t5\n";
        let expected = Usage {
            cpu_seconds: Some(4.0),
            resident_bytes: Some(12_288.0),
            virtual_bytes: Some(999_424.0),
            threads: Some(5.0),
            ..Usage::default()
        };
        assert_eq!(Usage::of(stat, status), expected);
        for (stat, status) in [("", ""), ("7 (a", "VmRSS"), ("7 (a) S x y", "VmRSS: many kB\nThreads:\n")] {
            assert_eq!(Usage::of(stat, status), Usage::default(), "{stat:?} {status:?}");
        }
    }

    #[test]
    fn every_process_has_its_version_and_what_it_takes_on_its_page() {
        let mut registry = Registry::default();
        register(&mut registry);
        let before = Timestamp::now();
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}: {page}"))
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(value(&format!("orders_operator_build_info{{version=\"{version}\"}}")), 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        let open = value("process_open_fds");
        assert!(open >= 3.0 && open <= value("process_max_fds"), "{open}");
        let age = before.as_duration().as_secs_f64() - value("process_start_time_seconds");
        assert!((0.0..60.0).contains(&age), "{age}");
    }
}
