//! Several sweepers: they divide the databases, and the loss of one costs two seconds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::ListParams};
use mongodb::bson::DateTime;
use serde_json::json;

use crate::{
    cluster::{PATIENCE, Process, TestNamespace, eventually},
    mongo::{TestDatabase, uri},
    sweeper::{cancelled, order, service, state},
};

/// Has a sweeper log each batch of orders that it cancels.
const VERBOSE: (&str, &str) = ("LOG_LEVEL", "info,orders_operator=debug");

/// Starts `count` sweepers and waits until they know each other and sweep all databases.
async fn sweepers(namespace: &TestNamespace, databases: &[TestDatabase], count: usize) -> Vec<Process> {
    namespace.secrets(&uri()).await;
    for (number, database) in databases.iter().enumerate() {
        namespace.apply(&service(namespace, &format!("orders-{number}"), database, json!({}))).await.unwrap();
    }
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(namespace.run_sweeper_in(&[VERBOSE]).await);
    }
    know_each_other(&all.iter().collect::<Vec<_>>(), count).await;
    for sweeper in &all {
        eventually("all databases are swept", || async {
            ranks(sweeper, databases).await.iter().all(Option::is_some).then_some(())
        })
        .await;
    }
    all
}

/// Waits until each of these knows so many sweepers. If they never do, the ends of their logs are printed.
async fn know_each_other(sweepers: &[&Process], count: usize) {
    let (begun, is_told) = (Instant::now(), AtomicBool::new(false));
    eventually(&format!("each knows {count} sweepers"), || async {
        let mut known = Vec::new();
        for sweeper in sweepers {
            known.push(sweeper.metric("orders_operator_sweeper_sweepers ").await as usize);
        }
        let agree = known.iter().all(|known| *known == count);
        if !agree && begun.elapsed() > PATIENCE * 9 / 10 && !is_told.swap(true, Ordering::Relaxed) {
            eprintln!("they know {known:?} sweepers");
            for sweeper in sweepers {
                let log = sweeper.log();
                let lines: Vec<_> = log.lines().collect();
                eprintln!("{}\n", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        agree.then_some(())
    })
    .await;
}

/// The rank of a sweeper for each database.
async fn ranks(sweeper: &Process, databases: &[TestDatabase]) -> Vec<Option<u32>> {
    let page = sweeper.admin("/metrics").await;
    let rank = |database: &TestDatabase| {
        let of =
            |line: &&str| line.starts_with("orders_operator_sweeper_rank{") && line.contains(&database.name);
        page.lines().find(of)?.rsplit_once(' ')?.1.parse().ok()
    };
    databases.iter().map(rank).collect()
}

/// The ranks of all sweepers, once each database has one of each rank: a sweep gets its rank some time after its sweeper
/// knows the others.
async fn agreed_ranks(sweepers: &[Process], databases: &[TestDatabase]) -> Vec<Vec<Option<u32>>> {
    eventually("they agree about who owns which database", || async {
        let mut table = Vec::new();
        for sweeper in sweepers {
            table.push(ranks(sweeper, databases).await);
        }
        let is_agreed = (0..databases.len()).all(|database| {
            let mut of_all: Vec<_> = table.iter().map(|ranks| ranks[database]).collect();
            of_all.sort_unstable();
            of_all.into_iter().eq((0..sweepers.len() as u32).map(Some))
        });
        is_agreed.then_some(table)
    })
    .await
}

/// How many sweepers have an entry in their Lease, which is the only one.
async fn entries(namespace: &TestNamespace) -> usize {
    let leases = namespace.api::<Lease>().list(&ListParams::default()).await.unwrap().items;
    let [lease] = leases.as_slice() else { panic!("{leases:?}") };
    let count = lease.annotations().keys().filter(|key| key.starts_with("sweeper.ticketing.dev/")).count();
    assert_eq!(lease.managed_fields().len(), count, "of a sweeper that is gone nothing is left");
    count
}

/// By how much an order was overdue when it was observed to be cancelled.
async fn lateness(database: &TestDatabase, id: mongodb::bson::oid::ObjectId) -> Duration {
    cancelled(database, id).await;
    let now = Timestamp::now();
    let expires_at: DateTime = *database.stored(&id.to_hex()).await.get_datetime("expiresAt").unwrap();
    Duration::from_millis(u64::try_from(now.as_millisecond() - expires_at.timestamp_millis()).unwrap())
}

/// Where the log of each sweeper ends.
fn ends(sweepers: &[Process]) -> Vec<usize> {
    sweepers.iter().map(|sweeper| sweeper.log().len()).collect()
}

/// Whether an overdue order was cancelled by a sweeper that did not yet know that its owner is gone, by what they have logged
/// since: it takes a sweeper three of its own renewals, some 10 s, to know. And not by the owner, before it was gone.
async fn stood_in(owner: (&Process, usize), sweepers: &[Process], since: &[usize]) -> bool {
    eventually("one of them says that it has cancelled orders", || async {
        if owner.0.log().split_off(owner.1).contains("orders expired") {
            return Some(false);
        }
        sweepers.iter().zip(since).find_map(|(sweeper, since)| {
            let log = sweeper.log().split_off(*since);
            let expired = log.find("orders expired")?;
            let knew = log.find("the set of live sweepers has changed");
            Some(knew.is_none_or(|knew| expired < knew))
        })
    })
    .await
}

/// Whether the standby was in time: within two seconds, as is promised, and some more on a loaded machine; or at least before it
/// knew that the owner is gone.
async fn was_in_time(
    late: Duration,
    owner: (&Process, usize),
    sweepers: &[Process],
    since: &[usize],
) -> bool {
    late < Duration::from_secs(8) || stood_in(owner, sweepers, since).await
}

/// How often an owner may be lost until a standby is in time: a database that does not answer for ten seconds, on a machine
/// that is loaded, delays any.
const TRIES: usize = 3;

#[tokio::test]
async fn each_database_has_one_owner_and_a_standby_replaces_a_killed_one_before_its_entry_expires() {
    let namespace = TestNamespace::create("many").await;
    let mut databases = Vec::new();
    for _ in 0..4 {
        databases.push(TestDatabase::new().await);
    }
    let mut all = sweepers(&namespace, &databases, 3).await;
    for left in (0..TRIES).rev() {
        let table = agreed_ranks(&all, &databases).await;
        // The owner is killed without a chance to remove its entry.
        let owner = (0..3).find(|at| table[*at][0] == Some(0)).unwrap();
        let owner = all.remove(owner);
        let (since, end) = (ends(&all), owner.log().len());
        let due = order(&databases[0], "created", 1_000).await;
        owner.signal("KILL");
        let late = lateness(&databases[0], due).await;
        if was_in_time(late, (&owner, end), &all, &since).await {
            break;
        }
        assert!(left > 0, "{late:?}: a standby does not cancel before the entry has expired");
        all.push(namespace.run_sweeper_in(&[VERBOSE]).await);
        know_each_other(&all.iter().collect::<Vec<_>>(), 3).await;
    }
    // Once its entry has expired, its databases have an owner again.
    know_each_other(&all.iter().collect::<Vec<_>>(), 2).await;
    agreed_ranks(&all, &databases).await;
    eventually("one of the others removes its entry", || async {
        (entries(&namespace).await == 2).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_stopped_sweeper_removes_its_entry_and_a_frozen_one_does_no_harm_when_it_resumes() {
    let namespace = TestNamespace::create("leave").await;
    let databases = [TestDatabase::new().await];
    let mut all = sweepers(&namespace, &databases, 2).await;
    assert_eq!(entries(&namespace).await, 2);
    for left in (0..TRIES).rev() {
        let table = agreed_ranks(&all, &databases).await;
        // The owner is the last.
        if table[0] == [Some(0)] {
            all.swap(0, 1);
        }
        let (others, owner) = all.split_at_mut(1);
        let (other, owner) = (&others[0], &mut owner[0]);
        let (since, end) = (ends(others), owner.log().len());
        owner.signal("STOP");
        let due = order(&databases[0], "created", 500).await;
        let late = lateness(&databases[0], due).await;
        let is_in_time = was_in_time(late, (&*owner, end), others, &since).await;
        know_each_other(&[other], 1).await;
        agreed_ranks(others, &databases).await;
        owner.signal("CONT");
        assert!(owner.is_running(), "{}", owner.log());
        know_each_other(&[other, &*owner], 2).await;
        if is_in_time {
            break;
        }
        assert!(left > 0, "{late:?}: a standby does not cancel before the entry has expired");
    }
    let due = order(&databases[0], "created", 500).await;
    cancelled(&databases[0], due).await;

    let (owner, other) = (all.pop().unwrap(), all.pop().unwrap());
    owner.signal("TERM");
    // It does not wait for ever, and on a loaded machine the time may be too short: then the entry expires.
    let is_removed = eventually("it says what has become of its entry", || async {
        let log = owner.log();
        let is_removed = log.contains("removed this sweeper's entry");
        (is_removed || log.contains("remove this sweeper's entry")).then_some(is_removed)
    })
    .await;
    if is_removed {
        assert_eq!(entries(&namespace).await, 1, "it says that it has removed its entry");
    }
    assert_eq!(owner.ended().await.code(), Some(0));
    know_each_other(&[&other], 1).await;
    let due = order(&databases[0], "created", 500).await;
    cancelled(&databases[0], due).await;
    assert_eq!(state(&databases[0], due).await, ("cancelled".into(), 1));
    namespace.remove().await;
}
