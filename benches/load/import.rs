//! Large inputs: an import of a million tickets, and the list of a user with 100,000 orders.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
    time::Instant,
};

use serde_json::json;

use crate::{
    Result,
    database::{Db, Kind, id, user},
    http::Connection,
    measure::{Client, memory_of},
    process::{Serve, cookie, folder, run as run_product},
    report::{mb, write},
};

/// Orders of the user.
const ORDERS: u64 = 100_000;

/// How often the list is requested; memory that grows with it is a leak.
const REPEATS: usize = 3;

pub async fn run(db: &Db, tickets: u64) -> Result<()> {
    eprintln!("bench: writing {tickets} lines");
    let file = NdJson::new(tickets)?;
    let mut imports = Vec::new();
    for title in ["first, all new", "again, all unchanged"] {
        eprintln!("bench: importing them: {title}");
        let run = run_product("tickets import", &[&file.0]).await?;
        let seconds = run.duration.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = tickets as f64 / seconds;
        println!(
            "import, {title}: {seconds:.1} s, {rate:.0} tickets/s, memory at its peak {:.1} MB: {}",
            mb(run.peak),
            run.output.trim()
        );
        imports.push(json!({
            "run": title, "seconds": seconds, "tickets_per_second": rate, "peak_rss_kb": run.peak,
            "output": run.output.trim(),
        }));
    }
    drop(file);

    let serve = Serve::start().await?;
    db.store_orders(0..ORDERS, ORDERS).await?;
    let head =
        format!("GET /api/orders HTTP/1.1\r\nhost: bench\r\ncookie: {}\r\n\r\n", cookie(&user(0, ORDERS)));
    let source = Box::new(move |request: &mut Vec<u8>| {
        request.extend_from_slice(head.as_bytes());
        true
    });
    let mut connection = Connection::open(serve.address, 200, source).await?;
    let mut lists = Vec::new();
    for time in 1..=REPEATS {
        let (before, _) = memory_of(serve.pid());
        let started = Instant::now();
        connection.request().await?;
        let (seconds, (after, peak)) = (started.elapsed().as_secs_f64(), memory_of(serve.pid()));
        let bytes = connection.response_size();
        println!(
            "GET list of {ORDERS} orders, time {time}: {bytes} bytes in {seconds:.2} s; memory of serve \
             {:.1} MB before, {:.1} MB after, {:.1} MB at its peak",
            mb(before),
            mb(after),
            mb(peak)
        );
        lists.push(json!({
            "orders": ORDERS, "bytes": bytes, "seconds": seconds, "rss_before_kb": before,
            "rss_after_kb": after, "peak_rss_kb": peak,
        }));
    }
    write("import", &json!({ "tickets": tickets, "imports": imports, "lists": lists }))
}

/// A file of tickets, which is removed when this is dropped.
struct NdJson(PathBuf);

impl NdJson {
    fn new(tickets: u64) -> Result<Self> {
        let file = Self(folder()?.join("tickets.ndjson"));
        let mut lines = BufWriter::new(File::create(&file.0)?);
        for number in 0..tickets {
            let id = id(Kind::Free, number);
            writeln!(lines, r#"{{"id":"{id}","title":"Ticket {number}","price":20.5,"version":0}}"#)?;
        }
        lines.flush()?;
        Ok(file)
    }
}

impl Drop for NdJson {
    fn drop(&mut self) {
        // If it fails, the next run overwrites the file.
        let _ = fs::remove_file(&self.0);
    }
}
