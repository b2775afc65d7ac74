//! The operator as users install it, with its cluster-wide rights, on an API server that has nothing else of ours: by the
//! commands of the pages. `make test-installs` runs what is ignored here.
//!
//! ```text
//! page        docs/installing.md
//! others      the pages that install, watch, upgrade and remove the operator
//! release     the folder of a release
//! examples    examples/
//! osvc_check  `kubectl osvc check` before and after
//! osvc_page   docs/kubectl-osvc.md
//! ```

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
};

use crate::{
    bed::setting,
    cluster::{TestNamespace, root},
    watchdog,
};

mod examples;
mod osvc_check;
mod osvc_page;
mod others;
mod page;
mod release;

/// One test at a time: the operator's CRD and cluster roles can be there once.
static INSTALL_API: Mutex<()> = Mutex::const_new(());

/// Where the API server is.
fn kubeconfig() -> String {
    setting("INSTALL_KUBECONFIG")
}

/// Waits until no other test has the API server, and removes what those before it left, however they ended.
async fn alone() -> MutexGuard<'static, ()> {
    let alone = INSTALL_API.lock().await;
    watchdog::watch();
    clear().await;
    alone
}

/// Removes what the operator or a test can meet of those before, whichever namespace it is in, and every namespace that a page
/// names: in the bed's API server, which has no node, and never in somebody's cluster. The namespaces of tests themselves are
/// not waited for, which takes five seconds each: nobody uses their names again.
async fn clear() {
    assert_eq!(
        done("kubectl get nodes --output name").await,
        "",
        "INSTALL_KUBECONFIG is of a cluster in use"
    );
    done(
        "kubectl delete deployments,ingresses --all --all-namespaces --cascade=foreground --timeout=2m; kubectl \
         get \
         crd,namespaces,ingressclasses,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings \
         --selector '!kubernetes.io/bootstrapping' --output name | sed -E '/^namespace.(default|kube-.*|it-.*)$/d' \
         | xargs --no-run-if-empty kubectl delete --ignore-not-found --timeout=2m",
    )
    .await;
}

/// A namespace for a test that is [`alone`], with nothing else there.
async fn namespace(test: &str) -> TestNamespace {
    TestNamespace::create_beside(test, &kubeconfig()).await
}

/// Runs commands as someone does who has this API server, and `orders-operator` on the PATH.
async fn shell(script: &str) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_orders-operator"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(root());
    command.env("KUBECONFIG", kubeconfig()).env("PATH", path);
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn done(script: &str) -> String {
    let output = shell(script).await;
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{}{why}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}
