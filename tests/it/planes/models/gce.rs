//! Google Cloud's controller (kubernetes/ingress-gce) 1.41.1, by its `pkg/controller/translator/translator.go` and
//! `pkg/utils/gceurlmap.go`: a prefix is two paths, itself and `/*` below it, and of two equal paths the one that comes later in
//! the Ingress stays. The load balancer, by its documentation of URL maps, takes the longest path that matches, in whatever
//! order they are.

use std::collections::BTreeMap;

use super::*;

/// Paths and Services by host.
type UrlMap = BTreeMap<String, BTreeMap<String, String>>;

fn url_map(ingress: &[HostRules]) -> UrlMap {
    let mut map = UrlMap::new();
    for HostRules { host, rules } in ingress {
        let mut paths = BTreeMap::new();
        for rule in rules {
            if !rule.exact {
                paths.insert(format!("{}/*", rule.path.trim_end_matches('/')), rule.service.clone());
            }
            if rule.exact || rule.path != "/" {
                paths.insert(rule.path.clone(), rule.service.clone());
            }
        }
        map.insert(host.clone().unwrap_or_else(|| "*".to_owned()), paths);
    }
    map
}

fn answer(map: &UrlMap, host: &str, path: &str) -> Option<String> {
    let of_host =
        map.iter().filter(|(of, _)| is_for(of, host)).max_by_key(|(of, _)| (*of == host, of.len()))?;
    let takes = |of: &&String| of.strip_suffix('*').map_or(*of == path, |prefix| path.starts_with(prefix));
    // Of a path and the same with /* at its end, only one takes a request.
    let taken = of_host.1.keys().filter(takes).max_by_key(|of| of.trim_end_matches('*').len())?;
    Some(of_host.1[taken].clone())
}

/// On this data plane an exact path beside the prefix of the same path is the prefix's.
#[test]
fn google_s_load_balancer_gives_the_oracle_s_answer_but_for_an_exact_path_that_is_also_a_prefix() {
    let (differing, asked) = differing(plain, Written::takes, url_map, answer);
    assert!(asked > 200, "{asked}");
    assert!(!differing.is_empty(), "the systems have such paths");
    for found in differing {
        let prefix = found.same_prefix().map(|prefix| prefix.service.clone());
        assert!(prefix.is_some() && found.answer == prefix, "{}", found.asked);
    }
}
