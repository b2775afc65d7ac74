//! `GET /api/orders`: all orders of the user as one stream, or page by page.

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
    Api,
    error::ApiError,
    session::SignedIn,
    view::{JSON, OrderView, StatusView, json},
};
use crate::{
    order::{OrderId, OrderStatus, Reservation, UserId},
    store::{Listing, Page, Store},
};

/// The largest page that may be asked for.
const LARGEST: u32 = 1000;

/// How many orders of an unbounded list are read at a time; it bounds the memory of each such request.
const AT_A_TIME: u32 = 500;

/// What of the user's orders is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    listing: Listing,
    /// As it was written, for the link to the next page.
    status: Option<String>,
    /// All of them when it is not given.
    limit: Option<u32>,
}

/// Lists my orders, oldest first
///
/// Without a limit it is all of them, written while they are read. With one it is a page, which has a
/// `Link` to the next one unless it is the last.
#[utoipa::path(
    get,
    path = "/api/orders",
    tag = "orders",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most"),
        ("after" = Option<String>, Query, description = "Only those that come after the order with this id"),
        (
            "status" = Option<Vec<StatusView>>, Query, style = Form, explode = false,
            description = "Only those in one of these statuses",
        ),
    ),
    responses((
        status = 200, description = "The orders", body = Vec<OrderView>,
        headers(("Link" = Option<String>, description = "`rel=\"next\"`: where the next page is")),
    )),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn list(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = parse(user, &uri)?;
    let store = api.database.store()?;
    let page = store.page(&asked.listing, asked.limit.unwrap_or(AT_A_TIME)).await?;
    Ok(match (page.next, asked.limit) {
        (None, _) => json(StatusCode::OK, &views(&page.orders)),
        (Some(next), Some(limit)) => {
            let link: (HeaderName, String) = (header::LINK, next_link(limit, next, asked.status.as_deref()));
            ([link], json(StatusCode::OK, &views(&page.orders))).into_response()
        }
        (Some(_), None) => {
            let body = Body::from_stream(written(store.clone(), asked.listing, page));
            ([(header::CONTENT_TYPE, JSON)], body).into_response()
        }
    })
}

fn views(orders: &[Reservation]) -> Vec<OrderView<'_>> {
    orders.iter().map(OrderView::from).collect()
}

/// `first` and all that come after it, as one JSON array. An error ends the connection before the
/// array is closed, so that no client takes a part for the whole.
fn written(store: Store, listing: Listing, first: Page) -> impl Stream<Item = Result<Bytes, BoxError>> {
    let begin = Written { store, listing, page: Some(first), begun: false };
    let chunks = stream::try_unfold(Some(begin), |written| async {
        let Some(written) = written else { return Ok(None) };
        written.chunk().await.map(Some)
    });
    chunks.inspect_err(|error: &BoxError| tracing::warn!(%error, "a list of orders was cut off in its midst"))
}

/// A list in the midst of being written.
struct Written {
    store: Store,
    listing: Listing,
    /// The page that comes next, when it is here already.
    page: Option<Page>,
    /// Whether the array has an order already.
    begun: bool,
}

impl Written {
    /// The next piece of the array, and what is left; that is nothing once the array is closed.
    async fn chunk(mut self) -> Result<(Bytes, Option<Self>), BoxError> {
        let mut text = Vec::new();
        loop {
            let page = match self.page.take() {
                Some(page) => page,
                None => self.store.page(&self.listing, AT_A_TIME).await?,
            };
            for order in &page.orders {
                text.push(if self.begun { b',' } else { b'[' });
                self.begun = true;
                serde_json::to_writer(&mut text, &OrderView::from(order))?;
            }
            match page.next {
                // A page of which nothing could be read.
                Some(next) if text.is_empty() => self.listing.after = Some(next),
                Some(next) => {
                    self.listing.after = Some(next);
                    return Ok((text.into(), Some(self)));
                }
                None => {
                    text.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                    return Ok((text.into(), None));
                }
            }
        }
    }
}

/// The address of the page after `next`, as a `Link` header has it (RFC 8288).
fn next_link(limit: u32, next: OrderId, status: Option<&str>) -> String {
    let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
    format!("</api/orders?limit={limit}&after={next}{status}>; rel=\"next\"")
}

/// Reads the query; parameters that are not ours are ignored, as the course ignores all.
fn parse(user: UserId, uri: &Uri) -> Result<Asked, ApiError> {
    let mut parameters: HashMap<String, String> =
        Query::try_from_uri(uri).map(|Query(parameters)| parameters).unwrap_or_default();
    let limit = parameters.get("limit").map(|text| limit(text)).transpose()?;
    let after = parameters.get("after").map(|text| text.parse()).transpose();
    let status = parameters.remove("status");
    let statuses = status.as_deref().map(statuses).transpose()?.unwrap_or_default();
    let listing = Listing { user, statuses, after: after.map_err(|_| ApiError::AfterInvalid)? };
    Ok(Asked { listing, status, limit })
}

fn limit(text: &str) -> Result<u32, ApiError> {
    let limit = text.parse().ok().filter(|limit| (1..=LARGEST).contains(limit));
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

    fn asked(query: &str) -> Result<Asked, ApiError> {
        parse(UserId::new("u1").unwrap(), &format!("/api/orders{query}").parse().unwrap())
    }

    #[test]
    fn without_parameters_or_with_others_it_is_everything() {
        for query in ["", "?", "?page=2&sort=up", "?Limit=0"] {
            let asked = asked(query).unwrap();
            assert_eq!((asked.limit, asked.listing.after, asked.listing.statuses), (None, None, vec![]));
        }
    }

    #[test]
    fn each_parameter_is_read_and_what_is_wrong_with_one_is_said() {
        let asked_for = asked(&format!("?limit=2&after={ID}&status=created,awaiting:payment")).unwrap();
        assert_eq!((asked_for.limit, asked_for.listing.after), (Some(2), ID.parse().ok()));
        assert_eq!(asked_for.listing.statuses, OrderStatus::OPEN);
        assert_eq!(
            asked("?status=awaiting%3Apayment").unwrap().listing.statuses,
            [OrderStatus::AwaitingPayment]
        );
        for limit in ["", "0", "1001", "-1", "two", "2.0", "99999999999"] {
            assert_eq!(asked(&format!("?limit={limit}")), Err(ApiError::LimitInvalid), "{limit}");
        }
        for after in ["", "x", "65f0c1d2a3b4c5d6e7f8091"] {
            assert_eq!(asked(&format!("?after={after}")), Err(ApiError::AfterInvalid), "{after}");
        }
        for status in ["", "paid", "created,", "Created", "created;cancelled"] {
            assert_eq!(asked(&format!("?status={status}")), Err(ApiError::StatusInvalid), "{status}");
        }
    }

    #[test]
    fn the_link_asks_for_the_same_and_begins_where_the_page_ended() {
        let next: OrderId = ID.parse().unwrap();
        let link = next_link(2, next, Some("created,cancelled"));
        assert_eq!(link, format!("</api/orders?limit=2&after={ID}&status=created,cancelled>; rel=\"next\""));
        let target = link.split(['<', '>']).nth(1).unwrap().strip_prefix("/api/orders").unwrap();
        let asked = asked(target).unwrap();
        assert_eq!((asked.limit, asked.listing.after), (Some(2), Some(next)));
        assert_eq!(asked.listing.statuses, [OrderStatus::Created, OrderStatus::Cancelled]);
    }

    proptest! {
        #[test]
        fn no_query_panics_and_a_page_is_never_larger_than_allowed(query in "[?&=a-z0-9%:,+]{0,60}") {
            if let Ok(uri) = format!("/api/orders?limit=5&{query}").parse()
                && let Ok(asked) = parse(UserId::new("u1").unwrap(), &uri)
            {
                prop_assert!(asked.limit.is_some_and(|limit| (1..=LARGEST).contains(&limit)));
            }
        }
    }
}
