//! `status`: one OrdersService, and what is around it.
//!
//! ```text
//! report  what is told
//! events  of it, the Events of the cluster
//! read    reads it
//! print   as text
//! ```

mod events;
mod print;
mod read;
mod report;

pub(super) use report::PodView;

use super::{
    args::StatusArgs,
    cluster::Cluster,
    error::OsvcError,
    paint::Paint,
    printed::{Output, Printed, for_programs},
};

/// Reads an OrdersService and what is around it.
///
/// # Errors
/// When it is not there, or cannot be read.
pub(super) async fn run(args: &StatusArgs) -> Result<Printed, OsvcError> {
    let cluster = Cluster::of(&args.cluster).await?;
    let service = read::service(&cluster, &args.name).await?;
    let report = read::report(&cluster, &service).await;
    let text = match args.output {
        Output::Text => print::text(&report, Paint::of_stdout())?,
        Output::Json => for_programs(&report, false)?,
        Output::Yaml => for_programs(&report, true)?,
    };
    Ok(Printed { text, code: u8::from(!report.ready) })
}
