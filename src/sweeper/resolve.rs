//! From OrdersServices to targets: reads the Secrets that have the connection strings.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, Resource, ResourceExt, core::DeserializeGuard};
use tokio::time::{Instant, timeout_at};

use super::{
    health::DatabaseProblem,
    targets::{Target, TargetKey, merge, resource_key},
    wanted::{ReadSecret, ReadSecrets, Unresolved, secrets_of, target},
};
use crate::{
    crd::{OrdersService, without_value},
    runtime::secret_cache::{NamespacedName, SecretCache},
};

/// The longest that one call to the API server may take, unless someone wants it otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that all calls of one round may take: an API server that hangs must not block the loop.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);

/// How many Secrets are read at the same time.
const CONCURRENCY: usize = 16;

/// How long the copy of a Secret counts as fresh.
const FRESH: Duration = Duration::from_secs(300);

/// The same while the database cannot be used: a changed Secret may be the remedy.
const FRESH_WHILE_FAILING: Duration = Duration::from_secs(15);

/// How long the pods are waited for when a value has changed: the controller reads the Secrets as often, and rolls them then.
const ROLLED_WITHIN: Duration = FRESH;

/// The same while a resource has no usable Secret.
const RETRY: Duration = Duration::from_secs(5);

/// Finds the target of each OrdersService.
pub struct Resolver {
    client: Client,
    /// A failed read is cached like any other, so that the resources that name a Secret share it too. Each keeps the
    /// target that it had before.
    secrets: SecretCache<ReadSecret>,
    /// By namespace/name.
    resources: HashMap<String, Resolution>,
    /// The resources that cannot be read themselves.
    unreadable: HashSet<String>,
    call_timeout: Duration,
}

/// What a resource is read for. As long as it stays the same, so does the spec, and its pods are not rolled.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    /// The hash of the Deployment as last applied. It changes with the values of the Secrets: the pods get those of now.
    deployment: Option<String>,
}

impl Version {
    fn of(service: &OrdersService) -> Self {
        Self {
            uid: service.uid(),
            generation: service.metadata.generation,
            deployment: service.status.as_ref().and_then(|status| status.deployment.clone()),
        }
    }
}

/// The target of one resource, as last resolved.
struct Resolution {
    version: Version,
    /// The last one that could be determined.
    target: Option<Target>,
    /// Why it cannot be determined now.
    problem: Option<Unresolved>,
    /// Another one that the Secrets have led to since then, though the pods were not rolled.
    ahead: Option<(Target, Instant)>,
}

impl Resolution {
    /// `is_failing` tells whether the database of before cannot be used.
    fn new(
        before: Option<Self>,
        version: Version,
        result: Result<Target, Unresolved>,
        key: &str,
        is_failing: bool,
    ) -> Self {
        let is_rolled = before.as_ref().is_none_or(|before| before.version != version);
        let (last_target, last_problem, ahead) =
            before.map_or((None, None, None), |before| (before.target, before.problem, before.ahead));
        match result {
            Ok(target) => {
                // Where there are pods that the controller rolls, they still have what was in the Secrets then.
                if let Some(last) = &last_target
                    && !is_rolled
                    && !is_failing
                    && version.deployment.is_some()
                    && !last.is_reached_like(&target)
                {
                    let known = ahead.filter(|(ahead, _)| ahead.is_reached_like(&target));
                    let (target, since) = known.unwrap_or_else(|| {
                        tracing::info!(
                            resource = key,
                            "the connection string has changed; the former database is swept until the pods are \
                             replaced"
                        );
                        (target, Instant::now())
                    });
                    if since.elapsed() < ROLLED_WITHIN {
                        let ahead = Some((target, since));
                        return Self { version, target: last_target, problem: None, ahead };
                    }
                    return Self { version, target: Some(target), problem: None, ahead: None };
                }
                if last_target.is_none_or(|last| last.warnings != target.warnings) {
                    for warning in &target.warnings {
                        tracing::warn!(resource = key, "{warning}");
                    }
                }
                Self { version, target: Some(target), problem: None, ahead: None }
            }
            Err(problem) => {
                if last_problem.as_ref() != Some(&problem) {
                    let Unresolved { problem: DatabaseProblem { reason, message }, detail } = &problem;
                    let (reason, detail) = (reason.as_str(), detail.as_deref());
                    tracing::warn!(
                        resource = key,
                        reason,
                        problem = message,
                        detail,
                        "cannot determine this resource's database"
                    );
                }
                // The last known database still has orders that expire.
                Self { version, target: last_target, problem: Some(problem), ahead: None }
            }
        }
    }
}

impl Resolver {
    /// A resolver that has read nothing yet.
    pub fn new(client: Client) -> Self {
        let (secrets, resources) = (SecretCache::new(FRESH), HashMap::new());
        Self { client, secrets, resources, unreadable: HashSet::new(), call_timeout: CALL_TIMEOUT }
    }

    /// The same, with another limit of one call to the API server.
    pub fn with_call_timeout(self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self }
    }

    /// The targets of `services`. A resource that cannot be resolved keeps its last target, is
    /// logged, and does not affect the others; so does one that itself cannot be read, as after the return to a former
    /// version of the program. Where a database `is_failing`, its Secrets are read more often.
    pub async fn resolve(
        &mut self,
        services: &[Arc<DeserializeGuard<OrdersService>>],
        is_failing: impl Fn(&TargetKey) -> bool,
    ) -> HashMap<TargetKey, Target> {
        self.note_unreadable(services);
        let services: HashMap<_, _> = services
            .iter()
            .filter_map(|guarded| guarded.0.as_ref().ok())
            .filter(|service| service.metadata.deletion_timestamp.is_none())
            .map(|service| (resource_key(service), service))
            .collect();
        self.resources.retain(|key, _| services.contains_key(key) || self.unreadable.contains(key));
        // The keys that are wanted of each Secret, and how old its copy may be.
        let mut wanted = HashMap::<NamespacedName, (BTreeSet<&str>, Option<Duration>)>::new();
        for (key, service) in &services {
            let max_age = self.max_age(key, service, &is_failing);
            for (secret, keys) in secrets_of(service) {
                let (all, age) = wanted.entry(secret).or_default();
                all.extend(keys);
                *age = [*age, max_age].into_iter().flatten().min();
            }
        }
        let due = self.take_due(|secret| wanted.contains_key(secret));
        let now = Instant::now();
        let since = |secret: &NamespacedName| {
            let max_age = wanted.get(secret).and_then(|(_, max_age)| *max_age);
            max_age.and_then(|age| now.checked_sub(age))
        };
        let is_old = |secret: &NamespacedName| since(secret).is_some() || due.contains(secret);
        // A resource is resolved again when any of its Secrets is; then it takes fresh copies of the others.
        let outdated: Vec<_> = services
            .iter()
            .filter(|(_, service)| secrets_of(service).any(|(secret, _)| is_old(&secret)))
            .collect();
        let to_read: HashSet<_> =
            outdated.iter().flat_map(|(_, service)| secrets_of(service)).map(|(secret, _)| secret).collect();
        let (call_timeout, deadline) = (self.call_timeout, now + ROUND_TIMEOUT.max(self.call_timeout));
        let read: ReadSecrets = stream::iter(to_read)
            .map(|secret| {
                let (client, secrets) = (&self.client, &self.secrets);
                let (keys, since) = (wanted.get(&secret).map(|(keys, _)| keys), since(&secret));
                async move {
                    let read = async {
                        let until = deadline.min(Instant::now() + call_timeout);
                        Ok::<_, Infallible>(read_secret(client, &secret, keys, until).await)
                    };
                    let Ok(cached) = secrets.get(&secret.0, &secret.1, since, read).await;
                    (secret, cached.value)
                }
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (key, service) in outdated {
            let result = target(service, key, &read);
            let before = self.resources.remove(key);
            let target = before.as_ref().and_then(|before| before.target.as_ref());
            let is_failing = target.is_some_and(|target| is_failing(&target.key));
            let resolution = Resolution::new(before, Version::of(service), result, key, is_failing);
            self.resources.insert(key.clone(), resolution);
        }
        merge(self.resources.values().filter_map(|resolution| resolution.target.clone()))
    }

    /// Notes which resources cannot be read, and warns of each once. What such a one was before is no more than its
    /// target: once it can be read again, so are its Secrets.
    fn note_unreadable(&mut self, services: &[Arc<DeserializeGuard<OrdersService>>]) {
        let mut unreadable = HashSet::new();
        for service in services.iter().filter(|service| service.meta().deletion_timestamp.is_none()) {
            let Err(invalid) = &service.0 else { continue };
            let (key, uid) = (resource_key(&**service), service.uid());
            if self.resources.get(&key).is_some_and(|resolution| resolution.version.uid != uid) {
                self.resources.remove(&key);
            }
            let known = self.resources.get_mut(&key);
            if !self.unreadable.contains(&key) {
                let is_swept = known.as_ref().is_some_and(|resolution| resolution.target.is_some());
                let problem = without_value(&invalid.error);
                let what = if is_swept {
                    "this version of the sweeper cannot read the resource; its database is swept as before"
                } else {
                    "this version of the sweeper cannot read the resource; its orders do not expire"
                };
                tracing::warn!(resource = key, problem, "{what}");
            }
            if let Some(resolution) = known {
                resolution.version = Version { uid, generation: None, deployment: None };
            }
            unreadable.insert(key);
        }
        self.unreadable = unreadable;
    }

    /// The Secrets whose copies are no longer fresh; those that nothing names any more are forgotten.
    fn take_due(&self, is_named: impl Fn(&NamespacedName) -> bool) -> HashSet<NamespacedName> {
        let mut due = HashSet::new();
        while let Some(secret) = self.secrets.next_due().now_or_never() {
            if is_named(&secret) {
                due.insert(secret);
            } else {
                self.secrets.forget(&secret);
            }
        }
        due
    }

    /// How old the copies of its Secrets may be for a resource, where that is less than [`FRESH`].
    fn max_age(
        &self,
        key: &str,
        service: &OrdersService,
        is_failing: impl Fn(&TargetKey) -> bool,
    ) -> Option<Duration> {
        match self.resources.get(key).filter(|resolution| resolution.version == Version::of(service)) {
            // Whoever has just written the spec may have written the Secret a moment before; and what the pods start with now
            // is to be swept.
            None => Some(Duration::ZERO),
            Some(resolution) if resolution.problem.is_some() => Some(RETRY),
            Some(resolution) => {
                let target = resolution.target.as_ref();
                target.filter(|target| is_failing(&target.key)).map(|_| FRESH_WHILE_FAILING)
            }
        }
    }

    /// The target of a resource (namespace/name) alone, or why it cannot be determined; none before the first attempt.
    pub fn target_of(&self, resource: &str) -> Option<Result<&Target, &DatabaseProblem>> {
        let resolution = self.resources.get(resource)?;
        match (&resolution.target, &resolution.problem) {
            (Some(target), _) => Some(Ok(target)),
            (None, problem) => problem.as_ref().map(|unresolved| Err(&unresolved.problem)),
        }
    }

    /// Why no target can be determined of what a resource has now; its last one is still swept, if it had one.
    pub fn problem_of(&self, resource: &str) -> Option<&DatabaseProblem> {
        Some(&self.resources.get(resource)?.problem.as_ref()?.problem)
    }
}

/// Reads a Secret. Only the values under `keys` are kept: the others are nothing that the sweeper needs.
async fn read_secret(
    client: &Client,
    (namespace, name): &NamespacedName,
    keys: Option<&BTreeSet<&str>>,
    deadline: Instant,
) -> ReadSecret {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = timeout_at(deadline, secrets.get_opt(name))
        .await
        .map_err(|_| "the API server did not answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let is_wanted = |key: &str| keys.is_some_and(|keys| keys.contains(key));
    Ok(secret.map(|secret| {
        let values = secret.data.unwrap_or_default().into_iter();
        Arc::new(values.filter(|(key, _)| is_wanted(key)).collect::<BTreeMap<_, ByteString>>())
    }))
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use hyper::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::advance;

    use super::*;

    #[derive(Clone, Default)]
    struct ApiServer(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        secrets: HashMap<String, BTreeMap<String, String>>,
        /// The names of the Secrets that were read since the last call of [`ApiServer::requests`].
        requests: Vec<String>,
    }

    impl ApiServer {
        fn resolver(&self) -> Resolver {
            let server = self.clone();
            let answer = move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    if request.uri().path().ends_with("/silent") {
                        pending::<()>().await;
                    }
                    Ok::<_, Infallible>(server.answer(request.uri().path()))
                }
            };
            Resolver::new(Client::new(tower::service_fn(answer), "default"))
        }

        fn answer(&self, path: &str) -> Response<Body> {
            let mut state = self.0.lock().unwrap();
            let name = path.rsplit('/').next().unwrap().to_owned();
            state.requests.push(name.clone());
            let (status, body) = match state.secrets.get(&name) {
                Some(values) => {
                    let data: BTreeMap<_, _> =
                        values.iter().map(|(key, value)| (key, ByteString(value.clone().into()))).collect();
                    (StatusCode::OK, json!({"metadata": {"name": name}, "data": data}))
                }
                None => {
                    (StatusCode::NOT_FOUND, json!({"status": "Failure", "reason": "NotFound", "code": 404}))
                }
            };
            Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap()
        }

        fn put(&self, name: &str, values: &[(&str, &str)]) {
            let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            self.0.lock().unwrap().secrets.insert(name.to_owned(), values);
        }

        fn requests(&self) -> Vec<String> {
            let mut requests = std::mem::take(&mut self.0.lock().unwrap().requests);
            requests.sort();
            requests
        }
    }

    fn service(name: &str, secret: &str, key: &str) -> Arc<DeserializeGuard<OrdersService>> {
        applied(name, secret, key, None)
    }

    /// The same, whose Deployment has this hash.
    fn applied(
        name: &str,
        secret: &str,
        key: &str,
        deployment: Option<&str>,
    ) -> Arc<DeserializeGuard<OrdersService>> {
        let object: Value = json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
            "spec": {"auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": secret, "key": key}}},
            "status": {"deployment": deployment},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn databases(targets: &HashMap<TargetKey, Target>) -> Vec<&str> {
        let mut names: Vec<_> = targets.keys().map(|key| key.id.database.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_read_once_for_all_resources_that_name_it_and_again_when_it_is_old() {
        let server = ApiServer::default();
        server.put("one", &[("A", "mongodb://mongo/a"), ("B", "mongodb://mongo/b")]);
        server.put("two", &[("A", "mongodb://mongo/c")]);
        let mut services = vec![service("x", "one", "A"), service("y", "one", "B"), service("z", "two", "A")];
        let mut resolver = server.resolver();
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["a", "b", "c"]);
        assert_eq!(server.requests(), ["one", "two"]);
        advance(Duration::from_secs(224)).await;
        resolver.resolve(&services, |_| false).await;
        assert!(server.requests().is_empty());

        // A change of the Secret that is noticed for one resource counts for all.
        server.put(
            "one",
            &[("A", "mongodb://mongo/d"), ("B", "mongodb://mongo/e"), ("C", "mongodb://mongo/f")],
        );
        services.push(service("new", "one", "C"));
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["c", "d", "e", "f"]);
        assert_eq!(server.requests(), ["one"]);

        services.remove(2);
        advance(FRESH).await;
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["d", "e", "f"]);
        assert_eq!(server.requests(), ["one"], "nothing names the other any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_value_is_used_when_the_pods_are_rolled_and_neither_later_nor_before() {
        let server = ApiServer::default();
        let mut resolver = server.resolver();
        for (written, deployment, pause, swept) in [
            ("a", "1", 5, "a"),
            ("b", "1", 5, "a"),
            ("b", "2", 5, "b"),
            ("c", "2", 300, "b"),
            // It is looked at, and the controller has not rolled the pods yet.
            ("c", "2", 5, "b"),
            ("c", "3", 5, "c"),
            ("d", "3", 300, "c"),
            // That it does not do so at all is seen by the second look.
            ("d", "3", 300, "c"),
            ("d", "3", 5, "d"),
        ] {
            server.put("one", &[("A", &format!("mongodb://mongo/{written}"))]);
            let services = [applied("x", "one", "A", Some(deployment))];
            let found = resolver.resolve(&services, |_| false).await;
            assert_eq!(databases(&found), [swept], "{written} {deployment}");
            advance(Duration::from_secs(pause)).await;
        }
        // A database that cannot be used is not worth waiting for.
        server.put("one", &[("A", "mongodb://mongo/e")]);
        advance(FRESH_WHILE_FAILING).await;
        let services = [applied("x", "one", "A", Some("3"))];
        assert_eq!(databases(&resolver.resolve(&services, |_| true).await), ["e"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_without_a_usable_secret_keeps_its_target_and_is_tried_again_soon() {
        let server = ApiServer::default();
        server.put("one", &[("A", "mongodb://mongo/a")]);
        let services = [service("x", "one", "A"), service("y", "none", "A"), service("z", "none", "A")];
        let mut resolver = server.resolver();
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["a"]);
        assert_eq!(server.requests(), ["none", "one"]);
        let problem = "Secret \"none\" does not exist in namespace \"shop\"";
        let found = resolver.target_of("shop/y").unwrap().map(|target| target.key.clone());
        assert_eq!(found.map_err(|problem| problem.message.as_str()), Err(problem));
        advance(Duration::from_secs(4)).await;
        resolver.resolve(&services, |_| false).await;
        assert!(server.requests().is_empty());
        advance(Duration::from_secs(2)).await;
        server.put("none", &[("A", "mongodb://mongo/b")]);
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["a", "b"]);
        assert_eq!(server.requests(), ["none"]);

        server.put("one", &[("B", "mongodb://mongo/a")]);
        advance(FRESH).await;
        assert_eq!(databases(&resolver.resolve(&services, |_| false).await), ["a", "b"]);
        assert!(resolver.target_of("shop/x").is_some_and(|target| target.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_waited_for_as_long_as_whoever_asks_wants_and_no_longer() {
        let services = [service("x", "silent", "A")];
        for (asked, seconds) in [(None, 10), (Some(2), 2), (Some(90), 90)] {
            let resolver = ApiServer::default().resolver();
            let mut resolver = match asked {
                Some(seconds) => resolver.with_call_timeout(Duration::from_secs(seconds)),
                None => resolver,
            };
            let begun = Instant::now();
            assert!(resolver.resolve(&services, |_| false).await.is_empty());
            assert_eq!(begun.elapsed().as_secs(), seconds);
            let why = resolver.target_of("shop/x").unwrap().err().unwrap();
            assert!(why.message.contains("cannot be read from the API server"), "{}", why.message);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_secret_of_a_failing_database_is_read_every_15_seconds() {
        let server = ApiServer::default();
        server.put("one", &[("A", "mongodb://mongo/a")]);
        let services = [service("x", "one", "A")];
        let mut resolver = server.resolver();
        resolver.resolve(&services, |_| false).await;
        let mut requests = server.requests().len();
        for _ in 0..12 {
            advance(Duration::from_secs(5)).await;
            resolver.resolve(&services, |_| true).await;
            requests += server.requests().len();
        }
        assert!((4..=5).contains(&requests), "{requests} in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_cannot_be_read_any_more_keeps_its_target_until_it_is_gone() {
        let unreadable = |uid: &str, deleted: Option<&str>| -> Arc<DeserializeGuard<OrdersService>> {
            let object = json!({
                "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
                "metadata": {"name": "x", "namespace": "shop", "uid": uid, "generation": 2, "deletionTimestamp": deleted},
                "spec": {"auth": "by a means that nobody has thought of yet"},
            });
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let server = ApiServer::default();
        server.put("one", &[("A", "mongodb://mongo/a")]);
        let mut resolver = server.resolver();
        assert!(resolver.resolve(&[unreadable("x", None)], |_| false).await.is_empty());
        for _ in 0..3 {
            let found = resolver.resolve(&[service("x", "one", "A")], |_| false).await;
            assert_eq!(databases(&found), ["a"]);
            for _ in 0..3 {
                advance(FRESH).await;
                assert_eq!(databases(&resolver.resolve(&[unreadable("x", None)], |_| true).await), ["a"]);
                assert!(resolver.target_of("shop/x").is_some_and(|target| target.is_ok()));
            }
        }
        // Nobody has looked at its Secret meanwhile.
        server.put("one", &[("A", "mongodb://mongo/b")]);
        assert_eq!(databases(&resolver.resolve(&[service("x", "one", "A")], |_| false).await), ["b"]);

        for gone in
            [vec![unreadable("another", None)], vec![unreadable("x", Some("2026-11-27T13:51:14Z"))], vec![]]
        {
            resolver.resolve(&[service("x", "one", "A")], |_| false).await;
            assert!(resolver.resolve(&gone, |_| false).await.is_empty());
            assert!(resolver.target_of("shop/x").is_none());
        }
    }
}
