//! Servers that say who they are and which path they were asked for, and Services that lead to them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::questions::System;
use crate::cluster::TestNamespace;

/// The Services of some systems, by name, each with the port at which its server listens.
pub struct Backends(BTreeMap<String, u16>);

impl Backends {
    /// Starts the servers, and makes the Services.
    pub async fn start(namespace: &TestNamespace, systems: &[System]) -> Self {
        let mut ports = BTreeMap::new();
        for name in systems.iter().flat_map(System::services) {
            if ports.contains_key(name) {
                continue;
            }
            let port = server(name.to_owned()).await;
            // Endpoints may not be on the loopback interface; the name of a Service may. Contour refuses "localhost".
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"name": "web", "port": port}]}
            });
            let services = namespace.api::<Service>();
            services.patch(name, &PatchParams::apply("test"), &Patch::Apply(service)).await.unwrap();
            ports.insert(name.to_owned(), port);
        }
        Self(ports)
    }

    pub fn port(&self, name: &str) -> u16 {
        self.0[name]
    }
}

/// A server that answers every request with its name and the request's path; it ends with the test.
pub async fn server(name: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, name.clone()));
        }
    });
    port
}

async fn answer(stream: TcpStream, name: String) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
    }
    let body = format!("{name} {path}");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.ok()
}
