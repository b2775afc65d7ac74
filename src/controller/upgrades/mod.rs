//! Moves the OrdersServices that name no image to the operator's own, when that is a new one: a few at a time, those that
//! serve first, and no further once something speaks against the image.
//!
//! ```text
//! standing  where a resource is on the way, as its status tells
//! plan      whose turn it is
//! mover     the task that notes it in the statuses
//! ```
//!
//! Which image a resource has is in its status, and so is a move that has begun: it is noted there before anything is
//! changed, and the note goes when it is known what became of it. So a controller that has just started goes on where
//! another has ended.

pub mod mover;
mod plan;
mod standing;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::crd::OrdersService;

/// How many may be on their way, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many are on their way at the same time.
    pub concurrent: usize,
    /// For how long one must have served before another takes its place.
    pub pause: Duration,
    /// How many against whose image something speaks stop the others.
    pub failures: usize,
}

/// Which image the OrdersServices have that name none. Clones share one state.
#[derive(Clone)]
pub struct Upgrades(Arc<Shared>);

struct Shared {
    /// The operator's own image; none if it was not told.
    image: Option<String>,
    limits: Limits,
    /// Notified when a resource waits.
    wanted: Notify,
}

impl Upgrades {
    /// Moves resources to `image` within these limits.
    pub fn new(image: Option<String>, limits: Limits) -> Self {
        Self(Arc::new(Shared { image, limits, wanted: Notify::new() }))
    }

    /// Whether [`Self::image_for`] must be told the image of the Deployment, if there is one: a version that noted no image
    /// has made it, or this one, which could not write the status since.
    pub fn asks_for_the_deployed(&self, service: &OrdersService) -> bool {
        let is_noted = service.status.as_ref().is_some_and(|status| status.image.is_some());
        self.0.image.is_some() && service.spec.image.is_none() && !is_noted
    }

    /// The image for `service` if its spec names none: that which it has until it is its turn, or the operator's own; and
    /// whether it waits.
    pub fn image_for(&self, service: &OrdersService, deployed: Option<&str>) -> (Option<String>, bool) {
        let ours = self.0.image.as_deref();
        let status = service.status.as_ref();
        let Some(has) = status.and_then(|status| status.image.as_deref()).or(deployed) else {
            return (ours.map(str::to_owned), false);
        };
        let is_other = ours.is_some_and(|ours| ours != has) && service.spec.image.is_none();
        let note = status.and_then(|status| status.upgrade.as_ref());
        let is_its_turn = note.is_some_and(|note| Some(note.image.as_str()) == ours);
        if !is_other || is_its_turn {
            return (ours.or(Some(has)).map(str::to_owned), false);
        }
        self.0.wanted.notify_one();
        (Some(has.to_owned()), true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::fixture::service;

    #[test]
    fn a_resource_keeps_its_image_until_its_status_says_that_it_is_its_turn() {
        let limits = Limits { concurrent: 2, pause: Duration::from_secs(10), failures: 1 };
        let upgrades = Upgrades::new(Some("new".into()), limits);
        let mut object = service(json!({}));
        let new = (Some("new".to_owned()), false);
        assert!(upgrades.asks_for_the_deployed(&object));
        assert_eq!(upgrades.image_for(&object, None), new, "it never had one");
        let old = (Some("old".to_owned()), true);
        assert_eq!(upgrades.image_for(&object, Some("old")), old, "a version that noted none made it");
        assert_eq!(upgrades.image_for(&object, Some("new")), new);

        let mut status = json!({"image": "old"});
        let mut with = |patch| {
            json_patch::merge(&mut status, &patch);
            object.status = serde_json::from_value(status.clone()).unwrap();
            object.clone()
        };
        let waits = with(json!({}));
        assert!(!upgrades.asks_for_the_deployed(&waits));
        assert_eq!(upgrades.image_for(&waits, None), old);
        let note = |image: &str| json!({"upgrade": {"image": image, "previousImage": "old", "since": "2026-01-01T00:00:00Z"}});
        assert_eq!(upgrades.image_for(&with(note("new")), None), new);
        assert_eq!(upgrades.image_for(&with(note("of a former upgrade")), None), old);
        let untold = Upgrades::new(None, limits);
        assert_eq!(untold.image_for(&waits, None), (old.0, false), "the operator was not told its own");
        assert!(!untold.asks_for_the_deployed(&service(json!({}))));
    }
}
