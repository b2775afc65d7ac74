//! Leader election: one writer at a time, and a quick takeover.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, rbac::v1::Role};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use orders_operator::{
    crd::ConditionType,
    runtime::lease::{Candidate, Leadership, LeaseSettings},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    bed::{number, seed},
    cluster::{TestNamespace, eventually},
};

const MONGO: &str = "mongodb://127.0.0.1:1/orders";

/// The holder of the Lease of the chart's controllers.
async fn holder(namespace: &TestNamespace) -> Option<String> {
    let name = format!("{}-orders-operator-controller", namespace.name);
    let lease = namespace.api::<Lease>().get_opt(&name).await.unwrap()?;
    lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

async fn scale(namespace: &TestNamespace, replicas: i32) {
    namespace.apply(&namespace.service("orders", json!({"replicas": replicas}))).await.unwrap();
    eventually("the Deployment has that many replicas", || async {
        let deployment = namespace.api::<Deployment>().get_opt("orders").await.unwrap()?;
        (deployment.spec.unwrap().replicas == Some(replicas)).then_some(())
    })
    .await;
}

/// The settings of a candidate of this process. On a loaded machine a renewal may take many seconds.
fn patient(namespace: &TestNamespace, identity: &str) -> LeaseSettings {
    LeaseSettings {
        duration: Duration::from_secs(45),
        renew_deadline: Duration::from_secs(35),
        ..LeaseSettings::new(&namespace.name, "lease", identity)
    }
}

/// How a leader is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Frozen until its lease has expired and another leads, and then resumed.
    Freeze,
    Kill,
    Terminate,
}

/// The resourceVersions of the children that do not depend on the number of replicas.
async fn unscaled_versions(namespace: &TestNamespace) -> Vec<Option<String>> {
    let mut versions = Vec::new();
    for (kind, version) in [("Service", "v1"), ("Ingress", "networking.k8s.io/v1"), ("ServiceAccount", "v1")]
    {
        let child = namespace.dynamic(kind, version).get("orders").await.unwrap();
        versions.push(child.metadata.resource_version);
    }
    versions
}

#[tokio::test]
async fn however_leadership_changes_each_change_is_written_once() {
    // DUEL_SECONDS makes it longer; each way to stop a leader occurs at least once.
    let seconds = number("DUEL_SECONDS", 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let namespace = TestNamespace::create("duel").await;
    namespace.secrets(MONGO).await;
    let mut leader = namespace.run_elected().await;
    let mut before = eventually("one leads", || holder(&namespace)).await;
    scale(&namespace, 0).await;
    namespace.condition("orders", ConditionType::Reconciled, "True", "AsExpected").await;
    let versions = unscaled_versions(&namespace).await;
    let (mut changes, mut leaders) = (0, 1);
    let mut random = fastrand::Rng::with_seed(seed());
    let mut ways = vec![Stop::Terminate, Stop::Kill, Stop::Freeze];
    while let Some(way) = ways.pop() {
        let standby = namespace.run_elected().await;
        eventually("the next one is a standby", || async {
            standby.admin("/readyz").await.contains("[+]caches ok").then_some(())
        })
        .await;
        match way {
            Stop::Freeze => leader.signal("STOP"),
            Stop::Kill => leader.signal("KILL"),
            Stop::Terminate => leader.signal("TERM"),
        }
        // A frozen leader does not see this change.
        changes += 1;
        scale(&namespace, changes).await;
        let now = holder(&namespace).await.unwrap();
        assert_ne!(now, before, "{way:?}");
        if matches!(way, Stop::Freeze) {
            leader.signal("CONT");
        }
        let code = leader.ended().await.code();
        assert_eq!(
            code,
            match way {
                Stop::Freeze => Some(1),
                Stop::Kill => None,
                Stop::Terminate => Some(0),
            }
        );
        (leader, before) = (standby, now);
        leaders += 1;
        if ways.is_empty() && Instant::now() < end {
            ways = vec![Stop::Terminate, Stop::Kill, Stop::Freeze];
            random.shuffle(&mut ways);
        }
    }
    let deployment = namespace.api::<Deployment>().get("orders").await.unwrap();
    assert_eq!(
        deployment.metadata.generation,
        Some(i64::from(changes) + 1),
        "a former leader wrote an outdated spec"
    );
    assert_eq!(unscaled_versions(&namespace).await, versions);
    let name = format!("{}-orders-operator-controller", namespace.name);
    let lease = namespace.api::<Lease>().get(&name).await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(leaders), "leadership changed more often than necessary");
    eprintln!("{leaders} leaders, one after another");
    namespace.remove().await;
}

#[tokio::test]
async fn a_leader_releases_the_lease_on_sigterm_and_the_next_one_leads_before_it_would_have_expired() {
    let namespace = TestNamespace::create("handover").await;
    namespace.secrets(MONGO).await;
    let mut leader = namespace.run_elected().await;
    let mut before = eventually("the first leads", || holder(&namespace)).await;
    scale(&namespace, 0).await;
    let mut took = Vec::new();
    for round in 1..=4 {
        let standby = namespace.run_elected().await;
        eventually("the next one is a standby", || async {
            standby.admin("/readyz").await.contains("[+]caches ok").then_some(())
        })
        .await;
        let terminated = Instant::now();
        leader.signal("TERM");
        before =
            eventually("the next leads", || async { holder(&namespace).await.filter(|now| *now != before) })
                .await;
        let elapsed = terminated.elapsed();
        let is_released = eventually("it says whether it has released the lease", || async {
            let log = leader.log();
            let is_released = log.contains("released the lease");
            (is_released || log.contains("release the lease")).then_some(is_released)
        })
        .await;
        took.push((elapsed, is_released));
        assert_eq!(leader.ended().await.code(), Some(0));
        leader = standby;
        scale(&namespace, round).await;
    }
    eprintln!("the next one led after {took:?}");
    // Less is left to the machine than the lease lasts, 40 s less the 2 s after which it is renewed; in the other rounds there
    // may have been no time to release it.
    let at_once =
        |(elapsed, is_released): &(Duration, bool)| *is_released && *elapsed < Duration::from_secs(30);
    assert!(took.iter().any(at_once), "{took:?}");
    namespace.remove().await;
}

#[tokio::test]
async fn a_standby_waits_while_the_lease_is_renewed_and_acquires_it_when_it_has_expired() {
    let namespace = TestNamespace::create("silent").await;
    let settings =
        |identity: &str| LeaseSettings { retry: Duration::from_millis(200), ..patient(&namespace, identity) };
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let (candidate, leads) = Candidate::new(namespace.client.clone(), settings("first"));
    let running = tokio::spawn(candidate.run(first));
    eventually("the first leads", || async { leads.may_write().then_some(()) }).await;
    let (candidate, follows) = Candidate::new(namespace.client.clone(), settings("second"));
    tokio::spawn(candidate.run(second.clone()));
    // The standby learns of many renewals through its watch only.
    for round in 0..20 {
        let time = || async { namespace.api::<Lease>().get("lease").await.unwrap().spec.unwrap().renew_time };
        let before = time().await;
        eventually("it is renewed", || async { (time().await != before).then_some(()) }).await;
        assert!(!follows.may_write(), "round {round}");
    }
    // Like a crash: the lease is not released.
    running.abort();
    eventually("the standby leads", || async { follows.may_write().then_some(()) }).await;
    assert!(!leads.may_write());
    second.cancel();
    namespace.remove().await;
}

#[tokio::test]
async fn at_most_one_of_many_candidates_leads_at_any_time_and_each_leads_once() {
    let namespace = TestNamespace::create("lease").await;
    let mut candidates: Vec<(CancellationToken, Leadership)> = (0..4)
        .map(|number| {
            let settings = LeaseSettings {
                retry: Duration::from_millis(100),
                ..patient(&namespace, &format!("candidate-{number}"))
            };
            let stop = CancellationToken::new();
            let (candidate, leadership) = Candidate::new(namespace.client.clone(), settings);
            tokio::spawn(candidate.run(stop.clone()));
            (stop, leadership)
        })
        .collect();
    let mut led = BTreeSet::new();
    while !candidates.is_empty() {
        let leading = eventually("one leads", || async {
            let leading: Vec<_> = (0..candidates.len()).filter(|at| candidates[*at].1.may_write()).collect();
            assert!(leading.len() <= 1, "{} lead at once", leading.len());
            leading.first().copied()
        })
        .await;
        let lease = namespace.api::<Lease>().get("lease").await.unwrap().spec.unwrap();
        assert!(led.insert(lease.holder_identity.unwrap()));
        let (stop, leadership) = candidates.remove(leading);
        stop.cancel();
        eventually("it stops leading", || async { (!leadership.may_write()).then_some(()) }).await;
    }
    assert_eq!(led.len(), 4);
    let lease = namespace.api::<Lease>().get("lease").await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(4));
    namespace.remove().await;
}

#[tokio::test]
async fn where_nobody_can_lead_no_controller_is_ready_and_the_log_says_why() {
    let namespace = TestNamespace::create("nobody").await;
    let limited = namespace.chart_client("controller").await;
    let (roles, name) = (namespace.api::<Role>(), format!("{}-orders-operator-lease", namespace.name));
    let mut whole = roles.get(&name).await.unwrap();
    roles.delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the right is gone", || async {
        let leases = Api::<Lease>::namespaced(limited.clone(), &namespace.name);
        leases
            .get(&format!("{}-orders-operator-controller", namespace.name))
            .await
            .err()
            .filter(|error| matches!(error, kube::Error::Api(status) if status.code == 403))
    })
    .await;
    // That counts as wrong some time after the Lease would have expired, so this one does not last as long as elsewhere.
    let lease = format!("{}-orders-operator-controller", namespace.name);
    let names = ["--lease-namespace", &namespace.name, "--lease-name", &lease];
    let times = ["--lease-duration", "30", "--renew-deadline", "25"];
    let controller = namespace.run_with("controller", &[names, times].concat()).await;
    eventually("the caches are filled", || async {
        controller.admin("/readyz").await.contains("[+]caches ok").then_some(())
    })
    .await;
    let page = eventually("it is not ready", || async {
        Some(controller.admin("/readyz").await).filter(|page| page.contains("[-]leader"))
    })
    .await;
    assert!(page.contains("nobody leads"), "{page}");
    assert_eq!(controller.metric("orders_operator_controller_leading").await, 0.0);
    eventually("the log says so", || async {
        let log = controller.log();
        (log.contains("nobody leads") && log.contains("cannot acquire or renew the lease")).then_some(())
    })
    .await;
    whole.metadata.resource_version = None;
    roles.create(&PostParams::default(), &whole).await.unwrap();
    eventually("it leads", || async {
        controller.admin("/readyz").await.contains("[+]leader ok").then_some(())
    })
    .await;
    assert_eq!(controller.metric("orders_operator_controller_leading").await, 1.0);
    namespace.remove().await;
}
