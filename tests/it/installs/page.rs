//! The chart by `helm install`: the commands of docs/installing.md, one after the other, on an API server that has nothing
//! of ours; and an upgrade from the last version, and back.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::ListParams};
use orders_operator::crd::OrdersService;
use serde_json::{Value, json};

use super::{alone, clear, done, kubeconfig, shell};
use crate::{
    cluster::{apply_any, client_by, eventually, root},
    console::whole,
};

const CRD: &str = "ordersservices.ticketing.dev";

/// The chart of the last version before this one: `released` in dev/versions.toml says which commit it is of.
const FORMER: &str = "tests/chart/orders-operator-0.1.0.tgz";

/// The commands of the page by the title of their section.
fn sections() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for block in whole("docs/installing.md") {
        match all.last_mut().filter(|(title, _)| *title == block.title) {
            Some((_, commands)) => *commands += &block.text,
            None => all.push((block.title, block.text)),
        }
    }
    all
}

/// The sections of docs/installing.md whose commands start from something else than a checkout and an empty cluster: those of
/// `release.rs` from the folder of a release, and the one that follows the former version.
const ELSEWHERE: [&str; 5] = [
    "Without Helm",
    "Without Helm, in one namespace",
    "By kustomize",
    "Upgrading from 0.1.0",
    "Removing it, without Helm",
];

fn page() -> String {
    std::fs::read_to_string(root().join("docs/installing.md")).unwrap()
}

/// The commands of one of these sections.
pub(super) fn commands_of(title: &str) -> String {
    assert!(ELSEWHERE.contains(&title), "{title}");
    let found = sections().into_iter().find(|(name, _)| name == title);
    found.unwrap_or_else(|| panic!("docs/installing.md has no commands in a section {title}")).1
}

async fn refused(script: &str) -> String {
    let output = shell(script).await;
    assert!(!output.status.success(), "{script}");
    String::from_utf8(output.stderr).unwrap()
}

/// The operator's Deployments, as NAMESPACE/NAME.
async fn operators(client: &kube::Client) -> Vec<String> {
    let all = Api::<Deployment>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let named = |deployment: &Deployment| {
        format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
    };
    all.iter().filter(|deployment| deployment.labels().contains_key("helm.sh/chart")).map(named).collect()
}

/// Who owns the CRD as helm sees it: the name of the release. Nothing if there is no CRD or no owner.
async fn owner(client: &kube::Client) -> Option<String> {
    let crd = Api::<CustomResourceDefinition>::all(client.clone()).get_opt(CRD).await.unwrap()?;
    crd.annotations().get("meta.helm.sh/release-name").cloned()
}

/// Makes an OrdersService in a namespace of its own, and gives what must stay of it.
async fn order_service(client: &kube::Client) -> Value {
    let spec = json!({"replicas": 0, "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                      "database": {"uriSecretRef": {"name": "orders-mongo"}},
                      "ingress": {"hosts": ["ticketing.dev"], "client": {"service": "client-srv"}}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "live"}});
    apply_any(client, namespace).await;
    let object = json!({"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
                        "metadata": {"name": "orders", "namespace": "live"}, "spec": spec});
    apply_any(client, object).await;
    state(client).await
}

/// What no installation, upgrade or removal of the chart may change of it.
async fn state(client: &kube::Client) -> Value {
    let api = Api::<OrdersService>::namespaced(client.clone(), "live");
    let object = api.get("orders").await.unwrap();
    json!({"uid": object.uid(), "generation": object.metadata.generation, "hosts": object.spec.ingress.map(|i| i.hosts)})
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn every_command_of_the_page_about_installing_works() {
    let _alone = alone().await;
    let client = client_by(kubeconfig()).await;
    let page = page();
    let mut all = sections();
    all.retain(|(title, _)| !ELSEWHERE.contains(&title.as_str()));
    let expected: &[(&str, &[&str], Option<&str>)] = &[
        ("One installation", &["orders-operator/orders-operator"], Some("orders-operator")),
        ("In some namespaces only", &["orders-operator/orders-operator"], Some("orders-operator")),
        (
            "Two installations",
            &["team-a/orders-operator", "team-b/orders-operator", "team-b/shop-c-operator"],
            Some("orders-operator"),
        ),
        ("Where the CRD is there already", &["orders-operator/orders-operator"], Some("orders-operator")),
        ("A CRD of your own", &["orders-operator/orders-operator"], None),
        ("With an older Helm", &["orders-operator/orders-operator"], Some("orders-operator")),
        ("Under another name", &["ticketing-system/orders-orders-operator"], Some("orders")),
        ("Upgrading", &["orders-operator/orders-operator"], Some("orders-operator")),
        ("The way back", &["orders-operator/orders-operator"], Some("orders-operator")),
        ("Removing it", &[], None),
    ];
    let titles: Vec<_> = all.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, expected.iter().map(|(title, ..)| *title).collect::<Vec<_>>());
    for ((title, commands), (_, deployments, of)) in all.iter().zip(expected) {
        // Someone who reads does not type faster than the API server knows a new CRD.
        let (first, then) = commands.split_at(commands.find("kubectl delete osvc").unwrap_or(commands.len()));
        done(first).await;
        eventually("OrdersServices are known", || async {
            shell("kubectl get osvc").await.status.success().then_some(())
        })
        .await;
        done(then).await;
        let mut found = operators(&client).await;
        found.sort_unstable();
        assert_eq!(found, *deployments, "{title}");
        assert_eq!(owner(&client).await.as_deref(), *of, "{title}");
        clear().await;
    }
    // What the page says helm says, of a rollback and of a CRD that is there already.
    let install = "helm install orders-operator charts/orders-operator -n orders-operator --create-namespace";
    let upgrade =
        "helm upgrade orders-operator charts/orders-operator -n orders-operator --reset-then-reuse-values";
    done(&format!("{install}; {upgrade} --set crds.enabled=false")).await;
    let refusal = refused("helm rollback orders-operator -n orders-operator").await;
    assert!(
        refusal.contains(&format!("no CustomResourceDefinition with the name \"{CRD}\" found")),
        "{refusal}"
    );
    done(&format!("{upgrade} --set crds.enabled=true")).await;
    assert_eq!(owner(&client).await.as_deref(), Some("orders-operator"));
    clear().await;
    done("orders-operator crd | kubectl apply -f -").await;
    let refusal = refused(install).await;
    assert!(
        refusal.contains("invalid ownership metadata") && page.contains("invalid ownership metadata"),
        "{refusal}"
    );
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn an_upgrade_from_the_former_version_and_the_way_back_keep_every_resource() {
    let _alone = alone().await;
    let client = client_by(kubeconfig()).await;
    // With the tag that its README named, and a value that had no effect, as nobody noticed.
    done(&format!(
        "helm install orders-operator {FORMER} -n orders-operator --create-namespace \
         --set image.tag=0.1.0,replicaCount=1,replicas=3"
    ))
    .await;
    let before = order_service(&client).await;
    let deployed = || async {
        let api = Api::<Deployment>::namespaced(client.clone(), "orders-operator");
        let spec = api.get("orders-operator").await.unwrap().spec.unwrap();
        let images =
            spec.template.spec.unwrap().containers.into_iter().map(|container| container.image.unwrap());
        (spec.replicas, images.collect::<BTreeSet<_>>())
    };
    let of_version = |version: &str| BTreeSet::from([format!("orders-operator:{version}")]);
    assert_eq!(deployed().await, (Some(3), of_version("0.1.0")));
    let upgrade = commands_of("Upgrading from 0.1.0");
    let upgrade = upgrade.trim_end();
    let refusal = refused(upgrade).await;
    assert!(refusal.contains("additional properties 'replicaCount' not allowed"), "{refusal}");
    done(&format!("{upgrade} --set replicaCount=null")).await;
    assert_eq!(state(&client).await, before);
    let now = (Some(3), of_version(env!("CARGO_PKG_VERSION")));
    assert_eq!(deployed().await, now, "what was set stays, but for the tag");
    let roles = "kubectl get clusterroles,clusterrolebindings -o name | grep /orders-operator | sort";
    let names = done(roles).await;
    assert!(names.lines().all(|name| name.contains("/orders-operator:orders-operator")), "{names}");
    assert_eq!(names.lines().count(), 5, "{names}");

    done("helm rollback orders-operator -n orders-operator").await;
    assert_eq!(state(&client).await, before);
    let names = done(roles).await;
    assert!(names.lines().all(|name| !name.contains(':')) && names.lines().count() >= 2, "{names}");
    done("helm uninstall orders-operator -n orders-operator").await;
    assert_eq!(state(&client).await, before, "the CRD stays, and what is of it");
}
