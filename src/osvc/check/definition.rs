//! The CRD: whether it is there, served, and that of this version.

use kube::{
    Api, Resource,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use super::report::Group;
use crate::{
    crd::{OrdersService, crd_yaml},
    osvc::{cluster::Cluster, error::AskError},
};

/// The name of the CRD.
const NAME: &str = "ordersservices.ticketing.dev";

/// How it is installed without Helm.
const INSTALL: &str =
    "install it: `orders-operator crd | kubectl apply --server-side -f -`, or with the chart";

/// Checks the CRD; also gives whether OrdersServices can be listed.
pub(super) async fn check(cluster: &Cluster, pre: bool) -> (Group, bool) {
    let mut group = Group::new("CustomResourceDefinition");
    let (served, version) = (OrdersService::api_version(&()), OrdersService::version(&()));
    let kinds = cluster.client.list_api_group_resources(&served);
    let is_served = match cluster.ask("list the kinds of ticketing.dev", kinds).await {
        Ok(kinds) => kinds.resources.iter().any(|kind| kind.name == "ordersservices"),
        Err(AskError::NotFound(_)) => false,
        Err(error) => {
            group.unasked(&error);
            return (group, false);
        }
    };
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crds = Api::<DynamicObject>::all_with(cluster.client.clone(), &ApiResource::from_gvk(&kind));
    match cluster.ask(&format!("read the CRD {NAME}"), crds.get_opt(NAME)).await {
        Ok(Some(crd)) => judge(&mut group, &crd, is_served, pre),
        Ok(None) if pre => group.ok(format!("the CRD {NAME} is not there yet: the installation brings it")),
        Ok(None) => group.failure(format!("the CRD {NAME} is not there"), INSTALL),
        Err(AskError::Forbidden(_)) if is_served => group.warning(
            format!("OrdersServices are served as {version}; whether their schema is that of this version is not known"),
            "you lack the right to read CRDs: have an administrator run this check",
        ),
        Err(AskError::Forbidden(_)) if pre => {
            group.ok("OrdersServices are not served yet: the installation brings their CRD")
        }
        Err(AskError::Forbidden(_)) => group.failure("OrdersServices are not served", INSTALL),
        Err(error) => group.unasked(&error),
    }
    (group, is_served)
}

fn judge(group: &mut Group, crd: &DynamicObject, is_served: bool, pre: bool) {
    let conditions = crd.data["status"]["conditions"].as_array().into_iter().flatten();
    let mut established = conditions.filter(|condition| condition["type"] == "Established");
    let is_established = established.any(|condition| condition["status"] == "True");
    if !is_established {
        group.failure(
            format!("the CRD {NAME} is there and not established"),
            format!("`kubectl describe crd {NAME}` says why"),
        );
        return;
    }
    let version = OrdersService::version(&());
    if !is_served {
        group.failure(format!("the CRD {NAME} is there, and does not serve {version}"), INSTALL);
        return;
    }
    group.ok(format!("the CRD {NAME} is established, and serves {version}"));
    let label = |name: &str| crd.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let annotation =
        |name: &str| crd.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    let own = env!("CARGO_PKG_VERSION");
    if schema(&crd.data) == own_schema().as_ref() {
        group.ok(format!("its schema is that of version {own}"));
    } else {
        let of = label("app.kubernetes.io/version").map_or_else(String::new, |of| format!(" (it says {of})"));
        group.warning(
            format!("its schema differs from that of this program's version, {own}{of}"),
            "if it is older, upgrade it: `orders-operator crd | kubectl apply --server-side -f -`, or with the chart; a newer \
             one does no harm",
        );
    }
    if pre {
        match annotation("meta.helm.sh/release-name").zip(annotation("meta.helm.sh/release-namespace")) {
            Some((release, namespace)) => group.warning(
                format!("it belongs to the release {release} of Helm in namespace {namespace}"),
                "a second installation takes crds.enabled=false",
            ),
            None => group.warning(
                "it was not created by Helm, which does not adopt objects by default",
                "`helm install --take-ownership` takes it over; or leave it as it is, with crds.enabled=false",
            ),
        }
    }
}

/// The schema of the version that this program reads.
fn schema(crd: &Value) -> Option<&Value> {
    let versions = crd["spec"]["versions"].as_array()?;
    let version = versions.iter().find(|version| version["name"] == *OrdersService::version(&()))?;
    version.get("schema")
}

fn own_schema() -> Option<Value> {
    let crd: Value = serde_saphyr::from_str(&crd_yaml().ok()?).ok()?;
    schema(&crd).cloned()
}
