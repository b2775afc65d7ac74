//! The book: it can be built, what is generated of it is current, and it says what to do about every alert.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use mongodb::bson::oid::ObjectId;

use crate::cluster::root;

fn book(arguments: &[&str]) -> Output {
    Command::new("dev/book").args(arguments).current_dir(root()).output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) {
    let (told, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{why}");
}

#[test]
fn the_book_is_built_without_a_dead_link_or_anchor() {
    let folder = std::env::temp_dir().join(format!("orders-book-{}", ObjectId::new().to_hex()));
    let output = book(&["build", "--out", folder.to_str().unwrap()]);
    let page = fs::read_to_string(folder.join("quickstart.html"));
    let found = fs::read_to_string(folder.join("search/search_index.json"));
    fs::remove_dir_all(&folder).ok();
    succeeds(&output);
    assert!(page.unwrap().contains("OrdersService"));
    assert!(
        found.unwrap().contains("HostPathConflict"),
        "the search does not know the page about conditions"
    );
}

#[test]
fn the_reference_and_the_schema_are_current_and_the_schema_refuses_what_is_no_field() {
    succeeds(&book(&["check", "--program", env!("CARGO_BIN_EXE_orders-operator")]));
}

#[test]
fn every_alert_has_a_runbook_and_no_other() {
    let rules = fs::read_to_string(root().join("charts/orders-operator/templates/monitoring.yaml")).unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let page = fs::read_to_string(root().join("docs/runbooks.md")).unwrap();
    let sections = page.lines().filter_map(|line| line.strip_prefix("### "));
    let alerts: BTreeSet<_> = alerts.collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(sections.collect::<BTreeSet<_>>(), alerts);
}
