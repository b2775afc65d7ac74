//! Reads Secrets again when their copies are old, each once for all resources that refer to it, and requeues these when it
//! has changed. So as long as nothing happens to a resource, it is not reconciled.

use std::{collections::HashSet, time::Duration};

use kube::Resource;
use tokio::time::Instant;

use super::references::{SecretUse, Secrets, secrets_of};
use crate::{
    controller::{
        api_server::{ApiServer, RequestError},
        object_key::ObjectKey,
        services::OrdersServices,
        trigger::Trigger,
    },
    runtime::secret_cache::{Cached, SecretCache},
};

/// How soon to try again to read a Secret that is missing or could not be read: no watch tells when it is created, and
/// whoever creates it is waiting.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// The task that reads old copies again, and what it needs.
pub struct Refresh<'a> {
    /// The API server.
    pub api: &'a ApiServer,
    /// The copies.
    pub secrets: &'a Secrets,
    /// The resources.
    pub services: &'a OrdersServices,
    /// Requeues them.
    pub trigger: &'a Trigger,
    /// How old a copy may get.
    pub max_age: Duration,
}

impl Refresh<'_> {
    /// Reads old copies again, without end. Only the leader does: a standby has no copies.
    pub async fn run(&self) {
        let Self { api, secrets, .. } = self;
        let values = self.refresh(&secrets.values, SecretUse::Value, |key, since| async move {
            secrets.value_hashes(api, &key, Some(since)).await
        });
        let certificates =
            self.refresh(&secrets.certificates, SecretUse::Certificate, |key, since| async move {
                secrets.exists(api, &key, Some(since)).await
            });
        futures::join!(values, certificates);
    }

    async fn refresh<V: Clone + PartialEq, R: Future<Output = Result<Cached<V>, RequestError>>>(
        &self,
        cache: &SecretCache<V>,
        usage: SecretUse,
        read: impl Fn(ObjectKey, Instant) -> R,
    ) {
        // A copy becomes due after three quarters of its age at the earliest, so one that is due is in this set if a
        // resource still refers to it.
        let interval = self.max_age / 4;
        let (mut in_use, mut collected) = (HashSet::new(), None::<Instant>);
        loop {
            self.api.leadership.begins().await;
            let due = cache.next_due().await;
            let (key, now) = (ObjectKey::new(&due.0, &due.1), Instant::now());
            if collected.is_none_or(|collected| now - collected >= interval) {
                (in_use, collected) = (self.in_use(usage).await, Some(now));
            }
            if !in_use.contains(&key) {
                cache.forget(&due);
                continue;
            }
            match read(key.clone(), now).await {
                Ok(copy) if copy.changed => requeue_users(self.services, self.trigger, usage, &key, None),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        namespace = key.namespace(),
                        name = key.name(),
                        %error,
                        "cannot read a Secret again; the old copy is used until that works"
                    );
                    cache.postpone(&due, Instant::now() + RETRY_INTERVAL);
                }
            }
        }
    }

    /// The Secrets that resources refer to now.
    async fn in_use(&self, usage: SecretUse) -> HashSet<ObjectKey> {
        let mut found = HashSet::new();
        for (at, raw) in self.services.iter().enumerate() {
            if at % 256 == 255 {
                // There may be thousands, and other tasks must run too.
                tokio::task::yield_now().await;
            }
            if let Ok(service) = raw.parse() {
                let key = raw.key();
                found.extend(secrets_of(&service, usage).map(|name| ObjectKey::new(key.namespace(), name)));
            }
        }
        found
    }
}

/// Requeues the resources that refer to a Secret which has changed, except the one with the UID `except`.
pub fn requeue_users(
    services: &OrdersServices,
    trigger: &Trigger,
    usage: SecretUse,
    secret: &ObjectKey,
    except: Option<&str>,
) {
    for raw in services.iter() {
        let key = raw.key();
        let is_other = key.namespace() == secret.namespace() && raw.meta().uid.as_deref() != except;
        if is_other
            && raw.parse().is_ok_and(|service| secrets_of(&service, usage).any(|name| name == secret.name()))
        {
            trigger.requeue(&key);
        }
    }
}
