//! Secrets are read again when their copies are old, each once for all who name it; who is concerned by a change is
//! woken. So nothing is done for a resource as long as nothing happens to it.
//!
//! No watch shows the Secrets, since that would need the right to list them all.

use std::{collections::HashSet, time::Instant};

use kube::Resource;

use super::{
    cache::{Cache, Found},
    dereference::{Reference, named},
    problem::CallError,
    reconcile::{Context, REFERENCE_RETRY},
    watched::Key,
};

/// Reads old copies again, for ever; only while this process leads, for a standby has none.
pub async fn follow(context: &Context) {
    let references = &context.references;
    let secrets = keep_fresh(context, &references.secrets, Reference::Value, |key, since| async move {
        references.secret(&context.children.cluster, &key.0, &key.1, Some(since)).await
    });
    let certificates =
        keep_fresh(context, &references.certificates, Reference::Certificate, |key, since| async move {
            references.certificate(&context.children.cluster, &key.0, &key.1, Some(since)).await
        });
    futures::join!(secrets, certificates);
}

async fn keep_fresh<V: Clone + PartialEq, R: Future<Output = Result<Found<V>, CallError>>>(
    context: &Context,
    cache: &Cache<V>,
    kind: Reference,
    read: impl Fn(Key, Instant) -> R,
) {
    // No copy is due within that of when it was read.
    let soon = context.refresh / 4;
    let (mut in_use, mut looked) = (HashSet::new(), None::<Instant>);
    loop {
        context.children.cluster.leadership.begins().await;
        let now = Instant::now();
        let key = match cache.due() {
            Some((due, key)) if due <= now => key,
            due => {
                let due = due.map_or(soon, |(due, _)| due - now);
                tokio::time::sleep(due.min(soon)).await;
                continue;
            }
        };
        if looked.is_none_or(|looked| now - looked >= soon) {
            (in_use, looked) = (all_in_use(context, kind).await, Some(now));
        }
        if !in_use.contains(&key) {
            cache.forget(&key);
            continue;
        }
        match read(key.clone(), now).await {
            Ok(found) if found.changed => wake(context, kind, &key, None),
            Ok(_) => {}
            Err(error) => {
                let (namespace, name) = &key;
                tracing::warn!(namespace, name, %error, "cannot read a Secret again; its copy counts until that works");
                cache.postpone(key, Instant::now() + REFERENCE_RETRY);
            }
        }
    }
}

/// What the resources name now.
async fn all_in_use(context: &Context, kind: Reference) -> HashSet<Key> {
    let mut found = HashSet::new();
    let all: Vec<_> = context.services.iter().flat_map(|services| services.state()).collect();
    for (at, stored) in all.into_iter().enumerate() {
        if at % 256 == 255 {
            // There may be thousands, and others have something to do too.
            tokio::task::yield_now().await;
        }
        let namespace = stored.meta().namespace.clone().unwrap_or_default();
        if let Ok(service) = stored.read() {
            found.extend(named(&service, kind).map(|name| (namespace.clone(), name.to_owned())));
        }
    }
    found
}

/// Has the resources reconciled that name a Secret which has changed, but for the one with the UID `itself`: they need
/// not read it themselves.
pub fn wake(context: &Context, kind: Reference, (namespace, secret): &Key, itself: Option<&str>) {
    for other in context.services.iter().flat_map(|services| services.state()) {
        let metadata = other.meta();
        let is_other = metadata.namespace.as_ref() == Some(namespace) && metadata.uid.as_deref() != itself;
        if is_other && other.read().is_ok_and(|other| named(&other, kind).any(|name| name == secret)) {
            context.wake.wake(namespace, metadata.name.as_deref().unwrap_or_default());
        }
    }
}
