//! Where a resource is on the way to the operator's image, as its status tells.
//!
//! What speaks for or against an image is what its pods do: whether they serve, and whether events flow.
//! That a route is another's, that the database is away or that nothing is swept says nothing about it, and neither does
//! what was so before.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::Resource;
use serde::Deserialize;

use crate::{
    controller::raw_orders_service::RawOrdersService,
    crd::{
        ConditionType, OrdersServiceStatus, Reason, UPGRADE_ANNOTATION, UpgradeStatus, cannot_run,
        find_condition, has_any_of, is_true,
    },
};

/// How long pods may take to serve before that speaks against their image. A Deployment takes as long to give up.
const SERVES_WITHIN: SignedDuration = SignedDuration::from_secs(600);

/// For how long the API server must have refused a new image before that speaks against it. A webhook that is away for a
/// moment does not.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(15);

/// The conditions that pods with another image may change.
const OF_PODS: [ConditionType; 2] = [ConditionType::Available, ConditionType::EventsFlowing];

/// Where a resource is on the way to the operator's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not to get that image: it names one of its own, is new, or is being deleted.
    Aside,
    /// It is to get it, but nothing of it is applied now: it is suspended, not valid, or something that it needs is missing.
    Blocked,
    /// It has another one, and waits for its turn.
    Waiting {
        /// Whether its pods serve.
        serves: bool,
        /// Whether whoever wrote it does not want it to wait.
        hurries: bool,
    },
    /// Its move has begun, and nobody knows yet what will become of it.
    Moving,
    /// Its pods serve with the image, but have not done so for long.
    Settling,
    /// It has the image.
    Current,
    /// Something speaks against the image.
    Failed,
}

/// What is read of an OrdersService.
#[derive(Deserialize)]
struct Glance {
    spec: SpecGlance,
    status: Option<StatusGlance>,
}

#[derive(Deserialize)]
struct SpecGlance {
    image: Option<String>,
    #[serde(default)]
    suspend: bool,
}

#[derive(Deserialize)]
struct StatusGlance {
    image: Option<String>,
    upgrade: Option<UpgradeStatus>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl StatusGlance {
    fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        find_condition(&self.conditions, kind)
    }

    fn false_condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.condition(kind).filter(|condition| condition.status == "False")
    }
}

impl Standing {
    /// Where `raw` is at `now` on the way to `image`, and whether its status has the note of a move.
    pub(super) fn of(
        raw: &RawOrdersService,
        image: &str,
        pause: SignedDuration,
        now: Timestamp,
    ) -> (Self, bool) {
        let Ok(Glance { spec, status }) = raw.glance() else { return (Self::Blocked, false) };
        let Some(status) = status else { return (Self::Aside, false) };
        let note = status.upgrade.as_ref();
        let standing = if spec.image.is_some() || raw.meta().deletion_timestamp.is_some() {
            Self::Aside
        } else if spec.suspend {
            Self::Blocked
        } else if let Some(note) = note.filter(|note| note.image == image) {
            on_the_way(&status, note, pause, now)
        } else {
            match &status.image {
                None => Self::Aside,
                Some(has) if has == image => Self::Current,
                Some(_) if status.false_condition(ConditionType::Reconciled).is_some() => Self::Blocked,
                Some(_) => Self::Waiting {
                    serves: status.condition(ConditionType::Available).is_some_and(is_true),
                    hurries: hurries(raw),
                },
            }
        };
        (standing, note.is_some())
    }
}

fn hurries(raw: &RawOrdersService) -> bool {
    let annotations = raw.meta().annotations.as_ref();
    annotations.and_then(|all| all.get(UPGRADE_ANNOTATION)).is_some_and(|when| when == "now")
}

/// Where one is whose move has begun.
fn on_the_way(
    status: &StatusGlance,
    note: &UpgradeStatus,
    pause: SignedDuration,
    now: Timestamp,
) -> Standing {
    let is_excepted = |kind: ConditionType| note.untrue_before.iter().any(|other| other == kind.as_str());
    let has_it = status.image.as_deref() == Some(&note.image);
    let available = status.condition(ConditionType::Available).filter(|_| has_it);
    // Whatever keeps the resource from being reconciled now: the pods that have the image could not run it.
    if available.is_some_and(cannot_run) && !is_excepted(ConditionType::Available) {
        return Standing::Failed;
    }
    let has_lasted = |time: Timestamp, at_least: SignedDuration| now.duration_since(time) >= at_least;
    let is_late = has_lasted(note.since.0, SERVES_WITHIN);
    // The move ends without anything being known of the image.
    let given_up = if has_it { Standing::Current } else { Standing::Blocked };
    if let Some(reconciled) = status.false_condition(ConditionType::Reconciled) {
        let since = reconciled.last_transition_time.0.max(note.since.0);
        // A Secret that is gone, say, has nothing to do with the image.
        let is_refused =
            has_any_of(reconciled, &[Reason::ApplyFailed, Reason::Forbidden, Reason::InvalidSpec]);
        // Nor has an API server that does not answer, or another operator: but these tell nothing that would end the move.
        let is_unknown = has_any_of(reconciled, &[Reason::ReadFailed, Reason::AnotherOperator]);
        return match is_refused {
            true if has_lasted(since, REFUSED_FOR) => Standing::Failed,
            false if is_late && !is_unknown => given_up,
            _ => Standing::Moving,
        };
    }
    let events = status.condition(ConditionType::EventsFlowing);
    let events = events.filter(|_| !is_excepted(ConditionType::EventsFlowing));
    match available {
        Some(serves) if is_true(serves) && events.is_none_or(is_true) => {
            let times = [Some(serves), events].into_iter().flatten().map(|each| each.last_transition_time.0);
            let since = times.max().max(Some(note.since.0)).unwrap_or(note.since.0);
            if has_lasted(since, pause) { Standing::Current } else { Standing::Settling }
        }
        Some(serves) if !is_true(serves) => {
            let fails = has_any_of(serves, &[Reason::PodCreationFailed, Reason::ProgressDeadlineExceeded]);
            let is_excused = is_excepted(ConditionType::Available) || is_no_fault_of_pods(serves, status);
            match (fails || is_late, is_excused) {
                (true, false) => Standing::Failed,
                (true, true) if is_late => given_up,
                _ => Standing::Moving,
            }
        }
        _ if is_late => Standing::Failed,
        _ => Standing::Moving,
    }
}

/// Whether pods that do not serve cannot help it: they wait for a database that the sweeper does not reach either, or a quota
/// has no room for them beside the former ones.
fn is_no_fault_of_pods(available: &Condition, status: &StatusGlance) -> bool {
    let waits = has_any_of(
        available,
        &[Reason::MinimumReplicasUnavailable, Reason::RolloutInProgress, Reason::ProgressDeadlineExceeded],
    );
    let has_no_room = available.reason == Reason::PodCreationFailed.as_str()
        && ["exceeded quota: ", "failed quota: "].iter().any(|words| available.message.contains(words));
    has_no_room || (waits && status.false_condition(ConditionType::DatabaseReady).is_some())
}

/// The note of a move to `image` that begins at `now`; none if the resource has no other image.
pub(super) fn note(status: &OrdersServiceStatus, image: &str, now: Timestamp) -> Option<UpgradeStatus> {
    let previous_image = status.image.clone()?;
    let untrue_before = match &status.upgrade {
        // What does not serve since the last move has not begun with this one.
        Some(former) => former.untrue_before.clone(),
        None => {
            let untrue = |kind: &&ConditionType| {
                let condition = find_condition(&status.conditions, **kind);
                condition.map_or(**kind == ConditionType::Available, |condition| !is_true(condition))
            };
            OF_PODS.iter().filter(untrue).map(|kind| kind.as_str().to_owned()).collect()
        }
    };
    Some(UpgradeStatus { image: image.to_owned(), previous_image, since: Time(now), untrue_before })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture::service;

    const PAUSE: SignedDuration = SignedDuration::from_secs(10);

    /// The time of a test's day at this second.
    fn at(second: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
    }

    fn condition(kind: &str, status: &str, reason: &str, since: i64) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": at(since).to_string()
        })
    }

    fn raw(spec: Value, annotations: Value, status: &Value) -> RawOrdersService {
        let mut object = serde_json::to_value(service(spec)).unwrap();
        object["metadata"]["annotations"] = annotations;
        object["status"] = status.clone();
        serde_json::from_value(object).unwrap()
    }

    fn standing(status: &Value, second: i64) -> Standing {
        Standing::of(&raw(json!({}), json!(null), status), "new", PAUSE, at(second)).0
    }

    /// The status of one whose move begins at second 100.
    fn moved(image: &str, untrue_before: &[&str], conditions: &[Value]) -> Value {
        let note = json!({
            "image": "new", "previousImage": "old", "since": at(100).to_string(), "untrueBefore": untrue_before
        });
        json!({"image": image, "upgrade": note, "conditions": conditions})
    }

    #[test]
    fn one_whose_move_has_not_begun_is_current_waits_or_is_none_of_the_operator_s() {
        let serves = json!([condition("Available", "True", "AsExpected", 0)]);
        let unreconciled = json!([condition("Reconciled", "False", "SecretNotFound", 0)]);
        let hurry = json!({(UPGRADE_ANNOTATION): "now"});
        let waits = |serves, hurries| Standing::Waiting { serves, hurries };
        for (spec, annotations, status, expected) in [
            (json!({}), json!(null), json!(null), Standing::Aside),
            (json!({}), json!(null), json!({"observedGeneration": -1}), Standing::Aside),
            (json!({"image": "own"}), json!(null), json!({"image": "own"}), Standing::Aside),
            (json!({"suspend": true}), json!(null), json!({"image": "old"}), Standing::Blocked),
            (json!({}), json!(null), json!({"image": "old", "conditions": unreconciled}), Standing::Blocked),
            (json!({}), json!(null), json!({"image": "old", "conditions": serves}), waits(true, false)),
            (json!({}), hurry, json!({"image": "old"}), waits(false, true)),
            (json!({}), json!(null), json!({"image": "new", "conditions": unreconciled}), Standing::Current),
        ] {
            let found = Standing::of(&raw(spec, annotations, &status), "new", PAUSE, at(0));
            assert_eq!(found, (expected, false), "{status}");
        }
        // One that takes itself out of a move, and one that a former upgrade has left on its way.
        let status = moved("new", &[], &[condition("Available", "False", "CrashLoopBackOff", 110)]);
        let of =
            |spec: Value, image: &str| Standing::of(&raw(spec, json!(null), &status), image, PAUSE, at(200));
        assert_eq!(of(json!({"image": "own"}), "new"), (Standing::Aside, true));
        assert_eq!(of(json!({"suspend": true}), "new"), (Standing::Blocked, true));
        assert_eq!(of(json!({}), "newer"), (waits(false, false), true));
    }

    #[test]
    fn its_pods_must_have_served_for_a_while_without_a_break() {
        let serves = |since| condition("Available", "True", "AsExpected", since);
        let status = |since| moved("new", &[], &[serves(since)]);
        assert_eq!(
            standing(&moved("old", &[], &[serves(0)]), 101),
            Standing::Moving,
            "these have the old one"
        );
        assert_eq!(standing(&status(0), 101), Standing::Settling, "it never stopped serving");
        assert_eq!(standing(&status(0), 110), Standing::Current);
        assert_eq!(standing(&status(130), 139), Standing::Settling);
        assert_eq!(standing(&status(130), 140), Standing::Current);
        // It served for some seconds, and crashes; then it serves again.
        let crashes = |reason, since| moved("new", &[], &[condition("Available", "False", reason, since)]);
        assert_eq!(standing(&crashes("MinimumReplicasUnavailable", 135), 136), Standing::Moving);
        assert_eq!(standing(&crashes("CrashLoopBackOff", 135), 141), Standing::Failed);
        assert_eq!(standing(&status(150), 159), Standing::Settling);
    }

    #[test]
    fn pods_that_cannot_run_or_do_not_serve_for_ten_minutes_speak_against_their_image() {
        for (reason, at_once) in [
            ("ImagePullFailed", Standing::Failed),
            ("CrashLoopBackOff", Standing::Failed),
            ("PodCreationFailed", Standing::Failed),
            ("ProgressDeadlineExceeded", Standing::Failed),
            ("RolloutInProgress", Standing::Moving),
            ("MinimumReplicasUnavailable", Standing::Moving),
        ] {
            let status = moved("new", &[], &[condition("Available", "False", reason, 100)]);
            assert_eq!(standing(&status, 101), at_once, "{reason}");
            assert_eq!(standing(&status, 700), Standing::Failed, "{reason}");
        }
        // Its status cannot be written, say.
        assert_eq!(standing(&moved("old", &[], &[]), 699), Standing::Moving);
        assert_eq!(standing(&moved("old", &[], &[]), 700), Standing::Failed);
    }

    #[test]
    fn an_image_that_the_api_server_goes_on_refusing_has_failed_and_one_that_lacks_a_secret_has_not() {
        for reason in ["ApplyFailed", "Forbidden", "InvalidSpec"] {
            let refused = |since| moved("old", &[], &[condition("Reconciled", "False", reason, since)]);
            assert_eq!(standing(&refused(101), 115), Standing::Moving, "{reason}");
            assert_eq!(standing(&refused(101), 116), Standing::Failed, "{reason}");
        }
        let unread = |reason| moved("new", &[], &[condition("Reconciled", "False", reason, 101)]);
        for reason in ["ReadFailed", "AnotherOperator"] {
            assert_eq!(
                standing(&unread(reason), 700),
                Standing::Moving,
                "{reason}: nothing is known of the image"
            );
        }
        for reason in ["ImagePullFailed", "CrashLoopBackOff"] {
            for unreconciled in ["ReadFailed", "AnotherOperator", "SecretNotFound", "ApplyFailed"] {
                let both = [
                    condition("Available", "False", reason, 100),
                    condition("Reconciled", "False", unreconciled, 101),
                ];
                for second in [102, 700] {
                    let found = standing(&moved("new", &[], &both), second);
                    assert_eq!(found, Standing::Failed, "{reason}, {unreconciled}, {second}");
                }
            }
        }
        let lacks = |image| moved(image, &[], &[condition("Reconciled", "False", "SecretNotFound", 101)]);
        assert_eq!(standing(&lacks("old"), 699), Standing::Moving);
        assert_eq!(standing(&lacks("old"), 700), Standing::Blocked);
        assert_eq!(standing(&lacks("new"), 700), Standing::Current);
    }

    #[test]
    fn what_is_no_fault_of_the_pods_does_not_speak_against_their_image() {
        let serves = condition("Available", "True", "AsExpected", 110);
        for (kind, reason) in [
            ("IngressReady", "HostPathConflict"),
            ("Sweeping", "Suspended"),
            ("DatabaseReady", "DatabaseUnreachable"),
        ] {
            let others =
                [serves.clone(), condition(kind, "False", reason, 0), condition("Ready", "False", reason, 0)];
            assert_eq!(standing(&moved("new", &[], &others), 120), Standing::Current, "{reason}");
        }
        let away = condition("DatabaseReady", "False", "DatabaseUnreachable", 0);
        for reason in ["MinimumReplicasUnavailable", "ProgressDeadlineExceeded"] {
            let waits = moved("new", &[], &[condition("Available", "False", reason, 100), away.clone()]);
            assert_eq!(standing(&waits, 699), Standing::Moving, "{reason}");
            assert_eq!(standing(&waits, 700), Standing::Current, "{reason}: nothing more will be known");
        }
        let crashes = moved("new", &[], &[condition("Available", "False", "CrashLoopBackOff", 100), away]);
        assert_eq!(standing(&crashes, 101), Standing::Failed);
        let mut full = condition("Available", "False", "PodCreationFailed", 100);
        full["message"] = json!("pods \"a\" is forbidden: exceeded quota: full, requested: pods=1");
        let full = moved("new", &[], &[full]);
        assert_eq!((standing(&full, 101), standing(&full, 700)), (Standing::Moving, Standing::Current));
        // It did not serve before either.
        let before = moved("new", &["Available"], &[condition("Available", "False", "CrashLoopBackOff", 0)]);
        assert_eq!((standing(&before, 101), standing(&before, 700)), (Standing::Moving, Standing::Current));
        let served = moved("new", &["Available"], &[condition("Available", "True", "AsExpected", 110)]);
        assert_eq!(standing(&served, 120), Standing::Current);
    }

    #[test]
    fn events_that_flowed_before_must_flow_again_and_others_need_not() {
        let with = |untrue_before: &[&str], status: &str| {
            let conditions = [
                condition("Available", "True", "AsExpected", 110),
                condition("EventsFlowing", status, "BrokerRefused", 130),
            ];
            moved("new", untrue_before, &conditions)
        };
        assert_eq!(standing(&with(&[], "False"), 140), Standing::Moving);
        assert_eq!(standing(&with(&[], "False"), 700), Standing::Failed);
        assert_eq!(standing(&with(&[], "True"), 139), Standing::Settling);
        assert_eq!(standing(&with(&[], "True"), 140), Standing::Current);
        assert_eq!(standing(&with(&["EventsFlowing"], "False"), 140), Standing::Current);
    }

    #[test]
    fn a_move_notes_what_was_amiss_before_it_and_not_what_a_former_one_has_done() {
        let mut object = json!({"image": "old", "conditions": [
            condition("Available", "True", "AsExpected", 0), condition("EventsFlowing", "False", "BrokerUnreachable", 0),
            condition("IngressReady", "False", "HostPathConflict", 0)
        ]});
        let of = |object: &Value| {
            let status: OrdersServiceStatus = serde_json::from_value(object.clone()).unwrap();
            note(&status, "newer", at(7)).unwrap()
        };
        let noted = of(&object);
        assert_eq!(
            (noted.image.as_str(), noted.previous_image.as_str(), noted.since.0),
            ("newer", "old", at(7))
        );
        assert_eq!(noted.untrue_before, ["EventsFlowing"]);
        object["conditions"] = json!([]);
        assert_eq!(of(&object).untrue_before, ["Available"]);
        let former = moved("new", &[], &[condition("Available", "False", "CrashLoopBackOff", 0)]);
        assert_eq!(of(&former).untrue_before, [""; 0], "it served before the former one");
        assert_eq!(note(&OrdersServiceStatus::default(), "newer", at(7)), None);
    }
}
