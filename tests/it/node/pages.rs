//! docs/tasks.md, docs/quickstart.md and examples/quickstart, and where to look first by docs/troubleshooting.md: commands that are
//! typed where pods run. Images of other registries cannot be had here: the database and the page of the bed stand in for them.

use std::{net::TcpListener, process::Stdio};

use mongodb::bson::doc;
use serde_json::json;

use super::OnNode;
use crate::{
    bed::setting,
    cluster::{TestNamespace, eventually, root},
    console::blocks,
    mongo::TestDatabase,
    reader::Reader,
};

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_everyday_tasks_of_the_page_are_done_by_its_commands() {
    let on = OnNode::new("tasks").await;
    on.apply(json!({})).await;
    on.namespace.ready("orders").await;
    on.entry.up(&on.host, "/api/orders", "orders").await;
    let name = &on.namespace.name;
    let [of_controller, of_sweeper, of_api] = [free_port(), free_port(), free_port()];
    let reader = Reader::of(&on.namespace, &setting("NODE_KUBECONFIG"))
        .await
        .calls("-n ticketing", &format!("-n {name}"))
        .calls("--namespace ticketing", &format!("--namespace {name}"))
        // Where a pod may be made that says nothing of its security.
        .calls("kubectl run render", &format!("kubectl -n default run render-{name}"))
        .calls("registry.example/orders-operator:0.2.0", &setting("OPERATOR_IMAGE"))
        .calls("8081 8082 &", &format!("{of_controller}:8081 {of_sweeper}:8082 >ports 2>&1 &"))
        .calls("9081:8081 &", &format!("{of_api}:8081 >ports-of-api 2>&1 &"))
        .calls("localhost:8081", &format!("localhost:{of_controller}"))
        .calls("localhost:8082", &format!("localhost:{of_sweeper}"))
        .calls("localhost:9081", &format!("localhost:{of_api}"));
    let folder = on.namespace.folder();
    let ticket = |number: u32| {
        format!(
            "{{\"id\":\"5f0a1c2b3d4e5f6a7b8c9d{number:02}\",\"title\":\"Concert\",\"price\":20,\"version\":0}}\n"
        )
    };
    std::fs::write(folder.join("tickets.ndjson"), ticket(1) + &ticket(2)).unwrap();
    std::fs::copy(root().join("examples/30-orders.yaml"), folder.join("orders.yaml")).unwrap();

    let [in_a_pod, without, with_database] = blocks("docs/tasks.md", "Run a command").try_into().unwrap();
    let tickets = async || on.database.tickets().count_documents(doc! {}).await.unwrap();
    let before = tickets().await;
    reader.does(&in_a_pod).await;
    assert_eq!(tickets().await, before + 2);
    assert!(reader.does(&without).await.contains("kind: Deployment"));
    std::fs::write(folder.join("tickets.ndjson"), ticket(2) + &ticket(3)).unwrap();
    reader.does(&with_database).await;
    assert_eq!(tickets().await, before + 3);
    let [import] = blocks("docs/tasks.md", "Import tickets").try_into().unwrap();
    reader.does(&import).await;
    assert_eq!(tickets().await, before + 4);
    let [render] = blocks("docs/tasks.md", "See what would be made").try_into().unwrap();
    assert!(reader.does(&render).await.contains("auth-srv"));

    let [look, leases] = blocks("docs/tasks.md", "Look at metrics").try_into().unwrap();
    // Somebody types slower than the ports are open.
    let (forward, ask) = look.split_at(look.find("curl ").unwrap());
    // They end with their shell, and that with its input.
    let background = "kubectl() { exec setpriv --pdeathsig KILL -- kubectl \"$@\"; }";
    let mut ports = reader.command(&format!("{background}\n{}\nread _", reader.as_called(forward)));
    let ports = ports.stdin(Stdio::piped()).spawn().unwrap();
    let metrics = eventually("the metrics of all three", || async {
        let output = reader.command(&reader.as_called(ask)).output().await.unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
    .await;
    for metric in ["orders_operator_controller_leading", "orders_operator_sweeper_", "orders_api_"] {
        assert!(metrics.contains(metric), "{metric}");
    }
    drop(ports);
    assert!(reader.does(&leases).await.contains("orders-operator-controller"));
    let [logs] = blocks("docs/tasks.md", "Look at logs").try_into().unwrap();
    assert!(reader.does(&logs).await.contains("orders-api"));

    let [first_of_all] = blocks("docs/troubleshooting.md", "Troubleshooting by symptom").try_into().unwrap();
    let told = reader.does(&first_of_all).await;
    for part in [name.as_str(), "MESSAGE", "Reconciled", "[pod/orders-operator-"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }

    let [scale] = blocks("docs/tasks.md", "Change the number of pods").try_into().unwrap();
    reader.does(&scale).await;
    eventually("three pods", || async { (on.pods().await.len() == 3).then_some(()) }).await;
    let [restart] = blocks("docs/tasks.md", "Restart the pods").try_into().unwrap();
    reader.does(&restart).await;
    on.namespace.ready("orders").await;
    let [remove] = blocks("docs/tasks.md", "Remove one OrdersService").try_into().unwrap();
    reader.does(&remove).await;
    eventually("no pod is left", || async { on.pods().await.is_empty().then_some(()) }).await;
    on.remove().await;
}

/// A namespace that the page makes, and a database.
struct Quick {
    namespace: TestNamespace,
    database: TestDatabase,
    name: String,
    uri: String,
    port: u16,
}

impl Quick {
    async fn new(test: &str) -> Self {
        let namespace = TestNamespace::create_beside(test, &setting("NODE_KUBECONFIG")).await;
        let database = TestDatabase::new().await;
        let uri = database.at_server(&setting("NODE_MONGO_URI"));
        Self { name: format!("{}-page", namespace.name), port: free_port(), namespace, database, uri }
    }

    /// Someone who has a database and a page, if not those of the images that the page names.
    async fn reader(&self, namespace: &str) -> Reader {
        let name = &self.name;
        let stand_in = setting("STAND_IN_IMAGE");
        let mut reader = Reader::of(&self.namespace, &setting("NODE_KUBECONFIG")).await;
        for (from, to) in [
            (format!("-n {namespace}"), format!("-n {name}")),
            (format!("namespace {namespace}"), format!("namespace {name}")),
            ("hosts: [ticketing.dev]".to_owned(), format!("hosts: [{name}.dev]")),
            ("className: nginx".to_owned(), "className: traefik".to_owned()),
            ("windowSeconds: 60".to_owned(), "windowSeconds: 2".to_owned()),
            ("mongodb://orders-mongo:27017/orders".to_owned(), self.uri.clone()),
            ("--image=mongo:8".to_owned(), format!("--image={stand_in}")),
            ("--image=nginx:stable-alpine".to_owned(), format!("--image={stand_in}")),
            ("--target-port=80".to_owned(), "--target-port=3000".to_owned()),
            ("service/orders 3000 &".to_owned(), format!("service/orders {}:3000 >ports 2>&1 &", self.port)),
            ("localhost:3000".to_owned(), format!("localhost:{}", self.port)),
        ] {
            reader = reader.calls(&from, &to);
        }
        reader
    }

    async fn remove(self) {
        drop(self.database);
        self.namespace.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_quickstart_leads_to_a_reservation_that_expires() {
    let quick = Quick::new("quickstart").await;
    let reader = quick.reader("ticketing").await;
    let [system] = blocks("docs/quickstart.md", "2. Give it a database, and somewhere to send requests")
        .try_into()
        .unwrap();
    let [orders] = blocks("docs/quickstart.md", "3. Create an OrdersService").try_into().unwrap();
    let [sell, look] = blocks("docs/quickstart.md", "4. Sell a ticket").try_into().unwrap();
    // The operator stays, which is that of other tests.
    let [remove] = blocks("docs/quickstart.md", "5. Remove it").try_into().unwrap();
    let (stop, remove) = remove.split_once('\n').unwrap();
    assert!(stop.starts_with("kill %1") && remove.contains("delete namespace"), "{stop}\n{remove}");
    reader.does(&system).await;
    reader.does(&orders).await;
    // In one shell, as somebody has it open; a minute is shorter here.
    let list = look.lines().next().unwrap();
    let told = reader
        .does(&format!("{sell}\necho\nuntil {list} | grep -q '\"status\":\"cancelled\"'; do sleep 0.2; done\n{look}\n{stop}"))
        .await;
    assert!(told.contains("\"status\":\"created\"") && told.contains("\"status\":\"cancelled\""), "{told}");
    reader.does(remove).await;
    quick.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn the_files_of_the_quickstart_lead_to_a_reservation_through_the_ingress() {
    let quick = Quick::new("quickstart-files").await;
    let name = &quick.name;
    let stand_in = setting("STAND_IN_IMAGE");
    let own = quick.namespace.folder().join("examples/quickstart");
    std::fs::create_dir_all(&own).unwrap();
    for (file, changes) in [
        (
            "00-system.yaml",
            vec![
                ("namespace: quickstart", format!("namespace: {name}")),
                ("name: quickstart", format!("name: {name}")),
                ("mongodb://orders-mongo:27017/orders", quick.uri.clone()),
                ("docker.io/library/mongo:8", stand_in.clone()),
                ("docker.io/nginxinc/nginx-unprivileged:1.28-alpine", stand_in.clone()),
                ("8080", "3000".to_owned()),
            ],
        ),
        (
            "10-orders.yaml",
            vec![
                ("namespace: quickstart", format!("namespace: {name}")),
                ("ticketing.dev]", format!("{name}.dev]\n    className: traefik")),
            ],
        ),
        (
            "reserve",
            vec![
                ("namespace=quickstart", format!("namespace={name}")),
                ("ticketing.dev", format!("{name}.dev")),
            ],
        ),
    ] {
        let path = root().join("examples/quickstart").join(file);
        let mut text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{file} has no {from:?}");
            text = text.replace(from, &to);
        }
        std::fs::write(own.join(file), text).unwrap();
        std::fs::set_permissions(own.join(file), path.metadata().unwrap().permissions()).unwrap();
    }
    let reader = Reader::of(&quick.namespace, &setting("NODE_KUBECONFIG"))
        .await
        .calls("-n quickstart", &format!("-n {name}"))
        .calls("namespace quickstart", &format!("namespace {name}"))
        .calls("http://localhost", &setting("INGRESS_URL"));
    let [reserve] = blocks("examples/quickstart/README.md", "Reserve a ticket").try_into().unwrap();
    let [remove] = blocks("examples/quickstart/README.md", "Remove it").try_into().unwrap();
    let told = reader.does(&reserve).await;
    for expected in ["The page: 200", "\"status\":\"created\"", "Ticket is already reserved"] {
        assert!(told.contains(expected), "{expected} is missing in {told}");
    }
    reader.does(&remove).await;
    quick.remove().await;
}
