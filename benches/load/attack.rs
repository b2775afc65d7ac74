//! Attacks on the API's memory and connections, in a control group with as much memory as a pod has, and what other clients
//! notice of them.

use std::{
    fs,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Bytes, http::Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::{
    Result,
    database::{BUYER, Db, Kind, id, user},
    http::Connection,
    measure::{Client, memory_of},
    process::{Serve, cookie},
};

/// The memory of the control group: the default of a pod.
const MEMORY: u64 = 128 * 1024 * 1024;

/// Clients who have nothing to do with the attack, and the time between two requests of each.
const BYSTANDERS: u64 = 4;
const PACE: Duration = Duration::from_millis(20);

/// How long a bystander waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Orders that are stored, ten per user.
const ORDERS: u64 = 1000;

/// The orders of one user, which make a list of 5 MB.
const LISTED: Range<u64> = 100_000..100_500;

/// What the attackers do.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Nothing, to compare with.
    None,
    /// 700 bodies of 100 kB at a time, without a session, of which the last byte never comes.
    Bodies,
    /// Three HTTP/2 connections with 128 streams each, which take nothing of the largest file that is served.
    Streams,
    /// 6,000 connections that send nothing, half a head, or one request, and are opened again when they are closed.
    Connections,
    /// The same where a process may open 1,024 files.
    Files,
    /// 1,000 HTTP/1.1 connections that ask for the largest file again and again, and take nothing of it.
    Readers,
    /// 1,000 HTTP/1.1 connections of one user that ask for a list of 5 MB again and again, and take nothing of it.
    Lists,
}

impl Attack {
    const ALL: [Self; 7] =
        [Self::None, Self::Bodies, Self::Streams, Self::Connections, Self::Files, Self::Readers, Self::Lists];

    const fn files(self) -> u64 {
        if matches!(self, Self::Files) { 1024 } else { 20_000 }
    }

    /// Starts the attackers.
    fn begin(self, address: SocketAddr) -> JoinSet<()> {
        let mut attackers = JoinSet::new();
        let count = match self {
            Self::None => 0,
            Self::Bodies => 700,
            Self::Streams => 3,
            Self::Connections | Self::Files => 6000,
            Self::Readers | Self::Lists => 1000,
        };
        for number in 0..count {
            attackers.spawn(async move {
                loop {
                    // Whatever happens to an attacker, it tries again.
                    let _ = match self {
                        Self::Streams => take_nothing(address).await,
                        _ => {
                            let reads = !matches!(self, Self::Readers | Self::Lists);
                            send_and_wait(address, &self.bytes(number), reads).await
                        }
                    };
                    sleep(Duration::from_millis(1000 + number % 1000)).await;
                }
            });
        }
        attackers
    }

    /// What an attacker sends before it waits.
    fn bytes(self, number: u64) -> Vec<u8> {
        match self {
            Self::Bodies => {
                let head = "POST /api/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 102400\r\n\r\n";
                [head.as_bytes(), &[b' '; 102_399]].concat()
            }
            Self::Readers => format!("GET {FILE} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(100).into_bytes(),
            Self::Lists => {
                let session = cookie(&user(LISTED.start, LISTED.end - LISTED.start));
                let path = "/api/orders?order=desc&limit=1000";
                format!("GET {path} HTTP/1.1\r\nhost: x\r\ncookie: {session}\r\n\r\n").repeat(10).into_bytes()
            }
            _ => match number % 3 {
                0 => Vec::new(),
                1 => b"GET /api/orders HTTP/1.1\r\nhost:".to_vec(),
                _ => b"GET /api/orders HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            },
        }
    }
}

const FILE: &str = "/api/orders/docs/swagger-ui-bundle.js";

/// Sends, and holds the connection until the server closes it.
async fn send_and_wait(address: SocketAddr, bytes: &[u8], reads: bool) -> Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(bytes).await?;
    if reads {
        connection.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    // Nothing is read of the responses, and so only a write shows that it is closed.
    loop {
        sleep(Duration::from_secs(1)).await;
        connection.write_all(b"\r\n").await?;
    }
}

/// Opens 128 streams that have no room for a response, and waits until all are ended.
async fn take_nothing(address: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let mut responses = Vec::new();
    for _ in 0..128 {
        let request = Request::get(format!("http://{address}{FILE}")).body(())?;
        client = client.ready().await?;
        responses.push(client.send_request(request, true)?.0);
    }
    for response in responses {
        if let Ok(response) = response.await {
            let _ = response.into_body().data().await;
        }
    }
    connection.abort();
    Ok(())
}

/// What the bystanders noticed.
#[derive(Default)]
struct Noticed {
    latencies: Vec<Duration>,
    failures: Vec<String>,
}

/// Lists and reserves at a steady pace, each time over a new connection every second time.
async fn bystander(
    address: SocketAddr,
    number: u64,
    length: Duration,
    next_ticket: Arc<AtomicU64>,
) -> Noticed {
    let mut noticed = Noticed::default();
    let (started, mut pace) = (Instant::now(), interval(PACE));
    let mut kept: Option<Connection> = None;
    let mut turn = 0_u64;
    while started.elapsed() < length {
        pace.tick().await;
        turn += 1;
        let begun = Instant::now();
        let asked = timeout(PATIENCE, async {
            match turn % 4 {
                0 => {
                    let ticket = next_ticket.fetch_add(1, Ordering::Relaxed);
                    let mut connection = Connection::open(address, 201, post(ticket)).await?;
                    connection.request().await
                }
                1 => {
                    let mut connection = Connection::open(address, 200, list(number)).await?;
                    connection.request().await
                }
                _ => {
                    let mut connection = match kept.take() {
                        Some(connection) => connection,
                        None => Connection::open(address, 200, list(number)).await?,
                    };
                    let answered = connection.request().await?;
                    kept = Some(connection);
                    Ok(answered)
                }
            }
        });
        match asked.await {
            Ok(Ok(_)) => noticed.latencies.push(begun.elapsed()),
            Ok(Err(error)) => noticed.failures.push(error.to_string()),
            Err(_) => noticed.failures.push(format!("no answer within {PATIENCE:?}")),
        }
    }
    noticed
}

fn post(ticket: u64) -> crate::http::Source {
    let body = format!(r#"{{"ticketId":"{}"}}"#, id(Kind::Free, ticket));
    let request = format!(
        "POST /api/orders HTTP/1.1\r\nhost: x\r\ncookie: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        cookie(BUYER),
        body.len()
    );
    repeated(request)
}

fn list(number: u64) -> crate::http::Source {
    repeated(format!(
        "GET /api/orders HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n",
        cookie(&user(number * 10, 10))
    ))
}

fn repeated(request: String) -> crate::http::Source {
    Box::new(move |buffer| {
        buffer.extend_from_slice(request.as_bytes());
        true
    })
}

/// A control group with little memory.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let name = format!("orders-attack-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        {
            let root = PathBuf::from(root);
            if !root.join("cgroup.procs").exists() {
                continue;
            }
            let folder = root.join(&name);
            if fs::create_dir(&folder).is_ok() && fs::write(folder.join(file), MEMORY.to_string()).is_ok() {
                return Ok(Self(folder));
            }
            let _ = fs::remove_dir(&folder);
        }
        Err("no control group can be made that limits memory: run it as root, where control groups are writable".into())
    }

    /// A command that runs another in this group.
    fn wrapper(&self, files: u64) -> Vec<String> {
        let join = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let files = format!("--nofile={files}:{files}");
        let words = ["sh", "-c", join, &self.0.display().to_string(), "prlimit", &files, "--"];
        words.map(str::to_owned).to_vec()
    }

    /// The most memory that was used, in bytes, the kernel's for it included.
    fn peak(&self) -> Option<u64> {
        let files = ["memory.peak", "memory.max_usage_in_bytes"];
        files.iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Runs each attack for `length`, or only those with one of these names, and prints what came of it.
pub async fn run(db: &Db, length: Duration, only: &[String]) -> Result<()> {
    println!(
        "{} s each, in {} MiB; {BYSTANDERS} other clients, one request each {PACE:?}",
        length.as_secs(),
        MEMORY >> 20
    );
    println!(
        "| attack | restarts | peak memory, MiB | of the group, MiB | answers | failures | p50, ms | p99, ms | longest, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut failed = false;
    let wanted = |attack: &Attack| {
        only.is_empty() || only.iter().any(|name| name.eq_ignore_ascii_case(&format!("{attack:?}")))
    };
    for attack in Attack::ALL.into_iter().filter(wanted) {
        db.drop().await?;
        db.store_orders(0..ORDERS, 10).await?;
        if matches!(attack, Attack::Lists) {
            db.store_orders(LISTED, LISTED.end - LISTED.start).await?;
            db.lengthen_titles(LISTED).await?;
        }
        let tickets = length.as_millis() as u64 / PACE.as_millis() as u64 * BYSTANDERS;
        db.store_tickets(Kind::Free, 0..tickets).await?;
        let group = Group::new()?;
        let serve = Serve::start_under(&group.wrapper(attack.files())).await?;
        let attackers = attack.begin(serve.address);
        let next_ticket = Arc::new(AtomicU64::new(0));
        let bystanders: JoinSet<_> = (0..BYSTANDERS)
            .map(|number| bystander(serve.address, number, length, next_ticket.clone()))
            .collect();
        let mut noticed = Noticed::default();
        for one in bystanders.join_all().await {
            noticed.latencies.extend(one.latencies);
            noticed.failures.extend(one.failures);
        }
        let (alive, peak, whole) =
            (memory_of(serve.pid()).1 > 0, memory_of(serve.pid()).1 >> 10, group.peak());
        drop(attackers);
        noticed.latencies.sort_unstable();
        let count = noticed.latencies.len();
        let at = |percent: usize| {
            let latency = noticed.latencies.get((count * percent / 100).min(count.saturating_sub(1)));
            latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        println!(
            "| {attack:?} | {} | {peak} | {} | {count} | {} | {:.1} | {:.1} | {:.1} |",
            u8::from(!alive),
            whole.map_or_else(|| "?".into(), |bytes| (bytes >> 20).to_string()),
            noticed.failures.len(),
            at(50),
            at(99),
            at(100),
        );
        noticed.failures.sort_unstable();
        noticed.failures.dedup();
        noticed.failures.iter().take(5).for_each(|failure| println!("  {failure}"));
        failed |= !alive;
        drop(serve);
    }
    if failed { Err("the API did not survive".into()) } else { Ok(()) }
}
