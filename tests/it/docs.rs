//! The pages in `docs/`: what they show is what the program does.

use std::{
    collections::{BTreeSet, HashMap},
    process::Command,
};

use mongodb::bson::{doc, oid::ObjectId};
use orders_operator::crd::{ConditionType, Reason};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    cluster::root,
    mongo::{TestDatabase, cookie, uri},
};

/// A command on a page, with its output as the page shows it.
#[derive(Debug)]
struct Example {
    command: String,
    output: String,
}

/// The examples in a page's console blocks.
fn examples(page: &str) -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (line, inside) {
            ("```console", _) => inside = true,
            ("```", true) => inside = false,
            (_, false) => {}
            (line, true) => match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => all.push(Example { command: command.into(), output: String::new() }),
                (None, Some(last)) => {
                    last.output.push_str(line);
                    last.output.push('\n');
                }
                (None, None) => panic!("a console block starts with {line:?}, which is not a command"),
            },
        }
    }
    all
}

/// Replaces ids and times with placeholders.
fn without_ids_and_times(text: &str) -> String {
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
fn run(commands: &[Example], environment: &HashMap<&str, String>) -> Vec<String> {
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

#[test]
fn the_page_about_conditions_explains_every_type_and_reason_and_no_others() {
    let page = std::fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let types = [&ConditionType::CONTROLLER[..], &ConditionType::SWEEPER].concat();
    let types: BTreeSet<_> = types.into_iter().map(|kind| kind.as_str().to_owned()).collect();
    assert_eq!(first_column(&page, "condition"), types);
    let reasons: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(first_column(&page, "reason"), reasons);
}

#[test]
fn the_page_about_the_api_shows_every_error() {
    let page = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let printed: String = examples(&page).into_iter().map(|example| example.output).collect();
    let mut all = BTreeSet::new();
    messages(&serde_json::from_str(&orders_operator::api::openapi_json().unwrap()).unwrap(), &mut all);
    assert!(all.len() > 14, "{all:?}");
    for message in all {
        assert!(printed.contains(&format!(r#""message":"{message}""#)), "no command shows {message:?}");
    }
}

#[tokio::test]
async fn every_command_on_the_page_about_the_api_prints_what_the_page_shows() {
    let commands = examples(&std::fs::read_to_string(root().join("docs/api.md")).unwrap());
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
