//! Combines concurrent requests for the first pages of several users into one query.

use std::collections::HashMap;

use futures::future::join_all;
use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc},
};

use super::{
    answer::at_most,
    batcher::Batcher,
    document::user_orders_keys,
    error::StoreError,
    page_query::{LISTING, Listing, find},
    retry,
};
use crate::order::UserId;

/// Batches the queries for first pages of all statuses.
#[derive(Clone)]
pub(super) struct FirstPages(Batcher<FirstPage, Result<Vec<RawDocumentBuf>, StoreError>>);

impl Default for FirstPages {
    fn default() -> Self {
        Self(Batcher::new(LISTING))
    }
}

#[derive(Clone)]
struct FirstPage {
    user: UserId,
    limit: u32,
}

impl FirstPages {
    pub(super) async fn find(
        &self,
        orders: Collection<RawDocumentBuf>,
        user: UserId,
        limit: u32,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let send = move |pages| find_first(orders.clone(), pages);
        self.0.call(FirstPage { user, limit }, 1, send).await?
    }
}

/// The most orders of one query for several users, of whom most have few. Users whose orders may not all be among
/// them get a query of their own.
const MAX_ORDERS: u32 = 1000;

/// The orders of each of `pages`.
async fn find_first(
    orders: Collection<RawDocumentBuf>,
    pages: Vec<FirstPage>,
) -> Vec<Result<Vec<RawDocumentBuf>, StoreError>> {
    let combined = if pages.len() > 1 { find_for_all(&orders, &pages).await } else { Ok(HashMap::new()) };
    let found = match combined {
        Ok(found) => found,
        Err(error) => return vec![Err(error); pages.len()],
    };
    join_all(pages.iter().map(|page| async {
        match found.get(page.user.as_str()) {
            Some(found) => Ok(found.iter().take(page.limit as usize).cloned().collect()),
            None => {
                let listing = Listing { user: page.user.clone(), statuses: Vec::new(), after: None };
                find(&orders, &listing, page.limit).await
            }
        }
    }))
    .await
}

/// By user, all orders of each user whose orders are complete in the result.
async fn find_for_all(
    orders: &Collection<RawDocumentBuf>,
    pages: &[FirstPage],
) -> Result<HashMap<String, Vec<RawDocumentBuf>>, StoreError> {
    let users: Vec<_> = pages.iter().map(|page| page.user.as_str()).collect();
    let found: Vec<RawDocumentBuf> = retry::transient(LISTING, || async {
        let find = orders.find(doc! { "userId": { "$in": &users } }).sort(user_orders_keys());
        at_most(MAX_ORDERS, find.limit(i64::from(MAX_ORDERS)).batch_size(MAX_ORDERS).await?).await
    })
    .await?;
    let is_cut = found.len() as u64 >= u64::from(MAX_ORDERS);
    let last = found.last().and_then(|order| order.get_str("userId").ok()).unwrap_or_default().to_owned();
    // Servers compare strings by their bytes, as Rust does.
    let is_whole = |user: &&str| !is_cut || **user < *last;
    let mut by_user: HashMap<_, _> =
        users.into_iter().filter(is_whole).map(|user| (user.to_owned(), Vec::new())).collect();
    for order in found {
        if let Some(orders) = order.get_str("userId").ok().and_then(|user| by_user.get_mut(user)) {
            orders.push(order);
        }
    }
    Ok(by_user)
}
