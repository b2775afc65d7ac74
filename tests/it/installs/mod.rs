//! The operator as users install it, with its cluster-wide rights, on an API server that has nothing else of ours: by the
//! commands of the pages. `make test-installs` runs what is ignored here.
//!
//! ```text
//! page        docs/installing.md
//! others      the pages that install, watch, upgrade and remove the operator
//! release     the folder of a release
//! examples    examples/
//! osvc_check  `kubectl osvc check` before and after
//! osvc_page   docs/osvc.md
//! ```

mod examples;
mod osvc_check;
mod osvc_page;
mod others;
mod page;
mod release;
