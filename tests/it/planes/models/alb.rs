//! AWS Load Balancer Controller 3.5.0, by its `pkg/ingress/model_build_listener_rules.go` (kubernetes-sigs): the hosts of an
//! Ingress in their order, and of each the exact paths, then the prefixes, the longest first, then those of no type in their
//! order. A prefix is two patterns, itself and `/*` below it. The load balancer takes the first rule whose patterns match; a
//! `*` in them is any text, and a `?` any character.

use super::*;

/// A rule of a listener: its patterns.
struct ListenerRule {
    host: String,
    paths: Vec<String>,
    service: String,
}

/// The rules in the order of their priority.
fn listener(ingress: &[HostRules]) -> Vec<ListenerRule> {
    let mut listener = Vec::new();
    for HostRules { host, rules } in ingress {
        let mut sorted: Vec<_> = rules.iter().collect();
        // Stable, as theirs.
        sorted.sort_by_key(|rule| if rule.exact { (0, 0) } else { (1, usize::MAX - rule.path.len()) });
        listener.extend(sorted.into_iter().map(|rule| ListenerRule {
            host: host.clone().unwrap_or_else(|| "*".to_owned()),
            paths: match rule.path.as_str() {
                path if rule.exact => vec![path.to_owned()],
                "/" => vec!["/*".to_owned()],
                path => vec![path.to_owned(), format!("{path}/*")],
            },
            service: rule.service.clone(),
        }));
    }
    listener
}

fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern.chars(), text.chars());
    match (pattern_rest.next(), text_rest.next()) {
        (None, None) => true,
        (Some('*'), _) => {
            matches(pattern_rest.as_str(), text) || (!text.is_empty() && matches(pattern, text_rest.as_str()))
        }
        (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
            matches(pattern_rest.as_str(), text_rest.as_str())
        }
        _ => false,
    }
}

fn answer(rules: &[ListenerRule], host: &str, path: &str) -> Option<String> {
    let takes = |rule: &&ListenerRule| {
        matches(&rule.host, host) && rule.paths.iter().any(|pattern| matches(pattern, path))
    };
    rules.iter().find(takes).map(|rule| rule.service.clone())
}

#[test]
fn an_alb_gives_the_oracle_s_answer_to_every_request() {
    let (differing, asked) =
        differing(plain, Written::takes, listener, |rules, host, path| answer(rules, host, path));
    let differing: Vec<_> = differing.into_iter().map(|found| found.asked).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(asked > 200, "{asked}");
}

/// The Ingresses of a group come one after the other, by their order and then by namespace and name.
#[test]
fn in_a_group_of_an_alb_the_client_and_shorter_paths_of_the_first_ingress_hide_what_the_second_has() {
    let answered = |rules: &Vec<ListenerRule>, host: &str, path: &str| answer(rules, host, path);
    let (differing, asked) = differing_of_shared(true, plain, Written::takes, listener, answered);
    assert!(asked > 10, "{asked}");
    let by =
        |service: &str| differing.iter().filter(|found| found.answer.as_deref() == Some(service)).count();
    // Each of the second's paths is asked itself.
    for hiding in ["client", "auth", "files"] {
        assert!(by(hiding) > 0, "{hiding} of {}", differing.len());
    }
    for found in &differing {
        let of_second = ["chat", "admin", "all", "second"].contains(&found.oracle.service.as_str());
        assert!(of_second, "{}", found.asked);
    }
    let (differing, _) = differing_of_shared(false, plain, Written::takes, listener, answered);
    let differing: Vec<_> = differing.into_iter().map(|found| found.asked).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
fn patterns_match_as_those_of_a_listener() {
    for (pattern, text, expected) in [
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a/*", "/a/", true),
        ("/a/*", "/a", false),
        ("*.dev", "a.b.dev", true),
        ("/?(.*)", "/x(.y)", true),
        ("/?", "/", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
