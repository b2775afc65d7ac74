//! What the client sends again by itself where the API server is too busy for it: what only reads.
//!
//! A write is not: whether this process may write is known before it is sent, and another process may lead by the time
//! that it is sent again. Whoever writes finds out that it was refused, and tries again in its own time.

use std::time::Duration;

use hyper::{Method, Request, Response};
use kube::{
    Client,
    client::{
        Body,
        retry::{InvalidBackoff, RetryPolicy},
    },
};
use tokio::time::Sleep;
use tower::{
    BoxError, ServiceBuilder,
    retry::{Policy, RetryLayer},
};

/// How often something is sent again. All requests are bounded in time, and whoever waits should hear what is wrong.
const MOST: u32 = 3;

/// A client that sends reads again, a few times within a few seconds or when the API server asks to, by way of one that sends
/// nothing again.
///
/// # Errors
/// Never: the times are possible ones.
pub fn resending_reads(client: Client) -> Result<Client, InvalidBackoff> {
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
    let reads = Reads(RetryPolicy::new(first, longest, MOST, true)?);
    let (namespace, valid_until) = (client.default_namespace().to_owned(), *client.valid_until());
    let send = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move { client.send(request).await.map_err(BoxError::from) }
    });
    let service = ServiceBuilder::new().layer(RetryLayer::new(reads)).service(send);
    Ok(Client::new(service, namespace).with_valid_until(valid_until))
}

/// Which requests are sent again.
#[derive(Clone)]
struct Reads(RetryPolicy);

impl Policy<Request<Body>, Response<Body>, BoxError> for Reads {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Sleep> {
        self.0.retry(request, result)
    }

    /// What cannot be cloned is not sent again.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let is_read = request.method() == Method::GET;
        let policy: &mut dyn Policy<Request<Body>, Response<Body>, BoxError, Future = Sleep> = &mut self.0;
        if is_read { policy.clone_request(request) } else { None }
    }
}
