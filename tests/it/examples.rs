//! The examples for a first time, and one for each feature: an API server takes them, and the product makes something of them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::cluster::{root, yaml_documents};

/// The folders of a page of examples.
pub(crate) fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples/features")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut folders: Vec<_> = folders.chain([root().join("examples/quickstart")]).collect();
    folders.sort_unstable();
    folders
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_manifest = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml") && !path.ends_with("values.yaml")
    };
    files.filter(is_manifest).collect()
}

fn objects(folder: &Path) -> Vec<Value> {
    let read = |path: PathBuf| yaml_documents(&std::fs::read_to_string(path).unwrap());
    manifests(folder).into_iter().flat_map(read).collect()
}

#[test]
fn the_page_of_features_has_every_folder_and_no_image_is_of_one_s_own_machine() {
    let page = std::fs::read_to_string(root().join("examples/features/README.md")).unwrap();
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(name == "quickstart" || page.contains(&format!("| [{name}]({name}) |")), "{name}");
        for object in objects(&folder) {
            assert!(!object.to_string().contains("localhost/"), "{object}");
        }
    }
}

#[test]
fn everything_is_made_of_every_example_of_an_orders_service() {
    let mut services = 0;
    for folder in folders() {
        for path in manifests(&folder) {
            let made = yaml_documents(&std::fs::read_to_string(&path).unwrap());
            let here = made.iter().filter(|object| object["kind"] == "OrdersService").count();
            if here == 0 {
                continue;
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
            let output =
                command.arg("render").arg(&path).args(["--default-image", "orders:1"]).output().unwrap();
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {why}", path.display());
            let rendered = yaml_documents(&String::from_utf8(output.stdout).unwrap());
            assert_eq!(rendered.iter().filter(|object| object["kind"] == "Deployment").count(), here);
            services += here;
        }
    }
    assert!(services > 6, "{services}");
}
