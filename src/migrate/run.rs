//! Reads the inputs, and gives what is to be printed.

use super::{
    args::MigrateArgs,
    cluster,
    documents::Reader,
    error::MigrateError,
    files,
    finding::Findings,
    output,
    plan::{Options, migrate},
    skaffold,
};

/// What is printed.
#[derive(Debug)]
pub struct Migrated {
    /// The YAML, for the standard output.
    pub yaml: String,
    /// What is to be said, for the standard error.
    pub findings: Findings,
}

impl Migrated {
    /// The exit code: 3 if something is left to do.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.findings.is_anything_left() { 3 } else { 0 }
    }
}

/// Translates what `args` name.
///
/// # Errors
/// When an input cannot be read, or has no orders service.
pub async fn run(args: MigrateArgs) -> Result<Migrated, MigrateError> {
    let (mut reader, mut findings) = (Reader::default(), Findings::default());
    let mut namespace = args.namespace;
    if args.from_cluster {
        namespace = Some(cluster::read(namespace.as_deref(), &mut reader, &mut findings).await?);
    } else {
        files::read(&args.inputs, &mut reader, &mut findings)?;
    }
    let options =
        Options { orders: args.orders, name: args.name, namespace, hosts: args.hosts, passive: args.passive };
    for object in reader.objects.iter().filter(|object| object.group == "skaffold") {
        skaffold::unread(object, &mut findings);
    }
    let unread = findings.table();
    let migration = migrate(reader.objects, findings, &options).map_err(|source| {
        let said = if unread.is_empty() {
            String::new()
        } else {
            format!("\nIt may be in what was not read:\n{}", unread.trim_end())
        };
        MigrateError::System { source, said }
    })?;
    Ok(Migrated { yaml: output::yaml(&migration)?, findings: migration.findings })
}
