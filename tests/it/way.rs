//! A way to a server that can fall silent, as one through a load balancer does.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kube::config::Kubeconfig;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A way to the API server.
pub struct Way {
    port: u16,
    round: watch::Sender<u32>,
    silenced: Arc<AtomicUsize>,
}

impl Way {
    /// A way to the API server of this kubeconfig.
    pub async fn to_cluster(kubeconfig: &str) -> Self {
        let config = Kubeconfig::read_from(kubeconfig).unwrap();
        let server = config.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
        let address: SocketAddr =
            server.trim_start_matches("https://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (round, rounds) = watch::channel(0);
        let silenced = Arc::new(AtomicUsize::new(0));
        let count = silenced.clone();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (mut rounds, count) = (rounds.clone(), count.clone());
                rounds.mark_unchanged();
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        _ = rounds.changed() => {
                            count.fetch_add(1, Ordering::SeqCst);
                            // Both are held, and neither is read.
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self { port, round, silenced }
    }

    /// Lets nothing more through on the connections that there are.
    pub fn silence(&self) {
        self.round.send_modify(|round| *round += 1);
    }

    /// How many connections fell silent.
    pub fn silenced(&self) -> usize {
        self.silenced.load(Ordering::SeqCst)
    }

    /// Has a kubeconfig lead this way.
    pub fn lead(&self, kubeconfig: &Path) {
        let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
        for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://127.0.0.1:{}", self.port));
        }
        std::fs::write(kubeconfig, serde_json::to_string(&config).unwrap()).unwrap();
    }
}
