//! Someone who follows a page of docs/: its commands, as they are there.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tokio::process;

use crate::cluster::TestNamespace;

/// Someone who follows a page in a namespace, in the folder of the test, with `orders-operator` on the PATH and what
/// [`Reader::has`] gave.
pub struct Reader {
    folder: PathBuf,
    kubeconfig: PathBuf,
    names: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Reader {
    /// On the cluster of this kubeconfig.
    pub async fn of(namespace: &TestNamespace, kubeconfig: &str) -> Self {
        let folder = namespace.folder().to_owned();
        let kubeconfig_of_theirs = folder.join("reader");
        std::fs::copy(kubeconfig, &kubeconfig_of_theirs).unwrap();
        let reader =
            Self { folder, kubeconfig: kubeconfig_of_theirs, names: Vec::new(), environment: Vec::new() };
        reader.does(&format!("kubectl config set-context --current --namespace={}", namespace.name)).await;
        reader
    }

    /// On a machine from which no cluster is reached.
    pub fn without_cluster(folder: &Path) -> Self {
        let (folder, kubeconfig) = (folder.to_owned(), folder.join("there is none"));
        Self { folder, kubeconfig, names: Vec::new(), environment: Vec::new() }
    }

    /// What the page calls `from` is called `to` here.
    pub fn calls(mut self, from: &str, to: &str) -> Self {
        self.names.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Has set this variable.
    pub fn knows(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Has this program, unless the machine has it already.
    pub fn has(self, name: &str, command: &str) -> Self {
        let path = std::env::var("PATH").unwrap();
        if path.split(':').any(|folder| Path::new(folder).join(name).exists()) {
            return self;
        }
        let folder = self.folder.join("bin");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), format!("#!/bin/sh\nexec {command} \"$@\"\n")).unwrap();
        std::fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Commands of the page, by the names that are used here.
    pub fn as_called(&self, commands: &str) -> String {
        self.names.iter().fold(commands.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Runs commands of the page; gives what they print.
    pub async fn does(&self, commands: &str) -> String {
        let commands = self.as_called(commands);
        let output = self.command(&commands).output().await.unwrap();
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{commands}\n{}{}", told(&output.stdout), told(&output.stderr));
        told(&output.stdout)
    }

    /// A command that is not on the page, not yet run; it ends with whoever holds it.
    pub fn command(&self, commands: &str) -> process::Command {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_orders-operator"));
        let own = [self.folder.join("bin"), program.parent().unwrap().to_owned()];
        let own = own.map(|folder| folder.display().to_string());
        let path = format!("{}:{}", own.join(":"), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", commands]).current_dir(&self.folder);
        command.env("KUBECONFIG", &self.kubeconfig).env("PATH", path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut command = process::Command::from(command);
        command.kill_on_drop(true);
        command
    }

    /// Changes a file, as with an editor.
    pub fn edits(&self, name: &str, from: &str, to: &str) {
        let path = self.folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
}
