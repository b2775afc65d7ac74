//! What whoever asks may do, by asking the API server.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::report::Group;
use crate::osvc::{cluster::Cluster, error::AskError};

/// What is lost without a right.
#[derive(Clone, Copy)]
enum Weight {
    /// Nothing works.
    Needed(&'static str),
    /// Something is left out.
    Useful(&'static str),
}

/// Some things that may be done together.
struct Right {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    /// None for all namespaces, or where there are none.
    namespace: Option<String>,
    weight: Weight,
}

/// Before an installation: whether it can be made. Where OrdersServices are served already, their CRD need not be.
pub(super) async fn check_install(cluster: &Cluster, namespace: &str, is_served: bool) -> Group {
    const ADMINISTRATOR: &str = "have an administrator of the cluster install it";
    const NAMESPACED: &str = "without it, it can be installed for some namespaces only: watchNamespaces of the chart, or \
         namespace-install.yaml; see docs/installing.md";
    const CRD: &str = "without it, set crds.enabled=false: the CRD is there already";
    const ESCALATE: &str = "without it, you can give the operator only rights that you have yourself";
    const HELM: &str = "Helm keeps the release there; without it, apply install.yaml";
    const POLICIES: &str = "without it, set networkPolicy.enabled=false";
    const BUDGETS: &str = "without it, set podDisruptionBudget.enabled=false";
    let of_cluster = |group, resource, weight| Right {
        group,
        resource,
        verbs: &["get", "create", "patch"],
        namespace: None,
        weight,
    };
    let inside_with = |group, resource, verbs, weight| Right {
        group,
        resource,
        verbs,
        namespace: Some(namespace.to_owned()),
        weight,
    };
    let inside = |group, resource, weight| inside_with(group, resource, &["get", "create", "patch"], weight);
    let rbac = "rbac.authorization.k8s.io";
    let rights = [
        of_cluster(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            if is_served { Weight::Useful(CRD) } else { Weight::Needed(ADMINISTRATOR) },
        ),
        of_cluster(rbac, "clusterroles", Weight::Useful(NAMESPACED)),
        of_cluster(rbac, "clusterrolebindings", Weight::Useful(NAMESPACED)),
        Right { verbs: &["escalate"], ..of_cluster(rbac, "clusterroles", Weight::Useful(ESCALATE)) },
        inside("", "serviceaccounts", Weight::Needed(ADMINISTRATOR)),
        inside(rbac, "roles", Weight::Needed(ADMINISTRATOR)),
        inside(rbac, "rolebindings", Weight::Needed(ADMINISTRATOR)),
        inside("apps", "deployments", Weight::Needed(ADMINISTRATOR)),
        inside("networking.k8s.io", "networkpolicies", Weight::Useful(POLICIES)),
        inside("policy", "poddisruptionbudgets", Weight::Useful(BUDGETS)),
        inside_with("", "secrets", &["get", "list", "create", "update", "delete"], Weight::Useful(HELM)),
    ];
    ask_all(cluster, "Rights to install", &rights).await
}

/// After it: what may be done with OrdersServices, and what the commands of this program may read.
pub(super) async fn check_use(cluster: &Cluster, namespace: Option<&str>) -> Group {
    const READ: &str =
        "have an administrator give you the role `view` where they are; -n names one namespace";
    const WRITE: &str =
        "if you should: rbac.aggregateWrite of the chart gives it to whoever has the role `edit` or `admin`";
    const PODS: &str = "without it, pods are not shown: the role `view` has it";
    const SECRETS: &str = "without it, Secrets are not checked here, and `kubectl osvc sweep` cannot connect; \
                           what the operator says of them is shown";
    let right = |group, resource, verbs, weight| Right {
        group,
        resource,
        verbs,
        namespace: namespace.map(str::to_owned),
        weight,
    };
    let rights = [
        right("ticketing.dev", "ordersservices", &["get", "list"], Weight::Needed(READ)),
        right("ticketing.dev", "ordersservices", &["create", "patch", "delete"], Weight::Useful(WRITE)),
        right("", "secrets", &["get"], Weight::Useful(SECRETS)),
        right("", "pods", &["list"], Weight::Useful(PODS)),
        right("discovery.k8s.io", "endpointslices", &["list"], Weight::Useful(PODS)),
    ];
    ask_all(cluster, "Rights", &rights).await
}

async fn ask_all(cluster: &Cluster, title: &str, rights: &[Right]) -> Group {
    let mut group = Group::new(title);
    let answers = join_all(rights.iter().map(|right| {
        join_all(right.verbs.iter().map(|verb| async move { (*verb, may(cluster, right, verb).await) }))
    }))
    .await;
    for (right, answers) in rights.iter().zip(answers) {
        judge(&mut group, right, answers);
    }
    group
}

fn judge(group: &mut Group, right: &Right, answers: Vec<(&str, Result<bool, AskError>)>) {
    let mut refused = Vec::new();
    for (verb, answer) in answers {
        match answer {
            Ok(true) => {}
            Ok(false) => refused.push(verb),
            Err(error) => return group.unasked(&error),
        }
    }
    let place = match &right.namespace {
        Some(namespace) => format!(" in namespace {namespace}"),
        None if right.is_namespaced() => " in all namespaces".to_owned(),
        None => String::new(),
    };
    let what = if right.group.is_empty() {
        format!("{}{place}", right.resource)
    } else {
        format!("{}.{}{place}", right.resource, right.group)
    };
    match (refused.is_empty(), right.weight) {
        (true, _) => group.ok(format!("you may {} {what}", right.verbs.join(", "))),
        (false, Weight::Needed(todo)) => {
            group.failure(format!("you may not {} {what}", refused.join(", ")), todo);
        }
        (false, Weight::Useful(todo)) => {
            group.warning(format!("you may not {} {what}", refused.join(", ")), todo);
        }
    }
}

impl Right {
    fn is_namespaced(&self) -> bool {
        !["customresourcedefinitions", "clusterroles", "clusterrolebindings"].contains(&self.resource)
    }
}

async fn may(cluster: &Cluster, right: &Right, verb: &str) -> Result<bool, AskError> {
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(right.resource.to_owned()),
        verb: Some(verb.to_owned()),
        namespace: right.namespace.clone(),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api = Api::<SelfSubjectAccessReview>::all(cluster.client.clone());
    let answer = cluster.ask("ask what you may do", api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
