//! docs/migration.md on real pods, with the operator, the sweeper and the ingress controller in the cluster.

use super::OnNode;
use crate::{
    bed::setting,
    migration_page::{Rules, System},
    mongo::TestDatabase,
    reader::Reader,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_switch_and_the_way_back_of_the_page_fail_no_request_where_pods_run() {
    let on = OnNode::new("migration").await;
    let copy = TestDatabase::new().await;
    // Hosts of its own: this cluster may have others, and the page makes a wildcard of its host's domain.
    let domain = format!(".{}.dev", on.namespace.name);
    let image = setting("STAND_IN_IMAGE");
    let system = System {
        host: &format!("ticketing{domain}"),
        entry: on.entry.clone(),
        rules: Rules { api: setting("INGRESS_API_URL"), namespace: on.namespace.name.clone() },
        reader: Reader::of(&on.namespace, &setting("NODE_KUBECONFIG")).await.calls(".dev", &domain),
        uris: [&on.database, &copy].map(|database| database.at_server(&setting("NODE_MONGO_URI"))),
        image: Some(&image),
        order: on.order.clone(),
        namespace: &on.namespace,
    };
    let load = system.start().await;
    system.switch_and_go_back(load).await;
    on.remove().await;
}
