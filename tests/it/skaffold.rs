//! skaffold.yaml, and what its profile `dev` runs: what it names exists, and a binary that is copied in is started.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::cluster::{PATIENCE, chart, eventually, root, yaml_documents};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

fn is_executable(path: &str) -> bool {
    fs::metadata(root().join(path)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The configuration without a profile, and with each: a field of a profile replaces the same field.
fn configurations() -> Vec<(String, Value)> {
    let config = yaml_documents(&read("skaffold.yaml")).remove(0);
    let profiles = list(&config["profiles"]).iter().map(|profile| {
        let mut whole = config.clone();
        for (name, value) in profile.as_object().unwrap() {
            whole[name] = value.clone();
        }
        (text(&profile["name"]).to_owned(), whole)
    });
    [(String::new(), config.clone())].into_iter().chain(profiles).collect()
}

/// The files that a pattern of one folder, such as `examples/*.yaml`, matches.
fn files(pattern: &str) -> Vec<String> {
    let (folder, name) = pattern.rsplit_once('/').unwrap();
    let Some(end) = name.strip_prefix('*') else { return vec![pattern.to_owned()] };
    let names = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(end));
    names.map(|name| format!("{folder}/{name}")).collect()
}

#[test]
fn every_path_image_and_value_that_skaffold_yaml_names_exists() {
    let values = yaml_documents(&read("charts/orders-operator/values.yaml")).remove(0);
    for (profile, config) in configurations() {
        let version = text(&config["apiVersion"]).strip_prefix("skaffold/v4beta").unwrap();
        assert!(version.parse::<u32>().unwrap() >= 11, "profile {profile:?}: {version}");
        let artifacts = list(&config["build"]["artifacts"]);
        let manifests: String = list(&config["manifests"]["rawYaml"])
            .iter()
            .flat_map(|of| files(text(of)))
            .map(|of| read(&of))
            .collect();
        let releases = list(&config["deploy"]["helm"]["releases"]);
        assert!(!artifacts.is_empty() && !releases.is_empty(), "profile {profile:?}");
        for artifact in artifacts {
            let folder = artifact["context"].as_str().unwrap_or(".");
            if let Some(dockerfile) = artifact["docker"]["dockerfile"].as_str() {
                assert!(root().join(folder).join(dockerfile).is_file(), "{artifact}");
            } else {
                assert!(is_executable(text(&artifact["custom"]["buildCommand"])), "{artifact}");
            }
            for path in list(&artifact["custom"]["dependencies"]["paths"]) {
                assert!(
                    root().join(text(path)).exists(),
                    "skaffold ends with an error, since there is no {path}"
                );
            }
            let image = text(&artifact["image"]);
            let variable = format!("_{}}}}}", image.replace(['-', '.', '/'], "_"));
            let is_set = releases.iter().any(|of| of["setValueTemplates"].to_string().contains(&variable));
            assert!(is_set || manifests.contains(&format!("image: {image}:")), "nothing runs {image}");
        }
        for release in releases {
            assert!(root().join(text(&release["chartPath"])).join("Chart.yaml").is_file());
            let templates = release["setValueTemplates"].as_object().unwrap();
            for path in templates.keys().chain(release["setValues"].as_object().unwrap().keys()) {
                let value = path.split('.').try_fold(&values, |value, key| value.get(key));
                assert!(value.is_some(), "skaffold.yaml sets {path}, which the chart does not have");
            }
            for template in templates.values().map(text) {
                for variable in template.split("{{.").skip(1).filter_map(|rest| rest.split("}}").next()) {
                    let of = |image: &str| {
                        variable.ends_with(&format!("_{}", image.replace(['-', '.', '/'], "_")))
                    };
                    let is_built = artifacts.iter().any(|artifact| of(text(&artifact["image"])));
                    assert!(is_built, "{template} names no image that skaffold.yaml builds");
                }
            }
        }
    }
}

/// The profile that copies the binary into running pods.
fn dev() -> Value {
    configurations().into_iter().find(|(profile, _)| profile == "dev").unwrap().1
}

#[test]
fn what_the_dev_profile_copies_is_what_its_builder_makes_and_goes_to_a_folder_that_the_image_lets_be_written()
{
    let config = dev();
    let artifact = &list(&config["build"]["artifacts"])[0];
    let (dockerfile, builder) = (read("dev/skaffold/Dockerfile"), read("dev/skaffold/build"));
    let dependencies = &artifact["custom"]["dependencies"];
    assert_eq!(artifact["custom"]["buildCommand"], "dev/skaffold/build");
    let rules = list(&artifact["sync"]["manual"]);
    for rule in rules {
        let (source, target) = (text(&rule["src"]), text(&rule["dest"]));
        assert!(
            dockerfile.lines().any(|line| line == format!("VOLUME {target}")),
            "{target} cannot be written"
        );
        let is_watched =
            list(&dependencies["paths"]).iter().any(|path| source.starts_with(&format!("{}/", text(path))));
        assert!(is_watched, "skaffold does not see a change of {source}");
    }
    // What is compiled, by the list of what a build in docker gets.
    for path in read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(
            list(&dependencies["paths"]).iter().any(|of| of == path),
            "skaffold does not see a change of {path}"
        );
    }
    let (binary, sources) = (&rules[0], &rules[1]);
    let folder = text(&binary["strip"]);
    assert_eq!(text(&binary["src"]), format!("{folder}orders-operator*"));
    assert!(
        builder.contains(&format!("out={}\n", folder.trim_end_matches('/'))),
        "the builder writes elsewhere"
    );
    assert_eq!(list(&dependencies["ignore"]), [format!("{folder}.*")], "what is not whole would be copied");
    // What is compiled is synced too: that makes skaffold run the hook, which compiles it.
    assert_eq!(sources["src"], "src/**");
    let command = list(&list(&artifact["sync"]["hooks"]["before"])[0]["host"]["command"]);
    assert!(is_executable(text(&command[0])) && builder.contains(text(&command[1])), "{command:?}");
    assert!(read(&format!("{folder}.gitignore")).contains("!.gitignore"), "a clone would lack {folder}");
}

#[test]
fn the_dev_profile_deploys_to_the_namespaces_in_which_its_image_runs_and_forwards_ports_that_are_there() {
    let config = dev();
    let mut deployments: Vec<_> = chart(&["--namespace", "orders-operator"], "orders-operator");
    let manifests = list(&config["manifests"]["rawYaml"]).iter().flat_map(|of| files(text(of)));
    let manifests: Vec<_> = manifests.flat_map(|file| yaml_documents(&read(&file))).collect();
    let service = manifests.iter().find(|object| object["kind"] == "OrdersService").unwrap();
    let is_made = |kind: &str, name: &Value| {
        manifests.iter().any(|object| object["kind"] == kind && object["metadata"]["name"] == *name)
    };
    // skaffold copies only into pods of namespaces to which it deploys.
    assert!(is_made("Namespace", &service["metadata"]["namespace"]), "{service}");
    assert!(is_made("Secret", &service["spec"]["database"]["uriSecretRef"]["name"]), "{service}");
    let render = std::process::Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(["render", "examples/", "--default-image", "orders-operator:1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(render.status.success(), "{}", String::from_utf8_lossy(&render.stderr));
    deployments.extend(yaml_documents(&String::from_utf8(render.stdout).unwrap()));
    deployments.retain(|object| object["kind"] == "Deployment");

    let mut local = Vec::new();
    for forward in list(&config["portForward"]) {
        assert_eq!(forward["resourceType"], "deployment");
        let deployment = deployments.iter().find(|of| {
            of["metadata"]["name"] == forward["resourceName"]
                && of["metadata"]["namespace"] == forward["namespace"]
        });
        let deployment = deployment.unwrap_or_else(|| panic!("{forward} names no Deployment"));
        let containers = list(&deployment["spec"]["template"]["spec"]["containers"]);
        let mut ports = containers.iter().flat_map(|container| list(&container["ports"]));
        assert!(ports.any(|port| port["containerPort"] == forward["port"]), "{forward}");
        local.push(forward["localPort"].as_u64().unwrap());
    }
    // The API's two ports, and one of each container of the operator.
    local.sort_unstable();
    local.dedup();
    assert_eq!(local.len(), 4, "{local:?}");
}

/// The supervisor of the image that is developed, over a folder of its own.
struct Supervisor {
    folder: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Supervisor {
    /// Starts it over a first binary. Each look at whether a binary is whole leaves a line in `looks`.
    fn start(first: &str) -> Self {
        Self::start_script(&read("dev/skaffold/supervise"), first)
    }

    /// The same with another text of its own.
    fn start_script(script: &str, first: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("orders-supervise-{}", fastrand::u64(..)));
        fs::create_dir_all(folder.join("bin")).unwrap();
        let look = format!(
            "#!/bin/sh\necho >>'{}'\nPATH=\"${{PATH#*:}}\"; exec sha256sum \"$@\"\n",
            folder.join("looks").display()
        );
        write_program(&folder.join("bin/sha256sum"), &look);
        write_program(&folder.join("orders-operator"), first);
        write_digest(&folder, first);
        fs::write(folder.join("supervise"), script).unwrap();
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
        let mut child = Command::new("sh")
            .arg(folder.join("supervise"))
            .arg("serve")
            .env("SYNC_FOLDER", &folder)
            .env("PATH", path)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { folder, child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it says nothing");
        line.unwrap().unwrap_or_default()
    }

    fn looks(&self) -> usize {
        fs::read_to_string(self.folder.join("looks")).unwrap_or_default().lines().count()
    }

    async fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// Whatever became of the test, what the supervisor runs does not outlive it.
impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(pid) = self.child.id() {
            std::process::Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).status().ok();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// As `tar` does it: a new file, since the old one may be running.
fn write_program(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

fn write_digest(folder: &Path, text: &str) {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join("orders-operator.sha256"), format!("{digest}  orders-operator\n")).unwrap();
}

/// A program that says its name and its arguments, and what ends it.
fn program(name: &str) -> String {
    format!(
        "#!/bin/sh\ntrap 'echo {name} drains $DRAIN_SECONDS s; exit 0' TERM\necho {name} \"$@\"\nwhile :; do sleep 0.1; done\n"
    )
}

#[tokio::test]
async fn a_binary_that_is_copied_in_is_started_once_it_is_whole_and_the_old_one_is_terminated() {
    let mut supervisor = Supervisor::start(&program("first"));
    assert_eq!(supervisor.line().await, "first serve");

    // What is there of it looks like a program, but is not what the digest says.
    let second = program("second");
    write_program(&supervisor.folder.join("orders-operator"), &program("half"));
    write_digest(&supervisor.folder, &second);
    let looks = supervisor.looks();
    eventually("a look at the half of a binary", async || (supervisor.looks() > looks + 1).then_some(()))
        .await;
    write_program(&supervisor.folder.join("orders-operator"), &second);
    assert_eq!(supervisor.line().await, "first drains 0 s");
    assert_eq!(supervisor.line().await, "second serve");

    let status = supervisor.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(supervisor.line().await, "second drains 0 s");
}

#[tokio::test]
async fn a_binary_that_ends_by_itself_is_started_again_until_another_one_comes() {
    let mut supervisor = Supervisor::start("#!/bin/sh\necho it ends\nexit 3\n");
    for _ in 0..2 {
        assert_eq!(supervisor.line().await, "it ends");
    }
    let mended = program("mended");
    write_program(&supervisor.folder.join("orders-operator"), &mended);
    write_digest(&supervisor.folder, &mended);
    loop {
        match supervisor.line().await.as_str() {
            "mended serve" => break,
            line => assert_eq!(line, "it ends"),
        }
    }
    assert!(supervisor.terminate().await.success());
}

#[tokio::test]
async fn a_binary_that_has_just_been_started_is_terminated_too() {
    // Longer at the place where it knows of no child yet.
    let script = read("dev/skaffold/supervise").replace("\n  child=$!\n", "\n  sleep 1\n  child=$!\n");
    assert!(script.contains("sleep 1\n  child=$!"), "{script}");
    let mut supervisor = Supervisor::start_script(&script, &program("first"));
    assert_eq!(supervisor.line().await, "first serve");
    assert!(supervisor.terminate().await.success());
    assert_eq!(supervisor.line().await, "first drains 0 s");
}
