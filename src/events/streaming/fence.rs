//! Keeps out what a former leader has sent and what has not arrived yet: it may have been frozen, or the network, and its
//! connection to the server lasts for minutes.
//!
//! Whoever begins to publish ends the connections of those who published before, by their client ids, which it finds in a
//! channel of ours. The server takes in what it has received of them by then, which is read back, and refuses the rest. A
//! process that is alive notices, and connects again.

use super::{read_back, session::Session, subscription::From};
use crate::events::broker::BrokerError;

/// Who publishes, as a list of client ids: more than one while those before are not known to be ended.
const LEADERS: &str = "orders-operator.leaders";

/// The most client ids of a list, and the longest: it is the server that says them.
const MOST: usize = 32;
const LONGEST: usize = 255;

/// Ends the connections of whoever published the same events before. `published` is the name of one of our subjects, since other
/// systems on the server have others.
pub(super) async fn begin(session: &Session, published: &str) -> Result<(), BrokerError> {
    let channel = format!("{LEADERS}.{published}");
    let mut leaders = session.subscribe(&channel, read_back::terms(From::Last)).await?;
    read_back::mark(session).await?;
    let last = std::iter::from_fn(|| leaders.ready()).last();
    leaders.close().await?;
    let before = last.map(|last| client_ids(&last.data)).unwrap_or_default();
    let own = session.client_id.as_str();
    let others: Vec<_> = before.iter().map(String::as_str).filter(|id| *id != own).collect();
    if others.is_empty() && !before.is_empty() {
        return Ok(());
    }
    // First, so that they are known if this process ends before they are ended.
    session.publish(&channel, list(others.iter().copied().chain([own]))).await?;
    for other in &others {
        session.end(other).await?;
    }
    if others.is_empty() { Ok(()) } else { session.publish(&channel, list([own])).await }
}

fn list<'i>(ids: impl IntoIterator<Item = &'i str>) -> Vec<u8> {
    serde_json::Value::from_iter(ids).to_string().into_bytes()
}

fn client_ids(data: &[u8]) -> Vec<String> {
    let ids: Vec<String> = serde_json::from_slice(data).unwrap_or_default();
    ids.into_iter().filter(|id| id.len() <= LONGEST).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_of_client_ids_names_nobody() {
        assert_eq!(client_ids(&list(["a-relay", "b"])), ["a-relay", "b"]);
        assert_eq!(client_ids(&list(["x"; 100])).len(), MOST);
        assert_eq!(client_ids(&list([&*"x".repeat(300), "b"])), ["b"]);
        for other in [b"{}".as_slice(), b"[1]", b"", b"\xff"] {
            assert_eq!(client_ids(other), Vec::<String>::new());
        }
    }
}
