//! A way to the API server that holds some requests and their answers back, as a slow server or network does.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{Request, Response, StatusCode, header},
};
use futures::StreamExt;
use kube::Client;
use tokio::{net::TcpListener, sync::watch};

use crate::cluster::TestNamespace;

/// Which requests are meant, by path and query.
type IsMeant = fn(&str, &str) -> bool;

/// The proxy; it holds nothing back until it is told to.
#[derive(Clone)]
pub struct Held {
    client: Client,
    is_meant: IsMeant,
    is_held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Held {
    /// Has the processes of this subcommand reach the API server by it.
    pub async fn between(namespace: &TestNamespace, subcommand: &str, is_meant: IsMeant) -> Self {
        let client = namespace.chart_client(subcommand).await;
        let held = Self { client, is_meant, is_held: watch::Sender::new(false), waiting: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        namespace.lead(subcommand, &format!("http://{}", listener.local_addr().unwrap()), None).await;
        let router = Router::new().fallback(forward).with_state(held.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        held
    }

    /// Holds back what is meant from now on, or lets it pass.
    pub fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// How many requests were held back.
    pub fn requests(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

async fn forward(State(held): State<Held>, mut request: Request<Body>) -> Result<Response<Body>, StatusCode> {
    let is_meant = (held.is_meant)(request.uri().path(), request.uri().query().unwrap_or_default());
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::AUTHORIZATION);
    let (mut head, body) = request.into_parts();
    head.uri = head.uri.path_and_query().unwrap().as_str().parse().unwrap();
    let bytes = to_bytes(body, usize::MAX).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let is_held = held.is_held.subscribe();
    if is_meant && *is_held.borrow() {
        held.waiting.fetch_add(1, Ordering::Relaxed);
        drop(is_held.clone().wait_for(|is_held| !is_held).await);
    }
    let request = Request::from_parts(head, bytes.to_vec().into());
    let mut answer = held.client.send(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?.map(Body::new);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    if !is_meant {
        return Ok(answer);
    }
    let held_back = |body: Body| {
        body.into_data_stream().then(move |chunk| {
            let mut is_held = is_held.clone();
            async move {
                drop(is_held.wait_for(|is_held| !is_held).await);
                chunk
            }
        })
    };
    Ok(answer.map(|body| Body::from_stream(held_back(body))))
}
