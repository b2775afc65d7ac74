//! What holds for any input, however broken: nothing panics, the result is YAML that says what was meant, nothing is lost
//! without a word, and what nothing is left to do of passes `render`.

use proptest::{prelude::*, sample::Index, test_runner::Config};
use serde_json::{Value, json};

use super::{
    documents::Reader,
    finding::Findings,
    judge, output,
    plan::{Options, migrate},
    tests::{ORDERS, fixtures},
};
use crate::routing::CanonicalPath;

/// What a node of a document is replaced by.
fn hostile() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "true",
        "3000",
        "null",
        "~",
        "a: b # c",
        "\n---\nkind: Secret",
        "# x\ny: 1",
        "- x",
        "\u{1b}[2J\u{202e}",
        "{{ .Values.x }}",
        "/?(.*)",
        "/(a|b)",
        "/api/orders",
        "/",
        "//",
        "/%zz",
        "é",
        "*",
        "\u{0}",
        "$(MONGO_URI)",
        "$(",
        "'",
        "\"",
        "|",
        "%",
        "@",
        "&a",
        "!x",
        "mongodb://",
        "orders",
        "Exact",
        "networking.k8s.io/v1",
        "0x1f",
        "1e3",
        "-",
        "---",
        "...",
        "<<",
    ];
    let mut values: Vec<_> = texts.iter().map(|text| json!(text)).collect();
    values.push(json!("x".repeat(5_000)));
    values.extend([json!(null), json!(true), json!(-1), json!(1e300), json!(u64::MAX), json!([]), json!({})]);
    values.extend([json!([[["a"]]]), json!({"a": {"b": [1]}}), json!([null]), json!({"": ""})]);
    values
}

/// The places of all nodes of a value, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), into));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            places(field, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), into);
        }),
        _ => {}
    }
}

/// One change of a document.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index),
    Remove,
    Double,
    Copy(Index),
}

fn change() -> impl Strategy<Value = (Index, Change)> {
    let how = prop_oneof![
        4 => any::<Index>().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        1 => Just(Change::Double),
        2 => any::<Index>().prop_map(Change::Copy),
    ];
    (any::<Index>(), how)
}

fn apply(document: &mut Value, (place, how): &(Index, Change)) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let at = place.get(&all).clone();
    match how {
        Change::Replace(with) => {
            if let Some(node) = document.pointer_mut(&at) {
                *node = with.get(&hostile()).clone();
            }
        }
        Change::Copy(from) => {
            let copy = document.pointer(&all[from.index(all.len())]).cloned();
            if let (Some(node), Some(copy)) = (document.pointer_mut(&at), copy) {
                *node = copy;
            }
        }
        Change::Remove | Change::Double => {
            let Some((parent, last)) = at.rsplit_once('/') else { return };
            let name = last.replace("~1", "/").replace("~0", "~");
            match document.pointer_mut(parent) {
                Some(Value::Object(fields)) => drop(fields.remove(&name)),
                Some(Value::Array(items)) => {
                    let index: usize = name.parse().unwrap();
                    if matches!(how, Change::Double) {
                        items.push(items[index].clone());
                    } else {
                        items.remove(index);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The paths of all Ingresses, as they are written.
fn paths(documents: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for document in documents.iter().filter(|document| document["kind"] == "Ingress") {
        for rule in document["spec"]["rules"].as_array().into_iter().flatten() {
            for path in rule["http"]["paths"].as_array().into_iter().flatten() {
                found.extend(path["path"].as_str().map(str::to_owned));
            }
        }
    }
    found
}

fn check(documents: Vec<Value>) {
    let (mut reader, mut findings) = (Reader::default(), Findings::default());
    for document in &documents {
        reader.take("a.yaml", document.clone(), &mut findings);
    }
    let Ok(migration) = migrate(reader.objects, findings, &Options::default()) else { return };
    let yaml = output::yaml(&migration).unwrap();
    let written: Vec<Value> =
        serde_saphyr::from_multiple(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    assert_eq!(written.len(), migration.secrets.len() + 1, "{yaml}");
    assert_eq!(written.last(), Some(&migration.service), "{yaml}");
    for (document, secret) in written.iter().zip(&migration.secrets) {
        assert_eq!(document["stringData"][&secret.key], json!(secret.value), "{yaml}");
    }
    let table = migration.findings.table();
    assert!(table.lines().all(|line| line.chars().all(|c| !c.is_control())), "{table}");
    if migration.findings.is_anything_left() {
        return;
    }
    assert_eq!(judge::of_whole(&migration.service), [""; 0], "{yaml}");
    if table.contains("\nstays    users") || table.contains("Namespace ") {
        return;
    }
    let ingress = &migration.service["spec"]["ingress"];
    let own = ingress["path"].as_str().unwrap_or("/api/orders");
    let routes = ingress["routes"].as_array().cloned().unwrap_or_default();
    for text in paths(&documents) {
        let path = CanonicalPath::parse(if text.is_empty() { "/" } else { &text });
        let path = path.as_ref().map_or(text.as_str(), CanonicalPath::as_str);
        let is_there = path == own
            || (path == "/" && !ingress["client"].is_null())
            || routes.iter().any(|route| route["path"] == path || route["path"] == text)
            || table.contains(path);
        assert!(is_there, "{text} is lost: {yaml}");
    }
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(100) })]

    #[test]
    fn whatever_is_changed_in_the_documents_nothing_is_lost_and_nothing_panics(
        which in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), change()), 0..6),
    ) {
        let fixtures = fixtures();
        let mut all = documents(fixtures[which.index(fixtures.len())]);
        all.extend(documents(ORDERS));
        for (document, change) in &changes {
            let at = document.index(all.len());
            apply(&mut all[at], change);
        }
        check(all);
    }

    #[test]
    fn whatever_is_changed_in_the_text_it_is_read_or_refused(
        which in any::<Index>(),
        cuts in proptest::collection::vec((any::<Index>(), any::<Index>(), "[ -~\n\t]{0,6}"), 0..4),
    ) {
        let fixtures = fixtures();
        let mut text: Vec<char> = format!("{}---\n{ORDERS}", fixtures[which.index(fixtures.len())]).chars().collect();
        for (start, length, with) in &cuts {
            let start = start.index(text.len() + 1);
            let end = (start + length.index(12)).min(text.len());
            text.splice(start..end, with.chars());
        }
        let text: String = text.into_iter().collect();
        let (mut reader, mut findings) = (Reader::default(), Findings::default());
        reader.read("a.yaml", &text, &mut findings);
        if let Ok(migration) = migrate(reader.objects, findings, &Options::default()) {
            let yaml = output::yaml(&migration).unwrap();
            let written: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
            prop_assert_eq!(written.last(), Some(&migration.service));
        }
    }
}
