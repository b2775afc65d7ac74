//! Several sweepers: they divide the databases, and the loss of one costs two seconds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::ListParams};
use mongodb::bson::DateTime;
use serde_json::json;

use crate::{
    cluster::{Process, TestNamespace, eventually},
    mongo::{TestDatabase, uri},
    sweeper::{cancelled, order, service, state},
};

/// Starts `count` sweepers and waits until they know each other and sweep all databases.
async fn sweepers(namespace: &TestNamespace, databases: &[TestDatabase], count: usize) -> Vec<Process> {
    namespace.secrets(&uri()).await;
    for (number, database) in databases.iter().enumerate() {
        namespace.apply(&service(namespace, &format!("orders-{number}"), database, json!({}))).await.unwrap();
    }
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(namespace.run_sweeper().await);
    }
    for sweeper in &all {
        know_each_other(sweeper, count).await;
        eventually("all databases are swept", || async {
            ranks(sweeper, databases).await.iter().all(Option::is_some).then_some(())
        })
        .await;
    }
    all
}

async fn know_each_other(sweeper: &Process, count: usize) {
    eventually(&format!("it knows {count} sweepers"), || async {
        let page = sweeper.admin("/metrics").await;
        page.contains(&format!("orders_operator_sweeper_sweepers {count}\n")).then_some(())
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

#[tokio::test]
async fn each_database_has_one_owner_and_a_standby_replaces_a_killed_one_before_its_entry_expires() {
    let namespace = TestNamespace::create("many").await;
    let mut databases = Vec::new();
    for _ in 0..4 {
        databases.push(TestDatabase::new().await);
    }
    let mut all = sweepers(&namespace, &databases, 3).await;
    let table = agreed_ranks(&all, &databases).await;
    // The owner is killed without a chance to remove its entry.
    let owner = (0..3).find(|at| table[*at][0] == Some(0)).unwrap();
    let due = order(&databases[0], "created", 1_000).await;
    all.remove(owner).kill();
    let late = lateness(&databases[0], due).await;
    // The promise is two seconds; its entry would last for ten.
    assert!(late < Duration::from_secs(8), "{late:?}");
    // Once its entry has expired, its databases have an owner again.
    for sweeper in &all {
        know_each_other(sweeper, 2).await;
    }
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
    let owner = usize::from(ranks(&all[1], &databases).await == [Some(0)]);
    let other = all.remove(1 - owner);
    let owner = all.remove(0);
    owner.signal("STOP");
    let due = order(&databases[0], "created", 500).await;
    assert!(lateness(&databases[0], due).await < Duration::from_secs(8));
    know_each_other(&other, 1).await;
    agreed_ranks(std::slice::from_ref(&other), &databases).await;
    owner.signal("CONT");
    know_each_other(&other, 2).await;
    know_each_other(&owner, 2).await;
    let due = order(&databases[0], "created", 500).await;
    cancelled(&databases[0], due).await;

    assert_eq!(owner.terminate().await.code(), Some(0));
    assert_eq!(entries(&namespace).await, 1, "it removed its entry before it exited");
    know_each_other(&other, 1).await;
    let due = order(&databases[0], "created", 500).await;
    cancelled(&databases[0], due).await;
    assert_eq!(state(&databases[0], due).await, ("cancelled".into(), 1));
    namespace.remove().await;
}
