//! From a text to the objects in it, lists of objects unpacked. What is wrong with the text is told without any of it: a
//! Secret may be in the same file.

use serde_json::Value;
use serde_saphyr::Error;

use crate::{controller::written::Written, runtime::yaml};

/// An object, and where in the text it is.
pub(super) struct Object {
    /// The object.
    pub(super) value: Value,
    /// Its document in the text.
    document: usize,
    /// Its number in a list of objects.
    item: Option<usize>,
}

impl Object {
    /// How it is written in this text.
    pub(super) fn written(&self, text: &str) -> Option<Written> {
        let document = Written::documents(text).into_iter().nth(self.document)?;
        match self.item {
            Some(at) => document.field("items")?.item(at).cloned(),
            None => Some(document),
        }
    }
}

/// The objects of a text.
///
/// # Errors
/// Why it cannot be read, with the line and the column.
pub(super) fn objects(text: &str) -> Result<Vec<Object>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| cause(text, error.without_snippet()))?;
    let mut objects = Vec::new();
    for (document, value) in documents.into_iter().enumerate() {
        let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match value {
            Value::Object(mut map) if is_list && map.get("items").is_some_and(Value::is_array) => {
                let Some(Value::Array(items)) = map.remove("items") else { continue };
                objects.extend(items.into_iter().enumerate().map(|(at, value)| Object {
                    value,
                    document,
                    item: Some(at),
                }));
            }
            value => objects.push(Object { value, document, item: None }),
        }
    }
    Ok(objects)
}

/// Why a text is not YAML, and what to do.
fn cause(text: &str, error: &Error) -> String {
    if text.contains("{{") {
        let place = yaml::place(error);
        return format!(
            "is a template{place}: render it first, as by `helm template . | orders-operator render -`"
        );
    }
    format!("is not YAML: {}", yaml::cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_text_is_told_without_any_of_it() {
        let secret = "apiVersion: v1\nkind: Secret\nstringData:\n  JWT_KEY: hunter2\n";
        for (rest, expected) in [
            (" foo: hunter3\n", "at line 5, column 2"),
            ("  MONGO_URI: \"hunter2\"hunter3\n", "at line 5, column"),
            (
                "  JWT_KEY: hunter3\n",
                "is not YAML: JWT_KEY is written twice at line 5, column 3: remove one of the two",
            ),
            ("  A: .inf\n  B: hunter2\n", "is not YAML: a value cannot be read at line 5, column 6"),
            ("  A: \"hunter2\n", "is not YAML: "),
            ("  A: !!int hunter2\n", "is not YAML: "),
            ("  A: !!binary hunter2!\n", ""),
            ("  A: *hunter2\n", "a word that begins with * at line 5, column 6 stands for another"),
            (
                "---\nspec: {hosts: [*.hunter2]}\n",
                "a word that begins with * at line 6, column 16 stands for another (&name), which there is not: write it in quotes",
            ),
            (
                "apiVersion: v1\nkind: Secret\n",
                "apiVersion is written twice in one document at line 5, column 1: is a line --- missing before it?",
            ),
            (
                "---\nspec: {hosts: [{{ .Values.host }}]}\n",
                "is a template at line 6, column 17: render it first, as by `helm template . | orders-operator render -`",
            ),
        ] {
            let said = objects(&format!("{secret}{rest}")).err().unwrap_or_default();
            assert!(
                said.contains(expected) && !said.contains("hunter") && !said.contains('\n'),
                "{rest}: {said}"
            );
        }
    }

    #[test]
    fn lists_of_objects_are_unpacked_and_each_is_known_as_it_is_written() {
        let text = "# nothing\n---\nkind: List\nitems:\n- {kind: A, a: yes}\n- {kind: B, a: on}\n---\nkind: OrdersServiceList\nitems: \
                    [{kind: C, a: no}]\n---\nkind: D\na: off\n---\nkind: List\n";
        let found: Vec<_> = objects(text)
            .unwrap()
            .into_iter()
            .map(|object| {
                let kind = object.value["kind"].as_str().unwrap_or_default().to_owned();
                let written = object.written(text).unwrap();
                (kind, written.field("a").and_then(Written::text).map(str::to_owned))
            })
            .collect();
        let expected = [("A", "yes"), ("B", "on"), ("C", "no"), ("D", "off")]
            .map(|(kind, text)| (kind.to_owned(), Some(text.to_owned())));
        assert_eq!(found[..4], expected);
        assert_eq!(found[4..], [("List".to_owned(), None)]);
    }
}
