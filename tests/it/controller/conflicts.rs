//! Several owners of one host: the oldest gets what they have in common, and the next takes over automatically.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService, OrdersServiceStatus, find_condition};
use serde_json::{Value, json};

use super::{MONGO, rules};
use crate::{
    bed::number,
    cluster::{TestNamespace, eventually},
};

/// A host that no other test has.
pub(crate) fn host_of(namespace: &TestNamespace) -> String {
    format!("{}.dev", namespace.name)
}

/// An OrdersService with these paths on a host, and no client.
pub(crate) fn claiming(
    namespace: &TestNamespace,
    name: &str,
    host: &str,
    own: &str,
    paths: &[&str],
) -> Value {
    let routes: Vec<_> = paths.iter().map(|path| json!({"path": path, "service": "a-srv"})).collect();
    namespace
        .service(name, json!({"ingress": {"hosts": [host], "path": own, "routes": routes, "client": null}}))
}

async fn status(namespace: &TestNamespace, name: &str) -> OrdersServiceStatus {
    namespace.api::<OrdersService>().get(name).await.unwrap().status.unwrap_or_default()
}

/// Host and path of each rule of the Ingress; none when there is no Ingress.
pub(super) async fn served(namespace: &TestNamespace, name: &str) -> Vec<String> {
    let ingress = namespace.api::<Ingress>().get_opt(name).await.unwrap();
    let of_rule = |rule: String| rule.split_once(' ').unwrap().0.to_owned();
    ingress.map(|ingress| rules(&ingress).into_iter().map(of_rule).collect()).unwrap_or_default()
}

/// Waits until the clock of the API server has gone on by a second, by which it tells ages.
pub(crate) async fn next_second(namespace: &TestNamespace) {
    let tell = || async {
        let review = json!({"metadata": {"generateName": "clock-"}});
        let object: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(review).unwrap();
        let maps = namespace.api::<k8s_openapi::api::core::v1::ConfigMap>();
        maps.create(&PostParams::default(), &object).await.unwrap().creation_timestamp().unwrap()
    };
    let begun = tell().await;
    eventually("the next second", || async { (tell().await > begun).then_some(()) }).await;
}

#[tokio::test]
async fn with_two_teams_on_the_same_host_and_path_the_older_serves_and_the_younger_takes_over_when_it_goes() {
    let mut first = TestNamespace::create("team-z").await;
    let second = TestNamespace::create("team-a").await;
    first.watch_also(&second);
    let host = host_of(&first);
    for team in [&first, &second] {
        team.secrets(MONGO).await;
    }
    let controller = first.run("controller").await;
    // The loser by its name, so that the age must decide.
    first.apply(&claiming(&first, "theirs", &host, "/api/orders", &["/api/users"])).await.unwrap();
    first.condition("theirs", IngressReady, "True", "MissingClient").await;
    next_second(&first).await;
    second.apply(&claiming(&second, "ours", &host, "/api/orders", &["/api/shop"])).await.unwrap();
    let message = second.condition("ours", IngressReady, "False", "HostPathConflict").await;
    let winner = format!("OrdersService {}/theirs", first.name);
    assert!(message.contains(&winner) && message.contains(&format!("{host}/api/orders")), "{message}");
    assert!(!message.contains("/api/shop"), "{message}");
    assert_eq!(served(&second, "ours").await, [format!("{host}/api/shop")], "the rest is rendered");
    let now = status(&second, "ours").await;
    assert_eq!(now.routes.len(), 1);
    assert_eq!(now.url, None, "the orders API of another answers there");
    second.condition("ours", Ready, "False", "HostPathConflict").await;

    // Many on another host are not even looked at when the winner goes. But for one they are suspended, so that they cost
    // little.
    const OTHERS: usize = 24;
    let other_host = format!("other.{host}");
    for number in 0..OTHERS {
        let (name, path) = (format!("apart-{number}"), format!("/apart-{number}"));
        let mut other = claiming(&second, &name, &other_host, &path, &[]);
        other["spec"]["suspend"] = json!(true);
        second.apply(&other).await.unwrap();
        second.condition(&name, Ready, "False", "Suspended").await;
    }
    second.apply(&claiming(&second, "apart", &other_host, "/api/orders", &[])).await.unwrap();
    second.condition("apart", IngressReady, "True", "MissingClient").await;
    super::settled_of(&[(&first, "theirs"), (&second, "ours"), (&second, "apart")]).await;
    let reconciles = || controller.metric("orders_operator_controller_reconciles_total");
    let before = reconciles().await;
    first.api::<OrdersService>().delete("theirs", &DeleteParams::background()).await.unwrap();
    eventually("the loser takes over", || async { (served(&second, "ours").await.len() == 2).then_some(()) })
        .await;
    second.condition("ours", IngressReady, "True", "MissingClient").await;
    assert_eq!(
        status(&second, "ours").await.url.as_deref(),
        Some(format!("http://{host}/api/orders").as_str())
    );
    super::settled_of(&[(&second, "ours"), (&second, "apart")]).await;
    // The loser, and again as its own status and Ingress change; and some of the others if they had changed themselves
    // before. If it were for the winner, it would be all of them.
    let rounds = reconciles().await - before;
    assert!(rounds < OTHERS as f64, "{rounds} reconciles");

    // The same when the older one gives the path up: then not before its own Ingress is without it.
    next_second(&first).await;
    first.apply(&claiming(&first, "theirs", &host, "/api/orders", &["/mine"])).await.unwrap();
    first.condition("theirs", IngressReady, "False", "HostPathConflict").await;
    second.apply(&claiming(&second, "ours", &host, "/api/other", &["/api/shop"])).await.unwrap();
    eventually("the path changes hands", || async {
        (served(&first, "theirs").await.len() == 2).then_some(())
    })
    .await;
    assert!(!served(&second, "ours").await.contains(&format!("{host}/api/orders")));
    for team in [first, second] {
        team.remove().await;
    }
}

#[tokio::test]
async fn there_is_one_client_per_host_and_the_others_say_who_has_it() {
    let namespace = TestNamespace::create("client").await;
    namespace.secrets(MONGO).await;
    let host = host_of(&namespace);
    let _controller = namespace.run("controller").await;
    let with_client = |name: &str, own: &str| {
        let mut object = claiming(&namespace, name, &host, own, &[]);
        object["spec"]["ingress"]["client"] = json!({"service": "client-srv"});
        object
    };
    namespace.apply(&with_client("first", "/a")).await.unwrap();
    namespace.ready("first").await;
    next_second(&namespace).await;
    namespace.apply(&with_client("second", "/b")).await.unwrap();
    namespace.apply(&claiming(&namespace, "third", &host, "/c", &[])).await.unwrap();
    let message = namespace.condition("second", IngressReady, "False", "HostPathConflict").await;
    let winner = format!("OrdersService {}/first", namespace.name);
    assert!(
        message.contains(&format!("{host}/ (remove spec.ingress.client)")) && message.contains(&winner),
        "{message}"
    );
    let message = namespace.condition("third", IngressReady, "True", "MissingClient").await;
    assert!(message.contains(&winner), "{message}");
    assert_eq!(served(&namespace, "second").await, [format!("{host}/b")]);

    namespace.api::<OrdersService>().delete("first", &DeleteParams::background()).await.unwrap();
    namespace.ready("second").await;
    assert_eq!(served(&namespace, "second").await, [format!("{host}/b"), format!("{host}/")]);
    eventually("the third says who has it now", || async {
        let now = status(&namespace, "third").await;
        let message = &find_condition(&now.conditions, IngressReady)?.message;
        message.contains(&format!("{}/second", namespace.name)).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn an_ingress_of_someone_else_counts_as_older_or_younger_and_only_in_its_class() {
    let namespace = TestNamespace::create("foreign-in").await;
    namespace.secrets(MONGO).await;
    let host = host_of(&namespace);
    let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
    let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": backend.clone()});
    // As the course writes it.
    let mut theirs = json!({
        "metadata": {"name": "theirs"},
        "spec": {"ingressClassName": format!("{}-nginx", namespace.name), "rules": [{"host": host, "http": {"paths": [
            path("/api/users/?(.*)", "ImplementationSpecific"), path("/api/orders", "Exact"), path("/shop/(a|b)", "ImplementationSpecific"),
            path("/?(.*)", "ImplementationSpecific"),
        ]}}]}
    });
    let ingresses = namespace.api::<Ingress>();
    ingresses.create(&PostParams::default(), &serde_json::from_value(theirs.clone()).unwrap()).await.unwrap();
    next_second(&namespace).await;
    let controller = namespace.run("controller").await;
    let with_class = |class: &str| {
        let mut object = claiming(&namespace, "orders", &host, "/api/orders", &["/api/users", "/shop"]);
        object["spec"]["ingress"]["className"] = json!(format!("{}-{class}", namespace.name));
        object["spec"]["ingress"]["client"] = json!({"service": "client-srv"});
        object
    };
    let classes = Api::<IngressClass>::all(namespace.client.clone());
    for class in ["nginx", "traefik"] {
        let class = json!({"metadata": {"name": format!("{}-{class}", namespace.name)}, "spec": {"controller": "x/y"}});
        classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    }
    namespace.apply(&with_class("nginx")).await.unwrap();
    let message = namespace.condition("orders", IngressReady, "False", "HostPathConflict").await;
    assert!(message.contains(&format!("Ingress {}/theirs", namespace.name)), "{message}");
    assert_eq!(
        served(&namespace, "orders").await,
        [format!("{host}/api/orders"), format!("{host}/shop")],
        "an exact path takes nothing from a prefix"
    );
    namespace.apply(&with_class("traefik")).await.unwrap();
    namespace.ready("orders").await;
    assert_eq!(served(&namespace, "orders").await.len(), 4);
    namespace.apply(&with_class("nginx")).await.unwrap();
    namespace.condition("orders", IngressReady, "False", "HostPathConflict").await;
    // The Ingress is edited, then deleted.
    theirs["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap().remove(0);
    let edit = Patch::Merge(json!({"spec": theirs["spec"]}));
    ingresses.patch("theirs", &PatchParams::default(), &edit).await.unwrap();
    eventually("a route is given back", || async {
        (served(&namespace, "orders").await.len() == 3).then_some(())
    })
    .await;
    ingresses.delete("theirs", &DeleteParams::background()).await.unwrap();
    namespace.ready("orders").await;
    assert_eq!(served(&namespace, "orders").await.len(), 4);

    // The class goes, and comes.
    let name = format!("{}-nginx", namespace.name);
    classes.delete(&name, &DeleteParams::default()).await.unwrap();
    let message = namespace.condition("orders", IngressReady, "False", "IngressClassNotFound").await;
    assert!(message.contains(&name), "{message}");
    let class = json!({"metadata": {"name": name}, "spec": {"controller": "x/y"}});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    namespace.ready("orders").await;
    let gets = "orders_operator_controller_api_requests_total{kind=\"IngressClass\"";
    assert_eq!(controller.metric(gets).await, 0.0, "the watch tells");
    for class in ["nginx", "traefik"] {
        classes.delete(&format!("{}-{class}", namespace.name), &DeleteParams::default()).await.unwrap();
    }
    namespace.remove().await;
}

#[tokio::test]
async fn with_hosts_owned_by_namespaces_every_route_on_the_host_of_another_is_refused_until_it_is_free() {
    let mut first = TestNamespace::create("owner").await;
    let second = TestNamespace::create("guest").await;
    first.watch_also(&second);
    let host = host_of(&first);
    for team in [&first, &second] {
        team.secrets(MONGO).await;
    }
    let _controller = first.run_with("controller", &["--host-policy", "namespace"]).await;
    first.apply(&claiming(&first, "orders", &host, "/a", &[])).await.unwrap();
    first.condition("orders", IngressReady, "True", "MissingClient").await;
    next_second(&first).await;
    second.apply(&claiming(&second, "orders", &host, "/b", &[])).await.unwrap();
    let message = second.condition("orders", IngressReady, "False", "HostOwnedByOtherNamespace").await;
    assert!(
        message.contains(&format!("namespace {:?}", first.name)) && message.contains("use another host"),
        "{message}"
    );
    assert!(served(&second, "orders").await.is_empty());
    // Another resource of the same namespace may use the host.
    first.apply(&claiming(&first, "more", &host, "/c", &[])).await.unwrap();
    first.condition("more", IngressReady, "True", "MissingClient").await;
    for name in ["orders", "more"] {
        first.api::<OrdersService>().delete(name, &DeleteParams::background()).await.unwrap();
    }
    second.condition("orders", IngressReady, "True", "MissingClient").await;
    assert_eq!(served(&second, "orders").await, [format!("{host}/b")]);
    for team in [first, second] {
        team.remove().await;
    }
}

#[tokio::test]
async fn a_missing_certificate_and_an_overlapping_wildcard_are_warnings() {
    let namespace = TestNamespace::create("warn").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let base = host_of(&namespace);
    let with_hosts = |host: &str, tls: Value| {
        namespace.service(
            if host.starts_with('*') { "wild" } else { "exact" },
            json!({"ingress": {"hosts": [host], "tls": tls}}),
        )
    };
    let tls = json!({"secretName": "certificate"});
    namespace.apply(&with_hosts(&format!("*.{base}"), tls)).await.unwrap();
    let message = namespace.condition("wild", IngressReady, "True", "TLSSecretMissing").await;
    assert!(message.contains("\"certificate\"") && message.contains("kubernetes.io/tls"), "{message}");
    assert_eq!(served(&namespace, "wild").await.len(), 4, "it is rendered all the same");
    namespace.secret("certificate", "tls.crt", "x").await;
    namespace.ready("wild").await;
    // That there is no class by default is the least of the warnings.
    let message = namespace.condition("wild", IngressReady, "True", "IngressClassNotFound").await;
    assert!(message.contains("the cluster has no default IngressClass"), "{message}");

    namespace.apply(&with_hosts(&format!("a.{base}"), Value::Null)).await.unwrap();
    let message = namespace.condition("exact", IngressReady, "True", "WildcardOverlap").await;
    assert!(message.contains(&format!("\"*.{base}\"")), "{message}");
    let message = namespace.condition("wild", IngressReady, "True", "WildcardOverlap").await;
    assert!(message.contains(&format!("requests for a.{base} never fall through")), "{message}");
    namespace.api::<OrdersService>().delete("exact", &DeleteParams::background()).await.unwrap();
    namespace.condition("wild", IngressReady, "True", "IngressClassNotFound").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_status_names_the_object_of_another_namespace_and_quotes_nothing_that_is_written_there() {
    let mut wild = TestNamespace::create("wild").await;
    let exact = TestNamespace::create("exact").await;
    wild.watch_also(&exact);
    for team in [&wild, &exact] {
        team.secrets(MONGO).await;
    }
    let _controller = wild.run("controller").await;
    let base = host_of(&wild);
    wild.apply(&claiming(&wild, "orders", &format!("*.{base}"), "/a", &[])).await.unwrap();
    wild.condition("orders", IngressReady, "True", "MissingClient").await;
    let secret = format!("not-yet-announced.{base}");
    exact.apply(&claiming(&exact, "orders", &secret, "/a", &[])).await.unwrap();
    let message = exact.condition("orders", IngressReady, "True", "WildcardOverlap").await;
    let (has, object) = ("has a wildcard that covers", format!("OrdersService {}/orders", wild.name));
    assert!(message.contains(&format!("{object} {has} {secret}")), "{message}");
    assert!(!message.contains('*'), "{message}");
    let message = wild.condition("orders", IngressReady, "True", "WildcardOverlap").await;
    assert!(message.contains(&format!("OrdersService {}/orders has a host that *.{base}", exact.name)));
    assert!(!message.contains("not-yet-announced"), "{message}");
    for team in [wild, exact] {
        team.remove().await;
    }
}

#[tokio::test]
async fn a_route_that_is_still_served_is_not_given_to_others_because_the_change_of_its_ingress_was_rejected()
{
    let namespace = TestNamespace::create("stays").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let (former, wanted) = (host_of(&namespace), format!("new.{}", host_of(&namespace)));
    namespace.apply(&claiming(&namespace, "first", &former, "/a", &[])).await.unwrap();
    namespace.condition("first", IngressReady, "True", "MissingClient").await;
    let mut moved = claiming(&namespace, "first", &wanted, "/a", &[]);
    // Each is allowed; all of them together are more than an object may have.
    let many = (0..20).map(|number| (format!("example.com/{number}"), json!("x".repeat(16_000))));
    moved["spec"]["ingress"]["annotations"] = many.collect();
    namespace.apply(&moved).await.unwrap();
    let message = namespace.condition("first", Valid, "False", "InvalidSpec").await;
    assert!(message.contains("Ingress \"first\""), "{message}");
    assert_eq!(served(&namespace, "first").await, [format!("{former}/a")]);
    namespace.apply(&claiming(&namespace, "second", &former, "/a", &[])).await.unwrap();
    let message = namespace.condition("second", IngressReady, "False", "HostPathConflict").await;
    assert!(message.contains("/first"), "{message}");

    namespace.apply(&claiming(&namespace, "first", &wanted, "/a", &[])).await.unwrap();
    namespace.condition("second", IngressReady, "True", "MissingClient").await;
    assert_eq!(served(&namespace, "first").await, [format!("{wanted}/a")]);
    assert_eq!(served(&namespace, "second").await, [format!("{former}/a")]);
    namespace.remove().await;
}

#[tokio::test]
async fn a_suspended_winner_keeps_what_it_serves_and_a_restart_changes_nothing() {
    let namespace = TestNamespace::create("keeps").await;
    namespace.secrets(MONGO).await;
    let host = host_of(&namespace);
    let controller = namespace.run_elected().await;
    namespace.apply(&claiming(&namespace, "first", &host, "/a", &["/x"])).await.unwrap();
    namespace.condition("first", IngressReady, "True", "MissingClient").await;
    next_second(&namespace).await;
    namespace.apply(&claiming(&namespace, "second", &host, "/b", &["/x"])).await.unwrap();
    namespace.condition("second", IngressReady, "False", "HostPathConflict").await;
    // It gives the path up, but its Ingress is not to be touched.
    let mut suspended = claiming(&namespace, "first", &host, "/a", &[]);
    suspended["spec"]["suspend"] = json!(true);
    namespace.apply(&suspended).await.unwrap();
    namespace.condition("first", Ready, "False", "Suspended").await;
    let both = [(&namespace, "first"), (&namespace, "second")];
    let before = super::settled_of(&both).await;
    let standby = namespace.run_elected().await;
    eventually("the standby is ready", || async {
        standby.admin("/readyz").await.contains("[+]caches ok").then_some(())
    })
    .await;
    for kind in ["OrdersService", "Ingress", "Secret"] {
        let sent = format!("orders_operator_controller_api_requests_total{{kind=\"{kind}\"");
        assert_eq!(standby.metric(&sent).await, 0.0, "a standby writes nothing");
    }
    controller.kill();
    eventually("the standby has reconciled", || async {
        (standby.metric("orders_operator_controller_reconciles_total").await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(super::settled_of(&both).await, before);
    assert_eq!(served(&namespace, "second").await, [format!("{host}/b")]);
    suspended["spec"]["suspend"] = json!(false);
    namespace.apply(&suspended).await.unwrap();
    namespace.condition("second", IngressReady, "True", "MissingClient").await;
    assert_eq!(served(&namespace, "second").await, [format!("{host}/b"), format!("{host}/x")]);
    namespace.remove().await;
}

/// How many: `CROWD=500` takes minutes, and is in the unit tests where it takes none.
fn crowd_size() -> usize {
    number("CROWD", 60)
}

/// The paths that the OrdersServices of the crowd choose from.
const PATHS: [&str; 12] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/b",
    "/b/c",
    "/c",
    "/api/orders",
    "/api/users",
    "/api",
    "/ws",
    "/shop",
    "/shop/cart",
];

/// What one of the crowd is to say: its paths in rendered order, and for each that it lost, who has it.
type Expected = (Vec<String>, Vec<String>);

/// What the crowd is to look like, by the rules as they are written.
fn by_the_book(crowd: &[(String, OrdersService)]) -> BTreeMap<String, Expected> {
    let paths = |service: &OrdersService| -> BTreeSet<String> {
        let ingress = service.spec.ingress.as_ref().unwrap();
        let mut paths: BTreeSet<_> = ingress.routes.iter().map(|route| route.path.clone()).collect();
        paths.insert(ingress.path.clone());
        paths.extend(ingress.client.is_some().then(|| "/".to_owned()));
        paths
    };
    let mut by_age: Vec<_> = crowd.iter().collect();
    by_age.sort_by_key(|(key, service)| (service.creation_timestamp(), key.clone()));
    let (mut taken, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for (key, service) in by_age {
        let (mut got, mut lost) = (Vec::new(), Vec::new());
        for path in paths(service) {
            match taken.get(&path) {
                Some(winner) => lost.push(format!("OrdersService {winner}")),
                None => {
                    taken.insert(path.clone(), key);
                    got.push(path);
                }
            }
        }
        let segments = |path: &str| if path == "/" { 0 } else { path.matches('/').count() };
        got.sort_by_key(|path| (std::cmp::Reverse((segments(path), path.len())), path.clone()));
        expected.insert(key.clone(), (got, lost));
    }
    expected
}

/// Whether the resource says what is expected of it.
fn says(service: &OrdersService, (got, lost): &Expected) -> bool {
    let status = service.status.clone().unwrap_or_default();
    let routes: Vec<_> = status.routes.iter().map(|route| &route.path).collect();
    let Some(ready) = find_condition(&status.conditions, IngressReady) else { return false };
    let conflict = ready.status == "False" && ready.reason == "HostPathConflict";
    routes == got.iter().collect::<Vec<_>>()
        && conflict != lost.is_empty()
        && lost
            .iter()
            .all(|winner| [" ", ","].iter().any(|end| ready.message.contains(&format!("{winner}{end}"))))
}

#[tokio::test]
async fn with_many_resources_on_one_host_the_oldest_gets_each_path_in_whatever_order_they_arrive() {
    let mut first = TestNamespace::create("crowd").await;
    let mut others = Vec::new();
    for number in 1..20 {
        let other = TestNamespace::create(&format!("crowd-{number}")).await;
        first.watch_also(&other);
        others.push(other);
    }
    let namespaces: Vec<_> = std::iter::once(&first).chain(&others).collect();
    let size = crowd_size();
    stream::iter(&namespaces).for_each_concurrent(8, |namespace| namespace.secrets(MONGO)).await;
    for seed in [1, 2_u32] {
        let mut random = fastrand::Rng::with_seed(seed.into());
        let host = format!("seed-{seed}.{}.dev", first.name);
        let mut objects: Vec<_> = (0..size)
            .map(|number| {
                let namespace = namespaces[number % namespaces.len()];
                let mut paths = PATHS;
                random.shuffle(&mut paths);
                let mut object =
                    claiming(namespace, &format!("s{seed}-{number}"), &host, paths[0], &paths[1..4]);
                if random.u8(..4) == 0 {
                    object["spec"]["ingress"]["client"] = json!({"service": "client-srv"});
                }
                // Fewer children: this is about routes.
                object["spec"]["networkPolicy"] = json!(false);
                object["spec"]["podTemplate"] = json!({"serviceAccountName": "default"});
                (namespace, object)
            })
            .collect();
        random.shuffle(&mut objects);
        // Half are there before the controller, half come while it runs.
        let (before, after) = objects.split_at(size / 2);
        let create = async |objects: &[(&TestNamespace, Value)]| {
            let requests = stream::iter(objects)
                .map(|(namespace, object)| async move { namespace.apply(object).await.unwrap() });
            requests.buffer_unordered(8).collect::<Vec<_>>().await;
        };
        create(before).await;
        let controller = first.run_with("controller", &["--concurrency", "32"]).await;
        create(after).await;

        let everyone = Api::<OrdersService>::all(first.client.clone());
        let crowd = || async {
            let mine = |service: &OrdersService| {
                let hosts = service.spec.ingress.as_ref().map(|ingress| ingress.hosts.as_slice());
                hosts.and_then(<[_]>::first).is_some_and(|first| first.0 == host)
            };
            let found = everyone.list(&Default::default()).await.unwrap().items.into_iter().filter(mine);
            let key =
                |service: &OrdersService| format!("{}/{}", service.namespace().unwrap(), service.name_any());
            found.map(|service| (key(&service), service)).collect::<Vec<_>>()
        };
        let expected = by_the_book(&crowd().await);
        assert_eq!(expected.len(), size);
        assert!(expected.values().filter(|(got, _)| got.is_empty()).count() > size / 2);
        let mut done = 0;
        while done < size {
            done = eventually("more of them have what is theirs, and say who has the rest", || async {
                let right = |(key, service): &&(String, OrdersService)| says(service, &expected[key]);
                let now = crowd().await.iter().filter(right).count();
                (now > done).then_some(now)
            })
            .await;
        }
        // The Ingresses have just that, and no path is there twice.
        let mut all = BTreeSet::new();
        for namespace in &namespaces {
            for ingress in namespace.api::<Ingress>().list(&Default::default()).await.unwrap() {
                let key = format!("{}/{}", namespace.name, ingress.name_any());
                let Some((paths, _)) = expected.get(&key) else { continue };
                let rules: Vec<_> = rules(&ingress);
                let rendered: Vec<_> = rules.iter().map(|rule| rule.split(' ').next().unwrap()).collect();
                let wanted: Vec<_> = paths.iter().map(|path| format!("{host}{path}")).collect();
                assert_eq!(rendered, wanted, "{key}");
                all.extend(wanted);
            }
        }
        assert_eq!(all.len(), PATHS.len() + 1, "every path is served by someone");
        // Another controller, to which they come in another order, finds nothing to change.
        let told = || async {
            let of_routes = |(key, service): (String, OrdersService)| {
                let status = service.status.unwrap();
                (key, status.routes, find_condition(&status.conditions, IngressReady).cloned())
            };
            let resources: Vec<_> = crowd().await.into_iter().map(of_routes).collect();
            let mut ingresses = Vec::new();
            for namespace in &namespaces {
                let found = namespace.api::<Ingress>().list(&Default::default()).await.unwrap();
                ingresses
                    .extend(found.into_iter().map(|ingress| (ingress.uid(), ingress.resource_version())));
            }
            (resources, ingresses)
        };
        let before = told().await;
        controller.kill();
        let controller = first.run_with("controller", &["--concurrency", "32"]).await;
        eventually("it has looked at all of them", || async {
            (controller.metric("orders_operator_controller_reconciles_total").await
                >= f64::from(seed * size as u32))
            .then_some(())
        })
        .await;
        assert!(told().await == before, "something was changed");
    }
    for other in others {
        other.remove().await;
    }
    first.remove().await;
}
