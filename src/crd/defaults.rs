//! The defaults of the fields, as the schema shows them.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString};

pub(super) fn replicas() -> i32 {
    2
}

pub(super) fn port() -> i32 {
    3000
}

pub(super) fn service_port() -> IntOrString {
    IntOrString::Int(port())
}

pub(super) fn drain_seconds() -> i32 {
    5
}

pub(super) fn jwt_key() -> String {
    "JWT_KEY".into()
}

pub(super) fn uri_key() -> String {
    "MONGO_URI".into()
}

pub(super) fn ca_key() -> String {
    "ca.crt".into()
}

pub(super) fn nats_key() -> String {
    "NATS_URL".into()
}

pub(super) fn nats_creds_key() -> String {
    "nats.creds".into()
}

pub(super) fn stream() -> String {
    "ticketing".into()
}

pub(super) fn durable() -> String {
    "orders-service".into()
}

pub(super) fn stream_replicas() -> i32 {
    1
}

pub(super) fn stream_max_age_seconds() -> i32 {
    1_209_600
}

pub(super) fn window_seconds() -> i32 {
    900
}

pub(super) fn path() -> String {
    "/api/orders".into()
}

pub(super) fn network_policy() -> bool {
    true
}

pub(super) fn target_cpu_utilization() -> i32 {
    70
}

pub(super) fn max_unavailable() -> IntOrString {
    IntOrString::Int(1)
}

pub(super) fn size_limit() -> Quantity {
    Quantity("64Mi".into())
}

pub(super) fn read_only_root_filesystem() -> bool {
    true
}

pub(super) fn root_path() -> String {
    "/".into()
}
