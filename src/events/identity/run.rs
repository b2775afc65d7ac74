//! Shows or sets the identity.

use super::{args::IdentityArgs, error::IdentityError};
use crate::store::{Store, StoreError};

/// Does what `args` say, and returns what is to be printed.
///
/// # Errors
/// When the database cannot be used.
pub async fn run(args: IdentityArgs) -> Result<String, IdentityError> {
    let store = args.database.connect().await?;
    let done = identity(&store, &args).await;
    store.shutdown().await;
    Ok(done?)
}

async fn identity(store: &Store, args: &IdentityArgs) -> Result<String, StoreError> {
    let former = store.system_id().await?;
    match &args.set {
        Some(id) if *id != former => {
            store.set_system_id(id).await?;
            Ok(format!("this system was {former}, and is now {id}\n"))
        }
        _ => Ok(format!("this is the system {former}\n")),
    }
}
