//! What this process may use: open files and memory.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// How many files and sockets may be open.
    pub open_files: u64,
    /// How many bytes of memory it may have, if that is limited: in a pod, the container's limit.
    pub memory: Option<u64>,
}

impl Resources {
    /// What this process may use, after it has raised its limit of open files as far as it may.
    ///
    /// Container runtimes start processes with a soft limit of 1024, since old programs use `select`, and leave it to the
    /// others to raise it.
    pub fn claim() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let open_files = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => raised.current,
            Err(error) => {
                tracing::debug!(%error, "cannot raise the limit of open files");
                limit.current
            }
        };
        Self {
            open_files: open_files.unwrap_or(u64::MAX),
            memory: memory_limit(|file| fs::read_to_string(file).ok()),
        }
    }
}

/// The smallest of the limits of this process's control group, in either version. A container may see its own group as the
/// root, whatever its path is.
fn memory_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let files = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        vec![format!("{root}{path}/{file}"), format!("{root}/{file}")]
    });
    let limits = files.filter_map(|file| read(&file)?.trim().parse().ok());
    // Version 1 writes the largest number of whole pages where there is no limit.
    limits.filter(|limit| *limit < u64::MAX / 4).min()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        memory_limit(|file| files.get(file).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_limit_of_the_containers_group_is_found_in_both_versions() {
        let (two, one) = ("0::/kubepods/pod1/c1\n", "5:cpu,cpuacct:/x\n4:memory:/docker/c1\n0::/\n");
        for (groups, file) in [
            (two, "/sys/fs/cgroup/kubepods/pod1/c1/memory.max"),
            (two, "/sys/fs/cgroup/memory.max"),
            ("0::/\n", "/sys/fs/cgroup/memory.max"),
            (one, "/sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes"),
            (one, "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ] {
            assert_eq!(
                limit(&[("/proc/self/cgroup", groups), (file, "134217728\n")]),
                Some(134_217_728),
                "{file}"
            );
            assert_eq!(limit(&[("/proc/self/cgroup", groups), (file, "max\n")]), None, "{file}");
            assert_eq!(
                limit(&[("/proc/self/cgroup", groups), (file, "9223372036854771712\n")]),
                None,
                "{file}"
            );
        }
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[("/proc/self/cgroup", "\nnonsense\n:::\n0::")]), None);
    }

    #[test]
    fn this_process_gets_all_the_open_files_that_it_may_have() {
        let claimed = Resources::claim();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(claimed.open_files, limit.current.unwrap_or(u64::MAX));
    }
}
