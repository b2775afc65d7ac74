//! The version of Kubernetes.

use super::report::Group;
use crate::osvc::cluster::Cluster;

/// The oldest version of Kubernetes that is claimed to do. docs/versions.md and the chart say the same.
pub const MIN_KUBERNETES: (u32, u32) = (1, 30);

/// Whether the API server answers, and is new enough.
pub(super) async fn check(cluster: &Cluster) -> Group {
    let mut group = Group::new("Kubernetes");
    match cluster.ask("read the version of the API server", cluster.client.apiserver_version()).await {
        Ok(info) => judge(&mut group, &info.major, &info.minor, &info.git_version),
        Err(error) => group.failure(
            error.to_string(),
            "see whether `kubectl version` gets an answer; --context names another cluster",
        ),
    }
    group
}

fn judge(group: &mut Group, major: &str, minor: &str, version: &str) {
    let (needed_major, needed_minor) = MIN_KUBERNETES;
    // Some providers write `30+`.
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    match number(major).zip(number(minor)) {
        Some(found) if found >= MIN_KUBERNETES => group.ok(format!("the API server is of version {version}")),
        Some(_) => group.failure(
            format!("the API server is of version {version}"),
            format!("upgrade the cluster: {needed_major}.{needed_minor} is the oldest that does"),
        ),
        None => group.warning(
            format!(
                "the API server says that it is of version {version:?}, which is not a version of Kubernetes"
            ),
            format!("see that it is {needed_major}.{needed_minor} or newer"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        for (major, minor, is_new) in
            [("1", "34", true), ("1", "30+", true), ("2", "0", true), ("1", "29", false), ("1", "9", false)]
        {
            let mut group = Group::new("");
            judge(&mut group, major, minor, "v");
            assert_eq!(group.fails(), !is_new, "{major}.{minor}");
        }
        let mut group = Group::new("");
        judge(&mut group, "1", "x", "v");
        let mut expected = Group::new("");
        expected.warning(
            "the API server says that it is of version \"v\", which is not a version of Kubernetes",
            "see that it is 1.30 or newer",
        );
        assert_eq!(group, expected);
    }
}
