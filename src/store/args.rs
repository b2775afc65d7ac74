//! How a command is told which database it is to use.

use clap::Args;

use super::{connect::ConnectOptions, database::Store, error::StoreError, tls::TlsArgs};

/// The database of a command that does one thing to it and ends.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// The database: mongodb://HOST/DATABASE (required). The environment variable keeps it out of process listings
    #[arg(long, env = "MONGO_URI", value_name = "URI", hide_env_values = true)]
    pub uri: Option<String>,

    /// The database's name [default: the URI's, else "orders"]
    #[arg(long, env = "MONGO_DATABASE", value_name = "NAME")]
    pub database: Option<String>,

    /// TLS to the database
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl DatabaseArgs {
    /// Connects, and prints on the standard error what of the connection string has no effect.
    ///
    /// # Errors
    /// When no database is named, or it cannot be used.
    pub async fn connect(&self) -> Result<Store, StoreError> {
        let uri = self.uri.as_deref().filter(|uri| !uri.trim().is_empty()).ok_or(StoreError::MissingUri)?;
        let tls = self.tls.read()?;
        let database = self.database.as_deref();
        let options = ConnectOptions { tls: tls.as_ref(), database, ..ConnectOptions::new(uri) };
        for warning in options.startup_warnings()? {
            eprintln!("warning: {warning}");
        }
        Store::connect(options).await
    }
}
