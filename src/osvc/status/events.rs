//! What the cluster's Events tell of an OrdersService: what happened to it lately.

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use serde::Serialize;

/// How many are told, at most.
const MOST: usize = 5;

/// An Event of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    /// When it happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Timestamp>,
    /// How often.
    pub(super) count: i32,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Why, in a word.
    pub(super) reason: String,
    /// What happened.
    pub(super) message: String,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let series = event.series.as_ref();
        let time = series.and_then(|series| series.last_observed_time.as_ref()).or(event.event_time.as_ref());
        // Those of the older API have other fields.
        let last = time.map(|time| time.0).or(event.last_timestamp.as_ref().map(|time| time.0));
        Self {
            time: last.or(event.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            count: series.and_then(|series| series.count).or(event.count).unwrap_or(1).max(1),
            kind: event.type_.clone().unwrap_or_else(|| "Normal".into()),
            reason: event.reason.clone().unwrap_or_default(),
            message: event.message.clone().unwrap_or_default(),
        }
    }
}

/// The last of these, the latest first.
pub(super) fn latest(events: &[Event]) -> Vec<EventView> {
    let mut all: Vec<_> = events.iter().map(EventView::from).collect();
    all.sort_by(|left, right| (right.time, &right.reason).cmp(&(left.time, &left.reason)));
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_latest_come_first_whichever_api_they_were_written_by() {
        let event = |name: &str, more: Value| {
            let mut object = json!({"metadata": {"name": name}, "involvedObject": {}, "reason": name, "message": "m", "type": "Warning"});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<Event>(object).unwrap()
        };
        let mut all = vec![
            event("once", json!({"eventTime": "2026-01-01T00:00:02.000000Z"})),
            event(
                "often",
                json!({
                    "eventTime": "2026-01-01T00:00:01.000000Z",
                    "series": {"count": 7, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}
                }),
            ),
            event("older", json!({"lastTimestamp": "2026-01-01T00:00:05Z", "count": 3})),
        ];
        let told: Vec<_> = latest(&all).into_iter().map(|view| (view.reason, view.count)).collect();
        let expected = [("often", 7), ("older", 3), ("once", 1)];
        assert_eq!(told, expected.map(|(reason, count)| (reason.to_owned(), count)));
        for number in 0..9 {
            all.push(event("more", json!({"eventTime": format!("2026-01-01T00:01:0{number}.000000Z")})));
        }
        let told = latest(&all);
        assert_eq!((told.len(), told[0].time), (MOST, Some("2026-01-01T00:01:08Z".parse().unwrap())));
    }
}
