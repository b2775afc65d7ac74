//! The pages in `docs/`: what they show is what the program does.

use std::{
    collections::{BTreeSet, HashMap},
    process::Command,
};

use mongodb::bson::{doc, oid::ObjectId};
use orders_operator::{
    crd::{ConditionType, Reason},
    events::DeadReason,
};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    bed::setting,
    cluster::{root, yaml_documents},
    console::{Block, whole},
    mongo::{JWT_KEY, TestDatabase, cookie, uri},
};

/// A command on a page, with its output as the page shows it.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) command: String,
    pub(crate) output: String,
}

/// The examples in console blocks.
pub(crate) fn examples(blocks: &[Block]) -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    for block in blocks {
        assert_eq!(block.language, "console", "commands without their output: {}", block.text);
        assert!(
            block.text.starts_with("$ "),
            "a console block does not begin with a command: {}",
            block.text
        );
        for line in block.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                all.push(Example { command: command.into(), output: String::new() });
            } else {
                let last = all.last_mut().unwrap();
                last.output.push_str(line);
                last.output.push('\n');
            }
        }
    }
    all
}

/// Replaces ids and times with placeholders.
pub(crate) fn without_ids_and_times(text: &str) -> String {
    let mut result = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || "-:.".contains(c) {
            word.push(c);
            continue;
        }
        let is_id = word.len() == 24 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let is_time = word.parse::<jiff::Timestamp>().is_ok();
        result.push_str(if is_id {
            "ID"
        } else if is_time {
            "TIME"
        } else {
            &word
        });
        result.push(c);
        word.clear();
    }
    result.trim().to_owned()
}

/// Runs the commands one after the other in one shell, and returns the output of each.
pub(crate) fn run(commands: &[Example], environment: &HashMap<&str, String>) -> Vec<String> {
    const MARK: &str = "@@ the next command @@";
    let folder = std::env::temp_dir().join(format!("orders-docs-{}", ObjectId::new().to_hex()));
    std::fs::create_dir(&folder).unwrap();
    let script: String =
        commands.iter().map(|example| format!("{} 2>&1\necho '{MARK}'\n", example.command)).collect();
    let shell = Command::new("bash").args(["-c", &script]).envs(environment).current_dir(&folder).output();
    std::fs::remove_dir_all(&folder).unwrap();
    let output = String::from_utf8(shell.expect("bash is installed").stdout).unwrap();
    output.split(MARK).map(str::to_owned).collect()
}

/// The names in backquotes in the first column of the table below the header `| {column} |` of a page.
fn first_column(page: &str, column: &str) -> BTreeSet<String> {
    let header = format!("| {column} |");
    let rows = page.lines().skip_while(|line| !line.starts_with(&header)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Adds every error message in the OpenAPI description, which is generated from the code, to `found`.
fn messages(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("message").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| messages(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

/// The row of the table of data planes in `docs/ingress.md` that begins with this.
fn row_of_data_plane<'a>(page: &'a str, plane: &str) -> &'a str {
    let rows = page.lines().skip_while(|line| !line.starts_with("| data plane |"));
    let mut rows = rows.take_while(|line| line.starts_with('|'));
    rows.find(|row| row.starts_with(&format!("| {plane}"))).unwrap_or_else(|| panic!("no row of {plane}"))
}

#[test]
fn the_page_about_ingress_controllers_has_the_versions_that_are_run_and_modelled() {
    let page = read("docs/ingress.md");
    let pinned = read("dev/versions.toml");
    for (plane, program) in [
        ("Traefik,", "traefik"),
        ("Traefik's", "traefik"),
        ("Contour", "contour"),
        ("Contour", "envoy"),
        ("Caddy", "caddy"),
    ] {
        let begin = format!("{program} = {{");
        let pin = pinned.lines().find(|line| line.starts_with(&begin)).unwrap();
        let version = pin.split_once("version = \"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
        let version = version.trim_start_matches('v');
        let row = row_of_data_plane(&page, plane);
        assert!(row.contains("| run |") && row.contains(version), "{program} {version}: {row}");
    }
    let planes = [
        ("alb", "AWS ALB"),
        ("envoy_gateway", "Envoy Gateway"),
        ("f5", "F5 NGINX"),
        ("gce", "Google Cloud"),
        ("kong", "Kong, router `traditional"),
    ];
    let folder = "tests/it/planes/models";
    let models = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let models = models.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let models: BTreeSet<_> = models.filter(|name| name != "mod").collect();
    assert_eq!(models, planes.iter().map(|(model, _)| (*model).to_owned()).collect());
    for (model, plane) in planes {
        let source = read(&format!("{folder}/{model}.rs"));
        let about: Vec<_> = source.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let about = about.join(" ");
        let words = about.split([' ', ',']).filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let versions: Vec<_> = words.filter(|word| word.split('.').count() == 3).collect();
        assert!(!versions.is_empty(), "{model} names the version of its sources");
        let row = row_of_data_plane(&page, plane);
        for version in versions {
            assert!(row.contains("| modelled") && row.contains(version), "{model} {version}: {row}");
        }
    }
}

/// Checks that the row of a data plane has the version, without its last part, of a program that Debian has and nothing pins.
pub(crate) fn has_version(plane: &str, program: &str, argument: &str) {
    let output = Command::new(program).arg(argument).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let begins = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let words = || said.split(|c: char| !c.is_ascii_digit() && c != '.').filter(begins);
    let version = words().find(|word| word.contains('.')).unwrap_or_else(|| panic!("{program}: {said}"));
    let version = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let page = read("docs/ingress.md");
    let row = row_of_data_plane(&page, plane);
    assert!(row.contains(&format!("| run | {version} |")), "{program} has {version}: {row}");
}

#[test]
fn the_page_about_ingress_controllers_has_the_version_of_nginx_that_is_run() {
    has_version("nginx", &setting("NGINX"), "-v");
}

#[test]
fn the_page_about_conditions_explains_every_type_and_reason_and_no_others() {
    let page = std::fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let types = [&ConditionType::CONTROLLER[..], &ConditionType::SWEEPER].concat();
    let types: BTreeSet<_> = types.into_iter().map(|kind| kind.as_str().to_owned()).collect();
    assert_eq!(first_column(&page, "condition"), types);
    let source = read("src/crd/conditions.rs");
    let list =
        source.split_once("enum ConditionType {").and_then(|(_, rest)| rest.split("\n}").next()).unwrap();
    let declared = list.lines().filter_map(|line| line.trim().strip_suffix(',')).map(str::to_owned);
    assert_eq!(declared.collect::<BTreeSet<_>>(), types, "each type has a writer");
    let reasons: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(first_column(&page, "reason"), reasons);
}

#[test]
fn the_page_about_events_explains_why_a_message_is_kept_and_nothing_else() {
    let reasons = DeadReason::ALL.map(|reason| reason.as_str().to_owned());
    assert_eq!(first_column(&read("docs/events.md"), "reason"), BTreeSet::from(reasons));
    for reason in DeadReason::ALL {
        assert_eq!(DeadReason::parse(reason.as_str()), Some(reason));
    }
}

#[test]
fn the_page_about_the_api_shows_every_error() {
    let printed: String = examples(&whole("docs/api.md")).into_iter().map(|example| example.output).collect();
    let mut all = BTreeSet::new();
    messages(&serde_json::from_str(&orders_operator::api::openapi_json().unwrap()).unwrap(), &mut all);
    assert!(all.len() > 14, "{all:?}");
    for message in all {
        assert!(printed.contains(&format!(r#""message":"{message}""#)), "no command shows {message:?}");
    }
}

#[tokio::test]
async fn every_command_on_the_page_about_the_api_prints_what_the_page_shows() {
    let commands = examples(&whole("docs/api.md"));
    assert!(commands.len() > 25, "{}", commands.len());
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    let unreachable = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let without_database = Process::start(unreachable, &database.name, &[]);
    process.wait_until_ready(true).await;

    let value = |user| cookie(user).strip_prefix("session=").unwrap().to_owned();
    let complete = doc! { "status": "complete", "userId": "bob" };
    let malformed = doc! { "status": "no such status", "userId": "bob" };
    let environment = HashMap::from([
        ("API", format!("http://{}", process.api)),
        ("WITHOUT_DATABASE", format!("http://{}", without_database.api)),
        ("JWT_KEY", JWT_KEY.to_owned()),
        ("SESSION", value("ada")),
        ("OTHER", value("bob")),
        ("TICKET", database.ticket().await.to_string()),
        ("TICKET_2", database.ticket().await.to_string()),
        ("COMPLETE", database.mongoose_order(complete).await),
        ("SPOILT", database.mongoose_order(malformed).await),
    ]);
    let ran = spawn_blocking(move || (run(&commands, &environment), commands));
    let (printed, commands) = ran.await.unwrap();
    for (example, printed) in commands.iter().zip(&printed) {
        let (wanted, got) = (without_ids_and_times(&example.output), without_ids_and_times(printed));
        assert_eq!(got, wanted, "{}", example.command);
    }
    assert_eq!(printed.len(), commands.len() + 1, "a command terminated the shell");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page: the path from the root, and the text.
fn pages() -> Vec<(String, String)> {
    let in_docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let in_docs = in_docs.map(|name| format!("docs/{}", name.to_str().unwrap()));
    let others = ["README.md", "CONTRIBUTING.md", "dev/README.md"].map(str::to_owned);
    let all = in_docs.filter(|path| path.ends_with(".md")).chain(others);
    all.map(|path| (path.clone(), read(&path))).collect()
}

/// The code spans of a page, without those in its fenced blocks.
fn code_spans(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// Whether a source text defines an item, a field, a variant or a test of this name.
fn defines(source: &str, name: &str) -> bool {
    let is_name = |text: &str| {
        text.strip_prefix(name).is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_' || next == '!')
        })
    };
    let keywords = ["fn ", "struct ", "enum ", "trait ", "const ", "type ", "static ", "macro_rules! "];
    let of_keyword = |line: &str| {
        keywords.iter().any(|keyword| line.split_once(keyword).is_some_and(|(_, rest)| is_name(rest)))
    };
    source.lines().map(str::trim_start).any(|line| {
        of_keyword(line) || is_name(line.strip_prefix("pub ").unwrap_or(line)) && !line.contains('=')
    })
}

/// What is wrong with a code span that names a file, or a file and an item as `FILE::ITEM`; nothing for other spans.
/// Paths may leave out the folders in which most of the code is.
fn missing(span: &str) -> Option<String> {
    const FOLDERS: [&str; 5] = ["", "src/", "src/controller/", "src/controller/reconcile/", "tests/it/"];
    const PREFIXES: [&str; 9] =
        ["src/", "tests/", "docs/", "dev/", "charts/", "crds/", "examples/", "benches/", ".ci/"];
    let first = span.split(' ').next().unwrap_or_default();
    if let Some((file, item)) = first.split_once(".rs::") {
        let name = item.rsplit("::").next().unwrap_or_default();
        let sources =
            FOLDERS.map(|folder| std::fs::read_to_string(root().join(format!("{folder}{file}.rs"))));
        let is_there = sources.iter().flatten().any(|source| defines(source, name));
        return (!is_there).then(|| format!("{first} is not there"));
    }
    let is_path = first.ends_with(".rs") || PREFIXES.iter().any(|prefix| first.starts_with(prefix));
    let is_there = || FOLDERS.iter().any(|folder| root().join(format!("{folder}{first}")).exists());
    (is_path && !is_there()).then(|| format!("{first} does not exist"))
}

#[test]
fn every_file_and_item_that_a_page_names_is_there() {
    let mut named = 0;
    for (page, text) in pages() {
        for span in code_spans(&text) {
            named += usize::from(span.contains(".rs"));
            assert_eq!(missing(span), None, "{page}");
        }
        let folder = root().join(&page).parent().unwrap().to_owned();
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_there = link.contains("://") || folder.join(link).exists();
            assert!(is_there, "{page} links to {link}, which does not exist");
        }
    }
    assert!(named > 100, "the pages name {named} places only");
    for wrong in ["src/nowhere.rs", "crd/spec.rs::OrdersServiceNothing", "tests/it/docs.rs::no_such_test"] {
        assert!(missing(wrong).is_some(), "{wrong}");
    }
}

/// The kinds of children, as `ChildKind` lists them.
fn child_kinds() -> BTreeSet<String> {
    let source = read("src/controller/children/kind.rs");
    let list = source.rsplit_once("\nkinds!(\n").and_then(|(_, rest)| rest.split("\n);").next()).unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    names.map(|(name, _)| name).filter(|name| !name.starts_with([' ', '/'])).map(str::to_owned).collect()
}

/// The name of a kind in the paths of the API.
fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match (lower.strip_suffix('y'), lower.ends_with('s')) {
        (Some(stem), _) => format!("{stem}ies"),
        (None, true) => format!("{lower}es"),
        (None, false) => format!("{lower}s"),
    }
}

#[test]
fn every_kind_of_child_is_on_its_page_in_the_tests_in_the_benchmark_and_in_the_chart_s_rights() {
    let kinds = child_kinds();
    assert!(kinds.len() > 7 && kinds.contains("Deployment"), "{kinds:?}");

    let page = read("docs/children.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| child |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    assert_eq!(rows.map(|cell| cell.trim().to_owned()).collect::<BTreeSet<_>>(), kinds);

    // The cluster of the tests has no Gateway API, but for the module that is about it.
    let tested = crate::controller::CHILDREN.iter().map(|(kind, _)| *kind).chain(["HTTPRoute", "Middleware"]);
    assert_eq!(tested.map(str::to_owned).collect::<BTreeSet<_>>(), kinds);

    let plurals: BTreeSet<_> = kinds.iter().map(|kind| plural(kind)).collect();
    let benchmark = read("dev/bench-controller");
    let list =
        benchmark.split_once("\nCHILDREN = [\n").and_then(|(_, rest)| rest.split("\n]").next()).unwrap();
    let list = list.replace("DEPLOYMENTS", "/deployments\"");
    let paths = list.lines().filter_map(|line| line.rsplit('/').next()?.split('"').next());
    // The benchmark's resources have no autoscaler and no Gateway.
    let measured = paths.chain(["horizontalpodautoscalers", "httproutes", "middlewares"]);
    assert_eq!(measured.map(str::to_owned).collect::<BTreeSet<_>>(), plurals);

    let rights = read("charts/orders-operator/templates/rbac.yaml");
    for plural in plurals {
        let is_listed = |line: &str| line.contains("resources:") && line.contains(&plural);
        assert!(rights.lines().any(is_listed), "the chart gives no right to {plural}");
    }
}

/// The metrics that a source file registers, as they are exported but for the prefix and the `_total` of counters; and
/// how many metrics its `Metrics` has.
fn registered(path: &str) -> (BTreeSet<String>, usize) {
    let source = read(path);
    let calls = source.split("register").skip(1).filter_map(|rest| {
        let (call, arguments) = rest.split_once('(')?;
        let name = arguments.trim_start().strip_prefix('"')?.split('"').next()?;
        match call {
            "" => Some(name.to_owned()),
            "_with_unit" => Some(format!("{name}_seconds")),
            _ => None,
        }
    });
    let fields =
        source.split_once("struct Metrics {").and_then(|(_, rest)| rest.split("\n}").next()).unwrap();
    let is_metric =
        |line: &&str| ["Counter", "Gauge", "Histogram", "Seconds"].iter().any(|kind| line.contains(kind));
    (calls.collect(), fields.lines().filter(is_metric).count())
}

#[test]
fn every_metric_is_registered_and_on_its_page_and_no_other() {
    for (source, page, column) in [
        ("src/controller/metrics.rs", "docs/operations.md", "name"),
        ("src/sweeper/metrics.rs", "docs/sweeper.md", "metric"),
        ("src/events/metrics.rs", "docs/events.md", "metric"),
    ] {
        let (registered, fields) = registered(source);
        assert_eq!(registered.len(), fields, "{source} registers {registered:?}");
        let documented = first_column(&read(page), column).into_iter().map(|name| {
            let name = name.split('{').next().unwrap_or_default();
            name.strip_suffix("_total").unwrap_or(name).to_owned()
        });
        assert_eq!(documented.collect::<BTreeSet<_>>(), registered, "{page}");
    }
    let (registered, fields) = registered("src/api/metrics.rs");
    assert_eq!(registered.len(), fields, "{registered:?}");
    let page = read("docs/api.md");
    for name in registered {
        let is_there = ["", "_total"].iter().any(|end| page.contains(&format!("`orders_api_{name}{end}`")));
        assert!(is_there, "docs/api.md does not explain {name}");
    }
}

/// The long flags of a subcommand.
fn flags<A: clap::Args>() -> BTreeSet<String> {
    let command = A::augment_args(clap::Command::new("orders-operator"));
    command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

#[test]
fn every_flag_that_a_page_names_is_there() {
    let controller = flags::<orders_operator::controller::ControllerArgs>();
    let sweeper = flags::<orders_operator::sweeper::SweeperArgs>();
    let render = flags::<orders_operator::controller::render::RenderArgs>();
    let serve = flags::<orders_operator::api::ServeArgs>();
    let both = controller.union(&render).cloned().collect();
    let every = [&controller, &sweeper, &serve, &render].into_iter().flatten().cloned().collect();
    let publish = flags::<orders_operator::events::publish::PublishArgs>();
    let identity = flags::<orders_operator::events::identity::IdentityArgs>();
    let of_events = [serve.clone(), publish, identity].into_iter().flatten().collect();
    let osvc = [
        flags::<orders_operator::osvc::StatusArgs>(),
        flags::<orders_operator::osvc::CheckArgs>(),
        flags::<orders_operator::osvc::SweepArgs>(),
    ];
    let osvc = osvc.into_iter().flatten().collect();
    // Beside those of the program, a page may name flags of `helm`, krew and an API server, or of `events dead-letters`.
    for (page, known, others) in [
        ("docs/operations.md", &controller, [].as_slice()),
        ("docs/sweeper.md", &sweeper, &["set"]),
        ("docs/routes.md", &both, &["base-path"]),
        ("docs/events.md", &of_events, &["with", "even-refused", "raw"]),
        ("docs/clusters.md", &every, &["set", "create-namespace", "emulated-version"]),
        ("docs/kubectl-osvc.md", &osvc, &["manifest", "archive", "explain"]),
    ] {
        let text = read(page);
        let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
        let named = text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(['-', '|']));
        let named = named.filter_map(|(at, _)| text[at + 2..].split(|c| !is_part(c)).next());
        let named: BTreeSet<_> = named.filter(|name| name.starts_with(char::is_alphabetic)).collect();
        assert!(!named.is_empty(), "{page}");
        for name in named {
            let is_there = known.contains(name) || name == "help" || others.contains(&name);
            assert!(is_there, "{page} names --{name}");
        }
    }
}

/// Whether a schema has this field, such as `ingress.routes[].path`.
fn has_field(schema: &Value, path: &str) -> bool {
    let mut place = schema;
    for name in path.split('.') {
        let name = name.split('[').next().unwrap();
        let within = place.get("items").unwrap_or(place);
        let Some(next) = within["properties"].get(name) else {
            // A map of one's own keys, or an object that Kubernetes describes.
            return within.get("additionalProperties").is_some()
                || within["x-kubernetes-preserve-unknown-fields"] == true;
        };
        place = next;
    }
    true
}

#[test]
fn every_field_and_every_value_of_the_chart_that_a_page_names_is_there() {
    let crd = yaml_documents(&read("crds/ordersservices.yaml")).remove(0);
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let values = yaml_documents(&read("charts/orders-operator/values.yaml")).remove(0);
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._[]".contains(c));
    // A Kustomization of Flux, an Ingress, an IngressClass, and what an editor is to mark as wrong.
    let of_others = ["spec.wait", "spec.tls", "spec.controller", "spec.replica"];
    let (mut named, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        for span in code_spans(&text) {
            let path = span.split([':', '=', ' ']).next().unwrap();
            let is_of_others = of_others.iter().any(|other| path.split('[').next() == Some(other));
            if path.ends_with('.') || !is_name(path) || !path.contains('.') || is_of_others {
                continue;
            }
            let (first, rest) = path.split_once('.').unwrap();
            let (known, is_there) = match first {
                "spec" | "status" => (true, has_field(&schema[first], rest)),
                _ => {
                    let pointer = format!("/{}", path.replace('.', "/"));
                    let is_set = values.pointer(&pointer).is_some();
                    // What is empty by default says nothing of what may be in it.
                    let parent = values.pointer(pointer.rsplit_once('/').unwrap().0);
                    let is_open =
                        parent.is_some_and(|parent| parent.as_object().is_some_and(|map| map.is_empty()));
                    (values.get(first).is_some_and(Value::is_object), is_set || is_open)
                }
            };
            named += usize::from(known);
            if known && !is_there {
                wrong.push(format!("{page} names {span}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(named > 200, "the pages name {named} only");
}

#[test]
fn every_reason_is_given_by_some_code() {
    fn sources(folder: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                all.push_str(text.split("#[cfg(test)]\nmod tests").next().unwrap());
            }
        }
    }
    let mut all = String::new();
    sources(&root().join("src"), &mut all);
    for reason in Reason::ALL {
        let name = format!("Reason::{}", reason.as_str());
        let is_whole = |(at, _)| !all[at + name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
        assert!(all.match_indices(&name).any(is_whole), "no code gives {name}");
    }
}
