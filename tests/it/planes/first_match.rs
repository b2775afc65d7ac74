//! HAProxy and Caddy, which take the first rule that matches: they get the rendered list in its order, translated rule by rule.

use std::{fmt::Write as _, process::Command};

use serde_json::{Value, json};

use super::{
    questions::{Reading, System, Written, ask_all, systems},
    reading::{cleaned, decoded, merged},
    rendered::{HostRules, Rule, ingresses},
};
use crate::{
    bed::setting,
    docs::has_version,
    server::{Server, free_port},
};

/// HAProxy compares a path as it was sent.
const HAPROXY: Reading = Reading { compared: |path| Some(path.to_owned()), takes: Written::takes };

/// Caddy decodes a path, merges slashes, resolves dot segments, and takes upper and lower case for the same.
const CADDY: Reading = Reading {
    compared: |path| Some(cleaned(&merged(&decoded(path, |_| true))).to_lowercase()),
    takes: |route, path| {
        let route = Written { path: decoded(&route.path, |_| true).to_lowercase(), ..route.clone() };
        route.takes(path)
    },
};

/// The rules of all systems. A list without a host is for those that no other list has, so it is the last.
fn lists(systems: &[System]) -> Vec<HostRules> {
    let mut lists: Vec<_> = ingresses(systems).into_iter().flatten().collect();
    lists.sort_by_key(|list| list.host.is_none());
    lists
}

/// HAProxy with these lists, in which every rule answers with the name of its Service.
fn haproxy(lists: &[HostRules]) -> Server {
    let port = free_port();
    let mut rules = String::new();
    for HostRules { host, rules: of_host } in lists {
        let host = match host.as_deref().map(|host| (host, host.strip_prefix('*'))) {
            Some((_, Some(domain))) => format!("{{ hdr_end(host) -i {domain} }}"),
            Some((host, None)) => format!("{{ hdr(host) -i {host} }}"),
            None => String::new(),
        };
        for Rule { path, exact, service } in of_host {
            let answer = format!("http-request return content-type text/plain string {service} if {host}");
            writeln!(rules, "  {answer} {{ path {path} }}").unwrap();
            if !exact {
                writeln!(rules, "  {answer} {{ path_beg {}/ }}", path.trim_end_matches('/')).unwrap();
            }
        }
    }
    let config = format!(
        "defaults\n  mode http\n  timeout client 30s\n  timeout connect 30s\n  timeout server 30s\n\
         frontend web\n  bind 127.0.0.1:{port}\n{rules}"
    );
    Server::run("haproxy", port, |folder| {
        std::fs::write(folder.join("haproxy.cfg"), config).unwrap();
        let mut command = Command::new(setting("HAPROXY"));
        command.args(["-db", "-f", "haproxy.cfg"]);
        command
    })
}

/// Caddy with these lists, likewise.
fn caddy(lists: &[HostRules]) -> Server {
    let port = free_port();
    let route = |host: Option<&str>, rule: &Rule| {
        // As it compares them: below a pattern with an escape it would take one segment only.
        let path = decoded(&rule.path, |_| true);
        let below = (!rule.exact).then(|| format!("{}/*", path.trim_end_matches('/')));
        let paths: Vec<_> = [Some(path), below].into_iter().flatten().collect();
        let mut matches = json!({"path": paths});
        if let Some(host) = host {
            matches["host"] = json!([host]);
        }
        json!({"match": [matches], "terminal": true, "handle": [{"handler": "static_response", "body": rule.service}]})
    };
    let routes: Vec<Value> = lists
        .iter()
        .flat_map(|list| list.rules.iter().map(move |rule| route(list.host.as_deref(), rule)))
        .collect();
    let server = json!({
        "listen": [format!("127.0.0.1:{port}")], "automatic_https": {"disable": true}, "routes": routes
    });
    let config = json!({"admin": {"disabled": true}, "apps": {"http": {"servers": {"web": server}}}});
    Server::run("caddy", port, |folder| {
        std::fs::write(folder.join("caddy.json"), config.to_string()).unwrap();
        let mut command = Command::new(setting("CADDY"));
        command.args(["run", "--config", "caddy.json"]).env("HOME", folder);
        command
    })
}

/// The same lists with the last rule first.
fn reversed(mut lists: Vec<HostRules>) -> Vec<HostRules> {
    for list in &mut lists {
        list.rules.reverse();
    }
    lists
}

/// Asks a server that has the lists, and one that has them in the wrong order.
async fn asked(run: impl Fn(&[HostRules]) -> Server, reading: &Reading) {
    let systems = systems();
    let lists = lists(&systems);
    let server = run(&lists);
    server.up("few.dev", "/none-of-these", "client").await;
    let asked = ask_all(&server, &systems, reading, false).await;
    assert!(asked > 500, "{asked}");
    let server = run(&reversed(lists));
    server.up("few.dev", "/static", "client").await;
    for path in ["/a", "/a/b", "/api/orders"] {
        assert_eq!(server.ask("few.dev", path).await, Some((200, "client".to_owned())), "it takes {path}");
    }
}

#[tokio::test]
#[ignore = "make test-planes"]
async fn haproxy_gives_the_oracle_s_answer_to_every_request_with_the_rendered_list_in_its_order() {
    asked(haproxy, &HAPROXY).await;
    has_version("HAProxy", &setting("HAPROXY"), "-v");
}

#[tokio::test]
#[ignore = "make test-planes"]
async fn caddy_gives_the_oracle_s_answer_to_every_request_with_the_rendered_list_in_its_order() {
    asked(caddy, &CADDY).await;
}
