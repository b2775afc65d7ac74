//! The Secrets that OrdersServices refer to.
//!
//! No watch shows them, since that would take the right to list every Secret. Instead each is read once for all
//! resources that name it, and read again when its copy is old. Of its values only hashes are kept.
//!
//! ```text
//! references  which Secrets a resource refers to, and reading them
//! refresh     reading them again, and requeueing the resources that refer to one that has changed
//! ```

pub mod references;
pub mod refresh;
