//! Which database is meant where neither the connection string nor a setting names one.
//!
//! mongoose then uses `test`, and this program `orders`. Whoever replaces the one by the other would see an empty shop, and
//! sell what is sold already.

use mongodb::bson::{RawDocumentBuf, doc};

use super::{
    connect::{ConnectOptions, DEFAULT_DATABASE},
    database::Store,
    document::ORDERS,
    error::{ErrorCategory, StoreError},
    retry,
};

/// The database that MongoDB's drivers use if none is named.
const DRIVERS_DEFAULT: &str = "test";

const LOOKING: &str = "looking for orders in another database";

impl ConnectOptions<'_> {
    /// Whether neither the URI nor [`ConnectOptions::database`] names a database, so that a default is used.
    ///
    /// # Errors
    /// As [`ConnectOptions::target`].
    pub(super) fn is_chosen_by_default(&self) -> Result<bool, StoreError> {
        Ok(self.named(&self.parse()?.0).is_none())
    }

    /// What to say at the start of a program: the [`ConnectOptions::warnings`], and that no database is named.
    ///
    /// # Errors
    /// As [`ConnectOptions::target`].
    pub fn startup_warnings(&self) -> Result<Vec<String>, StoreError> {
        let mut warnings = self.warnings()?;
        if self.is_chosen_by_default()? {
            warnings.push(
                "the MongoDB URI names no database, so \"orders\" is used; mongoose would use \"test\""
                    .to_owned(),
            );
        }
        Ok(warnings)
    }
}

impl Store {
    /// Checks that no orders are where mongoose would have stored them, if this database was chosen by default and has no
    /// orders.
    ///
    /// # Errors
    /// When there are, or the database cannot be asked.
    pub async fn check_choice(&self) -> Result<(), StoreError> {
        if !self.is_chosen_by_default() || self.has_orders(DEFAULT_DATABASE).await? {
            return Ok(());
        }
        match self.has_orders(DRIVERS_DEFAULT).await {
            Ok(true) => Err(StoreError::OrdersElsewhere(DRIVERS_DEFAULT)),
            Ok(false) => Ok(()),
            // Who may not read that database has stored nothing in it.
            Err(error) if error.category() == ErrorCategory::AuthenticationFailed => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn has_orders(&self, database: &str) -> Result<bool, StoreError> {
        let orders = self.database.client().database(database).collection::<RawDocumentBuf>(ORDERS);
        let found = retry::transient(LOOKING, || async {
            orders.find_one(doc! {}).projection(doc! { "_id": 1 }).await
        });
        Ok(found.await?.is_some())
    }
}
