//! From texts to objects: YAML (and so JSON) within budgets, one document at a time, lists of objects unpacked.
//!
//! The texts are taken for hostile. Each has a bound in bytes, and so has what becomes of it: aliases count each time
//! that they are used, so one text cannot become many times its size.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    fields::Fields,
    finding::{Findings, Kind, Notes, Whom},
};
use crate::runtime::yaml;

/// The largest text that is read, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;

/// The most bytes of all texts together.
pub(super) const MAX_ALL_BYTES: usize = 32 * 1024 * 1024;

/// The most objects that are read.
const MAX_OBJECTS: usize = 10_000;

/// The most nodes of one document, its aliases resolved.
const MAX_NODES: usize = 100_000;

/// The most that all documents together may be once they are parsed, in bytes: a node counts as 32, and its text as what it is.
const MAX_PARSED_BYTES: usize = 4 * MAX_ALL_BYTES;

/// The deepest nesting.
const MAX_DEPTH: usize = 48;

/// What the API server adds to an object, or keeps for itself.
const OF_THE_SERVER: [&str; 10] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The kinds that are translated.
const KINDS: [&str; 8] = [
    "Ingress",
    "Service",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ConfigMap",
    "Secret",
    "HorizontalPodAutoscaler",
];

/// An object, with the fields that nobody has taken yet.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Where it was read.
    pub(super) source: String,
    /// The group of its API, such as `apps`; of the core it is empty.
    pub(super) group: String,
    /// Its kind.
    pub(super) kind: String,
    /// Its name.
    pub(super) name: String,
    /// Its namespace, if it names one.
    pub(super) namespace: Option<String>,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Its annotations.
    pub(super) annotations: BTreeMap<String, String>,
    /// The kind and the name of the controller that made it.
    pub(super) owner: Option<String>,
    /// Everything else.
    pub(super) fields: Fields,
}

impl Object {
    /// How it is called in findings.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// Whether both say the same, wherever they were read.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.labels, &self.annotations, &self.fields) == (&other.labels, &other.annotations, &other.fields)
    }
}

/// Reads texts into objects, as long as the budget lasts.
#[derive(Default)]
pub(super) struct Reader {
    /// The objects so far.
    pub(super) objects: Vec<Object>,
    bytes: usize,
    /// The bytes of the documents, their aliases resolved.
    parsed: usize,
    is_full: bool,
}

impl Reader {
    /// Reads the objects of a text; what cannot be read is left to do.
    pub(super) fn read(&mut self, source: &str, text: &str, findings: &mut Findings) {
        if text.len() > MAX_TEXT_BYTES {
            let most = MAX_TEXT_BYTES / 1024 / 1024;
            let told = format!("has more than {most} MiB, and was not read: divide it");
            return findings.add(Kind::Left, Whom::You, source, told);
        }
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > MAX_ALL_BYTES {
            let most = MAX_ALL_BYTES / 1024 / 1024;
            let told =
                format!("was not read, since all inputs together have more than {most} MiB: name fewer");
            return findings.add(Kind::Left, Whom::You, source, told);
        }
        for (number, part) in parts(text).into_iter().enumerate() {
            let place =
                if number == 0 { source.to_owned() } else { format!("{source}, document {}", number + 1) };
            if self.parsed > MAX_PARSED_BYTES {
                let told = "from here on nothing was read, since all documents together become too much by their aliases (*name): name \
                            fewer files, or write out what the aliases stand for";
                return findings.add(Kind::Left, Whom::You, &place, told);
            }
            match parse(part) {
                Ok(document) => {
                    self.parsed = self.parsed.saturating_add(size(&document));
                    self.take(&place, document, findings);
                }
                // The parser counts from the beginning of what it is given.
                Err(why) if number > 0 => {
                    let told = format!("{why} (lines are those of this document, and not of the whole file)");
                    findings.add(Kind::Left, Whom::You, &place, told);
                }
                Err(why) => findings.add(Kind::Left, Whom::You, &place, why),
            }
        }
    }

    /// Takes a document that was parsed.
    pub(super) fn take(&mut self, source: &str, document: Value, findings: &mut Findings) {
        let map = match document {
            Value::Null => return,
            Value::Object(map) => map,
            other => {
                let told = format!("is {}, and no object of Kubernetes", super::fields::quoted(&other));
                return findings.add(Kind::Left, Whom::You, source, told);
            }
        };
        if map.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
            && let Some(Value::Array(items)) = map.get("items")
        {
            for (at, item) in items.iter().enumerate() {
                let place = format!("{source}, items[{at}]");
                match item {
                    Value::Object(map) => self.push(&place, map.clone(), findings),
                    _ => findings.add(Kind::Left, Whom::You, &place, "is not a Kubernetes object"),
                }
            }
            return;
        }
        self.push(source, map, findings);
    }

    fn push(&mut self, source: &str, map: Map<String, Value>, findings: &mut Findings) {
        if self.objects.len() >= MAX_OBJECTS {
            if !self.is_full {
                self.is_full = true;
                let told =
                    format!("from here on nothing was read, since there are more than {MAX_OBJECTS} objects");
                findings.add(Kind::Left, Whom::You, source, told);
            }
            return;
        }
        self.objects.extend(object(source, map, findings));
    }
}

/// The documents of a text. A line that begins with `---` separates them wherever it is, so each can be parsed by itself, and
/// one that is none does not take the others with it.
fn parts(text: &str) -> Vec<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let is_end = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_end {
            parts.extend(text.get(start..at));
            start = at;
        }
        at += line.len();
    }
    parts.extend(text.get(start..));
    let is_blank = |part: &&str| {
        part.lines().all(|line| {
            let line = line.trim();
            line.is_empty()
                || line.starts_with('#')
                || line == "---"
                || line == "..."
                || line.starts_with("--- #")
        })
    };
    parts.retain(|part| !is_blank(part));
    parts
}

fn parse(text: &str) -> Result<Value, String> {
    let budget = serde_saphyr::budget! {
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_total_scalar_bytes: 2 * MAX_TEXT_BYTES,
        max_recorded_anchor_bytes: 2 * MAX_TEXT_BYTES,
        max_recorded_anchor_events: MAX_NODES,
        max_documents: 1,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        if text.contains("{{") {
            let how = "render it first, as by `helm template . | orders-operator migrate -`";
            return format!("is a template, and was not read: {how}");
        }
        format!("cannot be read as YAML, and was not read: {}", yaml::cause(error.without_snippet()))
    })
}

/// How much a document is, in bytes: about what it takes in memory. Its depth is bounded.
fn size(value: &Value) -> usize {
    let below: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    below + 32
}

fn object(source: &str, map: Map<String, Value>, findings: &mut Findings) -> Option<Object> {
    let mut notes = Notes::about(source, findings);
    let mut fields = Fields::of(map);
    let kind = fields.text("kind", &mut notes);
    let version = fields.text("apiVersion", &mut notes);
    let (Some(kind), Some(version)) = (kind, version) else {
        notes.left(
            Whom::You,
            "is not a Kubernetes object, since it lacks apiVersion or kind, and was not read",
        );
        return None;
    };
    let mut metadata = fields.below("metadata", &mut notes);
    let name = metadata.text("name", &mut notes).unwrap_or_default();
    let mut notes = Notes::about(format!("{kind} {name}"), findings);
    let namespace = metadata.text("namespace", &mut notes).filter(|namespace| !namespace.is_empty());
    if let Some(right) = KINDS.iter().find(|known| kind.eq_ignore_ascii_case(known) && **known != kind) {
        notes.left(
            Whom::You,
            format!("kind {kind}, in {source}, is not a known kind, and was not translated: write {right}"),
        );
    }
    let labels = metadata.texts("labels", &mut notes);
    let annotations = metadata.texts("annotations", &mut notes);
    let owners = metadata.items("ownerReferences", &mut notes);
    let owner = owners.into_iter().find_map(|mut owner| {
        let is_controller = owner.take("controller") == Some(Value::Bool(true));
        let kind = owner.text("kind", &mut notes)?;
        let name = owner.text("name", &mut notes)?;
        is_controller.then(|| format!("{kind} {name}"))
    });
    metadata.ignore(&OF_THE_SERVER);
    metadata.done(&mut notes);
    fields.ignore(&["status"]);
    let group = version.rsplit_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
    Some(Object {
        source: source.to_owned(),
        group,
        kind,
        name,
        namespace,
        labels,
        annotations,
        owner,
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Object>, String) {
        let (mut reader, mut findings) = (Reader::default(), Findings::default());
        reader.read("a.yaml", text, &mut findings);
        (reader.objects, findings.table())
    }

    #[test]
    fn documents_are_read_one_by_one_and_lists_are_unpacked() {
        let (objects, said) = read(
            "# nothing\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n--- # b\n{{ if }}\n---\n\
             {\"apiVersion\": \"apps/v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\"}, 3]}\n\
             ---\nx: [\n---\n- 3\n...\n---\nkind: Service\n",
        );
        let labels: Vec<_> = objects.iter().map(Object::label).collect();
        assert_eq!(labels, ["Service a", "Deployment "]);
        assert_eq!(objects[1].group, "apps");
        for expected in [
            "a.yaml, document 2 ",
            "is a template",
            "items[1]",
            "cannot be read as YAML",
            "is a list, and no object",
            "lacks apiVersion or kind",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn what_is_written_twice_is_told_with_what_to_do_and_no_value_of_any_text() {
        let said = |text: &str| read(text).1;
        let twice = said("apiVersion: v1\nkind: Secret\nstringData: {}\nstringData: {A: hunter2}\n");
        assert!(
            twice.contains("stringData is written twice at line 4, column 1: remove one of the two"),
            "{twice}"
        );
        let joined = said("apiVersion: v1\nkind: Service\napiVersion: v1\nkind: Secret\n");
        let expected = "apiVersion is written twice in one document at line 3, column 1: is a line --- missing before it?";
        assert!(joined.contains(expected), "{joined}");
        let value =
            said("apiVersion: v1\nkind: Secret\nstringData: {hunter2 and more: 1, hunter2 and more: 2}\n");
        assert!(value.contains("a field is written twice") && !value.contains("hunter2"), "{value}");
    }

    #[test]
    fn aliases_count_in_all_documents_together() {
        let uses = |of: &str| [of; 9].join(", ");
        let mut document = "apiVersion: v1\nkind: Service\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..5 {
            document.push_str(&format!("a{at}: &a{at} [{}]\n", uses(&format!("*a{}", at - 1))));
        }
        let (objects, said) = read(&document);
        assert_eq!((objects.len(), said.as_str()), (1, ""), "each by itself is read");
        // As after many files.
        let parsed = MAX_PARSED_BYTES - size(&parse(&document).unwrap());
        let (mut reader, mut findings) = (Reader { parsed, ..Reader::default() }, Findings::default());
        reader.read("b.yaml", &vec![document; 4].join("---\n"), &mut findings);
        assert_eq!(reader.objects.len(), 2);
        let said = findings.table();
        assert!(said.lines().count() == 1 && said.contains("become too much by their aliases"), "{said}");
    }

    #[test]
    fn aliases_that_become_much_and_texts_that_are_too_long_or_too_deep_are_refused() {
        let mut bomb = "apiVersion: v1\nkind: Service\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..12 {
            let uses = vec![format!("*a{}", at - 1); 9].join(", ");
            bomb.push_str(&format!("a{at}: &a{at} [{uses}]\n"));
        }
        let long = format!(
            "apiVersion: v1\nkind: Service\na: &a {}\nb: [{}]\n",
            "x".repeat(100_000),
            vec!["*a"; 90].join(", ")
        );
        let deep = format!("apiVersion: v1\nkind: Service\na: {}{}\n", "[".repeat(5000), "]".repeat(5000));
        let blocks = format!(
            "apiVersion: v1\nkind: Service\na:\n{}",
            (1..500).map(|at| format!("{}b:\n", " ".repeat(at))).collect::<String>()
        );
        let many = format!("apiVersion: v1\nkind: Service\na: [{}]\n", "x,".repeat(MAX_NODES));
        for text in [bomb, long, deep, blocks, many] {
            let (objects, said) = read(&text);
            assert!(objects.is_empty() && said.contains("cannot be read as YAML"), "{said}");
        }
        let (objects, said) = read(&"#".repeat(MAX_TEXT_BYTES + 1));
        assert!(objects.is_empty() && said.contains("has more than 2 MiB"), "{said}");
        // What people use aliases for is read.
        let (objects, said) =
            read("apiVersion: v1\nkind: Service\nmetadata: {name: &name a, labels: {app: *name}}\n");
        assert_eq!((objects[0].labels["app"].as_str(), said.as_str()), ("a", ""));
    }
}
