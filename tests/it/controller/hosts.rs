//! Whose a host is: `--host-policy=namespace` and the list of allowed hosts, against tenants who try to have another's.
//! Each tenant has a service account of its own, which may write in its own namespace only.

use k8s_openapi::api::{
    core::v1::Namespace,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use orders_operator::crd::{ConditionType::*, OrdersService, find_condition};
use serde_json::{Value, json};

use super::{
    MONGO,
    conflicts::{claiming, host_of, next_second, served},
    gateway::{GATEWAY_API, VERSION, install_crds, routes},
};
use crate::cluster::{TestNamespace, apply_any, eventually, refusal, root, yaml_documents};

/// A namespace, and someone who may write there only.
struct Tenant {
    namespace: TestNamespace,
    client: Client,
}

impl Tenant {
    async fn create(test: &str) -> Self {
        let namespace = TestNamespace::create(test).await;
        namespace.secrets(MONGO).await;
        let client = namespace.tenant().await;
        Self { namespace, client }
    }

    async fn apply(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("tenant").force();
        self.services().patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.services().delete(name, &DeleteParams::background()).await.unwrap();
    }

    fn services(&self) -> Api<OrdersService> {
        Api::namespaced(self.client.clone(), &self.namespace.name)
    }

    fn claiming(&self, name: &str, host: &str) -> Value {
        claiming(&self.namespace, name, host, "/api/orders", &[])
    }

    /// Waits until its host is refused, for the other's sake; and sees that nothing is served.
    async fn refused(&self, name: &str, owner: &Self) {
        let message =
            self.namespace.condition(name, IngressReady, "False", "HostOwnedByOtherNamespace").await;
        assert!(message.contains(&format!("namespace {:?}", owner.namespace.name)), "{message}");
        assert!(served(&self.namespace, name).await.is_empty());
    }

    async fn served(&self, name: &str, expected: &[String]) {
        eventually("it is served", || async {
            (served(&self.namespace, name).await == expected).then_some(())
        })
        .await;
    }
}

/// The owner of a host, and someone who wants it too. Neither may write in the other's namespace.
async fn tenants(test: &str) -> (Tenant, Tenant) {
    let mut owner = Tenant::create(&format!("{test}-owner")).await;
    let mallory = Tenant::create(&format!("{test}-mallory")).await;
    owner.namespace.watch_also(&mallory.namespace);
    let theirs = Api::<OrdersService>::namespaced(mallory.client.clone(), &owner.namespace.name);
    let object = owner.claiming("theirs", "a.dev");
    let said = refusal(theirs.patch("theirs", &PatchParams::apply("x"), &Patch::Apply(&object)).await);
    assert!(said.contains("forbidden"), "{said}");
    (owner, mallory)
}

async fn remove(tenants: [Tenant; 2]) {
    for tenant in tenants {
        tenant.namespace.remove().await;
    }
}

const BY_NAMESPACE: [&str; 2] = ["--host-policy", "namespace"];

#[tokio::test]
async fn a_host_below_another_namespace_s_wildcard_is_refused_and_so_is_a_wildcard_above_another_s_host() {
    let (owner, mallory) = tenants("wild").await;
    let base = host_of(&owner.namespace);
    let _controller = owner.namespace.run_with("controller", &BY_NAMESPACE).await;
    owner.apply(&owner.claiming("wild", &format!("*.{base}"))).await;
    owner.served("wild", &[format!("*.{base}/api/orders")]).await;
    next_second(&owner.namespace).await;
    for (name, host) in
        [("exact", format!("a.{base}")), ("deep", format!("b.a.{base}")), ("below", format!("*.a.{base}"))]
    {
        mallory.apply(&mallory.claiming(name, &host)).await;
        mallory.refused(name, &owner).await;
    }
    // The domain itself is not below its wildcard. Once it is mallory's, the wildcard above all is not the owner's.
    mallory.apply(&mallory.claiming("domain", &base)).await;
    mallory.served("domain", &[format!("{base}/api/orders")]).await;
    next_second(&owner.namespace).await;
    let above = base.split_once('.').unwrap().1;
    let longer = format!("x.{base}.{above}");
    mallory.apply(&mallory.claiming("longer", &longer)).await;
    mallory.served("longer", &[format!("{longer}/api/orders")]).await;
    next_second(&owner.namespace).await;
    owner.apply(&owner.claiming("over", &format!("*.{base}.{above}"))).await;
    owner.refused("over", &mallory).await;
    // When the wildcard goes, what is below comes by itself.
    owner.delete("wild").await;
    mallory.served("exact", &[format!("a.{base}/api/orders")]).await;
    remove([owner, mallory]).await;
}

#[tokio::test]
async fn a_host_is_refused_in_every_class_however_it_is_written_and_whatever_ingress_has_it() {
    let (owner, mallory) = tenants("class").await;
    let base = host_of(&owner.namespace);
    let class = format!("{}-nginx", owner.namespace.name);
    let classes = Api::<IngressClass>::all(owner.namespace.client.clone());
    let object = json!({"metadata": {"name": class}, "spec": {"controller": "x/y"}});
    classes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let _controller = owner.namespace.run_with("controller", &BY_NAMESPACE).await;
    let mut by_field = owner.claiming("orders", &base);
    by_field["spec"]["ingress"]["className"] = json!(class);
    owner.apply(&by_field).await;
    owner.served("orders", &[format!("{base}/api/orders")]).await;
    next_second(&owner.namespace).await;
    let mut by_annotation = mallory.claiming("annotation", &base.to_ascii_uppercase());
    by_annotation["spec"]["ingress"]["annotations"] = json!({"kubernetes.io/ingress.class": class});
    mallory.apply(&by_annotation).await;
    mallory.refused("annotation", &owner).await;
    mallory.apply(&mallory.claiming("classless", &format!("{base}."))).await;
    mallory.refused("classless", &owner).await;

    // The other way round: the owner has it by an Ingress of its own making, with the class in the annotation.
    let other = format!("other.{base}");
    let ingress = json!({
        "metadata": {"name": "by-hand", "annotations": {"kubernetes.io/ingress.class": class}},
        "spec": {"rules": [{"host": other, "http": {"paths": [
            {"path": "/shop", "pathType": "Prefix", "backend": {"service": {"name": "x", "port": {"number": 80}}}}
        ]}}]}
    });
    let ingresses = Api::<Ingress>::namespaced(owner.client.clone(), &owner.namespace.name);
    ingresses.create(&PostParams::default(), &serde_json::from_value(ingress).unwrap()).await.unwrap();
    next_second(&owner.namespace).await;
    let mut taking = mallory.claiming("taking", &other);
    taking["spec"]["ingress"]["className"] = json!(class);
    mallory.apply(&taking).await;
    mallory.refused("taking", &owner).await;
    ingresses.delete("by-hand", &DeleteParams::default()).await.unwrap();
    mallory.served("taking", &[format!("{other}/api/orders")]).await;
    classes.delete(&class, &DeleteParams::default()).await.unwrap();
    remove([owner, mallory]).await;
}

#[tokio::test]
async fn an_older_object_that_asks_for_a_host_later_does_not_take_it_from_whom_it_is_served_for() {
    let (owner, mallory) = tenants("late").await;
    let base = host_of(&owner.namespace);
    let controller = owner.namespace.run_with("controller", &BY_NAMESPACE).await;
    mallory.apply(&mallory.claiming("old", &format!("elsewhere.{base}"))).await;
    mallory.served("old", &[format!("elsewhere.{base}/api/orders")]).await;
    let rules = |hosts: &[&str]| {
        let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
        let http = json!({"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]});
        let rule = |host: &&str| json!({"host": host, "http": http});
        json!({"metadata": {"name": "by-hand"}, "spec": {"rules": hosts.iter().map(rule).collect::<Vec<_>>()}})
    };
    let (ingresses, by_hand) = (
        Api::<Ingress>::namespaced(mallory.client.clone(), &mallory.namespace.name),
        format!("by-hand.{base}"),
    );
    let ingress = serde_json::from_value(rules(&[&by_hand])).unwrap();
    ingresses.create(&PostParams::default(), &ingress).await.unwrap();
    next_second(&owner.namespace).await;
    owner.apply(&owner.claiming("orders", &base)).await;
    owner.served("orders", &[format!("{base}/api/orders")]).await;
    owner.namespace.condition("orders", IngressReady, "True", "MissingClient").await;
    let mut taking = mallory.claiming("old", &base);
    mallory.apply(&taking).await;
    mallory.refused("old", &owner).await;
    // Nor does a controller that starts anew give it away, or an older Ingress that gets a rule for it take it.
    controller.kill();
    let taken = Patch::Merge(rules(&[&by_hand, &base]));
    ingresses.patch("by-hand", &PatchParams::default(), &taken).await.unwrap();
    taking["spec"]["ingress"]["hosts"] = json!([base, format!("elsewhere.{base}")]);
    mallory.apply(&taking).await;
    let _controller = owner.namespace.run_with("controller", &BY_NAMESPACE).await;
    mallory.served("old", &[format!("elsewhere.{base}/api/orders")]).await;
    let message =
        mallory.namespace.condition("old", IngressReady, "False", "HostOwnedByOtherNamespace").await;
    assert!(message.contains(&format!("namespace {:?}", owner.namespace.name)), "{message}");
    owner.namespace.condition("orders", IngressReady, "True", "MissingClient").await;
    assert_eq!(served(&owner.namespace, "orders").await, [format!("{base}/api/orders")]);
    remove([owner, mallory]).await;
}

fn at_gateway(tenant: &Tenant, name: &str, host: &str) -> Value {
    let gateway = json!({"parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": [host]});
    tenant.namespace.service(name, json!({"ingress": null, "gateway": gateway}))
}

#[tokio::test]
async fn an_http_route_is_a_claim_like_any_other_whoever_made_it() {
    let _alone = GATEWAY_API.lock().await;
    let (owner, mallory) = tenants("route").await;
    install_crds(&owner.namespace, "httproutes").await;
    let base = host_of(&owner.namespace);
    // It is there before the controller, which must know of it before it renders anything.
    let route = |name: &str, host: &str, prefix: &str| -> DynamicObject {
        let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}], "backendRefs": [{"name": "x", "port": 80}]});
        let object = json!({
            "apiVersion": VERSION, "kind": "HTTPRoute", "metadata": {"name": name},
            "spec": {"parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": [host], "rules": [rule]}
        });
        serde_json::from_value(object).unwrap()
    };
    let theirs = format!("theirs.{base}");
    routes(&owner.namespace)
        .create(&PostParams::default(), &route("by-hand", &theirs, "/api"))
        .await
        .unwrap();
    next_second(&owner.namespace).await;
    mallory.apply(&mallory.claiming("by-ingress", &theirs)).await;
    mallory.apply(&at_gateway(&mallory, "by-route", &theirs)).await;
    let controller = owner.namespace.run_with("controller", &BY_NAMESPACE).await;
    mallory.refused("by-ingress", &owner).await;
    mallory.refused("by-route", &owner).await;
    let ours = || async { routes(&mallory.namespace).list(&Default::default()).await.unwrap().items };
    assert!(ours().await.is_empty(), "nothing is rendered at the Gateway either");

    // A host that the owner has by Ingress is not to be had by HTTPRoute, and the other way round.
    owner.apply(&owner.claiming("orders", &base)).await;
    owner.served("orders", &[format!("{base}/api/orders")]).await;
    owner.namespace.condition("orders", IngressReady, "True", "MissingClient").await;
    owner.apply(&at_gateway(&owner, "gateway", &format!("*.g.{base}"))).await;
    owner.namespace.condition("gateway", IngressReady, "False", "GatewayPending").await;
    next_second(&owner.namespace).await;
    mallory.apply(&at_gateway(&mallory, "by-route", &base)).await;
    mallory.refused("by-route", &owner).await;
    mallory.apply(&mallory.claiming("by-ingress", &format!("a.g.{base}"))).await;
    mallory.refused("by-ingress", &owner).await;
    assert!(ours().await.is_empty());
    owner.delete("orders").await;
    eventually("the host is free", || async { (ours().await.len() == 1).then_some(()) }).await;
    controller.kill();

    // Under the shared policy only the path at the same Gateway is lost.
    let _controller = owner.namespace.run("controller").await;
    mallory.apply(&at_gateway(&mallory, "by-route", &theirs)).await;
    let mut conflicting = at_gateway(&mallory, "by-route", &theirs);
    conflicting["spec"]["gateway"]["path"] = json!("/api");
    conflicting["spec"]["gateway"]["client"] = json!({"service": "client-srv"});
    mallory.apply(&conflicting).await;
    let message = mallory.namespace.condition("by-route", IngressReady, "False", "HostPathConflict").await;
    let winner = format!("HTTPRoute {}/by-hand", owner.namespace.name);
    assert!(message.contains(&winner) && message.contains("set spec.gateway.path"), "{message}");
    let spec = routes(&mallory.namespace).get("by-route").await.unwrap().data["spec"].clone();
    assert_eq!(spec["rules"].as_array().unwrap().len(), 1, "the client is left: {spec}");
    mallory.apply(&mallory.claiming("by-ingress", &theirs)).await;
    mallory.served("by-ingress", &[format!("{theirs}/api/orders")]).await;
    routes(&owner.namespace).delete("by-hand", &DeleteParams::default()).await.unwrap();
    mallory.namespace.condition("by-route", IngressReady, "False", "GatewayPending").await;
    remove([owner, mallory]).await;
}

#[tokio::test]
async fn where_a_list_says_whose_the_hosts_are_nothing_else_is_rendered_and_a_broken_list_changes_nothing() {
    let (owner, mallory) = tenants("list").await;
    let base = host_of(&owner.namespace);
    let folder = tempfile();
    let file = folder.join("hosts.yaml");
    let allow = |namespace: &TestNamespace, hosts: Value| {
        std::fs::write(&file, json!({&namespace.name: hosts}).to_string()).unwrap();
    };
    allow(&owner.namespace, json!([base, format!("*.{base}")]));
    let arguments = ["--hosts-file", file.to_str().unwrap()];
    // Mallory is the older one, and has the host already.
    mallory.apply(&mallory.claiming("orders", &base)).await;
    next_second(&owner.namespace).await;
    owner.apply(&owner.claiming("orders", &base)).await;
    owner.apply(&owner.claiming("below", &format!("a.{base}"))).await;
    owner.apply(&owner.claiming("apart", &format!("apart-{base}"))).await;
    let controller = owner.namespace.run_with("controller", &arguments).await;
    let not_allowed = async |tenant: &Tenant, name: &str| {
        let message = tenant.namespace.condition(name, IngressReady, "False", "HostNotAllowed").await;
        assert!(message.contains("is not allowed for this namespace"), "{message}");
        tenant.served(name, &[]).await;
    };
    not_allowed(&mallory, "orders").await;
    not_allowed(&owner, "apart").await;
    owner.served("orders", &[format!("{base}/api/orders")]).await;
    owner.served("below", &[format!("a.{base}/api/orders")]).await;
    mallory.apply(&at_gateway(&mallory, "gateway", &base)).await;
    not_allowed(&mallory, "gateway").await;

    // A file that breaks is told, and changes nothing.
    std::fs::write(&file, "orders: [").unwrap();
    let broken = "orders_operator_controller_hosts_file_broken";
    eventually("it is noticed", || async { (controller.metric(broken).await == 1.0).then_some(()) }).await;
    mallory.apply(&mallory.claiming("later", &format!("later.{base}"))).await;
    not_allowed(&mallory, "later").await;
    assert_eq!(served(&owner.namespace, "orders").await, [format!("{base}/api/orders")]);

    // When the list changes, so does what is rendered, without anybody touching a resource.
    allow(&mallory.namespace, json!([base]));
    mallory.served("orders", &[format!("{base}/api/orders")]).await;
    not_allowed(&owner, "orders").await;
    not_allowed(&owner, "below").await;
    assert_eq!(controller.metric(broken).await, 0.0);
    controller.kill();

    // Without a list that can be used, it does not start.
    std::fs::write(&file, "orders: [10.0.0.1]").unwrap();
    let process = owner.namespace.run_with("controller", &arguments).await;
    assert_eq!(process.ended().await.code(), Some(1));
    std::fs::remove_dir_all(folder).unwrap();
    remove([owner, mallory]).await;
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("orders-operator-hosts-{}", fastrand::u64(..)));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn the_class_may_be_an_annotation_and_without_any_the_condition_says_so() {
    let namespace = TestNamespace::create("noclass").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let host = host_of(&namespace);
    let with = |ingress: Value| {
        let mut object = namespace.service("orders", json!({"ingress": {"hosts": [host]}}));
        json_patch::merge(&mut object["spec"]["ingress"], &ingress);
        object
    };
    namespace.apply(&with(json!({}))).await.unwrap();
    let message = namespace.condition("orders", IngressReady, "True", "IngressClassNotFound").await;
    assert!(message.contains("the cluster has no default IngressClass"), "{message}");
    namespace
        .apply(&with(json!({"annotations": {"kubernetes.io/ingress.class": "by-annotation"}})))
        .await
        .unwrap();
    namespace.condition("orders", IngressReady, "True", "ServiceNotFound").await;
    let ingress = namespace.api::<Ingress>().get("orders").await.unwrap();
    assert_eq!(ingress.annotations()["kubernetes.io/ingress.class"], "by-annotation");
    let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
    let valid = find_condition(&service.status.unwrap().conditions, Valid).unwrap().status.clone();
    assert_eq!(valid, "True");
    namespace.remove().await;
}

#[tokio::test]
async fn the_policy_on_the_page_keeps_kinds_that_the_controller_does_not_see_to_the_namespace_s_hosts() {
    let _alone = GATEWAY_API.lock().await;
    let (tenant, other) = (TestNamespace::create("policy").await, TestNamespace::create("nopolicy").await);
    install_crds(&tenant, "routes").await;
    let page = std::fs::read_to_string(root().join("docs/ingress.md")).unwrap();
    let policy = page.split("```yaml\n").find(|block| block.starts_with("apiVersion: admissionregistration"));
    let objects = yaml_documents(policy.unwrap().split("```").next().unwrap());
    for object in &objects {
        apply_any(&tenant.client, object.clone()).await;
    }
    let hosts = "a.example,*.b.example";
    let marks =
        json!({"labels": {"example.com/tenant": "true"}, "annotations": {"example.com/hosts": hosts}});
    let namespaces = Api::<Namespace>::all(tenant.client.clone());
    let patch = Patch::Merge(json!({"metadata": marks}));
    namespaces.patch(&tenant.name, &PatchParams::default(), &patch).await.unwrap();

    let apply = async |namespace: &TestNamespace, hostnames: &[&str]| {
        let mut route = json!({
            "apiVersion": VERSION, "kind": "GRPCRoute", "metadata": {"name": "r"},
            "spec": {"parentRefs": [{"name": "public"}], "hostnames": hostnames}
        });
        if hostnames.is_empty() {
            route["spec"].as_object_mut().unwrap().remove("hostnames");
        }
        let params = PatchParams::apply("tenant").force();
        namespace.dynamic("GRPCRoute", VERSION).patch("r", &params, &Patch::Apply(route)).await
    };
    let says = "name only hosts that the namespace's annotation example.com/hosts has";
    // A policy is in force a moment after it is there.
    eventually("another's host is refused", || async {
        apply(&tenant, &["c.example"]).await.err().filter(|error| error.to_string().contains(says))
    })
    .await;
    for refused in [&[][..], &["a.example", "c.example"], &["x.b.example"]] {
        assert!(refusal(apply(&tenant, refused).await).contains(says), "{refused:?}");
    }
    apply(&tenant, &["a.example", "*.b.example"]).await.unwrap();
    apply(&other, &["c.example"]).await.unwrap();
    for object in objects {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api = Api::<DynamicObject>::all_with(tenant.client.clone(), &ApiResource::from_gvk(&kind));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    tenant.remove().await;
    other.remove().await;
}
