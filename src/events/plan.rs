//! What is told one after the other: all that is to be told of one ticket. What is to be told of different tickets is told
//! at the same time. Pure.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::{
    broker::Message,
    wire::{OrderEvent, PaymentRefused, Subject},
};
use crate::{
    order::{OrderId, OrderStatus, TicketId},
    store::{ChangeKind, Told, UntoldOrder},
};

/// What is noted once a step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The order is told up to a version.
    Told(Told),
    /// It is told that the order has refused a payment.
    Refused(OrderId, String),
}

impl Note {
    /// Whether an order is told of again.
    pub(super) fn is_again(&self) -> bool {
        matches!(self, Self::Told(told) if told.again.is_some())
    }
}

/// One step: something is told of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) note: Note,
    /// What is published; nothing if that was done before.
    pub(super) message: Option<Message>,
    pub(super) since: Option<Timestamp>,
}

/// The steps for each ticket, without those messages that are `published` already.
pub(super) fn steps(
    orders: &[UntoldOrder],
    published: &HashSet<String>,
) -> serde_json::Result<Vec<Vec<Step>>> {
    let mut by_ticket = BTreeMap::<TicketId, Vec<&UntoldOrder>>::new();
    for order in orders {
        by_ticket.entry(order.ticket).or_default().push(order);
    }
    by_ticket.into_values().map(|orders| of_ticket(orders, published)).collect()
}

fn of_ticket(mut orders: Vec<&UntoldOrder>, published: &HashSet<String>) -> serde_json::Result<Vec<Step>> {
    orders.sort_by_key(|untold| (place(untold, published), untold.order.id));
    let mut steps = Vec::new();
    for untold in orders {
        let id = untold.order.id;
        let message_id = |known| message_id(untold, known);
        if untold.changes.is_empty() && untold.refused.is_empty() {
            let again = untold.again.clone();
            let note = Note::Told(Told { id, version: untold.order.version, again });
            steps.push(Step { note, message: None, since: None });
        }
        for change in &untold.changes {
            let event = OrderEvent::new(untold, *change);
            let message =
                Message { subject: event.subject(), id: message_id(event.message_id()), data: event.data()? };
            steps.push(Step {
                note: Note::Told(Told { id, version: change.version, again: untold.again.clone() }),
                message: Some(message).filter(|message| !published.contains(&message.id)),
                since: untold.since,
            });
        }
        for refused in &untold.refused {
            let event = PaymentRefused::new(&refused.payment, id, refused.reason);
            let message = Message {
                subject: Subject::PaymentRefused,
                id: message_id(event.message_id()),
                data: event.data()?,
            };
            steps.push(Step {
                note: Note::Refused(id, refused.payment.clone()),
                message: Some(message).filter(|message| !published.contains(&message.id)),
                since: refused.since,
            });
        }
    }
    Ok(steps)
}

/// The id of a message about an order. The broker knows that of what was told before, so what is told again has another.
fn message_id(untold: &UntoldOrder, known: String) -> String {
    match &untold.again {
        Some(again) => format!("{known}:{again}"),
        None => known,
    }
}

/// The place of an order among those of its ticket: first the one that the neighbours know already, then those that came and
/// went, and last the one that holds the ticket.
fn place(untold: &UntoldOrder, published: &HashSet<String>) -> u8 {
    let is_known = !untold.changes.iter().any(|change| {
        // Whoever has told it may not have noted that.
        matches!(change.kind, ChangeKind::Created { .. })
            && !published.contains(&message_id(untold, OrderEvent::new(untold, *change).message_id()))
    });
    match untold.order.status {
        _ if is_known => 0,
        OrderStatus::Cancelled => 1,
        OrderStatus::Created | OrderStatus::AwaitingPayment | OrderStatus::Complete => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        order::{ExpiresAt, Order, OrderId, Refusal, UserId, Version},
        store::{Change, RefusedPayment},
    };

    const CREATED: (u32, ChangeKind) = (0, ChangeKind::Created { price: 20.0 });
    const CANCELLED: (u32, ChangeKind) = (1, ChangeKind::Cancelled);

    fn untold(id: u8, ticket: u8, status: OrderStatus, changes: &[(u32, ChangeKind)]) -> UntoldOrder {
        let ticket = TicketId::from_bytes([ticket; 12]);
        let change = |(version, kind): &(u32, ChangeKind)| Change { version: Version(*version), kind: *kind };
        let order = Order {
            id: OrderId::from_bytes([id; 12]),
            user: UserId::new("u1").unwrap(),
            status,
            expires_at: ExpiresAt::Missing,
            ticket: Some(ticket),
            version: Version(u32::from(status != OrderStatus::Created)),
        };
        let changes = changes.iter().map(change).collect();
        UntoldOrder { order, ticket, payment: None, changes, refused: Vec::new(), since: None, again: None }
    }

    /// The steps as `order:version`, with a question mark for what is published already.
    fn plan(orders: &[UntoldOrder], published: &[String]) -> Vec<Vec<String>> {
        let published = published.iter().cloned().collect();
        let shown = |step: &Step| {
            let mark = if step.message.is_some() { "" } else { "?" };
            match &step.note {
                Note::Told(told) => format!("{}:{}{mark}", told.id.bytes()[0], told.version),
                Note::Refused(id, payment) => format!("{}:{payment}{mark}", id.bytes()[0]),
            }
        };
        steps(orders, &published).unwrap().iter().map(|line| line.iter().map(shown).collect()).collect()
    }

    #[test]
    fn the_orders_of_a_ticket_are_told_one_after_the_other_and_the_one_that_holds_it_last() {
        let orders = [
            untold(1, 9, OrderStatus::Created, &[CREATED]),
            untold(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]),
            untold(3, 9, OrderStatus::Cancelled, &[CANCELLED]),
            untold(4, 8, OrderStatus::Complete, &[CREATED, (1, ChangeKind::Completed)]),
        ];
        let wanted = [vec!["4:0", "4:1"], vec!["3:1", "2:0", "2:1", "1:0"]];
        assert_eq!(plan(&orders, &[]), wanted);
        assert_eq!(plan(&[orders[3].clone(), orders[2].clone()], &[]), [["4:0", "4:1"].as_slice(), &["3:1"]]);
    }

    #[test]
    fn what_is_published_already_is_not_published_again_and_keeps_its_place() {
        let order = untold(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let first = format!("{}:0", order.order.id);
        assert_eq!(plan(std::slice::from_ref(&order), &[first]), [["2:0?", "2:1"]]);
        let nothing = untold(5, 9, OrderStatus::Cancelled, &[]);
        assert_eq!(plan(&[nothing], &[]), [["5:1?"]], "it is noted all the same");
    }

    #[test]
    fn an_order_whose_making_is_published_and_not_noted_is_known_and_ends_before_others_begin() {
        let known = untold(9, 7, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let brief = untold(1, 7, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let published = [format!("{}:0", known.order.id)];
        assert_eq!(plan(&[brief, known], &published), [["9:0?", "9:1", "1:0", "1:1"]]);
    }

    #[test]
    fn what_is_told_again_has_an_id_that_nobody_knows() {
        let mut order = untold(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        order.again = Some("x".into());
        let known = format!("{}:0", order.order.id);
        assert_eq!(plan(std::slice::from_ref(&order), std::slice::from_ref(&known)), [["2:0", "2:1"]]);
        assert_eq!(plan(&[order], &[format!("{known}:x")]), [["2:0?", "2:1"]]);
    }

    #[test]
    fn refused_payments_are_told_after_the_changes_of_their_order() {
        let refused = |payment: &str| RefusedPayment {
            payment: payment.into(),
            reason: Refusal::OrderCancelled,
            since: None,
        };
        let mut order = untold(2, 9, OrderStatus::Cancelled, &[CANCELLED]);
        order.refused = vec![refused("p1"), refused("p2")];
        assert_eq!(plan(&[order.clone()], &[]), [["2:1", "2:p1", "2:p2"]]);
        order.changes.clear();
        assert_eq!(plan(&[order], &[]), [["2:p1", "2:p2"]], "that alone says nothing of its version");
    }
}
