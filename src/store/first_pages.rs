//! Combines concurrent requests for the first pages of several users into one query.

use std::collections::HashMap;

use futures::future::join_all;
use mongodb::{
    Collection,
    bson::{Bson, RawDocumentBuf, doc},
};

use super::{
    answer::at_most,
    batcher::Batcher,
    cast,
    document::user_orders_keys,
    error::StoreError,
    page_query::{LISTING, ListOrder, Listing, find},
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
                let order = ListOrder::OldestFirst;
                let listing = Listing { user: page.user.clone(), statuses: Vec::new(), after: None, order };
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
    let forms: Vec<_> = users.iter().flat_map(|user| cast::forms_of_user(user)).collect();
    let mut found = owned_by_any(orders, &forms).await?;
    // Users by numbers sort before those by texts, and these before those by ObjectIds, which are few and far between.
    let last = found.last().filter(|_| is_cut(&found));
    let cut_at = last.map(|last| last.get_str("userId").unwrap_or_default().to_owned());
    if cut_at.is_some() {
        let forms: Vec<_> = forms.into_iter().filter(|form| matches!(form, Bson::ObjectId(_))).collect();
        let others = if forms.is_empty() { Vec::new() } else { owned_by_any(orders, &forms).await? };
        if is_cut(&others) {
            return Ok(HashMap::new());
        }
        found.retain(|order| order.get_object_id("userId").is_err());
        found.extend(others);
    }
    // Servers compare texts by their bytes, as Rust does.
    let is_whole = |user: &str| cut_at.as_deref().is_none_or(|cut_at| user < cut_at);
    let mut by_user: HashMap<_, Vec<RawDocumentBuf>> =
        users.into_iter().filter(|user| is_whole(user)).map(|user| (user.to_owned(), Vec::new())).collect();
    for order in found {
        let user = order.get("userId").ok().flatten().and_then(cast::id);
        if let Some(orders) = user.and_then(|user| by_user.get_mut(&user)) {
            orders.push(order);
        }
    }
    for orders in by_user.values_mut() {
        // Those of one form are sorted already; those of another come after them.
        orders.sort_by_key(|order| order.get_object_id("_id").ok());
    }
    Ok(by_user)
}

/// The orders whose `userId` is one of `forms`, up to the limit.
async fn owned_by_any(
    orders: &Collection<RawDocumentBuf>,
    forms: &[Bson],
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    retry::transient(LISTING, || async {
        let find = orders.find(doc! { "userId": { "$in": forms } }).sort(user_orders_keys());
        at_most(MAX_ORDERS, find.limit(i64::from(MAX_ORDERS)).batch_size(MAX_ORDERS).await?).await
    })
    .await
}

/// Whether there may be more than was found.
fn is_cut(found: &[RawDocumentBuf]) -> bool {
    found.len() as u64 >= u64::from(MAX_ORDERS)
}
