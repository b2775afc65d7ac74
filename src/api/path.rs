//! Makes paths match without regard to case, and with or without one trailing slash.

use axum::{
    extract::Request,
    http::{Uri, uri::PathAndQuery},
};

/// Rewrites the path of a request to the form that the router matches.
///
/// The whole path can be lowercased because the only variable parts are hexadecimal ids.
pub(super) fn canonical(mut request: Request) -> Request {
    if let Some(uri) = canonical_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn canonical_uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let stripped = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    let lower = stripped.to_ascii_lowercase();
    if lower == path {
        return None;
    }
    let changed = match uri.query() {
        Some(query) => PathAndQuery::from_maybe_shared(format!("{lower}?{query}")),
        None => PathAndQuery::from_maybe_shared(lower),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(changed.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(uri: &str) -> String {
        let uri: Uri = uri.parse().unwrap();
        canonical_uri(&uri).unwrap_or(uri).to_string()
    }

    #[test]
    fn case_and_one_trailing_slash_are_ignored_and_the_query_is_unchanged() {
        assert_eq!(canonical("/API/Orders/"), "/api/orders");
        assert_eq!(canonical("/api/orders?After=X"), "/api/orders?After=X");
        assert_eq!(canonical("/api/orders/ABC/?a=B/"), "/api/orders/abc?a=B/");
        assert_eq!(canonical("http://Host/API/orders"), "http://Host/api/orders");
    }

    #[test]
    fn only_one_trailing_slash_is_removed() {
        assert_eq!(canonical("/"), "/");
        assert_eq!(canonical("/api/orders//"), "/api/orders/");
    }
}
