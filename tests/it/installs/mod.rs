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

use tokio::sync::{Mutex, MutexGuard};

use crate::{bed::setting, cluster::TestNamespace};

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

/// Waits until no other test has the API server, and makes a namespace there.
async fn alone(name: &str) -> (MutexGuard<'static, ()>, TestNamespace) {
    let alone = INSTALL_API.lock().await;
    (alone, TestNamespace::create_at(name, &kubeconfig()).await)
}
