//! Handler of `GET /api/orders`: all orders of the user as a stream, or page by page.

use std::collections::HashMap;

use axum::{
    BoxError,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderName, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, TryStreamExt, stream};

use super::{
    error::ApiError,
    response::{JSON, json},
    session::SignedIn,
    state::ApiState,
    view::{DirectionView, OrderView, StatusView},
};
use crate::{
    order::{OrderId, OrderStatus, Reservation, UserId},
    store::{ListOrder, Listing, Page, Store},
};

/// The largest `limit`.
const MAX_LIMIT: u32 = 1000;

/// How many orders of a list without a limit are read at a time, which bounds the memory of such a request.
const CHUNK: u32 = 500;

/// The parameters of a request.
#[derive(Debug, PartialEq, Eq)]
struct ListParameters {
    listing: Listing,
    /// The order and the status as the client wrote them, for the link to the next page.
    kept: String,
    /// The size of the page; without it all orders are listed.
    limit: Option<u32>,
}

/// Lists the user's orders, oldest first
///
/// Without a limit, all of them are streamed. With a limit, the response is one page, and has a `Link` to the
/// next one unless it is the last. Whoever follows the links, and later asks for the orders after the last one,
/// sees each order once.
#[utoipa::path(
    get,
    path = "/api/orders",
    tag = "orders",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Maximum number of orders"),
        (
            "after" = Option<String>, Query, pattern = "^[0-9a-fA-F]{24}$", min_length = 24, max_length = 24,
            description = "Only orders after the one with this id",
        ),
        (
            "order" = Option<DirectionView>, Query,
            description = "`asc`, the default, or `desc` for the newest first",
        ),
        (
            "status" = Option<Vec<StatusView>>, Query, style = Form, explode = false, min_items = 1,
            description = "Only orders with one of these statuses",
        ),
    ),
    responses((
        status = 200, description = "The orders", body = Vec<OrderView>,
        headers(("Link" = Option<String>, description = "The next page: `rel=\"next\"`")),
    )),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    SignedIn(user): SignedIn,
    uri: Uri,
) -> Result<Response, ApiError> {
    let parameters = parse(user, &uri)?;
    let store = state.database.store()?;
    let page = store.page(&parameters.listing, parameters.limit.unwrap_or(CHUNK)).await?;
    Ok(match (page.next, parameters.limit) {
        (None, _) => json(StatusCode::OK, &views(&page.orders))?,
        (Some(next), Some(limit)) => {
            let link: (HeaderName, String) = (header::LINK, next_link(limit, next, &parameters.kept));
            ([link], json(StatusCode::OK, &views(&page.orders))?).into_response()
        }
        (Some(_), None) => {
            let body = Body::from_stream(stream_orders(store.clone(), parameters.listing, page));
            ([(header::CONTENT_TYPE, JSON)], body).into_response()
        }
    })
}

fn views(orders: &[Reservation]) -> Vec<OrderView<'_>> {
    orders.iter().map(OrderView::from).collect()
}

/// The orders of the first page and of all following ones, as one JSON array. An error aborts the connection before
/// the array is closed, so that no client mistakes a part of the list for all of it.
fn stream_orders(store: Store, listing: Listing, first: Page) -> impl Stream<Item = Result<Bytes, BoxError>> {
    let start = OrderStream { store, listing, page: Some(first), is_array_open: false };
    let chunks = stream::try_unfold(Some(start), |stream| async {
        let Some(stream) = stream else { return Ok(None) };
        stream.chunk().await.map(Some)
    });
    chunks
        .inspect_err(|error: &BoxError| tracing::warn!(%error, "a list of orders was aborted before its end"))
}

/// A list that is being streamed.
struct OrderStream {
    store: Store,
    listing: Listing,
    /// The next page, if it is read already.
    page: Option<Page>,
    /// Whether the opening bracket and the first order are written.
    is_array_open: bool,
}

impl OrderStream {
    /// The next piece of the array, and the rest of the stream: none once the array is closed.
    async fn chunk(mut self) -> Result<(Bytes, Option<Self>), BoxError> {
        let mut text = Vec::new();
        loop {
            let page = match self.page.take() {
                Some(page) => page,
                None => self.store.page(&self.listing, CHUNK).await?,
            };
            for order in &page.orders {
                text.push(if self.is_array_open { b',' } else { b'[' });
                self.is_array_open = true;
                serde_json::to_writer(&mut text, &OrderView::from(order))?;
            }
            match page.next {
                // None of the page's orders could be read; an empty chunk would be of no use.
                Some(next) if text.is_empty() => self.listing.after = Some(next),
                Some(next) => {
                    self.listing.after = Some(next);
                    return Ok((text.into(), Some(self)));
                }
                None => {
                    text.extend_from_slice(if self.is_array_open { b"]" } else { b"[]" });
                    return Ok((text.into(), None));
                }
            }
        }
    }
}

/// The `Link` header to the page after the order `next` (RFC 8288).
fn next_link(limit: u32, next: OrderId, kept: &str) -> String {
    format!("</api/orders?limit={limit}&after={next}{kept}>; rel=\"next\"")
}

/// Parses the query. Unknown parameters are ignored, as the Node.js service ignores all.
fn parse(user: UserId, uri: &Uri) -> Result<ListParameters, ApiError> {
    let parameters: HashMap<String, String> =
        Query::try_from_uri(uri).map(|Query(parameters)| parameters).unwrap_or_default();
    let get = |name| parameters.get(name).map(String::as_str);
    let limit = get("limit").map(limit).transpose()?;
    let after = get("after").map(str::parse).transpose().map_err(|_| ApiError::AfterInvalid)?;
    let is_newest_first = get("order").map(is_newest_first).transpose()?.unwrap_or_default();
    let statuses = get("status").map(statuses).transpose()?.unwrap_or_default();
    let order = match (is_newest_first, limit.is_some() || after.is_some()) {
        (true, _) => ListOrder::NewestFirst,
        (false, true) => ListOrder::AsShown,
        (false, false) => ListOrder::OldestFirst,
    };
    let kept = ["order", "status"].map(|name| match get(name) {
        Some(value) => format!("&{name}={value}"),
        None => String::new(),
    });
    let listing = Listing { user, statuses, after, order };
    Ok(ListParameters { listing, kept: kept.concat(), limit })
}

fn is_newest_first(text: &str) -> Result<bool, ApiError> {
    match text {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(ApiError::OrderInvalid),
    }
}

fn limit(text: &str) -> Result<u32, ApiError> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or(ApiError::LimitInvalid)
}

fn statuses(text: &str) -> Result<Vec<OrderStatus>, ApiError> {
    text.split(',').map(|status| status.parse().map_err(|_| ApiError::StatusInvalid)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "65f0c1d2a3b4c5d6e7f80912";

    fn parsed(query: &str) -> Result<ListParameters, ApiError> {
        parse(UserId::new("u1").unwrap(), &format!("/api/orders{query}").parse().unwrap())
    }

    #[test]
    fn without_known_parameters_all_orders_are_listed() {
        for query in ["", "?", "?page=2&sort=up", "?Limit=0"] {
            let all = parsed(query).unwrap();
            assert_eq!((all.limit, all.listing.after, all.listing.statuses), (None, None, vec![]));
            assert_eq!(all.listing.order, ListOrder::OldestFirst);
        }
    }

    #[test]
    fn pages_are_in_the_order_in_which_they_are_shown_unless_the_newest_come_first() {
        for (query, order) in [
            ("?limit=5", ListOrder::AsShown),
            (&format!("?after={ID}"), ListOrder::AsShown),
            ("?limit=5&order=asc", ListOrder::AsShown),
            ("?order=asc", ListOrder::OldestFirst),
            ("?order=desc", ListOrder::NewestFirst),
            ("?limit=5&order=desc", ListOrder::NewestFirst),
        ] {
            assert_eq!(parsed(query).unwrap().listing.order, order, "{query}");
        }
        for order in ["", "up", "DESC", "desc,asc"] {
            assert_eq!(parsed(&format!("?order={order}")), Err(ApiError::OrderInvalid), "{order}");
        }
    }

    #[test]
    fn every_parameter_is_parsed_and_each_has_an_error_of_its_own() {
        let page = parsed(&format!("?limit=2&after={ID}&status=created,awaiting:payment")).unwrap();
        assert_eq!((page.limit, page.listing.after), (Some(2), ID.parse().ok()));
        assert_eq!(page.listing.statuses, OrderStatus::OPEN);
        assert_eq!(
            parsed("?status=awaiting%3Apayment").unwrap().listing.statuses,
            [OrderStatus::AwaitingPayment]
        );
        for limit in ["", "0", "1001", "-1", "two", "2.0", "99999999999"] {
            assert_eq!(parsed(&format!("?limit={limit}")), Err(ApiError::LimitInvalid), "{limit}");
        }
        for after in ["", "x", "65f0c1d2a3b4c5d6e7f8091"] {
            assert_eq!(parsed(&format!("?after={after}")), Err(ApiError::AfterInvalid), "{after}");
        }
        for status in ["", "paid", "created,", "Created", "created;cancelled"] {
            assert_eq!(parsed(&format!("?status={status}")), Err(ApiError::StatusInvalid), "{status}");
        }
    }

    #[test]
    fn the_link_keeps_the_parameters_and_continues_after_the_page() {
        let next: OrderId = ID.parse().unwrap();
        let kept = parsed("?status=created,cancelled&order=desc&limit=2").unwrap().kept;
        let link = next_link(2, next, &kept);
        let target = format!("/api/orders?limit=2&after={ID}&order=desc&status=created,cancelled");
        assert_eq!(link, format!("<{target}>; rel=\"next\""));
        let target = link.split(['<', '>']).nth(1).unwrap().strip_prefix("/api/orders").unwrap();
        let next_page = parsed(target).unwrap();
        assert_eq!((next_page.limit, next_page.listing.after), (Some(2), Some(next)));
        assert_eq!(next_page.listing.order, ListOrder::NewestFirst);
        assert_eq!(next_page.listing.statuses, [OrderStatus::Created, OrderStatus::Cancelled]);
    }

    proptest! {
        #[test]
        fn no_query_panics_and_a_page_is_never_larger_than_allowed(query in "[?&=a-z0-9%:,+]{0,60}") {
            if let Ok(uri) = format!("/api/orders?limit=5&{query}").parse()
                && let Ok(parameters) = parse(UserId::new("u1").unwrap(), &uri)
            {
                prop_assert!(parameters.limit.is_some_and(|limit| (1..=MAX_LIMIT).contains(&limit)));
            }
        }
    }
}
