//! The CRD: the checked-in files are current, and the API server rejects invalid resources with helpful messages.

use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    CustomResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use orders_operator::{
    api::ServeArgs,
    crd::{Expiration, JetStream, OrdersService, SUBJECTS, crd_yaml},
    events::wire::Subject,
    order::ReservationWindow,
    sweeper::SweeperArgs,
};
use serde_json::{Value, json};

use crate::{
    cluster::{COUNTED, TestNamespace, eventually, refusal, root},
    render::validates,
};

#[test]
fn the_checked_in_crd_is_current_in_both_places() {
    for path in ["crds/ordersservices.yaml", "charts/orders-operator/files/ordersservices.yaml"] {
        let on_disk = std::fs::read_to_string(root().join(path)).unwrap();
        assert_eq!(on_disk, crd_yaml().unwrap(), "{path} is stale: run `make generate`");
    }
}

#[test]
fn the_default_and_the_bounds_of_a_reservation_window_are_the_same_in_the_crd_and_in_the_domain() {
    let default = ReservationWindow::default().seconds();
    assert_eq!(u32::try_from(Expiration::default().window_seconds).unwrap(), default);

    let crd = serde_json::to_value(OrdersService::crd()).unwrap();
    let expiration = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["expiration"];
    let field = &expiration["properties"]["windowSeconds"];
    assert_eq!(
        (&field["default"], &expiration["default"]["windowSeconds"]),
        (&json!(default), &json!(default))
    );
    let description = field["description"].as_str().unwrap();
    assert!(description.contains(&format!("Default: {default}.")), "{description}");

    let bound = |name: &str| field[name].as_f64().unwrap();
    assert_eq!(bound("maximum"), f64::from(ReservationWindow::MAX_SECONDS));
    assert_eq!(bound("minimum"), f64::from(ReservationWindow::MIN_SECONDS));
}

#[test]
fn the_defaults_of_events_are_the_same_in_the_crd_and_in_the_flags() {
    let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("orders-operator"));
    let default_of = |variable: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_env() == Some(variable.as_ref()));
        argument.unwrap().get_default_values()[0].to_str().unwrap().to_owned()
    };
    let JetStream { stream, durable, replicas, max_age_seconds } = JetStream::default();
    assert_eq!(default_of("NATS_STREAM"), stream);
    assert_eq!(default_of("NATS_DURABLE"), durable);
    assert_eq!(default_of("NATS_STREAM_REPLICAS"), replicas.to_string());
    assert_eq!(default_of("NATS_STREAM_MAX_AGE_SECONDS"), max_age_seconds.to_string());
    assert_eq!(Subject::ALL.map(Subject::as_str), SUBJECTS);
}

/// A spec with this volume, and one with this container before the API.
fn volume(patch: Value) -> Value {
    let mut volume = json!({"name": "v"});
    json_patch::merge(&mut volume, &patch);
    json!({"podTemplate": {"volumes": [volume]}})
}

fn container(patch: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    json_patch::merge(&mut container, &patch);
    json!({"podTemplate": {"initContainers": [container]}})
}

/// The numbers just outside of the bounds of a field, and those at them.
fn around(schema: &Value) -> [(i64, bool); 4] {
    let [least, most] = ["minimum", "maximum"].map(|name| schema[name].as_f64().unwrap() as i64);
    [(least - 1, false), (least, true), (most, true), (most + 1, false)]
}

#[test]
fn the_bounds_of_numbers_are_the_same_in_the_crd_in_the_validation_and_in_the_flags() {
    fn is_accepted<A: clap::Args>(flag: &str, number: i64) -> bool {
        let command = A::augment_args(clap::Command::new("orders-operator"));
        // The sweeper's need a database.
        let uri = command.get_arguments().any(|argument| argument.get_long() == Some("uri"));
        let arguments =
            uri.then_some("--uri=mongodb://db".to_owned()).into_iter().chain([format!("--{flag}={number}")]);
        command.try_get_matches_from(std::iter::once("orders-operator".to_owned()).chain(arguments)).is_ok()
    }
    let spec = schema_of_spec();
    for field in ["port", "replicas"] {
        for (number, is_valid) in around(&spec["properties"][field]) {
            assert_eq!(validates(&format!("{field}: {number}")), is_valid, "{field}: {number}");
        }
    }
    let fields = spec["properties"]["expiration"]["properties"].as_object().unwrap();
    let flags_of = |field: &str| match field {
        "windowSeconds" => (None, Some("expiration-window-seconds")),
        "paymentGraceSeconds" => (Some("payment-grace"), Some("payment-grace-seconds")),
        "maxPerSecond" => (Some("max-per-second"), None),
        other => panic!("does spec.expiration.{other} have flags?"),
    };
    for (field, schema) in fields.iter().filter(|(_, schema)| schema["type"] == "integer") {
        let (of_sweeper, of_serve) = flags_of(field);
        for (number, is_valid) in around(schema) {
            let what = format!("expiration: {{{field}: {number}}}");
            assert_eq!(validates(&what), is_valid, "{what}");
            if let Some(flag) = of_sweeper {
                assert_eq!(is_accepted::<SweeperArgs>(flag, number), is_valid, "sweeper --{flag}={number}");
            }
            if let Some(flag) = of_serve {
                assert_eq!(is_accepted::<ServeArgs>(flag, number), is_valid, "serve --{flag}={number}");
            }
        }
    }
    let jet_stream = &spec["properties"]["events"]["properties"]["jetStream"]["properties"];
    for (field, flag) in
        [("replicas", "nats-stream-replicas"), ("maxAgeSeconds", "nats-stream-max-age-seconds")]
    {
        for (number, is_valid) in around(&jet_stream[field]) {
            let nats = "nats: {servers: ['nats://h']}";
            let what = format!("events: {{{nats}, jetStream: {{{field}: {number}}}}}");
            assert_eq!(validates(&what), is_valid, "{what}");
            assert_eq!(is_accepted::<ServeArgs>(flag, number), is_valid, "serve --{flag}={number}");
        }
    }
}

#[tokio::test]
async fn the_api_server_rejects_what_cannot_work_and_says_what_to_write() {
    let namespace = TestNamespace::create("cel").await;
    let route = |path: &str| json!({"path": path, "service": "a-srv"});
    let with = |path: &str, patch: Value| {
        let mut route = route(path);
        json_patch::merge(&mut route, &patch);
        route
    };
    let mount = |path: &str| {
        let mounts = json!([{"name": "v", "mountPath": path}]);
        json!({"podTemplate": {"volumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": mounts}})
    };
    let cases: Vec<(Value, &str)> = vec![
        (json!({"replicas": -1}), "spec.replicas"),
        (json!({"autoscaling": {"maxReplicas": 3}}), "replicas and autoscaling cannot be set together"),
        (json!({"replicas": null, "autoscaling": {"minReplicas": 4, "maxReplicas": 3}}), "above maxReplicas"),
        (
            json!({"replicas": null, "autoscaling": {"maxReplicas": 3}, "resources": {"requests": {"memory": "1Mi"}}}),
            "set resources.requests.cpu",
        ),
        (json!({"replicas": null, "autoscaling": {"minReplicas": 1}}), "spec.autoscaling.maxReplicas"),
        (json!({"replicas": null, "autoscaling": {"maxReplicas": 1001}}), "spec.autoscaling.maxReplicas"),
        (json!({"podDisruptionBudget": {"maxUnavailable": "1"}}), "maxUnavailable"),
        (json!({"podDisruptionBudget": {"maxUnavailable": -1}}), "maxUnavailable"),
        (json!({"podDisruptionBudget": {"maxUnavailable": "101%"}}), "maxUnavailable"),
        (json!({"resources": {"requests": {"cpu": "lots"}}}), "spec.resources.requests.cpu"),
        (json!({"resources": {"requests": {"cpu": "-1"}}}), "spec.resources.requests.cpu"),
        (
            json!({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000Mi"}}}),
            "a request is above the limit",
        ),
        (json!({"expiration": {"maxPerSecond": 0}}), "spec.expiration.maxPerSecond"),
        (json!({"events": {"nats": {}}}), "either servers or urlSecretRef"),
        (json!({"events": {"nats": {"servers": ["nats://u:p@h"]}}}), "put a URL with a password in a Secret"),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "jetStream": {"stream": "a.b"}}}),
            "spec.events.jetStream.stream",
        ),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "streaming": {"clusterId": "a b"}}}),
            "spec.events.streaming.clusterId",
        ),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "jetStream": {}, "streaming": {"clusterId": "a"}}}),
            "cannot be set together",
        ),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "subjects": {"order:made": "x"}}}),
            "the subjects are ticket:created",
        ),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "subjects": {"order:created": "a b"}}}),
            "cannot be a subject",
        ),
        (
            json!({"events": {"nats": {"servers": ["nats://h"]}, "subjects": {"order:created": "x", "order:updated": "x"}}}),
            "give each its own",
        ),
        (
            json!({"podTemplate": {"extraEnv": [{"name": "NATS_URL"}]}}),
            "a variable that the operator sets itself",
        ),
        (
            json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}),
            "a label that the operator sets itself",
        ),
        (
            json!({"podTemplate": {"annotations": {"ticketing.dev/secrets-checksum": "x"}}}),
            "which the operator sets itself",
        ),
        (
            json!({"podTemplate": {"extraEnv": [{"name": "PORT"}]}}),
            "a variable that the operator sets itself",
        ),
        (json!({"podTemplate": {"extraEnv": [{"name": "A"}, {"name": "A"}]}}), "duplicate entries for key"),
        (
            json!({"podTemplate": {"extraEnv": [
                {"name": "A", "value": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ]}}),
            "either value or valueFrom",
        ),
        (
            json!({"podTemplate": {"topologySpreadConstraints": [
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2},
            ]}}),
            "duplicate entries for key",
        ),
        (json!({"networkPolicy": "yes"}), "spec.networkPolicy"),
        (json!({"mesh": "Other"}), "spec.mesh"),
        (volume(json!({})), "exactly one of emptyDir, configMap, secret and projected"),
        (volume(json!({"emptyDir": {}, "secret": {"secretName": "s"}})), "exactly one of emptyDir"),
        (volume(json!({"name": "database-certificates", "emptyDir": {}})), "the operator's own volume"),
        (volume(json!({"emptyDir": {"sizeLimit": "much"}})), "emptyDir.sizeLimit"),
        (volume(json!({"emptyDir": {"sizeLimit": "0"}})), "emptyDir.sizeLimit"),
        (volume(json!({"emptyDir": {"sizeLimit": "0.00Mi"}})), "emptyDir.sizeLimit"),
        (volume(json!({"emptyDir": {"sizeLimit": 0}})), "emptyDir.sizeLimit"),
        (
            volume(json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "../k"}]}})),
            "begins neither with / nor with ..",
        ),
        (mount("cache"), "mountPath must be absolute"),
        (mount("/etc/orders-operator"), "the operator's own folder"),
        (
            json!({"podTemplate": {"extraVolumeMounts": [{"name": "w", "mountPath": "/w"}]}}),
            "names a volume that is not in podTemplate.volumes",
        ),
        (
            container(json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}]})),
            "mounts a volume that is not in",
        ),
        (container(json!({"name": "orders-api"})), "orders-api is the container of the API itself"),
        (container(json!({"image": null})), "spec.podTemplate.initContainers[0].image"),
        (container(json!({"restartPolicy": "Never"})), "initContainers[0].restartPolicy"),
        (container(json!({"runAsUser": 0})), "initContainers[0].runAsUser"),
        (container(json!({"livenessProbe": {"tcpSocket": {"port": 1}}})), "set restartPolicy to Always"),
        (
            container(
                json!({"restartPolicy": "Always", "livenessProbe": {"httpGet": {"path": "/", "port": 0}}}),
            ),
            "livenessProbe.httpGet.port",
        ),
        (json!({"port": 8081}), "choose another, such as 3000"),
        (json!({"expiration": {"windowSeconds": 0}}), "spec.expiration.windowSeconds"),
        (json!({"expiration": {"windowSeconds": 604_801}}), "spec.expiration.windowSeconds"),
        (json!({"database": {"name": "a.b"}}), "spec.database.name"),
        (json!({"auth": {"jwtSecretRef": {"name": null}}}), "spec.auth.jwtSecretRef.name"),
        (json!({"ingress": {"client": {"service": null}}}), "spec.ingress.client.service"),
        (json!({"ingress": {"client": {"service": ""}}}), "spec.ingress.client.service"),
        (json!({"ingress": {"hosts": []}}), "spec.ingress.hosts"),
        (json!({"ingress": {"hosts": ["https://ticketing.dev"]}}), "without scheme, port or path"),
        (json!({"ingress": {"hosts": ["ticketing.dev:80"]}}), "without scheme, port or path"),
        (json!({"ingress": {"hosts": ["a.dev", "a.dev"]}}), "listed twice"),
        (json!({"ingress": {"hosts": ["10.0.0.1"]}}), "not an IP address"),
        (json!({"ingress": {"hosts": ["127.1."]}}), "not an IP address"),
        (json!({"ingress": {"hosts": ["a.dev", "*.0.0.1"]}}), "not an IP address"),
        (json!({"ingress": {"hosts": ["0X7F000001"]}}), "not an IP address"),
        (json!({"ingress": {"hosts": ["2130706433"]}}), "not an IP address"),
        (json!({"ingress": {"hosts": ["::1"]}}), "letters, digits, hyphens and dots only"),
        (json!({"ingress": {"hosts": ["[2001:db8::1]"]}}), "letters, digits, hyphens and dots only"),
        (json!({"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["0x7f.1"]}}), "not an IP address"),
        (
            json!({"ingress": {"className": "nginx", "annotations": {"kubernetes.io/ingress.class": "nginx"}}}),
            "className and the annotation kubernetes.io/ingress.class",
        ),
        (json!({"ingress": {"path": "api/orders"}}), "path must begin with /, such as /api/orders"),
        (json!({"ingress": {"routes": [route("api/x")]}}), "path must begin with /, such as /api/payments"),
        (json!({"ingress": {"routes": [route("/")]}}), "set that Service as spec.ingress.client"),
        (json!({"ingress": {"routes": [route("/x"), route("/x")]}}), "two routes have the same path"),
        (json!({"ingress": {"routes": [route("/api/orders")]}}), "the path of the orders API itself"),
        (json!({"ingress": {"hosts": []}}), "spec.ingress.hosts"),
        (json!({"ingress": {"routes": [with("/x", json!({"hosts": ["other.dev"]}))]}}), "list it there"),
        (json!({"ingress": {"routes": [with("/x", json!({"port": 0}))]}}), "spec.ingress.routes[0].port"),
        (
            json!({"ingress": {"routes": [with("/x", json!({"port": "HTTP"}))]}}),
            "spec.ingress.routes[0].port",
        ),
        (json!({"ingress": {"routes": [with("/x", json!({"port": 3.5}))]}}), "spec.ingress.routes[0].port"),
        (
            json!({"ingress": {"routes": [with("/x", json!({"exact": true, "stripPrefix": true}))]}}),
            "exact and stripPrefix cannot be set together",
        ),
        (
            json!({"ingress": {"routes": [with("/x", json!({"exact": true})), with("/x", json!({"exact": true}))]}}),
            "two routes have the same path",
        ),
        (json!({"gateway": {"hostnames": ["a.dev"]}}), "spec.gateway.parentRefs"),
        (json!({"gateway": {"parentRefs": [], "hostnames": ["a.dev"]}}), "spec.gateway.parentRefs"),
        (
            json!({"gateway": {"parentRefs": [{"name": "g", "namespace": "A"}], "hostnames": ["a.dev"]}}),
            "namespace",
        ),
        (
            json!({"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["a.dev:80"]}}),
            "without scheme, port or path",
        ),
        (
            json!({"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["a.dev"], "routes": [route("/x")]}}),
            "remove path, pathHosts, routes and client from spec.gateway",
        ),
        (
            json!({"ingress": null, "gateway": {
                "parentRefs": [{"name": "g"}], "hostnames": ["a.dev"], "routes": [route("/x"), route("/x")]
            }}),
            "two routes have the same path",
        ),
    ];
    for (patch, expected) in cases {
        let said = refusal(namespace.apply(&namespace.service("orders", patch.clone())).await);
        assert!(said.contains(expected), "{patch}: expected {expected:?} in {said:?}");
    }
    let said = refusal(namespace.apply(&namespace.service(&"a".repeat(53), json!({}))).await);
    assert!(said.contains("at most 52 characters"), "{said}");
    namespace.apply(&namespace.service(&"a".repeat(52), json!({}))).await.unwrap();
    let routes = [
        route("/x"),
        with("/x", json!({"exact": true, "port": "http"})),
        with("/", json!({"exact": true, "port": "8080"})),
        with("/", json!({"hosts": ["b.dev"]})),
        with("/y", json!({"hosts": ["a.dev"]})),
        with("/y", json!({"hosts": ["b.dev"]})),
    ];
    for ingress in [json!({"hosts": ["a.dev", "b.dev"], "routes": routes}), json!({"hosts": null})] {
        namespace.apply(&namespace.service("routes", json!({"ingress": ingress}))).await.unwrap();
    }
    namespace.remove().await;
}

#[tokio::test]
async fn what_a_pod_may_not_have_cannot_be_written() {
    let namespace = TestNamespace::create("privileges").await;
    let source = |source: Value| volume(json!({"projected": {"sources": [source]}}));
    let probe = |probe: Value| container(json!({"restartPolicy": "Always", "livenessProbe": probe}));
    for (patch, field) in [
        (volume(json!({"emptyDir": {}, "hostPath": {"path": "/"}})), "volumes[name=\"v\"].hostPath"),
        (
            volume(json!({"emptyDir": {}, "persistentVolumeClaim": {"claimName": "c"}})),
            "persistentVolumeClaim",
        ),
        (
            source(json!({"secret": {"name": "s"}, "serviceAccountToken": {"path": "t"}})),
            "serviceAccountToken",
        ),
        (container(json!({"securityContext": {"privileged": true}})), "securityContext"),
        (container(json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}})), "lifecycle"),
        (container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "ports"),
        (container(json!({"volumeDevices": []})), "volumeDevices"),
        (probe(json!({"httpGet": {"port": 80, "host": "169.254.169.254"}})), "httpGet.host"),
        (probe(json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}})), "tcpSocket.host"),
        (json!({"podTemplate": {"hostNetwork": true}}), "podTemplate.hostNetwork"),
        (json!({"podTemplate": {"hostPID": true}}), "podTemplate.hostPID"),
        (json!({"podTemplate": {"automountServiceAccountToken": true}}), "automountServiceAccountToken"),
        (json!({"podTemplate": {"containers": []}}), "podTemplate.containers"),
    ] {
        let said = refusal(namespace.apply(&namespace.service("orders", patch.clone())).await);
        assert!(said.contains(field) && said.contains("not declared in schema"), "{patch}: {said}");
    }
    // Who does not ask for strictness gets the rest, without it.
    let mut object = namespace.service("orders", volume(json!({"hostPath": {"path": "/"}})));
    let services = namespace.api::<OrdersService>();
    let create = |object: &Value| {
        let object = serde_json::from_value::<DynamicObject>(object.clone()).unwrap();
        let api = namespace.dynamic("OrdersService", "ticketing.dev/v1alpha1");
        async move { api.create(&PostParams::default(), &object).await }
    };
    let said = refusal(create(&object).await);
    assert!(said.contains("other kinds, such as hostPath and csi, are not allowed"), "{said}");
    object["spec"]["podTemplate"] =
        container(json!({"securityContext": {"privileged": true}}))["podTemplate"].take();
    create(&object).await.unwrap();
    let stored = serde_json::to_string(&services.get("orders").await.unwrap()).unwrap();
    assert!(stored.contains("initContainers") && !stored.contains("privileged"), "{stored}");
    namespace.remove().await;
}

#[tokio::test]
async fn the_database_of_a_resource_cannot_be_changed() {
    let namespace = TestNamespace::create("immutable").await;
    for (before, after) in [(json!({}), json!({"name": "b"})), (json!({"name": "a"}), json!({"name": "b"}))] {
        let name = format!("orders-{}", before.as_object().unwrap().len());
        namespace.apply(&namespace.service(&name, json!({"database": before}))).await.unwrap();
        let said = refusal(namespace.apply(&namespace.service(&name, json!({"database": after}))).await);
        assert!(said.contains("create a new OrdersService instead"), "{said}");
    }
    namespace.remove().await;
}

/// The fields of the spec that are in no resource together with the others.
const ELSEWHERE: [&str; 6] =
    ["events.streaming", "gateway.client", "gateway.path", "gateway.pathHosts", "gateway.routes", "replicas"];

fn schema_of_spec() -> Value {
    let mut crd = serde_json::to_value(OrdersService::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].take()
}

/// The fields of a schema, and those in them, that `object` does not name.
fn unnamed(path: &str, schema: &Value, object: &Value) -> Vec<String> {
    let fields = schema["properties"].as_object().into_iter().flatten();
    fields
        .flat_map(|(name, field)| match object.get(name) {
            None => vec![format!("{path}{name}")],
            Some(inner) if path.is_empty() => unnamed(&format!("{name}."), field, inner),
            Some(_) => Vec::new(),
        })
        .collect()
}

/// Volumes of every kind, a container that ends before the API, and a sidecar.
pub(crate) fn template() -> Value {
    json!({
        "volumes": [
            {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Ki"}},
            {"name": "config", "configMap": {"name": "c", "items": [{"key": "k", "path": "p/k"}], "optional": true}},
            {"name": "keys", "secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}], "optional": true}},
            {"name": "all", "projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "k", "path": "s"}], "optional": true}},
                {"configMap": {"name": "c", "optional": true}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ]}},
        ],
        "extraVolumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": true}],
        "initContainers": [
            {
                "name": "migrate", "image": "migrate:1", "imagePullPolicy": "Always", "command": ["/migrate"],
                "args": ["up"], "runAsUser": 1000, "readOnlyRootFilesystem": false,
            },
            {
                "name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
                "env": [
                    {"name": "MODE", "value": "tcp"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                ],
                "volumeMounts": [{"name": "cache", "mountPath": "/cache", "subPath": "proxy"}],
                "resources": {"requests": {"cpu": "1000m"}, "limits": {"memory": "64Mi"}},
                "startupProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 60},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 5001}, "timeoutSeconds": 2},
                "livenessProbe": {"exec": {"command": ["/check"]}},
            },
        ],
    })
}

#[tokio::test]
async fn every_field_of_the_spec_is_stored_as_written() {
    let namespace = TestNamespace::create("whole").await;
    let spec = json!({
        "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "regcred"}], "replicas": null, "port": 4000,
        "serviceName": "orders-srv",
        "expiration": {"windowSeconds": 60, "paymentGraceSeconds": 5, "suspend": true, "maxPerSecond": 5000},
        "autoscaling": {"minReplicas": 3, "maxReplicas": 10, "targetCPUUtilizationPercentage": 60},
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"cpu": "1000m", "memory": "64Mi"}},
        "networkPolicy": false, "mesh": "Linkerd", "drainSeconds": 30, "suspend": true,
        "database": {"name": "shop", "tls": {
            "caSecretRef": {"name": "ca", "key": "ca.pem"}, "clientCertificateSecretRef": {"name": "certificate"},
        }},
        "events": {
            "nats": {
                "urlSecretRef": {"name": "nats", "key": "URL"}, "caSecretRef": {"name": "nats-ca", "key": "ca.pem"},
                "credsSecretRef": {"name": "nats-user", "key": "user.creds"},
            },
            "ticketDeleted": "ticket:deleted", "paymentStarted": "payment:started",
            "jetStream": {"stream": "shop", "durable": "orders", "replicas": 3, "maxAgeSeconds": 7200},
            "subjects": {"order:created": "orders.created"},
        },
        "ingress": {
            "annotations": {"note": "hello"}, "className": "nginx", "path": "/orders", "pathHosts": ["ticketing.dev"], "tls": {"secretName": "tls"},
        },
        "gateway": {
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}, {"name": "own"}],
            "hostnames": ["ticketing.dev", "*.Ticketing.dev."],
        },
        "podTemplate": {
            "labels": {"team": "tickets"}, "annotations": {"note": "hello"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists", "tolerationSeconds": 60}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
            ]}}},
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1},
            ],
            "priorityClassName": "system-cluster-critical", "serviceAccountName": "mine",
            "extraEnv": [
                {"name": "LOG_LEVEL", "value": "debug"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            ],
            "userFromCluster": true,
            "volumes": template()["volumes"], "extraVolumeMounts": template()["extraVolumeMounts"],
            "initContainers": template()["initContainers"],
        },
    });
    let wanted = namespace.service("orders", spec);
    assert_eq!(unnamed("", &schema_of_spec(), &wanted["spec"]), ELSEWHERE, "each field belongs in this test");
    let stored = serde_json::to_value(namespace.apply(&wanted).await.unwrap()).unwrap();
    /// Asserts that `whole` contains all of `part`.
    fn assert_contains(whole: &Value, part: &Value, path: &str) {
        match part {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| {
                    assert_contains(&whole[name], field, &format!("{path}.{name}"))
                });
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(at, item)| assert_contains(&whole[at], item, &format!("{path}[{at}]")));
            }
            // Quantities that are written as numbers are stored as strings.
            Value::Number(number) if whole.is_string() => {
                assert_eq!(whole, &json!(number.to_string()), "{path}")
            }
            _ => assert_eq!(whole, part, "{path}"),
        }
    }
    let mut expected = wanted["spec"].clone();
    expected.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_contains(&stored["spec"], &expected, "spec");
    let streaming = json!({
        "nats": {"servers": ["nats://nats-srv:4222"]}, "streaming": {"clusterId": "ticketing", "durable": "orders"},
    });
    let wanted = namespace.service("streaming", json!({"events": streaming}));
    let stored = serde_json::to_value(namespace.apply(&wanted).await.unwrap()).unwrap();
    assert_eq!(stored["spec"]["events"], streaming);
    namespace.remove().await;
}

#[tokio::test]
async fn a_minimal_resource_gets_the_defaults() {
    let namespace = TestNamespace::create("minimal").await;
    let minimal = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "orders"},
        "spec": {"auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}}}
    });
    let stored = serde_json::to_value(namespace.apply(&minimal).await.unwrap()).unwrap();
    assert_eq!(
        stored["spec"],
        json!({
            "auth": {"jwtSecretRef": {"name": "jwt", "key": "JWT_KEY"}},
            "database": {"uriSecretRef": {"name": "mongo", "key": "MONGO_URI"}},
            "expiration": {"windowSeconds": 900, "paymentGraceSeconds": 0, "suspend": false},
            "imagePullPolicy": "IfNotPresent", "port": 3000, "networkPolicy": true, "drainSeconds": 5, "suspend": false,
            "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        })
    );
    namespace.remove().await;
}

#[tokio::test]
async fn kubectl_get_has_its_printer_columns_and_more_with_wide() {
    let namespace = TestNamespace::create("columns").await;
    let crds = kube::Api::<CustomResourceDefinition>::all(namespace.client.clone());
    let crd = crds.get("ordersservices.ticketing.dev").await.unwrap();
    let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
    let named = |wide: bool| -> Vec<String> {
        let wanted = columns.iter().filter(|column| (column.priority.unwrap_or(0) > 0) == wide);
        wanted.map(|column| column.name.clone()).collect()
    };
    assert_eq!(named(false), ["Ready", "Replicas", "Host", "Expired", "Age"]);
    assert_eq!(named(true), ["Image", "Window", "Events", "Reason", "Message"]);
    // As the controller writes it of one that has no Ingress.
    let gateway = json!({"parentRefs": [{"name": "public"}], "hostnames": ["at-a-gateway.dev"]});
    let service = namespace.service("orders", json!({"ingress": null, "gateway": gateway}));
    namespace.apply(&service).await.unwrap();
    let route = json!({"host": "at-a-gateway.dev", "path": "/api/orders", "service": "orders:3000"});
    let status =
        Patch::Merge(json!({"status": {"routes": [route], "image": "registry.example/orders-operator:7"}}));
    namespace.api::<OrdersService>().patch_status("orders", &PatchParams::default(), &status).await.unwrap();
    let table = |output: &[&str]| {
        let get = ["--namespace", &namespace.name, "get", "osvc", "orders"];
        let output = Command::new("kubectl").args(get).args(output).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(table(&[]).contains("at-a-gateway.dev"), "{}", table(&[]));
    let wide = table(&["--output", "wide"]);
    assert!(
        wide.contains("at-a-gateway.dev") && wide.contains("registry.example/orders-operator:7"),
        "{wide}"
    );
    namespace.remove().await;
}

#[tokio::test]
async fn a_quota_bounds_the_orders_services_of_a_namespace() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    assert!(page.contains(COUNTED), "the page names what is tried here");
    let namespace = TestNamespace::create("count").await;
    namespace.counting_quota("few", 2).await;
    let services = namespace.api::<OrdersService>();
    for name in ["a", "b"] {
        namespace.apply(&namespace.service(name, json!({}))).await.unwrap();
    }
    // The API server takes a moment until it knows of the quota.
    let refused = eventually("a third is refused", || async {
        let third = namespace.apply(&namespace.service("c", json!({}))).await;
        if third.is_ok() {
            services.delete("c", &DeleteParams::default()).await.unwrap();
        }
        third.err()
    })
    .await
    .to_string();
    assert!(refused.contains("exceeded quota: few") && refused.contains(COUNTED), "{refused}");
    // It counts, and is in nobody's way otherwise.
    namespace.apply(&namespace.service("a", json!({"replicas": 3}))).await.unwrap();
    services.delete("b", &DeleteParams::default()).await.unwrap();
    eventually("there is room again", || async {
        namespace.apply(&namespace.service("c", json!({}))).await.ok()
    })
    .await;
    namespace.remove().await;
}
