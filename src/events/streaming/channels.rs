//! NATS Streaming as a broker: a channel for each subject.

use std::{collections::HashSet, time::Duration};

use super::{claim::claim, fence, read_back, session::Session};
use crate::{
    events::{
        args::{Cluster, Settings},
        broker::{Ack, Broker, BrokerError, Marks, Message},
        connection::Connection,
        system::System,
        wire::{Subject, Subjects},
    },
    store::Positions,
};

/// The channels of our subjects.
pub(in crate::events) struct Streaming {
    pub(super) session: Session,
    pub(super) subjects: Subjects,
}

impl Streaming {
    /// Connects as `client_id`.
    pub(in crate::events) async fn open(
        connection: &Connection,
        settings: &Settings,
        cluster: &Cluster,
        client_id: &str,
    ) -> Result<Self, BrokerError> {
        let session = Session::open(connection, &cluster.id, client_id).await?;
        Ok(Self { session, subjects: settings.subjects.clone() })
    }

    /// Sees that the channel of a subject is not that of another system.
    pub(in crate::events) async fn claim(
        &self,
        subject: Subject,
        system: &System,
    ) -> Result<(), BrokerError> {
        claim(&self.session, self.subjects.name(subject), system).await
    }
}

impl Broker for Streaming {
    async fn marks(&self) -> Result<Marks, BrokerError> {
        // It knows no conditions. Those who have begun before are found in a channel of ours.
        Ok(Marks::new())
    }

    async fn begin(&self, _known: &Marks) -> Result<(), BrokerError> {
        fence::begin(&self.session, self.subjects.name(Subject::OrderCreated)).await
    }

    async fn publish(
        &self,
        message: &Message,
        may_publish: impl Fn() -> bool + Send + Sync,
    ) -> Result<Ack, BrokerError> {
        if !may_publish() {
            return Err(BrokerError::Superseded);
        }
        self.session.publish(self.subjects.name(message.subject), message.data.clone()).await?;
        Ok(Ack { place: None, is_duplicate: false })
    }

    /// An acknowledgement says no place, and a server that has forgotten everything counts from 1 again.
    async fn ends(&self) -> Result<Positions, BrokerError> {
        Ok(Positions::new())
    }

    async fn published_since(
        &self,
        _positions: &Positions,
        age: Duration,
    ) -> Result<HashSet<String>, BrokerError> {
        read_back::ids(&self.session, &self.subjects, age).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.session.close().await
    }
}
