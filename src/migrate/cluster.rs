//! Reading the objects of a namespace of a running cluster.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;

use super::{
    documents::Reader,
    error::MigrateError,
    finding::{Findings, Kind, Whom},
};
use crate::runtime::client::ClientArgs;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many objects an answer has.
const PAGE: u32 = 100;

/// The kinds that are read, and whether nothing can be said without them.
const KINDS: [(&str, &str, &str, &str, bool); 5] = [
    ("networking.k8s.io", "v1", "Ingress", "Ingresses", true),
    ("", "v1", "Service", "Services", true),
    ("apps", "v1", "Deployment", "Deployments", true),
    ("", "v1", "ConfigMap", "ConfigMaps", false),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "HorizontalPodAutoscalers", false),
];

/// Reads the objects of a namespace, of the kubeconfig's unless one is named; gives its name.
///
/// # Errors
/// When there is no cluster, or it may not be read.
pub(super) async fn read(
    namespace: Option<&str>,
    reader: &mut Reader,
    findings: &mut Findings,
) -> Result<String, MigrateError> {
    let config = ClientArgs { service_account_path: None }.config().await?;
    let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
    let failed = |what, why| MigrateError::List { what, namespace: namespace.clone(), why };
    let client = Client::try_from(config).map_err(|error| failed("objects", error.to_string()))?;
    for (group, version, kind, plural, is_needed) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
        match list(&api, &resource, &namespace, reader, findings).await {
            Ok(()) => {}
            Err(why) if is_needed => return Err(failed(plural, why)),
            Err(why) => {
                let told =
                    format!("the {plural} cannot be read, so what comes from them is not known: {why}");
                findings.add(Kind::Left, Whom::You, &format!("Namespace {namespace}"), told);
            }
        }
    }
    Ok(namespace)
}

async fn list(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    namespace: &str,
    reader: &mut Reader,
    findings: &mut Findings,
) -> Result<(), String> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let answer = tokio::time::timeout(PATIENCE, api.list(&params)).await;
        let page = match answer {
            Ok(Ok(page)) => page,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(format!("you lack the right to list {}.{}", resource.plural, resource.group));
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        for object in page.items {
            let mut object = json!(object);
            object["apiVersion"] = json!(resource.api_version);
            object["kind"] = json!(resource.kind);
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let source = format!("{} {name} in namespace {namespace}", resource.kind);
            // Through the same reader as files, with the same bounds.
            reader.read(&source, &object.to_string(), findings);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
