//! What each service account of the chart may do: SECURITY.md, the chart and the API server agree about it, and the
//! processes use all of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{Method, Request, Response, StatusCode, header},
};
use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::{Api, Client, api::PostParams};
use orders_operator::crd::ConditionType::{Ready, Reconciled, Sweeping};
use serde_json::{Value, json};

use crate::{
    cluster::{TestNamespace, eventually, root},
    controller::whole,
    mongo::{TestDatabase, uri},
    sweeper::service,
};

/// A resource as `kubectl auth can-i --list` writes it, such as `ordersservices.ticketing.dev/status`, the name of the
/// only object that the right is for, and a verb.
type Right = (String, String, String);

fn resource(group: &str, resource: &str) -> String {
    let (plural, sub) = resource.split_once('/').map_or((resource, ""), |(plural, sub)| (plural, sub));
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if sub.is_empty() { "" } else { "/" };
    format!("{plural}{dot}{group}{slash}{sub}")
}

/// The rights that a rule gives.
fn rights(groups: &[String], resources: &[String], names: &[String], verbs: &[String]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let any = [String::new()];
    for group in groups {
        for plural in resources {
            for name in if names.is_empty() { &any } else { names } {
                for verb in verbs {
                    rights.insert((resource(group, plural), name.clone(), verb.clone()));
                }
            }
        }
    }
    rights
}

/// An installation of the chart, and which columns of the table in SECURITY.md each of its accounts has.
struct Installation {
    set: String,
    accounts: &'static [(&'static str, &'static [&'static str])],
    /// Where the rights over watched namespaces are; in all when empty.
    watched: Vec<String>,
    ingress_classes: bool,
    enforces_owners: bool,
}

/// What SECURITY.md says that an account may do in `namespace`.
fn documented(
    installation: &Installation,
    columns: &[&str],
    release: &TestNamespace,
    namespace: &str,
) -> BTreeSet<Right> {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| where | resource |"));
    let header: Vec<_> = lines.next().unwrap().split('|').map(str::trim).collect();
    let column =
        |row: &[&str], name: &str| row[header.iter().position(|title| *title == name).unwrap()].to_owned();
    let quoted =
        |cell: String| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut rights = BTreeSet::new();
    for row in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let row: Vec<_> = row.split('|').map(str::trim).collect();
        let is_watched =
            installation.watched.is_empty() || installation.watched.iter().any(|name| name == namespace);
        let applies = match column(&row, "where").as_str() {
            "watched namespaces" => is_watched,
            "own namespace" => namespace == release.name,
            "watched namespaces, with `ownerReferencesPermissionEnforcement: true`" => {
                is_watched && installation.enforces_owners
            }
            "cluster" => installation.ingress_classes,
            other => panic!("{other}"),
        };
        if !applies || columns.iter().all(|name| column(&row, name).is_empty()) {
            continue;
        }
        let mut names = quoted(column(&row, "only the object"));
        for name in &mut names {
            *name = name.replace("RELEASE", &format!("{}-orders-operator", release.name));
        }
        for resource in quoted(column(&row, "resource")) {
            for verb in quoted(column(&row, "verbs")) {
                rights.insert((resource.clone(), names.first().cloned().unwrap_or_default(), verb));
            }
        }
    }
    rights
}

/// What the chart gives the account in `namespace`.
fn rendered(objects: &[Value], account: &str, namespace: &str) -> BTreeSet<Right> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    let bindings = objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding"));
    for binding in bindings.filter(|binding| binding["subjects"][0]["name"] == account) {
        let scope = &binding["metadata"]["namespace"];
        if scope.is_string() && scope != namespace {
            continue;
        }
        let is_role = |object: &&Value| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && object["metadata"]["namespace"] == *scope
        };
        for rule in objects.iter().find(is_role).unwrap()["rules"].as_array().unwrap() {
            let list = |name: &str| texts(&rule[name]);
            all.extend(rights(
                &list("apiGroups"),
                &list("resources"),
                &list("resourceNames"),
                &list("verbs"),
            ));
        }
    }
    all
}

/// What `kubectl auth can-i --list` asks the API server.
async fn granted(client: &Client, namespace: &str) -> BTreeSet<Right> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..Default::default() };
    let api = Api::<SelfSubjectRulesReview>::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.unwrap().status;
    let SubjectRulesReviewStatus { resource_rules, .. } = answer.unwrap();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let of_rule = |rule: &ResourceRule| {
        rights(&list(&rule.api_groups), &list(&rule.resources), &list(&rule.resource_names), &rule.verbs)
    };
    resource_rules.iter().flat_map(of_rule).collect()
}

#[tokio::test]
async fn each_account_may_do_what_the_page_about_security_says_in_each_kind_of_installation() {
    let other = TestNamespace::create("watched").await;
    for (kind, namespaced, separate, ingress_classes, enforces_owners) in [
        ("default", false, false, true, false),
        ("separate", false, true, true, true),
        ("namespaced", true, false, false, true),
        ("apart", true, true, true, false),
    ] {
        let namespace = TestNamespace::create(kind).await;
        let watched = if namespaced { vec![namespace.name.clone(), other.name.clone()] } else { Vec::new() };
        let all = if namespaced { format!("{{{}}}", watched.join(",")) } else { "null".to_owned() };
        let installation = Installation {
            set: format!(
                "watchNamespaces={all},sweeper.separate={separate},ingressClasses.enabled={ingress_classes},\
                 ownerReferencesPermissionEnforcement={enforces_owners}"
            ),
            accounts: if separate {
                &[("", &["controller"]), ("-sweeper", &["sweeper"])]
            } else {
                &[("", &["controller", "sweeper"])]
            },
            watched,
            ingress_classes,
            enforces_owners,
        };
        let objects = namespace.install_rights(&installation.set).await;
        let everyone = namespace.client_as("default").await;
        let accounts = objects.iter().filter(|object| object["kind"] == "ServiceAccount").count();
        assert_eq!(accounts, installation.accounts.len());
        for (suffix, columns) in installation.accounts {
            let account = format!("{}-orders-operator{suffix}", namespace.name);
            let client = namespace.client_as(&account).await;
            for place in [namespace.name.as_str(), &other.name, "default"] {
                let expected = documented(&installation, columns, &namespace, place);
                let rendered = rendered(&objects, &account, place);
                let (more, less) = (rendered.difference(&expected), expected.difference(&rendered));
                let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
                assert!(
                    more.is_empty() && less.is_empty(),
                    "{kind}: {account} in {place}: only in the chart {more:?}, only on the page {less:?}"
                );
                eventually(&format!("{account} may do this in {place}: {expected:?}"), || async {
                    let (all, everyone) = (granted(&client, place).await, granted(&everyone, place).await);
                    (all.difference(&everyone).cloned().collect::<BTreeSet<_>>() == expected).then_some(())
                })
                .await;
            }
        }
        namespace.remove().await;
    }
    other.remove().await;
}

/// The resource and the verb of every request of a process.
type Used = Arc<Mutex<BTreeSet<(String, String)>>>;

/// The resource and the verb of a request; none for discovery.
fn usage(method: &Method, path: &str, query: &str) -> Option<(String, String)> {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, None, ""),
        [plural, name] => (*plural, Some(*name), ""),
        [plural, name, sub] => (*plural, Some(*name), *sub),
        _ => return None,
    };
    let verb = match (method.as_str(), name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if query.contains("watch=") => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        other => panic!("{other:?} {path}"),
    };
    let slash = if sub.is_empty() { "" } else { "/" };
    Some((resource(group, &format!("{plural}{slash}{sub}")), verb.to_owned()))
}

async fn forward(
    State((client, used)): State<(Client, Used)>,
    mut request: Request<Body>,
) -> Result<Response<Body>, StatusCode> {
    let right = usage(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::AUTHORIZATION);
    let (mut head, body) = request.into_parts();
    head.uri = head.uri.path_and_query().unwrap().as_str().parse().unwrap();
    let bytes = to_bytes(body, usize::MAX).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let answer = client
        .send(Request::from_parts(head, bytes.to_vec().into()))
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    if let Some((resource, verb)) = right {
        let mut used = used.lock().unwrap();
        // A server-side apply of what is not there yet takes the right to create, too.
        if verb == "patch" && answer.status() == StatusCode::CREATED {
            used.insert((resource.clone(), "create".into()));
        }
        if answer.status() != StatusCode::FORBIDDEN {
            used.insert((resource, verb));
        }
    }
    let mut answer = answer.map(Body::new);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(answer)
}

/// Has the subcommand of this namespace reach the API server by a proxy that records what it asks for.
async fn recorded(namespace: &TestNamespace, subcommand: &str) -> Used {
    let used = Used::default();
    let client = namespace.chart_client(subcommand).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    namespace.lead(subcommand, &format!("http://{}", listener.local_addr().unwrap()), None).await;
    let router = Router::new().fallback(forward).with_state((client, used.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    used
}

/// Checks that a process has used every right that the chart gives its account.
async fn used_all(namespace: &TestNamespace, account: &str, used: &Used, but: &[&str]) {
    let objects = namespace.install_rights(&namespace.chart_values()).await;
    let given: BTreeSet<_> = rendered(&objects, account, &namespace.name)
        .into_iter()
        .filter(|(resource, ..)| !but.contains(&resource.as_str()))
        .map(|(resource, _, verb)| (resource, verb))
        .collect();
    assert!(given.len() > 9, "{given:?}");
    let unused: Mutex<BTreeSet<_>> = Mutex::default();
    let all = async {
        eventually("every right is used", || async {
            *unused.lock().unwrap() = given.difference(&used.lock().unwrap()).cloned().collect();
            unused.lock().unwrap().is_empty().then_some(())
        })
        .await;
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all)
        .await
        .unwrap_or_else(|_| panic!("{account} does not need {:?}", unused.lock().unwrap()));
}

/// Whether to suspend next, until a process has told an event again, which is a patch of it. Which of two processes has its
/// turn may change in between, and then the other one tells the event for the first time.
fn until_an_event_repeats(used: &Used) -> impl Iterator<Item = bool> {
    let repeats = ("events.events.k8s.io".to_owned(), "patch".to_owned());
    [false, true].into_iter().cycle().take(40).take_while(move |_| !used.lock().unwrap().contains(&repeats))
}

#[tokio::test]
async fn the_controller_needs_every_right_that_the_chart_gives_it() {
    let namespace = TestNamespace::create("needed").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let used = recorded(&namespace, "controller").await;
    // A leader, and a standby that watches its Lease.
    let _controllers = [namespace.run_elected().await, namespace.run_elected().await];
    let mut on = namespace.service("orders", whole());
    on["spec"]["serviceName"] = json!("orders-srv");
    namespace.apply(&on).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    eventually("it has asked why the pods do not run", || async {
        used.lock().unwrap().contains(&("pods".into(), "list".into())).then_some(())
    })
    .await;
    let off = json!({"networkPolicy": false, "podTemplate": {"serviceAccountName": "default"}});
    let mut object = namespace.service("orders", off);
    object["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&object).await.unwrap();
    namespace.ready("orders").await;
    for suspend in until_an_event_repeats(&used) {
        object["spec"]["suspend"] = json!(suspend);
        namespace.apply(&object).await.unwrap();
        if suspend {
            namespace.condition("orders", Ready, "False", "Suspended").await;
        } else {
            namespace.ready("orders").await;
        }
    }
    // Where there is a Gateway API, or Traefik, their tests show that the rights over HTTPRoutes and Middlewares are used.
    let account = format!("{}-orders-operator", namespace.name);
    used_all(
        &namespace,
        &account,
        &used,
        &["httproutes.gateway.networking.k8s.io", "middlewares.traefik.io"],
    )
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn the_sweeper_needs_every_right_that_the_chart_gives_it() {
    let namespace = TestNamespace::create("needs").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let used = recorded(&namespace, "sweeper").await;
    let _sweepers = [namespace.run_sweeper().await, namespace.run_sweeper().await];
    let _controller = namespace.run("controller").await;
    for suspend in until_an_event_repeats(&used) {
        let patch = json!({"expiration": {"suspend": suspend}});
        namespace.apply(&service(&namespace, "orders", &database, patch)).await.unwrap();
        let (status, reason) = if suspend { ("False", "Suspended") } else { ("True", "AsExpected") };
        namespace.condition("orders", Sweeping, status, reason).await;
    }
    used_all(&namespace, &format!("{}-orders-operator-sweeper", namespace.name), &used, &[]).await;
    namespace.remove().await;
}

#[test]
fn a_request_is_named_by_the_right_that_it_takes() {
    let used = |method: &str, path, query| {
        let (resource, verb) = usage(&method.parse().unwrap(), path, query)?;
        Some(format!("{verb} {resource}"))
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";
    assert_eq!(used("GET", leases, "").as_deref(), Some("list leases.coordination.k8s.io"));
    assert_eq!(used("GET", leases, "&watch=true").as_deref(), Some("watch leases.coordination.k8s.io"));
    assert_eq!(used("GET", "/api/v1/namespaces/shop/secrets/a", "").as_deref(), Some("get secrets"));
    let status = "/apis/ticketing.dev/v1alpha1/namespaces/shop/ordersservices/a/status";
    assert_eq!(used("PATCH", status, "").as_deref(), Some("patch ordersservices.ticketing.dev/status"));
    assert_eq!(used("GET", "/apis/gateway.networking.k8s.io/v1", ""), None);
}
