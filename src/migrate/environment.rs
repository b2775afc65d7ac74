//! The environment of a container: each variable, and where its value is.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    documents::Object,
    fields::Fields,
    finding::{Findings, Notes, Whom},
};

/// The most bytes of a value into which others are put: each could double the one before it.
const MAX_EXPANDED: usize = 32 << 10;

/// Where the value of a variable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the manifest.
    Literal(String),
    /// In a Secret.
    Secret {
        /// Its name.
        name: String,
        /// The key in it.
        key: String,
    },
    /// In the pod itself, as its name is.
    Pod,
    /// Nowhere that was read; and where it would be.
    Elsewhere(String),
}

/// The ConfigMaps and Secrets that were read beside the workloads: the values of the ones, and the keys of the others.
#[derive(Debug, Default)]
pub(super) struct Stores {
    config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// The keys of ConfigMaps whose values are no texts.
    no_texts: BTreeSet<(String, String)>,
    secrets: BTreeMap<String, BTreeSet<String>>,
}

impl Stores {
    /// Takes a ConfigMap or a Secret in.
    pub(super) fn add(&mut self, object: Object, findings: &mut Findings) {
        let mut notes = Notes::about(object.label(), findings);
        let mut fields = object.fields;
        if object.kind == "ConfigMap" {
            let keys = fields.keys_of("data");
            let values = fields.texts("data", &mut notes);
            let others = keys.into_iter().filter(|key| !values.contains_key(key));
            self.no_texts.extend(others.map(|key| (object.name.clone(), key)));
            self.config_maps.insert(object.name, values);
        } else {
            let mut keys = BTreeSet::new();
            for part in ["data", "stringData"] {
                let below = fields.below(part, &mut notes);
                let prefix = below.path("");
                keys.extend(below.names().iter().map(|name| name.trim_start_matches(&prefix).to_owned()));
            }
            self.secrets.insert(object.name, keys);
        }
    }

    /// Whether there is a Secret of this name.
    pub(super) fn has_secret(&self, name: &str) -> bool {
        self.secrets.contains_key(name)
    }
}

/// The variables of a container.
#[derive(Debug, Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, Origin>,
    /// Literal texts that are not expanded, since a variable that they name is not known; and its name.
    unknown: BTreeMap<String, String>,
    /// Of each literal the variables that were put into it.
    parts: BTreeMap<String, BTreeSet<String>>,
    /// The variables whose values are in one that was taken out.
    used: BTreeSet<String>,
    /// Secrets of which all keys are variables, and nobody knows which.
    pub(super) whole_secrets: Vec<String>,
}

impl Environment {
    /// Takes the variables of a container out of its fields.
    pub(super) fn take(container: &mut Fields, stores: &Stores, notes: &mut Notes<'_>) -> Self {
        let mut environment = Self::default();
        for source in container.items("envFrom", notes) {
            environment.add_all(source, stores, notes);
        }
        for mut variable in container.items("env", notes) {
            let Some(name) = variable.text("name", notes) else { continue };
            let origin = if variable.has("valueFrom") {
                let below = variable.below("valueFrom", notes);
                origin(below, stores, notes)
            } else {
                let text = match variable.take("value") {
                    None => String::new(),
                    Some(serde_json::Value::String(text)) => text,
                    // The API server refuses it, and everybody knows what is meant.
                    Some(other) => other.to_string(),
                };
                let mut parts = BTreeSet::new();
                let expanded = environment.expand(&text, &mut parts).unwrap_or_else(|unknown| {
                    environment.unknown.insert(text.clone(), unknown);
                    parts.clear();
                    text
                });
                environment.parts.insert(name.clone(), parts);
                Origin::Literal(expanded)
            };
            variable.done(notes);
            environment.variables.insert(name, origin);
        }
        environment
    }

    fn add_all(&mut self, mut source: Fields, stores: &Stores, notes: &mut Notes<'_>) {
        let prefix = source.text("prefix", notes).unwrap_or_default();
        let mut config_map = source.below("configMapRef", notes);
        let mut secret = source.below("secretRef", notes);
        if let Some(name) = config_map.text("name", notes) {
            match stores.config_maps.get(&name) {
                Some(values) => self.variables.extend(
                    values.iter().map(|(key, value)| (format!("{prefix}{key}"), Origin::Literal(value.clone()))),
                ),
                None => notes.left(
                    Whom::You,
                    format!("variables come from ConfigMap {name:?}, which is not among the inputs: add it to them"),
                ),
            }
        }
        if let Some(name) = secret.text("name", notes) {
            match stores.secrets.get(&name) {
                Some(keys) => self.variables.extend(keys.iter().map(|key| {
                    (format!("{prefix}{key}"), Origin::Secret { name: name.clone(), key: key.clone() })
                })),
                None => self.whole_secrets.push(name),
            }
        }
        config_map.ignore(&["optional"]);
        secret.ignore(&["optional"]);
        config_map.done(notes);
        secret.done(notes);
        source.done(notes);
    }

    /// Takes a variable out.
    pub(super) fn remove(&mut self, name: &str) -> Option<Origin> {
        self.used.extend(self.parts.remove(name).unwrap_or_default());
        self.variables.remove(name)
    }

    /// Forgets the variables whose values are in those that were taken out.
    pub(super) fn forget_used(&mut self) {
        self.variables.retain(|name, _| !self.used.contains(name));
    }

    /// Takes the first variable out, by name, for which this is true.
    pub(super) fn remove_where(&mut self, is_it: impl Fn(&str, &Origin) -> bool) -> Option<(String, Origin)> {
        let name =
            self.variables.iter().find(|(name, origin)| is_it(name, origin)).map(|(name, _)| name.clone())?;
        self.remove(&name).map(|origin| (name, origin))
    }

    /// The names of the variables for which this is true.
    pub(super) fn names_where(&self, is_it: impl Fn(&str, &Origin) -> bool) -> Vec<String> {
        self.variables
            .iter()
            .filter(|(name, origin)| is_it(name, origin))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The value of a literal variable.
    ///
    /// # Errors
    /// The name of a variable that it names as `$(NAME)` and whose value is not known.
    pub(super) fn expanded(&self, text: &str) -> Result<String, String> {
        self.unknown.get(text).map_or_else(|| Ok(text.to_owned()), |name| Err(name.clone()))
    }

    /// A text with the variables that it names as `$(NAME)`, as Kubernetes puts them in: those that come before it; and `$$`
    /// is a dollar sign.
    fn expand(&self, text: &str, parts: &mut BTreeSet<String>) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let named = after.strip_prefix('(').and_then(|after| after.split_once(')'));
            rest = match (after.strip_prefix('$'), named) {
                (Some(behind), _) => {
                    expanded.push('$');
                    behind
                }
                (None, Some((name, behind))) => {
                    match self.variables.get(name) {
                        Some(Origin::Literal(value))
                            if !self.unknown.contains_key(value)
                                && expanded.len() + value.len() <= MAX_EXPANDED =>
                        {
                            expanded.push_str(value);
                            parts.extend(self.parts.get(name).into_iter().flatten().cloned());
                            parts.insert(name.to_owned());
                        }
                        _ => return Err(name.to_owned()),
                    }
                    behind
                }
                (None, None) => {
                    expanded.push('$');
                    after
                }
            };
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

fn origin(mut from: Fields, stores: &Stores, notes: &mut Notes<'_>) -> Origin {
    if from.has("secretKeyRef") {
        let mut of = from.below("secretKeyRef", notes);
        of.ignore(&["optional"]);
        let (name, key) = (of.text("name", notes), of.text("key", notes));
        of.done(notes);
        from.done(notes);
        return match (name, key) {
            (Some(name), Some(key)) => Origin::Secret { name, key },
            _ => Origin::Elsewhere("a Secret without name or key".into()),
        };
    }
    if from.has("configMapKeyRef") {
        let mut of = from.below("configMapKeyRef", notes);
        of.ignore(&["optional"]);
        let (name, key) =
            (of.text("name", notes).unwrap_or_default(), of.text("key", notes).unwrap_or_default());
        of.done(notes);
        from.done(notes);
        return match stores.config_maps.get(&name).and_then(|values| values.get(&key)) {
            Some(value) => Origin::Literal(value.clone()),
            None if stores.no_texts.contains(&(name.clone(), key.clone())) => Origin::Elsewhere(format!(
                "ConfigMap {name:?}, whose key {key:?} is not text: write it in quotes"
            )),
            None if stores.config_maps.contains_key(&name) => {
                Origin::Elsewhere(format!("ConfigMap {name:?}, which has no key {key:?}"))
            }
            None => {
                Origin::Elsewhere(format!("key {key:?} of ConfigMap {name:?}, which is not among the inputs"))
            }
        };
    }
    if from.has("fieldRef") || from.has("resourceFieldRef") {
        from.ignore(&["fieldRef", "resourceFieldRef"]);
        from.done(notes);
        return Origin::Pod;
    }
    let names = from.names().join(", ");
    Origin::Elsewhere(format!("{names}, which is not understood"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_put_in_as_kubernetes_does_and_what_is_not_known_is_named() {
        let env = json!({"env": [
            {"name": "NAME", "value": "orders"},
            {"name": "HOST", "value": "$(NAME)-srv"},
            {"name": "KEY", "value": "pa$$word"},
            {"name": "URI", "value": "mongodb://u:$(KEY)@$(HOST)/o?x=$$(NAME)&y=$1"},
            {"name": "LATER", "value": "$(LAST)"},
            {"name": "LAST", "value": "x"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "OF_SECRET", "value": "a $(SECRET)"},
            {"name": "OF_THAT", "value": "b $(OF_SECRET)"},
        ]});
        let serde_json::Value::Object(map) = env else { panic!() };
        let mut findings = Findings::default();
        let mut notes = Notes::about("Deployment d", &mut findings);
        let mut environment = Environment::take(&mut Fields::of(map), &Stores::default(), &mut notes);
        let mut value = |name: &str| {
            let Some(Origin::Literal(text)) = environment.remove(name) else { panic!("{name}") };
            environment.expanded(&text)
        };
        assert_eq!(value("URI").as_deref(), Ok("mongodb://u:pa$word@orders-srv/o?x=$(NAME)&y=$1"));
        for (name, unknown) in [("LATER", "LAST"), ("OF_SECRET", "SECRET"), ("OF_THAT", "OF_SECRET")] {
            assert_eq!(value(name), Err(unknown.to_owned()), "{name}");
        }
        let doubling: Vec<_> = (1..40)
            .map(|number| json!({"name": format!("A{number}"), "value": format!("$(A{0})$(A{0})", number - 1)}))
            .collect();
        let mut all = vec![json!({"name": "A0", "value": "0123456789"})];
        all.extend(doubling);
        let map = serde_json::Map::from_iter([("env".to_owned(), json!(all))]);
        let environment = Environment::take(&mut Fields::of(map), &Stores::default(), &mut notes);
        let sizes = environment.variables.values().map(|origin| match origin {
            Origin::Literal(text) => text.len(),
            _ => 0,
        });
        assert!(sizes.max() <= Some(2 * MAX_EXPANDED));
    }
}
