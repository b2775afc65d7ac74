//! What `make release` makes: files from which someone installs without this repository, and which say what they are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::cluster::{root, yaml_documents};

/// Where the files of the repository can be read.
const SOURCE: &str = "https://git.example/team/orders-operator/blob/v1";

/// A release of this checkout, without what must be compiled; removed in the end.
pub(crate) struct Release(pub(crate) PathBuf);

impl Release {
    pub(crate) fn make() -> Self {
        let out = std::env::temp_dir().join(format!("orders-operator-release-{:016x}", fastrand::u64(..)));
        let mut command = Command::new("dev/release");
        command.current_dir(root()).env("OUT", &out).env("ARCHS", "none").env("BUILDS_ALONE", "yes");
        let output = command
            .env("REPOSITORY", "registry.example/team/orders-operator")
            .env("SOURCE", SOURCE)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(out)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn objects(&self, name: &str) -> Vec<Value> {
        yaml_documents(&self.read(name))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The kinds of objects, each once.
fn kinds(objects: &[Value]) -> BTreeSet<&str> {
    objects.iter().map(|object| object["kind"].as_str().unwrap()).collect()
}

fn files(folder: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.insert(path);
        }
    }
}

#[test]
fn a_release_has_the_version_everywhere_and_a_digest_of_every_file() {
    let release = Release::make();
    let version = env!("CARGO_PKG_VERSION");
    assert!(release.0.join(format!("orders-operator-{version}.tgz")).is_file());
    assert!(release.read("RELEASE_NOTES.md").starts_with(&format!("# orders-operator {version}")));
    assert!(release.read("RELEASE_NOTES.md").contains("Upgrading from"));
    let image = format!("registry.example/team/orders-operator:{version}");
    for manifest in ["install.yaml", "namespace-install.yaml"] {
        let objects = release.objects(manifest);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        for container in deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            assert_eq!(container["image"], image);
        }
        for only_for_helm in ["helm.sh/", "managed-by: Helm", "# Source:"] {
            assert!(!release.read(manifest).contains(only_for_helm), "{manifest} has {only_for_helm}");
        }
    }
    assert_eq!(release.objects("crd.yaml")[0]["spec"], crd()["spec"]);

    let mut check = Command::new("sha256sum");
    let checked = check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&release.0).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let mut all = BTreeSet::new();
    files(&release.0, &mut all);
    let sums = release.read("SHA256SUMS");
    assert_eq!(sums.lines().count(), all.len() - 1, "every file but itself");
    let is_published = |path: &PathBuf| path.parent() == Some(release.0.as_path());
    assert!(all.iter().all(is_published), "a folder cannot be published as a file: {all:?}");
    assert_eq!(Release::make().read("SHA256SUMS"), sums, "the same sources make the same files");
    let provenance: Value = serde_json::from_str(&release.read("provenance.intoto.json")).unwrap();
    let subjects = provenance["subject"].as_array().unwrap();
    assert_eq!(subjects.len(), all.len() - 2, "every file but itself and the sums");
    for subject in subjects {
        let digest = subject["digest"]["sha256"].as_str().unwrap();
        assert!(sums.contains(&format!("{digest}  {}\n", subject["name"].as_str().unwrap())), "{subject}");
    }
    assert_eq!(provenance["predicate"]["buildDefinition"]["externalParameters"]["givenBinaries"], json!([]));
}

/// What an expression of `dev/releaselib` gives, as JSON.
pub(crate) fn of_origin(expression: &str, binary_amd64: Option<&str>) -> Value {
    let script = format!(
        "import sys, json; sys.path.insert(0, 'dev'); from pathlib import Path; \
         from releaselib import archives, manual, origin, plugin, toolchain; print(json.dumps({expression}))"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]).current_dir(root()).env_remove("BINARY_AMD64").env_remove("BINARY_ARM64");
    let output = command.envs(binary_amd64.map(|path| ("BINARY_AMD64", path))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_a_release_refers_to_can_be_found_from_anywhere() {
    let release = Release::make();
    let notes = release.read("RELEASE_NOTES.md");
    let links: Vec<_> = notes.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        let path =
            link.strip_prefix(SOURCE).map(|path| path.trim_start_matches('/').split('#').next().unwrap());
        let is_ours = path.is_some_and(|path| root().join(path).is_file());
        assert!(is_ours || (path.is_none() && link.starts_with("https://")), "{link} leads nowhere");
    }
    let chart = format!("{}/orders-operator-{}.tgz", release.0.display(), env!("CARGO_PKG_VERSION"));
    let helm = |words: &[&str]| {
        let output = Command::new("helm").args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        yaml_documents(&String::from_utf8(output.stdout).unwrap())
    };
    let rules = helm(&["template", "orders-operator", &chart, "--set", "monitoring.alerts.enabled=true"]);
    let rule = rules.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    for alert in
        rule["spec"]["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{SOURCE}/docs/runbooks.md#")), "{url}");
    }
    let told = helm(&["show", "chart", &chart]).remove(0);
    assert_eq!(told["home"], format!("{SOURCE}/README.md"));
    let schema: Value = serde_json::from_str(&release.read("ordersservice.schema.json")).unwrap();
    assert_eq!(
        schema["properties"]["kind"]["const"].as_str().or(schema["properties"]["kind"]["enum"][0].as_str()),
        Some("OrdersService")
    );
}

#[test]
fn the_provenance_names_a_binary_that_was_not_compiled_with_its_digest() {
    let given = "origin.given_binaries(['amd64', 'arm64'])";
    let digest = of_origin("origin.digest('Cargo.toml')", None);
    let expected = json!([{"name": "BINARY_AMD64", "digest": {"sha256": digest}}]);
    assert_eq!(of_origin(given, Some("Cargo.toml")), expected);
    assert_eq!(of_origin(given, None), json!([]));
}

#[test]
fn an_archive_has_completions_and_man_pages_of_the_program_under_both_its_names() {
    let program = env!("CARGO_BIN_EXE_orders-operator");
    let files =
        of_origin(&format!("{{name: text.decode() for name, text, _ in manual.files('{program}')}}"), None);
    let files = files.as_object().unwrap();
    for name in ["orders-operator", "kubectl-osvc"] {
        for path in [format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")] {
            let text = files[&format!("completions/{path}")].as_str().unwrap();
            assert!(text.contains(name) && text.contains("dry-run"), "{path}: {text}");
        }
    }
    for (page, flag) in [
        ("orders-operator-serve", "port"),
        ("kubectl-osvc-status", "output"),
        ("orders-operator-osvc-check", "pre"),
    ] {
        let text = files[&format!("man/man1/{page}.1")].as_str().unwrap().replace('\\', "");
        assert!(text.contains(&format!("--{flag}")), "{page}: {text}");
    }
    // Every command has a page.
    let help = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, listed) = help.split_once("\nCommands:\n").unwrap();
    let listed = listed.split("\n\n").next().unwrap().lines();
    let commands: Vec<_> = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(commands.contains(&"osvc"), "{commands:?}");
    for command in commands.into_iter().filter(|command| !["", "help"].contains(command)) {
        assert!(
            files.contains_key(&format!("man/man1/orders-operator-{command}.1")),
            "{command} has no page"
        );
    }
}

#[test]
fn krew_finds_in_the_manifest_what_the_archives_have() {
    let folder = std::env::temp_dir().join(format!("orders-operator-krew-{:016x}", fastrand::u64(..)));
    std::fs::create_dir(&folder).unwrap();
    let (version, out) = (env!("CARGO_PKG_VERSION"), folder.display());
    let archive = |arch: &str| format!("orders-operator-{version}-linux-{arch}.tar.gz");
    // A file in place of the program, which would take a while to be packed; another time makes another archive.
    let packed = |arch: &str| {
        let time = arch.len() + usize::from(arch == "arm64");
        format!("archives.write(Path('{out}/{}'), plugin.files(Path('Cargo.toml')), {time})", archive(arch))
    };
    let written = format!("plugin.write(Path('{out}'), '{version}', 'https://downloads.example/here/')");
    let digests =
        ["amd64", "arm64"].map(|arch| format!("origin.digest('{out}/{}')", archive(arch))).join(", ");
    // Without an archive there is nothing to install.
    assert_eq!(
        of_origin(&format!("[{written}, Path('{out}/osvc.yaml').exists()]"), None),
        json!([null, false])
    );
    let made = of_origin(&format!("[{}, {}, {written}, {digests}]", packed("amd64"), packed("arm64")), None);
    let manifest = yaml_documents(&std::fs::read_to_string(folder.join("osvc.yaml")).unwrap()).remove(0);
    let listed =
        Command::new("tar").args(["-tvzf", &archive("arm64")]).current_dir(&folder).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&json!("Plugin"), &json!("osvc")));
    assert_eq!(manifest["spec"]["version"], format!("v{version}"));
    assert!(manifest["spec"]["shortDescription"].as_str().unwrap().len() <= 50);
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2);
    for ((platform, arch), digest) in platforms.iter().zip(["amd64", "arm64"]).zip([&made[3], &made[4]]) {
        assert_eq!(platform["selector"]["matchLabels"], json!({"os": "linux", "arch": arch}));
        assert_eq!(platform["uri"], format!("https://downloads.example/here/{}", archive(arch)));
        assert_eq!(&platform["sha256"], digest);
        assert_eq!(platform["bin"], "orders-operator");
        let from: Vec<_> = platform["files"].as_array().unwrap().iter().map(|file| &file["from"]).collect();
        assert_eq!(from, ["orders-operator", "kubectl_complete-osvc", "LICENSE"]);
        for file in from {
            let suffix = format!(" {}", file.as_str().unwrap());
            let line = listed
                .lines()
                .find(|line| line.ends_with(&suffix))
                .unwrap_or_else(|| panic!("{file}: {listed}"));
            assert_eq!(line.starts_with("-rwxr-xr-x "), file != "LICENSE", "{line}");
        }
    }
    // What krew does not install, it tells how to.
    let told = manifest["spec"]["caveats"].as_str().unwrap();
    assert!(told.contains(&format!("/store/osvc/v{version}/kubectl_complete-osvc")), "{told}");
}

fn crd() -> Value {
    let text = std::fs::read_to_string(root().join("crds/ordersservices.yaml")).unwrap();
    yaml_documents(&text).remove(0)
}

#[test]
fn the_namespaced_manifest_has_nothing_of_the_whole_cluster_and_follows_its_namespace() {
    let release = Release::make();
    let objects = release.objects("namespace-install.yaml");
    assert!(objects.iter().all(|object| object["metadata"]["namespace"] == "orders-operator"));
    assert!(
        !kinds(&objects).contains("CustomResourceDefinition") && !kinds(&objects).contains("ClusterRole")
    );
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let from_field = json!({"fieldRef": {"fieldPath": "metadata.namespace"}});
    for container in deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
        let env = container["env"].as_array().unwrap();
        for name in ["WATCH_NAMESPACE", "LEASE_NAMESPACE"] {
            let variable = env.iter().find(|variable| variable["name"] == name).unwrap();
            assert_eq!(variable["valueFrom"], from_field);
        }
    }
}

#[test]
fn the_bill_of_materials_has_what_is_linked_into_the_program_in_the_locked_versions() {
    // For this machine, as a compiler for another one need not be here.
    let here = "toolchain.Toolchain(toolchain.host())";
    let bill = of_origin(&format!("json.loads(origin.bill_of_materials({here}))"), None);
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let components = bill["components"].as_array().unwrap();
    assert!(components.len() > 100, "{}", components.len());
    let (mut names, mut others) = (BTreeSet::new(), BTreeSet::new());
    for component in components {
        let text = |field: &str| component[field].as_str().unwrap();
        if text("purl").starts_with("pkg:generic/") {
            assert!(text("version").contains('.') && component["licenses"].is_array(), "{component}");
            others.insert(text("name"));
            continue;
        }
        let locked = format!("name = \"{}\"\nversion = \"{}\"\n", text("name"), text("version"));
        assert!(lock.contains(&locked), "{component}");
        assert!(
            component["hashes"][0]["content"].is_string() && component["licenses"].is_array(),
            "{component}"
        );
        names.insert(text("name"));
    }
    assert_eq!(others, BTreeSet::from(["glibc", "libgcc", "rust-std"]), "what is no crate");
    assert!(names.contains("kube-client") && names.contains("mongodb"));
    assert!(!names.contains("proptest"), "what only tests need is not in the program");
}

#[test]
fn the_labels_of_the_image_say_the_version_of_the_program() {
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let label = format!("org.opencontainers.image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(dockerfile.contains(&label), "{label}");
    let licence = format!("org.opencontainers.image.licenses=\"{}\"", env!("CARGO_PKG_LICENSE"));
    assert!(dockerfile.contains(&licence), "{licence}");
}
