//! Holds the map of the crate against the `use` lines: who may import whom, and that no imports go in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each module may import of ours; all may import `runtime`.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("order", &[]),
    ("routing", &[]),
    ("runtime", &[]),
    ("crd", &["runtime"]),
    ("store", &["order", "runtime"]),
    ("import", &["order", "store", "runtime"]),
    ("check", &["store", "runtime"]),
    ("events", &["order", "store", "runtime"]),
    ("api", &["order", "store", "events", "runtime"]),
    ("sweeper", &["order", "store", "crd", "runtime"]),
    ("controller", &["routing", "crd", "runtime"]),
    ("migrate", &["controller", "routing", "crd", "runtime"]),
    ("osvc", &["controller", "sweeper", "routing", "crd", "runtime"]),
    ("manual", &[]),
    (
        "cli",
        &[
            "api",
            "check",
            "controller",
            "crd",
            "events",
            "import",
            "manual",
            "migrate",
            "osvc",
            "sweeper",
            "runtime",
        ],
    ),
];

/// What each room of the controller may import of its other rooms; files that are in no room may be imported by all.
const CONTROLLER_ROOMS: [(&str, &[&str]); 8] = [
    ("children", &[]),
    ("claims", &["children"]),
    ("schema", &[]),
    ("secrets", &[]),
    ("upgrades", &[]),
    ("watches", &["children", "claims"]),
    ("reconcile", &["children", "claims", "secrets"]),
    ("render", &["children", "claims", "reconcile", "schema"]),
];

/// Crates that only some modules may name, as path prefixes in code.
const MAY_USE_CRATE: [(&str, &[&str]); 6] = [
    ("mongodb::", &["store"]),
    ("async_nats::", &["events"]),
    ("prost::", &["events"]),
    ("axum::", &["api", "runtime"]),
    ("kube::Client", &["controller", "sweeper", "migrate", "osvc", "runtime"]),
    ("kube::Api", &["controller", "sweeper", "migrate", "osvc", "runtime"]),
];

/// A module as the names from the root of the crate to it, such as `["crd", "spec"]`.
type ModulePath = Vec<String>;

/// The modules of the crate, and what each imports.
struct Sources {
    files: BTreeMap<ModulePath, SourceFile>,
}

struct SourceFile {
    path: PathBuf,
    /// Without comments and tests.
    code: String,
    /// The paths of its `use` declarations, from the root of the crate, and whether each is public.
    uses: Vec<(Vec<String>, bool)>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        list(&root, &mut paths);
        let mut files = BTreeMap::new();
        for path in paths {
            let text = fs::read_to_string(&path).unwrap();
            let Some(module) = module_of(path.strip_prefix(&root).unwrap()) else { continue };
            let code = without_tests(&text);
            let uses = uses(&code, &module);
            files.insert(module, SourceFile { path, code, uses });
        }
        assert!(files.len() > 100, "where are the sources?");
        Self { files }
    }

    /// The module that defines what `path` names: the deepest that it leads to, and from there on along `pub use`.
    fn definition(&self, path: &[String]) -> Option<&ModulePath> {
        let depth = (0..=path.len()).rev().find(|depth| self.files.contains_key(&path[..*depth]))?;
        let (module, file) = self.files.get_key_value(&path[..depth])?;
        let Some(item) = path.get(depth) else { return Some(module) };
        let reexport = file.uses.iter().find(|(of, is_public)| *is_public && of.last() == Some(item));
        match reexport {
            Some((of, _)) if of != path => self.definition(of),
            _ => Some(module),
        }
    }

    /// The modules that each imports from, other than itself.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let of_file = |(module, file): (&'_ ModulePath, &SourceFile)| {
            let imported = file.uses.iter().filter_map(|(path, _)| self.definition(path));
            imported.filter(|imported| *imported != module).collect()
        };
        self.files.iter().map(|(module, file)| (module, of_file((module, file)))).collect()
    }
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The module in a file; none for modules of tests.
fn module_of(file: &Path) -> Option<ModulePath> {
    let mut names: ModulePath =
        file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    let last = names.last()?;
    if ["tests", "cel_tests", "fixture"].contains(&last.as_str()) {
        return None;
    }
    if ["mod", "lib", "main"].contains(&last.as_str()) {
        let is_main = last == "main";
        names.pop();
        if is_main {
            names.push("(main)".into());
        }
    }
    Some(names)
}

/// The code without comments, and without the tests, which are at the end of a file.
fn without_tests(text: &str) -> String {
    let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The paths from the root of the crate that the `use` declarations of `module` name, each with whether it is public.
fn uses(code: &str, module: &[String]) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    let starts = ["use crate::", "use super::", "use self::"];
    for (at, _) in code.match_indices("use ") {
        if !starts.iter().any(|start| code[at..].starts_with(start)) {
            continue;
        }
        let line = code[..at].rsplit('\n').next().unwrap_or_default();
        let Some(tree) = code[at + 4..].split(';').next() else { continue };
        for path in leaves(tree) {
            let mut base = module.to_vec();
            let mut rest = path.as_slice();
            while let [first, others @ ..] = rest {
                match first.as_str() {
                    "crate" => base.clear(),
                    "super" => drop(base.pop()),
                    "self" => {}
                    _ => break,
                }
                rest = others;
            }
            base.extend(rest.iter().cloned());
            found.push((base, line.contains("pub")));
        }
    }
    found
}

/// Every path of a `use` tree, such as `a::{b, c::{self, D as E}}`.
fn leaves(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![
            path.split("::").map(|name| name.trim().to_owned()).filter(|name| name != "*").collect(),
        ];
    };
    let prefix: Vec<_> =
        prefix.trim_end_matches("::").split("::").map(|name| name.trim().to_owned()).collect();
    let list = rest.rsplit_once('}').map_or(rest, |(list, _)| list);
    let (mut depth, mut items) = (0, vec![String::new()]);
    for character in list.chars() {
        match character {
            ',' if depth == 0 => items.push(String::new()),
            other => {
                depth += i32::from(other == '{') - i32::from(other == '}');
                items.last_mut().unwrap().push(other);
            }
        }
    }
    let of_item = |item: &String| {
        leaves(item).into_iter().map(|path| {
            let path = path.into_iter().filter(|name| name != "self");
            prefix.iter().cloned().chain(path).collect()
        })
    };
    items
        .iter()
        .filter(|item| !item.trim().is_empty())
        .flat_map(|item| of_item(item).collect::<Vec<_>>())
        .collect()
}

/// Sets of nodes of which each reaches every other.
fn circles<'a>(
    edges: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
) -> BTreeSet<BTreeSet<&'a ModulePath>> {
    let reached = |from: &'a ModulePath| {
        let (mut found, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(node) = open.pop() {
            for next in edges.get(node).into_iter().flatten() {
                if found.insert(*next) {
                    open.push(next);
                }
            }
        }
        found
    };
    let reach: BTreeMap<_, _> = edges.keys().map(|node| (*node, reached(node))).collect();
    let circle = |node: &&'a ModulePath| {
        let both_ways = reach[*node].iter().filter(|other| reach[**other].contains(*node));
        both_ways.copied().collect::<BTreeSet<_>>()
    };
    reach.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
}

#[test]
fn modules_import_only_what_the_map_allows() {
    let sources = Sources::read();
    for (module, imported) in sources.imports() {
        let Some((_, allowed)) =
            MAY_IMPORT.iter().find(|(known, _)| module.first().is_some_and(|of| of == known))
        else {
            continue;
        };
        for other in imported.iter().filter_map(|imported| imported.first()) {
            assert!(
                Some(other) == module.first() || allowed.contains(&other.as_str()),
                "{module:?} imports {other}: it may import only {allowed:?}"
            );
        }
    }
}

#[test]
fn rooms_of_the_controller_import_only_what_the_map_allows() {
    let sources = Sources::read();
    let room_of = |module: &ModulePath| match module.as_slice() {
        [first, room, ..] if first == "controller" => {
            CONTROLLER_ROOMS.iter().find(|(known, _)| known == room).copied()
        }
        _ => None,
    };
    let mut seen = BTreeSet::new();
    for (module, imported) in sources.imports() {
        let Some((room, allowed)) = room_of(module) else { continue };
        seen.insert(room);
        for (other, _) in imported.iter().filter_map(|imported| room_of(imported)) {
            assert!(
                other == room || allowed.contains(&other),
                "{module:?} imports {other}: {room} may import only {allowed:?}"
            );
        }
    }
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller")).unwrap();
    let folders = folders.map(Result::unwrap).filter(|entry| entry.path().is_dir());
    let folders: BTreeSet<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, seen.into_iter().map(str::to_owned).collect(), "every room has a rule");
}

/// The rooms of the controller that each of them imports from, itself left out.
fn imports_between_rooms(sources: &Sources) -> BTreeSet<(String, String)> {
    let room_of = |module: &ModulePath| match module.as_slice() {
        [first, room, ..] if first == "controller" => {
            CONTROLLER_ROOMS.iter().any(|(known, _)| known == room).then(|| room.clone())
        }
        _ => None,
    };
    let imports = sources.imports();
    let pairs = imports.iter().flat_map(|(module, others)| others.iter().map(move |other| (*module, *other)));
    let pairs = pairs.filter_map(|(module, other)| Some((room_of(module)?, room_of(other)?)));
    pairs.filter(|(room, other)| room != other).collect()
}

#[test]
fn nothing_is_allowed_that_no_module_imports() {
    let sources = Sources::read();
    let imports = sources.imports();
    let pairs = imports.iter().flat_map(|(module, others)| others.iter().map(move |other| (*module, *other)));
    let used: BTreeSet<_> =
        pairs.filter_map(|(module, other)| Some((module.first()?, other.first()?))).collect();
    for (module, allowed) in MAY_IMPORT {
        for other in allowed.iter().filter(|other| **other != "runtime") {
            assert!(
                used.contains(&(&module.to_owned(), &(*other).to_owned())),
                "{module} imports no {other}"
            );
        }
    }
    let between_rooms = imports_between_rooms(&sources);
    for (room, allowed) in CONTROLLER_ROOMS {
        for other in allowed {
            assert!(
                between_rooms.contains(&(room.to_owned(), (*other).to_owned())),
                "controller/{room} imports nothing of {other}"
            );
        }
    }
}

#[test]
fn the_page_about_the_architecture_says_who_may_import_whom() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Who may import whom\n")).unwrap();
    let names = |cell: &str| -> BTreeSet<String> {
        // What is in brackets is said about the name before it.
        let cell = cell.split(['(', ')']).step_by(2).collect::<String>();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let told: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').collect();
            (names(cells[1]).into_iter().next().unwrap(), names(cells[2]))
        })
        .collect();
    let allowed = MAY_IMPORT.iter().chain(&CONTROLLER_ROOMS).map(|(module, others)| {
        let others = others.iter().filter(|other| **other != "runtime");
        ((*module).to_owned(), others.map(|other| (*other).to_owned()).collect())
    });
    assert_eq!(told, allowed.collect());
}

#[test]
fn no_imports_go_in_a_circle() {
    let sources = Sources::read();
    let circles = circles(&sources.imports());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn libraries_are_named_only_by_the_modules_at_the_edge() {
    for (module, file) in Sources::read().files {
        for (library, allowed) in MAY_USE_CRATE {
            let may = module.first().is_none_or(|of| allowed.contains(&of.as_str()));
            assert!(
                may || !file.code.contains(library),
                "{} names {library}: only {allowed:?} may",
                file.path.display()
            );
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
fn every_file_is_on_the_map_of_its_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    list(&root, &mut paths);
    let mut maps = 0;
    for path in paths.iter().filter(|path| path.ends_with("mod.rs") || path.ends_with("lib.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let modules = text.split("#[cfg(test)]\nmod ").enumerate().flat_map(|(at, part)| {
            let lines = part.lines().skip(usize::from(at > 0));
            lines.filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        });
        let modules: Vec<_> = modules.collect();
        let Some(map) = text.split("//! ```").nth(1) else {
            assert!(modules.is_empty(), "{} has no map of {modules:?}", path.display());
            continue;
        };
        maps += 1;
        let on_map: BTreeSet<_> = map
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect();
        for module in modules {
            assert!(on_map.contains(module), "{} does not have {module} on its map", path.display());
        }
    }
    assert!(maps > 15, "{maps}");
}

#[test]
fn the_page_about_the_architecture_has_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let rows: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let rooms = MAY_IMPORT.map(|(room, _)| format!("src/{room}/")).into_iter();
    for room in rooms.chain(CONTROLLER_ROOMS.map(|(room, _)| format!("src/controller/{room}/"))) {
        assert!(rows.contains(room.as_str()), "docs/architecture.md has no line for {room}");
    }
}

#[test]
fn every_dependency_is_named_by_some_module() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let list =
        manifest.split_once("\n[dependencies]\n").and_then(|(_, rest)| rest.split("\n[").next()).unwrap();
    let dependencies: Vec<_> = list
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"))
        .collect();
    assert!(dependencies.len() > 20, "{dependencies:?}");
    let code: String = Sources::read().files.into_values().map(|file| file.code).collect();
    let words: BTreeSet<_> = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    for dependency in dependencies {
        assert!(words.contains(dependency.as_str()), "no module names {dependency}: remove it");
    }
}

#[test]
fn the_reader_of_use_declarations_sees_every_form() {
    let code = "use crate::store;\nuse crate::{crd::{A, B}, routing::{self, C as D}, order};\n\
                pub use self::spec::E;\nuse super::super::api::{F, view::*};\nuse kube::Api;";
    let module: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
    let found: Vec<_> =
        uses(code, &module).into_iter().map(|(path, public)| (path.join("::"), public)).collect();
    let expected = [
        ("store", false),
        ("crd::A", false),
        ("crd::B", false),
        ("routing", false),
        ("routing::C", false),
        ("order", false),
        ("a::b::c::spec::E", true),
        ("a::api::F", false),
        ("a::api::view", false),
    ];
    assert_eq!(found, expected.map(|(path, public)| (path.to_owned(), public)));
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let module = |name: &str| vec![name.to_owned()];
    let [a, b, c, d] = ["a", "b", "c", "d"].map(module);
    let chain = BTreeMap::from([(&a, [&b].into()), (&b, [&c].into()), (&c, BTreeSet::new())]);
    assert!(circles(&chain).is_empty());
    let with_circle =
        BTreeMap::from([(&a, [&b].into()), (&b, [&c].into()), (&c, [&b, &d].into()), (&d, BTreeSet::new())]);
    assert_eq!(circles(&with_circle), [[&b, &c].into()].into());
}
