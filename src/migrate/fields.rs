//! The fields of an object, taken out one by one. What is still there at the end was not understood, and is listed: so
//! nothing of an object is lost without a word, whatever it has.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::finding::{Notes, Whom};

/// The fields of an object, and where they are in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Those of a whole object.
    pub(super) fn of(map: Map<String, Value>) -> Self {
        Self { path: String::new(), map }
    }

    /// Where a field of it is, such as `spec.rules`.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field out; one that is null counts as not there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Whether it has such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str, notes: &mut Notes<'_>) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(name, &other, "a string, so quote it", notes);
                None
            }
        }
    }

    /// Takes a whole number.
    pub(super) fn number(&mut self, name: &str, notes: &mut Notes<'_>) -> Option<i64> {
        let value = self.take(name)?;
        let number = value.as_i64();
        if number.is_none() {
            self.wrong(name, &value, "an integer, so write it without quotes", notes);
        }
        number
    }

    /// Takes a list.
    pub(super) fn list(&mut self, name: &str, notes: &mut Notes<'_>) -> Vec<Value> {
        match self.take(name) {
            Some(Value::Array(items)) => items,
            None => Vec::new(),
            Some(other) => {
                self.wrong(name, &other, "a list: begin each of its items with a hyphen", notes);
                Vec::new()
            }
        }
    }

    /// Takes the fields below a field; none if it is not there.
    pub(super) fn below(&mut self, name: &str, notes: &mut Notes<'_>) -> Self {
        let path = self.path(name);
        match self.take(name) {
            Some(Value::Object(map)) => Self { path, map },
            None => Self { path, map: Map::new() },
            Some(other) => {
                self.wrong(name, &other, "an object", notes);
                Self { path, map: Map::new() }
            }
        }
    }

    /// Takes a list of maps, each with its place.
    pub(super) fn items(&mut self, name: &str, notes: &mut Notes<'_>) -> Vec<Self> {
        let path = self.path(name);
        let mut items = Vec::new();
        for (at, item) in self.list(name, notes).into_iter().enumerate() {
            match item {
                Value::Object(map) => items.push(Self { path: format!("{path}[{at}]"), map }),
                other => notes.left(
                    Whom::You,
                    format!("{path}[{at}] is {}, where an object must be, and was not read", quoted(&other)),
                ),
            }
        }
        items
    }

    /// Takes a map of texts, such as annotations. Without those that are no texts, which the API server would refuse.
    pub(super) fn texts(&mut self, name: &str, notes: &mut Notes<'_>) -> BTreeMap<String, String> {
        let below = self.below(name, notes);
        let mut texts = BTreeMap::new();
        for (key, value) in below.map {
            match value {
                Value::String(text) => drop(texts.insert(key, text)),
                other => notes.left(
                    Whom::You,
                    format!(
                        "{}[{key:?}] is {}, where a string must be, so quote it; it was not read",
                        below.path,
                        quoted(&other)
                    ),
                ),
            }
        }
        texts
    }

    /// The keys of a map.
    pub(super) fn keys_of(&self, name: &str) -> Vec<String> {
        let map = self.map.get(name).and_then(Value::as_object);
        map.into_iter().flat_map(|map| map.keys().cloned()).collect()
    }

    /// Forgets fields that mean nothing here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        names.iter().for_each(|name| drop(self.map.remove(*name)));
    }

    /// Forgets fields that are set in another way now; gives the names of those that were there.
    pub(super) fn forget(&mut self, names: &[&str]) -> Vec<String> {
        let there: Vec<_> =
            names.iter().filter(|name| self.has(name)).map(|name| (*name).to_owned()).collect();
        self.ignore(names);
        there
    }

    /// The names of the fields that are still there.
    pub(super) fn names(&self) -> Vec<String> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| self.path(name)).collect()
    }

    /// Lists what was not taken. Without its values, which may be secret.
    pub(super) fn done(self, notes: &mut Notes<'_>) {
        for name in self.names() {
            notes.left(
                Whom::You,
                format!(
                    "{name} was not understood: see whether the OrdersService needs something in its place"
                ),
            );
        }
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str, notes: &mut Notes<'_>) {
        notes.left(
            Whom::You,
            format!(
                "{} is {}, which was not understood: it must be {wanted}",
                self.path(name),
                quoted(value)
            ),
        );
    }
}

/// A value as it is shown: its type, since a text or a number may be a secret in a place where nobody expects one.
pub(super) fn quoted(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(_) => "a string".into(),
        Value::Number(_) => "a number".into(),
        Value::Bool(_) | Value::Null => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migrate::finding::Findings;

    #[test]
    fn what_is_not_taken_and_what_has_another_type_is_listed() {
        let Value::Object(map) = json!({
            "a": "text", "b": 3, "c": {"d": true}, "e": [1, {"f": null}], "g": {"x": "y", "on": true}, "n": null
        }) else {
            panic!()
        };
        let mut findings = Findings::default();
        let mut notes = Notes::about("Thing t", &mut findings);
        let mut fields = Fields::of(map);
        assert_eq!(fields.text("a", &mut notes).as_deref(), Some("text"));
        assert_eq!(fields.text("b", &mut notes), None);
        assert_eq!(fields.items("e", &mut notes).len(), 1);
        assert_eq!(fields.texts("g", &mut notes).len(), 1);
        fields.done(&mut notes);
        let table = findings.table();
        for expected in [
            "b is a number, which was not understood: it must be a string, so quote it",
            "e[0] is a number, where an object must be",
            "g[\"on\"] is true, where a string must be, so quote it",
            " c was not understood",
        ] {
            assert!(table.contains(expected), "{expected}: {table}");
        }
        assert_eq!(table.lines().count(), 4, "{table}");
    }
}
