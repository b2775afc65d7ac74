//! The groups in their order.

use futures::{StreamExt, stream};
use kube::{Api, api::ListParams, core::DeserializeGuard};

use super::{
    definition, kubernetes, operator,
    report::{Group, Level, Report},
    rights, routing, service,
};
use crate::{
    crd::{OrdersService, without_value},
    osvc::{
        args::CheckArgs,
        cluster::Cluster,
        error::{AskError, OsvcError},
        paint::Paint,
        printed::{Output, Printed, for_programs},
    },
};

/// How many OrdersServices are checked at the same time.
const CONCURRENCY: usize = 8;

/// Checks what the arguments ask for.
///
/// # Errors
/// When there is no cluster. That it does not answer is a failure that is told.
pub(crate) async fn run(args: &CheckArgs) -> Result<Printed, OsvcError> {
    let cluster = Cluster::of(&args.cluster).await?;
    let report = check(&cluster, args).await;
    let text = match args.output {
        Output::Text => report.text(Paint::of_stdout())?,
        Output::Json => for_programs(&report.summary(), false)?,
        Output::Yaml => for_programs(&report.summary(), true)?,
    };
    Ok(Printed { text, code: u8::from(report.count(Level::Failure) > 0) })
}

async fn check(cluster: &Cluster, args: &CheckArgs) -> Report {
    let mut report = Report::default();
    let group = kubernetes::check(cluster).await;
    let is_reached = !group.fails();
    report.add(group);
    if !is_reached {
        return report;
    }
    let (group, is_served) = definition::check(cluster, args.pre).await;
    report.add(group);
    let namespace = args.cluster.namespace.as_deref();
    if args.pre {
        report.add(rights::check_install(cluster, &args.operator_namespace, is_served).await);
        report.add(routing::check(cluster).await.0);
        return report;
    }
    report.add(rights::check_use(cluster, namespace).await);
    let (group, routing) = routing::check(cluster).await;
    report.add(group);
    report.add(operator::check(cluster, &args.operator_namespace, namespace).await);
    if is_served {
        check_services(&mut report, cluster, namespace, &routing).await;
    }
    report
}

async fn check_services(
    report: &mut Report,
    cluster: &Cluster,
    namespace: Option<&str>,
    routing: &routing::Routing,
) {
    let mut group = Group::new("OrdersServices");
    let (api, place) = match namespace {
        Some(namespace) => {
            (Api::namespaced(cluster.client.clone(), namespace), format!("namespace {namespace}"))
        }
        None => (Api::all(cluster.client.clone()), "all namespaces".to_owned()),
    };
    let api: Api<DeserializeGuard<OrdersService>> = api;
    let what = format!("list OrdersServices in {place}");
    let services = match cluster.list(&what, &api, ListParams::default()).await {
        Ok(services) => services,
        // That it may not be done is told by the rights.
        Err(AskError::Forbidden(_)) => return,
        Err(error) => {
            group.unasked(&error);
            return report.add(group);
        }
    };
    if services.is_empty() {
        group.ok(format!("there is none in {place}"));
    }
    let mut readable = Vec::new();
    for DeserializeGuard(parsed) in services {
        match parsed {
            Ok(service) => readable.push(service),
            Err(invalid) => {
                let of = |text: Option<String>| text.unwrap_or_default();
                let (namespace, name) = (of(invalid.metadata.namespace), of(invalid.metadata.name));
                group.failure(
                    format!("OrdersService {namespace}/{name} does not match the schema of this version"),
                    format!("a field {}: correct it", without_value(&invalid.error)),
                );
            }
        }
    }
    report.add(group);
    let groups = stream::iter(&readable).map(|of| service::check(cluster, of, &readable, routing));
    for group in groups.buffered(CONCURRENCY).collect::<Vec<_>>().await {
        report.add(group);
    }
}
