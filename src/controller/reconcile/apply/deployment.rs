//! The Deployment: of it, the number of pods may be someone else's, and it may be left as it is.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Resource,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    refusal::{read_failed, write_failed},
    replicas::{self, Decision, HAND_OVER_MANAGER},
    writer::{ChildOutcome, ChildWriter},
};
use crate::controller::{
    api_server::RequestError,
    children::{
        fingerprint::Fingerprint,
        kind::{ChildId, ChildKind},
        observed::{Observation, ObservedChild},
        partial::Partial,
    },
    problem::Problem,
    reconcile::validate::pods::Replicas,
};

impl ChildWriter<'_> {
    /// The Deployment that is left as it is, and its hash; none if it is to be made as it would be made now.
    pub(super) fn held_deployment(&self) -> Option<(ObservedChild, String)> {
        let id = ChildId::of::<Deployment>(0);
        let is_applied = || self.context.states.with(self.owner, |state| state.last_applied.has(id));
        if self.held.until_applied && is_applied() == Some(true) {
            return None;
        }
        let Observation::Present(child) = self.observed(id) else { return None };
        let hash = self.held.held(child.owned_fields).filter(|_| self.has(id))?;
        Some((child, hash))
    }

    /// As [`Self::sync_kind`], but what is sent of `replicas` also depends on the live Deployment.
    pub(super) async fn sync_deployment(
        &self,
        deployment: &Deployment,
        replicas: Replicas,
    ) -> Result<ChildOutcome, Problem> {
        let (id, fingerprint) = (ChildId::of::<Deployment>(0), Fingerprint::of(deployment));
        if let Some((child, hash)) = self.held_deployment() {
            self.context.states.with(self.owner, |state| state.last_applied.remove(id));
            return Ok(ChildOutcome {
                rollout: child.rollout.as_deref().cloned(),
                held: Some(hash),
                ..ChildOutcome::default()
            });
        }
        let observed = self.observed(id);
        if let Some(outcome) = self.outcome_if_in_sync(id, fingerprint, &observed) {
            return Ok(outcome);
        }
        let (response, decision) = match replicas {
            Replicas::Fixed(number) => (self.send(0, deployment, observed).await?, Decision::Send(number)),
            Replicas::Unset | Replicas::Autoscaled { .. } => {
                self.send_with_decided_replicas(deployment, replicas).await?
            }
        };
        // As long as the number has not passed to the autoscaler, the next reconcile must apply again.
        let is_final = !matches!(replicas, Replicas::Autoscaled { .. }) || decision == Decision::Leave;
        Ok(self.record(0, fingerprint.filter(|_| is_final), &response))
    }

    /// Sends a Deployment of which the number of pods may be someone else's; gives what was decided about that.
    async fn send_with_decided_replicas(
        &self,
        deployment: &Deployment,
        replicas: Replicas,
    ) -> Result<(Partial<Deployment>, Decision), Problem> {
        let (api, name) = (self.api::<Deployment>(), self.owner.key.name());
        let kind = ChildKind::Deployment.as_str();
        let read = self.context.api.read(kind, "get", api.get_opt(name));
        let live = read.await.map_err(|error| read_failed::<Deployment>(name, &error))?;
        if let Some(live) = live.as_ref().filter(|live| !self.may_apply(&live.metadata)) {
            return Err(self.not_owned::<Deployment>(&live.metadata));
        }
        let apply_failed = |error: RequestError| write_failed::<Deployment>("apply", name, &error);
        let decision = replicas::decide(replicas, live.as_ref());
        let mut deployment = deployment.clone();
        deployment.spec.get_or_insert_default().replicas = match decision {
            Decision::Send(number) => Some(number),
            Decision::Leave => None,
            Decision::HandOver(number) => {
                let metadata = live.as_ref().map(|live| &live.metadata);
                let only_replicas = json!({
                    "apiVersion": Deployment::api_version(&()),
                    "kind": Deployment::kind(&()),
                    // If it was scaled since it was read, the API server refuses this, and the next reconcile reads again.
                    "metadata": {
                        "uid": metadata.and_then(|metadata| metadata.uid.as_ref()),
                        "resourceVersion": metadata.and_then(|metadata| metadata.resource_version.as_ref()),
                    },
                    "spec": {"replicas": number},
                });
                let params = PatchParams::apply(HAND_OVER_MANAGER).force();
                let patch = Patch::Apply(&only_replicas);
                let request = api.patch(name, &params, &patch);
                self.context.api.write(kind, "patch", request).await.map_err(apply_failed)?;
                None
            }
        };
        let response = match live {
            Some(live) => self.patch(0, &mut deployment, live.metadata.uid).await.map_err(apply_failed)?,
            None => self.create(0, &mut deployment).await?,
        };
        Ok((response, decision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        fixture::{child, owner},
        reconcile::apply::{
            fixture::{api_server, context},
            held::{HeldDeployment, Hold},
        },
    };

    #[tokio::test]
    async fn a_deployment_that_is_held_is_left_as_it_is_until_someone_changes_it_or_what_it_is_made_from() {
        let deployment: Deployment = serde_json::from_value(
            json!({"metadata": {"name": "orders"}, "spec": {"selector": {}, "template": {}}}),
        )
        .unwrap();
        let inputs = |generation: i64| Fingerprint::of(&generation);
        let fields = |field: &str| child::<Deployment>("9", field, "2026-01-01T00:00:00Z");
        let hash = |field: &str, generation| {
            let of = HeldDeployment { inputs: inputs(generation), ..HeldDeployment::default() };
            of.hash(fields(field).owned_fields).unwrap()
        };
        for (held, until_applied, is_left) in [
            (hash("f:a", 1), false, true),
            (hash("f:a", 1), true, true),
            // Someone else has taken a field over; the spec or a Secret has changed.
            (hash("f:b", 1), false, false),
            (hash("f:a", 2), false, false),
        ] {
            let (client, requests) = api_server(vec![(200, json!({"metadata": {"name": "orders"}}))]);
            let (context, owner) = (context(client), owner("u"));
            let mut live = fields("f:a");
            live.metadata.owner_references = Some(vec![serde_json::from_value(json!({
                "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "orders", "uid": "u",
                "controller": true
            }))
            .unwrap()]);
            let observed = ObservedChild::of(&live).unwrap();
            context.observed.put(ChildKind::Deployment, &owner.key, observed);
            let held = HeldDeployment { inputs: inputs(1), hold: Hold::While(held), until_applied };
            let writer = ChildWriter {
                context: &context,
                owner: &owner,
                adopts: false,
                held: &held,
                second_service: None,
                further: &[],
            };
            writer.sync_deployment(&deployment, Replicas::Fixed(1)).await.unwrap();
            assert_eq!(requests.lock().unwrap().is_empty(), is_left);
        }
    }
}
