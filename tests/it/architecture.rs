//! Holds the one-way import rules of the crate's map against the `use` lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each module may name of ours; `runtime` may be named by all.
const MAY_IMPORT: [(&str, &[&str]); 9] = [
    ("order", &[]),
    ("routing", &[]),
    ("runtime", &[]),
    ("crd", &[]),
    ("store", &["order", "runtime"]),
    ("import", &["order", "store", "runtime"]),
    ("api", &["order", "store", "runtime"]),
    ("sweeper", &["order", "store", "crd", "runtime"]),
    ("controller", &["routing", "crd", "runtime"]),
];

/// Crates that only some modules may name, as path prefixes in code.
const MAY_USE_CRATE: [(&str, &[&str]); 4] = [
    ("mongodb::", &["store"]),
    ("axum::", &["api", "runtime"]),
    ("kube::Client", &["controller", "sweeper", "runtime"]),
    ("kube::Api", &["controller", "sweeper", "runtime"]),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The code of a module's files, comments taken out, as (file, code).
fn code_of(module: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module), &mut files);
    assert!(!files.is_empty(), "src/{module} has no files: is the map in lib.rs still right?");
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
            (file, code.join("\n"))
        })
        .collect()
}

/// The modules of ours that `code` names: after `crate::`, or within `crate::{…}`.
fn modules_named(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => named.push(word(rest)),
            Some(list) => {
                let (mut depth, mut item) = (0, String::new());
                for character in list.chars() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => named.push(word(std::mem::take(&mut item).trim())),
                        other if depth == 0 => item.push(other),
                        _ => {}
                    }
                }
                named.push(word(item.trim()));
            }
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

#[test]
fn modules_import_only_what_the_map_allows() {
    for (module, allowed) in MAY_IMPORT {
        for (file, code) in code_of(module) {
            for named in
                modules_named(&code).iter().filter(|named| MAY_IMPORT.iter().any(|(known, _)| known == named))
            {
                assert!(
                    named == module || allowed.contains(&named.as_str()),
                    "{} imports {named}: {module} may import only {allowed:?}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn libraries_are_named_only_by_the_modules_at_the_edge() {
    for (library, allowed) in MAY_USE_CRATE {
        for (module, _) in MAY_IMPORT.iter().filter(|(module, _)| !allowed.contains(module)) {
            for (file, code) in code_of(module) {
                assert!(!code.contains(library), "{} names {library}: only {allowed:?} may", file.display());
            }
        }
    }
}

#[test]
fn every_module_of_the_library_has_a_rule() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules: Vec<_> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut ruled: Vec<_> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    ruled.sort_unstable();
    assert_eq!(modules, ruled);
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    let code =
        "use crate::store; use crate::{crd::{A, B}, routing::{self, C}, order}; fn f() { crate::api::g() }";
    assert_eq!(modules_named(code), ["store", "crd", "routing", "order", "api"]);
}
