//! The children of one kind: those that are in sync are left, others are applied, and those that are switched off deleted.

use std::iter;

use super::writer::{ChildOutcome, ChildWriter};
use crate::controller::{
    children::{
        fingerprint::Fingerprint,
        kind::{Child, ChildId, ChildKind},
        last_applied::{LastApplied, SyncState},
        numbered::Purpose,
        observed::Observation,
        partial::Partial,
    },
    problem::Problem,
};

impl ChildWriter<'_> {
    /// Applies the child of a kind of which there is at most one, if it is not in sync, or deletes it if it is not desired.
    pub(super) async fn sync_kind<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        if let Some(child) = children.first() {
            return self.sync(0, child).await;
        }
        let id = ChildId::of::<K>(0);
        // If the watch is behind and still shows our last apply, that must not count as an echo.
        self.context.states.with(self.owner, |state| state.last_applied.remove(id));
        self.delete_if_ours::<K>(&self.name(id)).await?;
        Ok(ChildOutcome::default())
    }

    /// As [`Self::sync_kind`]; an object of its name that is not ours is as good.
    pub(super) async fn sync_unless_there<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let is_ours = matches!(
            self.observed(ChildId::of::<K>(0)),
            Observation::Present(child) if child.owner.uid == self.owner.uid
        );
        if !children.is_empty()
            && !is_ours
            && let Some(live) = self.live_metadata::<K>(0).await?
            && !self.may_apply(&live)
        {
            return Ok(ChildOutcome::default());
        }
        self.sync_kind(children).await
    }

    /// As [`Self::sync_kind`], for the Services: second ones of former names are deleted, when the new one is there.
    pub(super) async fn sync_services<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let mut failed = None;
        for (index, child) in children.iter().enumerate() {
            if let Err(problem) = self.sync(index, child).await {
                failed.get_or_insert(problem);
            }
        }
        // A former name is served until there is the new one.
        if let Some(problem) = failed {
            return Err(problem);
        }
        if self.second_service.is_none() {
            let id = ChildId::of::<K>(1);
            self.context.states.with(self.owner, |state| state.last_applied.remove(id));
        }
        for former in self.further::<K>().filter(|name| Some(*name) != self.second_service) {
            self.delete_if_ours::<K>(former).await?;
        }
        Ok(ChildOutcome::default())
    }

    /// Applies Ingresses or Middlewares that are not in sync. The first comes last, so that what is no longer in it is in
    /// others before. Those that are not desired are left.
    pub(super) async fn sync_numbered<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        for child in children.iter().rev() {
            self.sync(child.number(0), child).await?;
        }
        Ok(ChildOutcome::default())
    }

    /// Applies the HTTPRoutes that are not in sync. Former ones are deleted when all of these are there, so each rule is in one
    /// at every moment; until then none is, so that one failure takes nothing away.
    pub(super) async fn sync_routes<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let (mut all, mut failed) = (ChildOutcome::default(), None);
        for child in children {
            match self.sync(child.number(0), child).await {
                Ok(outcome) => all.route_problems.extend(outcome.route_problems),
                Err(problem) => {
                    failed.get_or_insert(problem);
                }
            }
        }
        if let Some(problem) = failed {
            return Err(problem);
        }
        self.delete_former(children).await?;
        Ok(all)
    }

    /// Deletes the Ingresses, the Middlewares or the HTTPRoutes that are not desired, also those with names of former versions.
    pub(super) async fn delete_former<K: Child>(&self, children: &[K]) -> Result<ChildOutcome, Problem> {
        let mut failed = None;
        for name in iter::once(self.owner.key.name()).chain(self.further::<K>()) {
            if children.iter().any(|child| self.name(ChildId::of::<K>(child.number(0))) == name) {
                continue;
            }
            let id = ChildId::of::<K>(Purpose::of_name(name).number());
            if self.name(id) == name {
                self.context.states.with(self.owner, |state| state.last_applied.remove(id));
            }
            if let Err(problem) = self.delete_if_ours::<K>(name).await {
                failed.get_or_insert(problem);
            }
        }
        failed.map_or(Ok(ChildOutcome::default()), Err)
    }

    /// The names of children of this kind that are not that of the OrdersService.
    fn further<K: Child>(&self) -> impl Iterator<Item = &str> {
        let of_kind = self.further.iter().filter(|(kind, _)| *kind == K::KIND);
        of_kind.map(|(_, name)| name.as_str())
    }

    async fn sync<K: Child>(&self, index: usize, child: &K) -> Result<ChildOutcome, Problem> {
        let (id, fingerprint) = (ChildId::of::<K>(index), Fingerprint::of(child));
        let observed = self.observed(id);
        if let Some(outcome) = self.outcome_if_in_sync(id, fingerprint, &observed) {
            return Ok(outcome);
        }
        let response = self.send(index, child, observed).await?;
        Ok(self.record(index, fingerprint, &response))
    }

    /// What the status must know of a child that is in sync; none if it must be applied.
    pub(super) fn outcome_if_in_sync(
        &self,
        id: ChildId,
        desired: Option<Fingerprint>,
        observed: &Observation,
    ) -> Option<ChildOutcome> {
        let in_sync =
            |last: &LastApplied| match (last.sync_state(self.owner, id, desired, observed), observed) {
                // The watch may not have shown the response yet.
                (SyncState::Unchanged, Observation::Present(child)) => Some(ChildOutcome {
                    rollout: last.rollout().filter(|_| id.kind == ChildKind::Deployment).cloned(),
                    route_problems: last.route_problems(id).to_vec(),
                    unmeasured_since: child.unmeasured_since,
                    held: None,
                }),
                // A status update, most likely.
                (SyncState::OthersChanged, Observation::Present(child)) => Some(ChildOutcome {
                    rollout: child.rollout.as_deref().cloned(),
                    route_problems: child.route_problems.clone(),
                    unmeasured_since: child.unmeasured_since,
                    held: None,
                }),
                _ => None,
            };
        self.context.states.with(self.owner, |state| in_sync(&state.last_applied)).flatten()
    }

    /// Records that a child was applied; gives what the status must know of it.
    pub(super) fn record<K: Child>(
        &self,
        index: usize,
        fingerprint: Option<Fingerprint>,
        response: &Partial<K>,
    ) -> ChildOutcome {
        self.context
            .states
            .with(self.owner, |state| state.last_applied.applied(index, fingerprint, response));
        ChildOutcome {
            rollout: K::rollout(response),
            route_problems: K::route_problems(response),
            unmeasured_since: K::unmeasured_since(response),
            held: None,
        }
    }
}
