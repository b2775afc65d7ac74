//! Third-party servers that a test runs and sends HTTP requests to.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{bed::setting, cluster::eventually, watchdog};

/// A server that is stopped with its test. Its files are in its folder.
pub struct Server {
    child: Child,
    pub folder: PathBuf,
    pub port: u16,
}

impl Server {
    /// Runs `command` in a folder of its own.
    pub fn run(name: &str, port: u16, command: impl FnOnce(&Path) -> Command) -> Self {
        watchdog::watch();
        let folder = std::env::temp_dir().join(format!("orders-operator-{name}-{:08x}", fastrand::u32(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let inner = command(&folder);
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, port }
    }

    /// Sends it a signal, such as HUP.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(status.success(), "kill -{name}: {status}");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Runs Traefik on the cluster of `KUBECONFIG`; it logs each request in `requests`, as a line of JSON.
    pub fn traefik(providers: &[&str]) -> Self {
        Self::traefik_in(&[], providers)
    }

    /// The same in another environment.
    pub fn traefik_in(environment: &[(&str, &str)], providers: &[&str]) -> Self {
        let port = free_port();
        Self::run("traefik", port, |folder| {
            let mut command = Command::new(setting("TRAEFIK"));
            command
                .envs(environment.iter().copied())
                .arg(format!("--entrypoints.web.address=127.0.0.1:{port}"))
                .args(["--accesslog=true", "--accesslog.format=json"])
                .arg(format!("--accesslog.filepath={}", folder.join("requests").display()))
                .args(["--providers.providersthrottleduration=100ms", "--global.checknewversion=false"])
                .args(["--global.sendanonymoususage=false", "--log.level=INFO"])
                .args(providers);
            command
        })
    }

    /// The status and body for a request to this host; the path is sent unchanged.
    pub async fn ask(&self, host: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.ok()?.ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { body.lines().nth(1).unwrap_or_default() } else { body };
        Some((status, body.trim().to_owned()))
    }

    /// Waits until a request is answered with this body.
    pub async fn up(&self, host: &str, path: &str, body: &str) {
        eventually(&format!("{host}{path} is served by {body}, see {}", self.folder.display()), || async {
            self.ask(host, path).await.filter(|(_, answer)| answer == body)
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

/// A free port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
