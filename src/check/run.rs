//! The checks, in their order, and the cancellations.

use std::io::{self, Write};

use super::{
    args::OrdersCheckArgs,
    error::CheckError,
    findings::{Findings, PRINTED, counted},
};
use crate::{
    runtime::Escape,
    store::{Duplicate, ErrorCategory, Holder, Store},
};

/// The most orders without a due time that are counted.
const MAX_WITHOUT_DUE_TIME: u32 = 100_000;

/// Checks the database that `args` name, and prints what is found, a line each.
///
/// # Errors
/// When the database cannot be used.
pub async fn run(args: OrdersCheckArgs) -> Result<Findings, CheckError> {
    let store = args.database.connect().await?;
    let checked = check(&store, &args).await;
    store.shutdown().await;
    checked
}

async fn check(store: &Store, args: &OrdersCheckArgs) -> Result<Findings, CheckError> {
    print(&format!("checking {}", store.target()));
    let mut findings = Findings::default();
    match store.check_choice().await {
        Err(error) if error.category() == ErrorCategory::OrdersElsewhere => {
            print(&error.to_string());
            findings.elsewhere = true;
        }
        checked => checked?,
    }

    for index in store.foreign_indexes().await? {
        if index.is_unique {
            findings.foreign_indexes += 1;
            print(&format!("the unique index {} is not ours, and may refuse orders: drop it", index.name));
        } else {
            print(&format!(
                "the index {} is not ours; it does no harm, but costs time with each write",
                index.name
            ));
        }
    }
    store
        .read_all(|problem| {
            findings.unreadable += 1;
            print_some(findings.unreadable, &problem);
        })
        .await?;
    for id in store.without_due_time(MAX_WITHOUT_DUE_TIME).await? {
        findings.without_due_time += 1;
        let line = format!("the order {id} never expires, since its expiresAt is missing or not a date");
        print_some(findings.without_due_time, &line);
    }
    let duplicates = store.duplicates().await?;
    findings.duplicates = duplicates.len() as u64;
    for (number, duplicate) in (1..).zip(&duplicates) {
        // What is cancelled is printed to the last line.
        if args.fix_duplicates.is_some() {
            print(&plan(duplicate));
        } else {
            print_some(number, &held(duplicate));
        }
    }
    if args.fix_duplicates.is_some() && !args.dry_run {
        fix(store, &duplicates, &mut findings).await?;
    }
    Ok(findings)
}

/// Cancels what [`plan`] has announced.
async fn fix(store: &Store, duplicates: &[Duplicate], findings: &mut Findings) -> Result<(), CheckError> {
    for duplicate in duplicates {
        let mut left = duplicate.left();
        for holder in duplicate.cancelled() {
            if store.cancel_duplicate(duplicate, holder).await? {
                findings.cancelled += 1;
                print(&format!("cancelled {}", holder.id()));
            } else {
                left += 1;
                print(&format!(
                    "left {}, since the orders of its ticket have changed: check again",
                    holder.id()
                ));
            }
        }
        findings.duplicates -= u64::from(left <= 1);
    }
    Ok(())
}

fn held(duplicate: &Duplicate) -> String {
    let holders: Vec<_> = duplicate.holders.iter().map(named).collect();
    let (ticket, count) = (duplicate.ticket(), holders.len());
    format!("the ticket {ticket} is held by {count} active orders: {}", holders.join(", "))
}

fn plan(duplicate: &Duplicate) -> String {
    let (kept, cancelled): (Vec<_>, Vec<_>) =
        duplicate.holders.iter().partition(|holder| !duplicate.cancelled().any(|other| other == *holder));
    let names =
        |holders: &[&Holder]| holders.iter().map(|holder| named(holder)).collect::<Vec<_>>().join(", ");
    let mut line = format!("the ticket {}: keep {}", duplicate.ticket(), names(&kept));
    if !cancelled.is_empty() {
        line.push_str(&format!("; cancel {}", names(&cancelled)));
    }
    if kept.len() > 1 {
        line.push_str("; it was paid for more than once: refund all but one by hand");
    }
    if duplicate.is_cut() {
        line.push_str("; it may have more: check again afterwards");
    }
    line
}

fn named(holder: &Holder) -> String {
    format!("{} ({})", holder.id(), holder.status())
}

fn print_some(number: u64, line: &str) {
    if number <= PRINTED {
        print(line);
    } else if number == PRINTED + 1 {
        print(&format!("... and more than {} of this kind", counted(PRINTED, "finding", "findings")));
    }
}

/// That the reader has closed the pipe is no error.
fn print(line: &str) {
    drop(writeln!(io::stdout(), "{}", Escape::Text.line(line)));
}
