//! docs/migration.md: its commands, run on a system that was written by hand, while requests come by way of Traefik. Here the
//! pods are played; `node::migration` has real ones.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};

use crate::{
    bed::setting,
    cluster::{TestNamespace, eventually, root},
    console::blocks,
    load::{Answer, Entry, Load, Question},
    mongo::{TestDatabase, uri},
    played_pods::PlayedPods,
    reader::Reader,
    server::{Server, free_port},
};

/// What is requested during the whole switch, and which Deployments may answer. There is an order of this id.
fn questions(order: &str) -> Vec<Question> {
    let question = |path: &str, by: &[&'static str]| Question { path: path.to_owned(), by: by.to_vec() };
    vec![
        question("/", &["client-depl"]),
        question("/api/users/currentuser", &["auth-depl"]),
        question("/api/orders", &["orders-depl", "orders"]),
        question("/api/tickets/5", &["tickets-depl"]),
        question(&format!("/api/orders/{order}"), &["orders-depl", "orders"]),
        question("/api/payments", &["payments-depl"]),
    ]
}

/// A system that somebody has written by hand, in a namespace of a cluster with an ingress controller.
pub(crate) struct System<'a> {
    pub(crate) namespace: &'a TestNamespace,
    /// Where all of it is served.
    pub(crate) host: &'a str,
    pub(crate) entry: Entry,
    pub(crate) rules: Rules,
    pub(crate) reader: Reader,
    /// The connection strings of its database, and of a copy.
    pub(crate) uris: [String; 2],
    /// The image of all its pods, which answers `/healthz`; none where nothing runs them.
    pub(crate) image: Option<&'a str>,
    pub(crate) order: String,
}

impl System<'_> {
    /// Has it run, and requests come.
    pub(crate) async fn start(&self) -> Load {
        // The old pods were not written for a restricted namespace.
        let usual = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
        let namespaces = Api::<Namespace>::all(self.namespace.client.clone());
        namespaces.patch(&self.namespace.name, &PatchParams::default(), &Patch::Merge(usual)).await.unwrap();
        self.write_manifests();
        self.reader
            .does("kubectl apply -f infra/k8s && kubectl rollout status deployment orders-depl client-depl")
            .await;
        let questions = questions(&self.order);
        for question in &questions {
            self.entry.up(self.host, &question.path, question.by[0]).await;
        }
        Load::start(&self.entry, self.host, questions)
    }

    /// Has its manifests translated in each way that the page has. What comes of it is the same.
    async fn translate(&self) {
        let folder = self.namespace.folder();
        let of_production = folder.join("infra/k8s-prod");
        std::fs::create_dir_all(&of_production).unwrap();
        let setting = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: payments}\ndata: {CURRENCY: eur}\n";
        std::fs::write(of_production.join("payments.yaml"), setting).unwrap();
        let skaffold =
            "apiVersion: skaffold/v4beta11\nkind: Config\nmanifests: {rawYaml: [./infra/k8s/*.yaml]}\n";
        std::fs::write(folder.join("skaffold.yaml"), skaffold).unwrap();
        let chart = "apiVersion: v2\nname: ticketing\nversion: 1.0.0\n";
        std::fs::write(folder.join("Chart.yaml"), chart).unwrap();
        std::os::unix::fs::symlink("infra/k8s", folder.join("templates")).unwrap();
        let [commands] = blocks("docs/migration.md", "Translating").try_into().unwrap();
        let commands = commands.replace("-n ticketing", &format!("-n {}", self.namespace.name));
        for command in commands.lines() {
            self.reader.does(command).await;
            let made = std::fs::read_to_string(folder.join("orders.yaml")).unwrap();
            for part in ["kind: OrdersService", self.host, "payments-srv", "client-srv"] {
                assert!(made.contains(part), "{part} is missing after {command}: {made}");
            }
        }
    }

    /// Its manifests.
    fn write_manifests(&self) {
        let folder = self.namespace.folder().join("infra/k8s");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        for name in ["auth", "tickets", "payments", "client", "expiration"] {
            write(&format!("{name}-depl.yaml"), self.neighbour(name));
        }
        let orders = std::fs::read_to_string(root().join("tests/migrate/orders.yaml")).unwrap();
        let (uri, image) =
            ("mongodb://orders-mongo-srv:27017/orders", "image: registry.example/shop/orders:7\n");
        assert!(orders.contains(uri) && orders.contains(image));
        let orders = orders.replace(uri, &self.uris[0]);
        write("orders-depl.yaml", orders.replace(image, &self.container(image, "          ")));
        let mut ingress = format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: ingress-srv\nspec:\n  rules:\n    - host: {}\n      http:\n        paths:\n",
            self.host
        );
        for (path, service) in [
            ("api/users", "auth"),
            ("api/tickets", "tickets"),
            ("api/payments", "payments"),
            ("api/orders", "orders"),
            ("", "client"),
        ] {
            ingress.push_str(&format!(
                "          - path: /{path}\n            pathType: Prefix\n            backend:\n              service:\n                \
                 name: {service}-srv\n                port:\n                  number: 3000\n"
            ));
        }
        write("ingress-srv.yaml", ingress);
    }

    /// The image of a container, `of_theirs` where nothing runs it, and how one sees that it answers.
    fn container(&self, of_theirs: &str, indent: &str) -> String {
        self.image.map_or_else(
            || of_theirs.to_owned(),
            |image| {
                format!(
                    "image: {image}\n{indent}readinessProbe: {{httpGet: {{path: /healthz, port: 3000}}, periodSeconds: 1}}\n"
                )
            },
        )
    }

    /// A service of the old system.
    fn neighbour(&self, name: &str) -> String {
        let container = self.container(&format!("image: registry.example/{name}\n"), "          ");
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}-depl}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: {name}
          {container}---
apiVersion: v1
kind: Service
metadata: {{name: {name}-srv}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {name}, port: 3000, targetPort: 3000}}]
"
        )
    }

    /// Goes through the page while requests come, and checks that none has failed. An operator is at work.
    pub(crate) async fn switch_and_go_back(&self, load: Load) {
        let Self { namespace, reader, entry, rules, host, .. } = self;
        self.translate().await;

        let [translate, apply, remove] = blocks("docs/migration.md", "Side by side").try_into().unwrap();
        reader.does(&translate).await;
        reader.edits("next.yaml", &self.uris[0], &self.uris[1]);
        reader.does(&apply).await;
        for (path, answers) in
            [("/api/orders", "orders-next"), ("/api/tickets", "tickets-depl"), ("/", "client-depl")]
        {
            entry.up(&format!("next.{host}"), path, answers).await;
        }
        reader.does(&remove).await;

        let [start, lead, stop, switch_on, hand_over, delete] =
            blocks("docs/migration.md", "The switch").try_into().unwrap();
        reader.does(&start).await;
        namespace.condition("orders", IngressReady, "False", "HostPathConflict").await;
        reader.does(&lead).await;
        load.led_to("orders", "orders-depl").await;
        reader.does(&stop).await;
        reader.does(&switch_on).await;
        reader.does(&hand_over).await;
        let are_of_the_host = |rules: &[String]| rules.iter().all(|rule| rule.contains(host));
        rules.has("orders", |rules| rules.len() == 5 && are_of_the_host(rules)).await;
        reader.does(&delete).await;
        rules.has("ingress-srv", <[_]>::is_empty).await;
        load.led_to("orders", "orders-depl").await;

        let [bridge, give_up, start_again, delete] =
            blocks("docs/migration.md", "Back again").try_into().unwrap();
        reader.does(&bridge).await;
        let domain = host.split_once('.').unwrap().1;
        entry.up(&format!("bridge.{domain}"), "/", "client-depl").await;
        reader.does(&give_up).await;
        rules.has("ingress-srv", |rules| !rules.is_empty() && are_of_the_host(rules)).await;
        reader.does(&start_again).await;
        load.led_to("orders-depl", "orders").await;
        reader.does(&delete).await;
        eventually("the new pods are gone", || async {
            namespace.api::<Deployment>().get_opt("orders").await.unwrap().is_none().then_some(())
        })
        .await;
        load.end(20).await;
    }
}

/// What Traefik has of the Ingresses of a namespace, as its API tells.
pub(crate) struct Rules {
    pub(crate) api: String,
    pub(crate) namespace: String,
}

impl Rules {
    /// Waits until the rules that it has of an Ingress pass.
    async fn has(&self, ingress: &str, is_there: impl Fn(&[String]) -> bool) {
        let url = format!("{}/http/routers?per_page=1000", self.api);
        let begins = format!("{}-{ingress}-", self.namespace);
        eventually(&format!("Traefik has what is wanted of Ingress {ingress}"), || async {
            let routers: Vec<Value> = reqwest::get(&url).await.ok()?.json().await.ok()?;
            let text = |router: &Value, field: &str| router[field].as_str().unwrap_or_default().to_owned();
            let of_it = routers.iter().filter(|router| text(router, "name").starts_with(&begins));
            let found: Vec<_> = of_it.map(|router| text(router, "rule")).collect();
            is_there(&found).then_some(())
        })
        .await;
    }
}

/// Who has answered: played pods say nothing but the name of their Deployment.
fn played(answer: &Answer) -> Option<String> {
    answer.status.is_success().then(|| answer.body.clone())
}

/// A Traefik of its own for a namespace whose pods are played, and the address of its API.
fn traefik(namespace: &TestNamespace, pods: &PlayedPods) -> (Server, String) {
    let admin = free_port();
    let proxy = format!("http://127.0.0.1:{}", pods.port);
    let traefik = Server::traefik_in(
        &[("HTTP_PROXY", &proxy)],
        &[
            "--api.insecure=true",
            &format!("--entrypoints.traefik.address=127.0.0.1:{admin}"),
            "--providers.kubernetesingress=true",
            &format!("--providers.kubernetesingress.namespaces={}", namespace.name),
        ],
    );
    (traefik, format!("http://127.0.0.1:{admin}/api"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_and_the_way_back_of_the_page_fail_no_request() {
    let namespace = TestNamespace::create("migration").await;
    namespace.secret("jwt-secret", "JWT_KEY", "a-key").await;
    let (database, copy) = (TestDatabase::new().await, TestDatabase::new().await);
    let pods = PlayedPods::start(&namespace).await;
    let (traefik, api) = traefik(&namespace, &pods);
    let system = System {
        host: "ticketing.dev",
        entry: Entry::new(&format!("http://127.0.0.1:{}", traefik.port), "", played),
        rules: Rules { api, namespace: namespace.name.clone() },
        reader: Reader::of(&namespace, &setting("KUBECONFIG")).await,
        uris: [&database, &copy].map(|database| database.at_server(&uri())),
        image: None,
        order: "5".to_owned(),
        namespace: &namespace,
    };
    let load = system.start().await;
    let _controller =
        namespace.run_with("controller", &["--default-image", "registry.example/orders-operator:1"]).await;
    let _sweeper = namespace.run("sweeper").await;
    system.switch_and_go_back(load).await;
    namespace.remove().await;
}
