//! What pods cost that have nothing to do: their CPU time and that of the database, and what they ask it.

use serde_json::{Value, json};

use super::{EventsLoad, broker::Broker, line::Line, per_second};
use crate::{
    Result,
    api::database_processes,
    database::Db,
    measure::{Processes, memory_of},
    process::Serve,
};

pub async fn run(db: &Db, load: &EventsLoad) -> Result<Value> {
    let mut found = Vec::new();
    for (pods, has_events) in [(1, false), (1, true), (3, false), (3, true)] {
        db.drop().await?;
        let broker = Broker::open().await?;
        let line = Line::open().await?;
        let mut settings = if has_events { broker.settings() } else { Vec::new() };
        settings.push(("MONGO_URI", line.uri.clone()));
        let mut serving = Vec::new();
        for _ in 0..pods {
            serving.push(Serve::start_with(&settings).await?);
        }
        // Connecting is over.
        tokio::time::sleep(load.length().min(std::time::Duration::from_secs(3))).await;
        let all = Processes(serving.iter().map(|pod| ("pods", pod.pid())).collect());
        let database = Processes(database_processes());
        let before = (all.total(), database.total(), line.commands());
        tokio::time::sleep(load.length()).await;
        let share = |after: f64, before: f64| (after - before) / load.length().as_secs_f64() * 100.0;
        let (of_pods, of_database) = (share(all.total(), before.0), share(database.total(), before.1));
        let commands = per_second(line.commands() - before.2, load.length());
        let memory = serving.iter().map(|pod| memory_of(pod.pid()).0).max().unwrap_or_default();
        let what = if has_events { "with" } else { "without" };
        println!(
            "{pods} idle pods {what} events: {of_pods:.1} % of a processor, {of_database:.1} % for the database, \
             {commands:.1} commands to it per second, the largest has {memory} kB"
        );
        found.push(json!({
            "pods": pods, "events": has_events, "pods_cpu_percent": of_pods,
            "database_cpu_percent": of_database, "commands_per_second": commands, "rss_kb": memory,
        }));
        drop(serving);
        broker.delete().await;
    }
    Ok(found.into())
}
