//! Runs the product: `serve` on free ports, and other subcommands to their end.

use std::{
    env,
    fs::{File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ring::hmac;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Result, database,
    http::Connection,
    measure::{Client, memory_of},
};

/// How long the API may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

const JWT_KEY: &str = "benchmark";

/// A running `serve`, which is killed when this is dropped.
pub struct Serve {
    child: Child,
    log: File,
    pub address: SocketAddr,
}

impl Serve {
    /// Starts it, and waits until it is ready and has created the indexes.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more settings.
    pub async fn start_with(settings: &[(&str, String)]) -> Result<Self> {
        Self::start_as(&[], settings).await
    }

    /// The same by way of `wrapper`, a command that takes the program as its last arguments.
    pub async fn start_under(wrapper: &[String]) -> Result<Self> {
        Self::start_as(wrapper, &[]).await
    }

    async fn start_as(wrapper: &[String], settings: &[(&str, String)]) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let file = folder()?.join("serve.log");
        let log = OpenOptions::new().create(true).append(true).open(&file)?;
        log.set_len(0)?;
        let child = product(wrapper, "serve")?
            .env("JWT_KEY", JWT_KEY)
            .env("LISTEN_ADDRESS", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("ADMIN_PORT", admin.port().to_string())
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stderr(log.try_clone()?)
            .spawn()?;
        let mut serve = Self { child, log, address };
        let started = Instant::now();
        while !ready(admin).await {
            if started.elapsed() > READY_TIMEOUT || serve.child.try_wait()?.is_some() {
                return Err(format!("the API is not ready; see {}", file.display()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(serve)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end, and does not wait for that.
    pub fn terminate(&self) -> Result<()> {
        let told = Command::new("kill").arg(self.pid().to_string()).status()?;
        if told.success() { Ok(()) } else { Err("the API has ended before".into()) }
    }

    /// Truncates the log, which would fill the disk.
    pub fn truncate_log(&self) -> Result<()> {
        Ok(self.log.set_len(0)?)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Fails if it has already ended, by an interrupt from the terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running sweeper of the benchmark's database, which is killed when this is dropped.
pub struct Sweeper(#[allow(dead_code, reason = "it lives as long as this")] KillOnDrop);

impl Sweeper {
    pub fn start() -> Result<Self> {
        let log = File::create(folder()?.join("sweeper.log"))?;
        let child = product(&[], "sweeper")?
            .env("SWEEPER_URI", database::uri()?)
            .args(["--database", database::NAME, "--admin-port", "0"])
            .stderr(log)
            .spawn()?;
        Ok(Self(KillOnDrop(child)))
    }
}

async fn ready(admin: SocketAddr) -> bool {
    let source = Box::new(|request: &mut Vec<u8>| {
        request.extend_from_slice(b"GET /readyz HTTP/1.1\r\nhost: bench\r\n\r\n");
        true
    });
    match Connection::open(admin, 200, source).await {
        Ok(mut connection) => connection.request().await.is_ok(),
        Err(_) => false,
    }
}

/// The result of a process that was run to its end.
pub struct Run {
    pub duration: Duration,
    /// The peak of its resident memory, in kB.
    pub peak: u64,
    pub output: String,
}

/// Runs a subcommand to its end; its progress is shown on the terminal.
pub async fn run(subcommand: &str, arguments: &[&Path]) -> Result<Run> {
    let started = Instant::now();
    let mut command = product(&[], subcommand)?;
    let mut child = KillOnDrop(command.args(arguments).stdout(Stdio::piped()).spawn()?);
    let mut peak = 0;
    let status = loop {
        // Not available after the process has ended, so it is read repeatedly.
        peak = peak.max(memory_of(child.0.id()).1);
        match child.0.try_wait()? {
            Some(status) => break status,
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    let duration = started.elapsed();
    let output = child.0.stdout.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
    if status.success() {
        Ok(Run { duration, peak, output })
    } else {
        Err(format!("{subcommand}: {status}").into())
    }
}

/// A NATS server with JetStream of its own, which can be stopped and started again with what it has stored.
pub struct Nats {
    address: SocketAddr,
    folder: PathBuf,
    running: Option<KillOnDrop>,
}

impl Nats {
    pub async fn start() -> Result<Self> {
        let folder = folder()?.join("nats");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let mut server = Self { address: free_address()?, folder, running: None };
        server.restart().await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Kills it.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().ok_or("the NATS server was stopped before")?;
        Ok(())
    }

    /// Starts it, and waits until it can be connected to.
    pub async fn restart(&mut self) -> Result<()> {
        let program = env::var_os("NATS_SERVER").ok_or("NATS_SERVER is not set: run `make bench-events`")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg("-js");
        command.arg("-a").arg(self.address.ip().to_string()).arg("-p").arg(self.address.port().to_string());
        command.arg("-sd").arg(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(KillOnDrop(command.spawn()?));
        let started = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if started.elapsed() > READY_TIMEOUT {
                return Err("the NATS server does not start".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of the product, with the benchmark's database. It is killed when this process ends in any way.
fn product(wrapper: &[String], subcommand: &str) -> Result<Command> {
    let given = env::var_os("BINARY").filter(|path| !path.is_empty());
    // Cargo puts both binaries into the same folder.
    let binary = given.map_or_else(
        || env::current_exe().map(|own| own.with_file_name("orders-operator")),
        |path| Ok(path.into()),
    )?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(wrapper).arg(binary).args(subcommand.split(' '));
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    command.env("MONGO_URI", database::uri()?).env("MONGO_DATABASE", database::NAME);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The session cookie of `user`, as the auth service would sign it.
pub fn cookie(user: &str) -> String {
    use base64::{
        Engine,
        prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
    };
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "id": user, "email": format!("{user}@example.com"), "iat": 1_700_000_000 });
    let message = format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, JWT_KEY.as_bytes()), message.as_bytes());
    let jwt = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    format!("session={}", BASE64_STANDARD.encode(json!({ "jwt": jwt }).to_string()))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The folder for results and logs, outside the checkout.
pub fn folder() -> Result<PathBuf> {
    let cache = env::var_os("ORDERS_CACHE").ok_or("ORDERS_CACHE is not set: run `make bench-api`")?;
    let folder = PathBuf::from(cache).join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
