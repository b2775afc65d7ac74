//! What of a configuration of Skaffold concerns the orders.

use serde_json::Value;

use super::{
    documents::Object,
    finding::{Findings, Notes, Whom},
};

/// The manifests that a configuration deploys, as patterns of paths below its folder.
pub(super) fn manifests(object: &Object) -> Vec<String> {
    let mut ignored = Findings::default();
    let mut notes = Notes::about("", &mut ignored);
    let mut fields = object.fields.clone();
    let mut deploy = fields.below("deploy", &mut notes);
    let mut listed = deploy.below("kubectl", &mut notes).list("manifests", &mut notes);
    listed.extend(fields.below("manifests", &mut notes).list("rawYaml", &mut notes));
    let texts = listed.into_iter().filter_map(|pattern| match pattern {
        Value::String(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

/// Says what of the manifests that a configuration deploys was not read, whether or not there is something to translate.
pub(super) fn unread(object: &Object, findings: &mut Findings) {
    let mut notes = Notes::about(object.source.clone(), findings);
    let notes = &mut notes;
    let is_nothing_listed = manifests(object).is_empty();
    let mut fields = object.fields.clone();
    let mut how = Vec::new();
    let mut is_wrong = false;
    for (part, listed) in [("deploy", "manifests"), ("manifests", "rawYaml")] {
        let mut below = fields.below(part, notes);
        for renderer in ["helm", "kustomize", "kpt"].into_iter().filter(|renderer| below.has(renderer)) {
            how.push(below.path(renderer));
        }
        let mut of = if part == "deploy" { below.below("kubectl", notes) } else { below };
        is_wrong |= of.has(listed);
        // What it lists was read with the file; here only its type counts.
        of.list(listed, notes);
    }
    if !how.is_empty() {
        notes.left(
            Whom::You,
            format!(
                "it deploys by {}, which was not read: skaffold render | orders-operator migrate -",
                how.join(", ")
            ),
        );
    } else if is_nothing_listed && !is_wrong {
        notes.left(Whom::You, "it lists no manifests, so none was read by it: name their files");
    }
}

/// Says what to take out of the configuration. `image` is that of the old pods.
pub(super) fn read(object: Object, image: Option<&str>, findings: &mut Findings) {
    let mut notes = Notes::about(object.source.clone(), findings);
    let notes = &mut notes;
    let mut fields = object.fields;
    let mut build = fields.below("build", notes);
    let repository = |image: &str| {
        image
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .map_or(image, |(name, _)| name)
            .to_owned()
    };
    for mut artifact in build.items("artifacts", notes) {
        let Some(name) = artifact.text("image", notes) else { continue };
        let is_orders = image.is_some_and(|image| repository(image) == repository(&name));
        if is_orders || name.rsplit('/').next().is_some_and(|last| last.starts_with("expiration")) {
            notes.later(format!("take {name} out of build.artifacts: nothing runs it any more"));
        }
    }
    notes.later("add the file that you make of this output to the manifests, in place of those of the old orders service");
    if fields.has("profiles") {
        notes.stays(Whom::You, "its profiles were not read");
    }
}
