//! Whose a channel is: the first message of another one says it, and nobody writes a second one.
//!
//! The server knows no conditions, but it keeps an order: of two who find nothing and write, both read afterwards whose message
//! was the first. With a server that forgets everything, that is decided anew when it starts.

use super::{
    read_back,
    session::Session,
    subscription::{From, Terms},
};
use crate::events::{broker::BrokerError, system::System};

/// What the name of that channel begins with; then comes the name of the channel that it is about.
const SYSTEM: &str = "orders-operator.system";

const CLAIMING: &str = "looking whose a channel is";

/// Sees that a channel is ours, or nobody's; then it is ours from now on.
pub(super) async fn claim(session: &Session, name: &str, ours: &System) -> Result<(), BrokerError> {
    let channel = format!("{SYSTEM}.{name}");
    let first = Terms { in_flight: 1, ..read_back::terms(From::First) };
    for _ in 0..2 {
        let mut claims = session.subscribe(&channel, first).await?;
        read_back::mark(session).await?;
        let found = claims.ready();
        claims.close().await?;
        if let Some(found) = found {
            let theirs = System::parse(&found.data);
            let claimed = ours.must_be(theirs, || format!("the channel {name}"));
            return claimed.map_err(BrokerError::SubjectsOfOthers);
        }
        session.publish(&channel, ours.json()).await?;
    }
    Err(BrokerError::Failed { doing: CLAIMING, detail: "what was just written there is gone".into() })
}
