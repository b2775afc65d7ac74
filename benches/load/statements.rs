//! Compares ways to read orders with their tickets: two finds, or one aggregate.

use crate::{
    Load, Result,
    database::{Db, DirectClient, Join, Statement, Tickets},
    measure::{Processes, closed_loop, median},
    process::Serve,
};

/// Ranges of order numbers whose users have 10, 100 and 1000 orders: 100,000 in all.
const USERS: [(u64, u64, u64); 3] = [(0, 10_000, 10), (10_000, 40_000, 100), (40_000, 100_000, 1000)];

pub async fn run(db: &Db, load: &Load) -> Result<()> {
    // It creates the indexes.
    drop(Serve::start().await?);
    for (start, end, each) in USERS {
        db.store_orders(start..end, each).await?;
    }
    use Join::{Find, FindOne, Lookup, LookupOneBatch, LookupUnwind, OneBatch};
    let one = [Find, FindOne, Lookup, LookupUnwind].map(Statement::One).to_vec();
    let mut groups = vec![one];
    for each in [10, 100, 1000] {
        let joins = [Find, OneBatch, Lookup, LookupOneBatch, LookupUnwind];
        groups.push(joins.map(|join| Statement::List(join, each)).to_vec());
    }
    println!("{:34} {:>5} {:>12} {:>9} {:>9}", "", "tasks", "requests/s", "p50 ms", "p99 ms");
    for group in groups {
        for tasks in [load.connections, 1] {
            let mut samples: Vec<_> = group.iter().map(|statement| (statement, Vec::new())).collect();
            // The first round is a warm-up.
            for round in 0..=load.rounds {
                for (statement, seen) in &mut samples {
                    let clients = (0..tasks).map(|_| client(db, **statement)).collect();
                    let sample = closed_loop(clients, load.length(), &Processes::default()).await?;
                    eprintln!("bench: {statement:?}, {tasks} tasks, round {round}: {:.0}/s", sample.rate);
                    if round > 0 {
                        seen.push(sample);
                    }
                }
            }
            for (statement, seen) in samples {
                println!(
                    "{:34} {tasks:5} {:12.0} {:9.2} {:9.2}",
                    format!("{statement:?}"),
                    median(seen.iter().map(|sample| sample.rate)),
                    median(seen.iter().map(|sample| sample.p50 / 1e3)),
                    median(seen.iter().map(|sample| sample.p99 / 1e3)),
                );
            }
        }
    }
    Ok(())
}

fn client(db: &Db, statement: Statement) -> DirectClient {
    let (start, end, _) = match statement {
        Statement::List(_, each) => USERS.into_iter().find(|(.., users)| *users == each).unwrap_or(USERS[0]),
        _ => USERS[0],
    };
    DirectClient { db: db.clone(), statement, numbers: start..end, tickets: Tickets::new(0..0) }
}
