//! `migrate`: from the hand-written manifests of a system to an OrdersService.
//!
//! The core is pure: objects in; an OrdersService, Secrets and findings out. Everything that is read of an object is taken out
//! of it, and what is still there at the end is listed, so nothing is lost without a word. What would be refused is found out
//! by asking `render`, so there is one source of what may be written.
//!
//! ```text
//! args         the command line
//! error        why nothing is translated
//! run          reads the inputs, and gives what is printed
//! files        files and folders
//! cluster      a namespace of a running cluster
//!
//! documents    from texts to objects, within budgets
//! fields       the fields of an object, taken out one by one
//! finding      what is said
//! system       which objects are the orders service, and what is around it
//! plan         the translation
//! ingress      what an Ingress says, in every spelling
//! ports        whether the Services have the ports that Ingresses name
//! rewrite      what a rewrite makes of a path
//! routes       from Ingresses to the routes of an OrdersService
//! annotations  what becomes of the annotations of Ingresses
//! workload     from Deployment and Service to the pods
//! environment  the variables of a container
//! connections  from variables to database, sessions and broker
//! skaffold     what of a skaffold.yaml concerns the orders
//! judge        what `render` would say
//! output       the result as YAML
//! ```

mod annotations;
mod args;
mod cluster;
mod connections;
mod documents;
mod environment;
mod error;
mod fields;
mod files;
mod finding;
mod ingress;
mod judge;
mod output;
mod plan;
mod ports;
#[cfg(test)]
mod properties;
mod rewrite;
mod routes;
mod run;
mod skaffold;
mod system;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_advice;
#[cfg(test)]
mod tests_of_the_switch;
mod workload;

pub use args::MigrateArgs;
pub use error::MigrateError;
pub use finding::{Finding, Findings, Kind, Whom};
pub use run::{Migrated, run};
pub use system::SystemError;
