//! Handler of `GET /api/orders`: all orders of the user, or page by page.
//!
//! A list is read and written little by little, in memory that is taken before. What is large is streamed.

use std::collections::{BTreeSet, HashMap, VecDeque};

use axum::{
    BoxError, Extension,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, TryStreamExt, stream};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::{
    base_path::BasePath,
    budget::Account,
    error::ApiError,
    metrics::Metrics,
    reading::Reading,
    request_span::RequestSpan,
    response::{JSON, of_json},
    session::SignedIn,
    state::ApiState,
    untaken::held,
    view::{DirectionView, OrderView, StatusView},
};
use crate::{
    order::{Order, OrderId, OrderStatus, UserId},
    store::{ListOrder, Listing, Page, Store, StoreError},
};

/// The largest `limit`.
const MAX_LIMIT: u32 = 1000;

/// How many orders of a list without a limit are read at a time, which bounds the memory of such a request.
const CHUNK: u32 = 500;

/// How many tickets are read at a time: with the longest titles that events and imports take, two megabytes.
const TICKETS: usize = 250;

/// How large a list or a page may be that is answered as a whole; others are streamed.
const WHOLE: usize = 512 * 1024;

/// How large a chunk of a stream may be, and one more order. Usually a chunk ends before that, with the orders that were read
/// at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a stream takes until it is taken: a chunk, and orders that are read and not yet written.
const STREAMED: usize = 384 * 1024;

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
    Extension(RequestSpan(span)): Extension<RequestSpan>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let ListParameters { listing, kept, limit } = parse(user, &uri)?;
    let size = limit.unwrap_or(CHUNK);
    // Until the orders are written, or counted with a stream.
    let mut room = state.reading.orders(size as usize).await?;
    let base = state.base.clone();
    let mut list = OrderList::new(state, listing)?;
    list.read(size).await?;
    room.keep_for_orders(list.orders.len());
    let link = limit.and(list.next).map(|next| {
        list.next = None;
        [(header::LINK, next_link(&base, size, next, &kept))]
    });
    list.write(if list.next.is_none() { WHOLE } else { CHUNK_BYTES }).await?;
    let response = if list.is_written() {
        held(of_json(StatusCode::OK, list.close()), list.account)
    } else {
        list.count(STREAMED)?;
        ([(header::CONTENT_TYPE, JSON)], Body::from_stream(chunks(list, span))).into_response()
    };
    Ok((link, response).into_response())
}

/// A list as one JSON array, in chunks. An error aborts the connection before the array is closed, so that no client
/// mistakes a part of the list for all of it.
fn chunks(list: OrderList, span: Span) -> impl Stream<Item = Result<Bytes, BoxError>> {
    // The server polls this outside of the request's span.
    let (metrics, trace, of_request) = (list.metrics.clone(), Span::current(), span.clone());
    let chunks = stream::try_unfold(list, move |list| {
        let (span, trace) = (of_request.clone(), trace.clone());
        async move {
            if list.is_closed {
                return Ok(None);
            }
            // In a task of its own, so that it is done with what others wait for whether this is polled or not.
            let chunk =
                AbortOnDropHandle::new(tokio::spawn(list.chunk().instrument(trace).instrument(span))).await?;
            chunk.map(Some).map_err(|error| error.message().into())
        }
    });
    chunks.inspect_err(move |error: &BoxError| {
        metrics.list_aborted();
        span.in_scope(|| tracing::warn!(%error, "a list of orders was aborted before its end"));
    })
}

/// A list that is being written.
struct OrderList {
    store: Store,
    reading: Reading,
    metrics: Metrics,
    /// What is counted of it until the client has taken all.
    account: Account,
    listing: Listing,
    /// The orders that are read, and not yet written.
    orders: VecDeque<Order>,
    /// The order after which the next page begins.
    next: Option<OrderId>,
    /// For how many orders the tickets are read at a time.
    at_a_time: usize,
    /// What is written, and not yet handed over.
    text: Vec<u8>,
    /// Whether the opening bracket and the first order are written.
    is_array_open: bool,
    is_closed: bool,
}

impl OrderList {
    fn new(state: ApiState, listing: Listing) -> Result<Self, ApiError> {
        Ok(Self {
            store: state.database.store()?.clone(),
            reading: state.reading,
            metrics: state.metrics,
            account: state.budget.account_of(listing.user.clone()),
            listing,
            orders: VecDeque::new(),
            next: None,
            at_a_time: TICKETS,
            text: Vec::new(),
            is_array_open: false,
            is_closed: false,
        })
    }

    /// Reads a page.
    async fn read(&mut self, limit: u32) -> Result<(), StoreError> {
        let Page { orders, next } = self.store.page(&self.listing, limit).await?;
        (self.orders, self.next) = (orders.into(), next);
        Ok(())
    }

    /// Writes the orders that are read, until there are so many bytes.
    async fn write(&mut self, most: usize) -> Result<(), ApiError> {
        // For all of them: whoever has begun is soon done, rather than everyone late.
        let _room = self.reading.tickets(self.orders.len().min(TICKETS)).await?;
        while !self.orders.is_empty() && self.text.len() < most {
            let orders = || self.orders.iter().take(self.at_a_time);
            let ids: BTreeSet<_> = orders().filter_map(|order| order.ticket).collect();
            let tickets = self.store.tickets(&ids).await?;
            let mut written = 0;
            for order in orders() {
                if self.text.len() >= most {
                    break;
                }
                self.text.push(if self.is_array_open { b',' } else { b'[' });
                self.is_array_open = true;
                let ticket = order.ticket.and_then(|id| tickets.get(&id));
                serde_json::to_writer(&mut self.text, &OrderView::new(order, ticket))?;
                written += 1;
            }
            self.orders.drain(..written);
            // Where tickets are so large that some were read for nothing, these are fewer the next time.
            self.at_a_time = (2 * written).clamp(1, TICKETS);
            self.count(self.text.len())?;
        }
        Ok(())
    }

    /// The next chunk, which has something of the array.
    async fn chunk(mut self) -> Result<(Bytes, Self), ApiError> {
        loop {
            if self.is_written() {
                return Ok((self.close().into(), self));
            }
            if !self.text.is_empty() {
                return Ok((std::mem::take(&mut self.text).into(), self));
            }
            if self.orders.is_empty() {
                let _room = self.reading.orders(CHUNK as usize).await?;
                self.listing.after = self.next;
                self.read(CHUNK).await?;
            }
            // These orders are counted with the stream.
            self.write(CHUNK_BYTES).await?;
        }
    }

    fn is_written(&self) -> bool {
        self.orders.is_empty() && self.next.is_none()
    }

    /// The end of the array, with what is not yet handed over.
    fn close(&mut self) -> Vec<u8> {
        self.is_closed = true;
        self.text.extend_from_slice(if self.is_array_open { b"]" } else { b"[]" });
        std::mem::take(&mut self.text)
    }

    fn count(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.account.grow_to(bytes).inspect_err(|_| self.metrics.over_budget())
    }
}

/// The `Link` header to the page after the order `next` (RFC 8288).
fn next_link(base: &BasePath, limit: u32, next: OrderId, kept: &str) -> String {
    format!("<{base}?limit={limit}&after={next}{kept}>; rel=\"next\"")
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
        let link = next_link(&"/Orders".parse().unwrap(), 2, next, &kept);
        let target = format!("/Orders?limit=2&after={ID}&order=desc&status=created,cancelled");
        assert_eq!(link, format!("<{target}>; rel=\"next\""));
        let target = link.split(['<', '>']).nth(1).unwrap().strip_prefix("/Orders").unwrap();
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
