//! NGINX Ingress Controller of F5 (nginx/kubernetes-ingress) 5.5.4, by its `internal/configs/ingress.go` and
//! `internal/configs/version1/nginx.ingress.tmpl`: a location for each path, `= PATH` for an exact one and `PATH` for a prefix,
//! without quotes. nginx compares prefixes by text, and takes the longest. The nginx of the bed serves them.

use std::fmt::Write as _;

use super::*;
use crate::{
    dataplane::nginx,
    planes::{
        questions::{Reading, ask_all},
        reading::{climbs, decoded, merged, resolved},
    },
    routes,
};

/// nginx decodes a path, merges slashes and resolves dot segments, and refuses those that lead above the root. It does not
/// decode the path of a location, so one with an escape takes nothing.
const NGINX: Reading = Reading {
    compared: |path| {
        let path = merged(&decoded(path, |_| true));
        (!climbs(&path)).then(|| resolved(&path))
    },
    takes: |route, path| !route.path.contains('%') && route.takes_by(routes::by_text, path),
};

fn locations(of: &HostRules) -> String {
    of.rules.iter().fold(String::new(), |mut text, rule| {
        let kind = if rule.exact { "= " } else { "" };
        write!(text, "location {kind}{} {{ return 200 {}; }} ", rule.path, rule.service).unwrap();
        text
    })
}

/// It refuses an Ingress without a host, unless it is told otherwise.
#[tokio::test]
#[ignore = "make test-planes"]
async fn the_nginx_of_f5_gives_the_oracle_s_answer_to_every_request() {
    let mut systems = systems();
    systems.retain(|system| !system.hosts.is_empty());
    let lists: Vec<_> = ingresses(&systems).into_iter().flatten().collect();
    let hosts: Vec<_> = lists.iter().map(|of| (of.host.clone().unwrap(), locations(of))).collect();
    let nginx = nginx(&hosts);
    nginx.up("few.dev", "/none-of-these", "client").await;
    let asked = ask_all(&nginx, &systems, &NGINX, false).await;
    assert!(asked > 500, "{asked}");
}
