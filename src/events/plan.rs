//! The order of publishing: everything that is pending of one ticket, one event after the other. Different tickets are
//! published at the same time. Pure.
//!
//! Where an order that is over is published again, the one that holds its ticket is published again after it, since consumers
//! keep one order for each ticket. Its events then have ids that follow from what comes before them, so the broker does not
//! know them unless they were published after just that. Nothing of the ticket is marked as published before the holder is:
//! a relay that is interrupted leaves all of it to the next one.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    broker::Message,
    wire::{OrderEvent, PaymentRefused, Subject},
};
use crate::{
    order::{OrderId, OrderStatus, TicketId},
    runtime::hex,
    store::{ChangeKind, Pending, PendingOrder, Published},
};

/// What is cleared from the outbox, that is marked as published, once a step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cleared {
    /// The changes of an order up to a version.
    Changes(Published),
    /// That the order has refused a payment.
    Refusal(OrderId, String),
}

/// One step: an event of an order is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Nothing, if that has to wait for a later step.
    pub(super) cleared: Option<Cleared>,
    /// What is published; nothing if that was done before.
    pub(super) message: Option<Message>,
    pub(super) since: Option<Timestamp>,
}

/// The steps for each ticket, without those messages that are `published` already.
pub(super) fn steps(
    pending: &Pending,
    published: &HashSet<String>,
) -> serde_json::Result<BTreeMap<TicketId, Vec<Step>>> {
    let mut by_ticket = BTreeMap::<TicketId, Vec<&PendingOrder>>::new();
    for order in &pending.orders {
        by_ticket.entry(order.ticket).or_default().push(order);
    }
    let line = |(ticket, orders)| Ok((ticket, of_ticket(orders, pending.holders.get(&ticket), published)?));
    by_ticket.into_iter().map(line).collect()
}

fn of_ticket(
    mut orders: Vec<&PendingOrder>,
    holder: Option<&PendingOrder>,
    published: &HashSet<String>,
) -> serde_json::Result<Vec<Step>> {
    orders.sort_by_key(|pending| (place(pending, published), pending.order.id));
    let mut steps = match holder {
        Some(holder) => with_holder_last(&orders, holder)?,
        None => of_orders(&orders)?,
    };
    for step in &mut steps {
        step.message = step.message.take().filter(|message| !published.contains(&message.id));
    }
    Ok(steps)
}

/// The most orders that are published before the one that holds their ticket: all of that is published before anything else
/// is read.
const BEFORE_HOLDER: usize = 200;

/// Publishes `orders`, then all that there is of `holder`, and only then clears anything from the outbox.
///
/// Of very many orders only the first: the others are left to the next round, which ends with the holder again.
fn with_holder_last(orders: &[&PendingOrder], holder: &PendingOrder) -> serde_json::Result<Vec<Step>> {
    let (own, mut others): (Vec<_>, Vec<_>) =
        orders.iter().copied().partition(|pending| pending.order.id == holder.order.id);
    others.truncate(BEFORE_HOLDER);
    let mut steps = of_orders(&others)?;
    let cleared: Vec<_> = steps.iter_mut().filter_map(|step| step.cleared.take()).collect();
    let again = PendingOrder { again: Some(mark_after(&steps)), ..holder.clone() };
    steps.extend(of_orders(&[&again])?.into_iter().map(|step| Step { cleared: None, ..step }));
    steps.extend(cleared.into_iter().map(|cleared| Step {
        cleared: Some(cleared),
        message: None,
        since: None,
    }));
    for step in of_orders(&own)? {
        let is_published = matches!(&step.cleared, Some(Cleared::Changes(published)) if published.version <= holder.order.version);
        steps.push(if is_published { Step { message: None, ..step } } else { step });
    }
    Ok(steps)
}

/// A mark of what comes after these steps: the same for the same messages, in whatever order.
fn mark_after(steps: &[Step]) -> String {
    let mut ids: Vec<_> = steps.iter().filter_map(|step| Some(step.message.as_ref()?.id.as_str())).collect();
    ids.sort_unstable();
    hex(Sha256::digest(ids.join("\n")).iter().take(8))
}

/// The steps of some orders, one order after the other.
fn of_orders(orders: &[&PendingOrder]) -> serde_json::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for pending in orders {
        let id = pending.order.id;
        let message_id = |known| message_id(pending, known);
        let changes =
            |version| Some(Cleared::Changes(Published { id, version, again: pending.again.clone() }));
        if pending.changes.is_empty() && pending.refused.is_empty() {
            steps.push(Step { cleared: changes(pending.order.version), message: None, since: None });
        }
        for change in &pending.changes {
            let event = OrderEvent::new(pending, *change);
            let message =
                Message { subject: event.subject(), id: message_id(event.message_id()), data: event.data()? };
            steps.push(Step {
                cleared: changes(change.version),
                message: Some(message),
                since: pending.since,
            });
        }
        for refused in &pending.refused {
            let event = PaymentRefused::new(&refused.payment, id, refused.reason);
            let message = Message {
                subject: Subject::PaymentRefused,
                id: message_id(event.message_id()),
                data: event.data()?,
            };
            let cleared = Some(Cleared::Refusal(id, refused.payment.clone()));
            steps.push(Step { cleared, message: Some(message), since: refused.since });
        }
    }
    Ok(steps)
}

/// The id of a message about an order. The broker knows the id of what was published before, so what is published again has
/// another.
fn message_id(pending: &PendingOrder, known: String) -> String {
    match &pending.again {
        Some(again) => format!("{known}:{again}"),
        None => known,
    }
}

/// The place of an order among those of its ticket: first the one that consumers know already, then those that came and
/// went, and last the one that holds the ticket.
fn place(pending: &PendingOrder, published: &HashSet<String>) -> u8 {
    let is_known = !pending.changes.iter().any(|change| {
        // A relay may have published it and not marked it as such.
        matches!(change.kind, ChangeKind::Created { .. })
            && !published.contains(&message_id(pending, OrderEvent::new(pending, *change).message_id()))
    });
    match pending.order.status {
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

    fn pending(id: u8, ticket: u8, status: OrderStatus, changes: &[(u32, ChangeKind)]) -> PendingOrder {
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
        PendingOrder { order, ticket, payment: None, changes, refused: Vec::new(), since: None, again: None }
    }

    /// The steps as `order:version`, with a question mark for what is published already.
    fn plan(orders: &[PendingOrder], published: &[String]) -> Vec<Vec<String>> {
        let published = published.iter().cloned().collect();
        let shown = |step: &Step| {
            let mark = if step.message.is_some() { "" } else { "?" };
            match step.cleared.as_ref().unwrap() {
                Cleared::Changes(published) => {
                    format!("{}:{}{mark}", published.id.bytes()[0], published.version)
                }
                Cleared::Refusal(id, payment) => format!("{}:{payment}{mark}", id.bytes()[0]),
            }
        };
        let pending = Pending { orders: orders.to_vec(), ..Pending::default() };
        steps(&pending, &published).unwrap().values().map(|line| line.iter().map(shown).collect()).collect()
    }

    /// One that is over, published again with the mark `again`.
    fn former(id: u8, again: &str) -> PendingOrder {
        let order = pending(id, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        PendingOrder { again: Some(again.into()), ..order }
    }

    /// The one that holds the ticket.
    fn holder() -> PendingOrder {
        pending(8, 9, OrderStatus::Created, &[CREATED])
    }

    /// Takes the steps of a ticket that the holder has, the first `taken` of them, and adds to what is `published`. Returns
    /// the orders whose messages were published, and what is marked as published.
    fn take(
        orders: &[PendingOrder],
        published: &mut HashSet<String>,
        taken: usize,
    ) -> (Vec<u8>, Vec<Published>) {
        let holders = [(holder().ticket, holder())].into();
        let pending = Pending { orders: orders.to_vec(), holders, is_full: false };
        let (mut sent, mut marked) = (Vec::new(), Vec::new());
        let mut lines = steps(&pending, published).unwrap();
        for step in lines.pop_first().unwrap().1.into_iter().take(taken) {
            if let Some(message) = step.message {
                sent.push(u8::from_str_radix(&message.id[..2], 16).unwrap());
                assert!(published.insert(message.id), "the broker knows that");
            }
            match step.cleared {
                Some(Cleared::Changes(published)) => marked.push(published),
                Some(Cleared::Refusal(..)) => panic!("nothing is refused here"),
                None => {}
            }
        }
        (sent, marked)
    }

    #[test]
    fn whatever_is_told_again_of_former_orders_the_holder_is_told_after_it_with_ids_that_nobody_knows() {
        let mut published = HashSet::new();
        let requeued = PendingOrder { again: Some("x".into()), ..holder() };
        // The orders of a run with the mark x are seen one after the other, while it puts them in the outbox.
        assert_eq!(take(&[former(1, "x")], &mut published, 99).0, [1, 1, 8]);
        assert_eq!(take(&[former(2, "x"), requeued.clone()], &mut published, 99).0, [2, 2, 8]);
        // Another run has put one of them in the outbox meanwhile, and not the holder.
        assert_eq!(
            take(&[former(3, "y"), former(1, "y"), requeued.clone()], &mut published, 99).0,
            [1, 1, 3, 3, 8]
        );
        // The holder's creation is published, and not marked as such.
        published.insert(format!("{}:0", holder().order.id));
        assert_eq!(take(&[holder(), former(1, "z")], &mut published, 99).0, [1, 1, 8]);
    }

    #[test]
    fn a_line_that_breaks_off_is_begun_again_until_the_holder_is_told() {
        let all = [former(1, "x"), former(2, "x"), former(3, "x")];
        for (first, second) in (0..9).flat_map(|first| (0..9).map(move |second| (first, second))) {
            let (mut published, mut sent) = (HashSet::new(), Vec::new());
            // What comes before the others by its id is put in the outbox after them.
            for (orders, taken) in [(&all[1..], first), (&all[..], second), (&all[..], 99)] {
                let (now, marked) = take(orders, &mut published, taken);
                sent.extend(now);
                assert!(
                    marked.is_empty() || sent.last() == Some(&8),
                    "{first} {second}: {sent:?} {marked:?}"
                );
            }
            assert_eq!(sent.last(), Some(&8), "{first} {second}: {sent:?}");
            let count = sent.len();
            sent.extend(take(&all, &mut published, 99).0);
            assert_eq!(sent.len(), count, "nothing is published without need");
        }
    }

    #[test]
    fn of_very_many_former_orders_some_are_told_at_a_time_and_the_holder_after_each_of_these() {
        let many = |marks: std::ops::Range<usize>| -> Vec<_> {
            marks.map(|mark| PendingOrder { refused: Vec::new(), ..former(1, &mark.to_string()) }).collect()
        };
        let mut published = HashSet::new();
        let (sent, marked) = take(&many(0..BEFORE_HOLDER + 5), &mut published, usize::MAX);
        assert_eq!((sent.len(), marked.len()), (2 * BEFORE_HOLDER + 1, 2 * BEFORE_HOLDER));
        assert_eq!(sent.last(), Some(&8));
        let (sent, _) = take(&many(BEFORE_HOLDER..BEFORE_HOLDER + 5), &mut published, usize::MAX);
        assert_eq!((sent.len(), sent.last()), (11, Some(&8)));
    }

    #[test]
    fn a_holder_that_has_come_meanwhile_is_not_noted_as_told_and_another_once() {
        let marked = |orders: &[PendingOrder]| {
            let marked = take(orders, &mut HashSet::new(), 99).1;
            marked.into_iter().filter(|published| published.id == holder().order.id).collect::<Vec<_>>()
        };
        assert_eq!(marked(&[former(1, "x")]), []);
        let published = |again: Option<&str>| Published {
            id: holder().order.id,
            version: Version(0),
            again: again.map(str::to_owned),
        };
        assert_eq!(marked(&[former(1, "x"), holder()]), [published(None)]);
        assert_eq!(
            marked(&[former(1, "x"), PendingOrder { again: Some("y".into()), ..holder() }]),
            [published(Some("y"))]
        );
    }

    #[test]
    fn what_the_holder_has_become_since_it_was_read_is_told_after_it() {
        let complete = pending(8, 9, OrderStatus::Complete, &[(1, ChangeKind::Completed)]);
        let mut published = HashSet::new();
        // As a look at an older state finds it, it is not complete.
        assert_eq!(take(&[former(1, "x"), complete], &mut published, 99).0, [1, 1, 8, 8]);
        assert!(published.contains(&format!("{}:1", holder().order.id)));
    }

    #[test]
    fn the_orders_of_a_ticket_are_told_one_after_the_other_and_the_one_that_holds_it_last() {
        let orders = [
            pending(1, 9, OrderStatus::Created, &[CREATED]),
            pending(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]),
            pending(3, 9, OrderStatus::Cancelled, &[CANCELLED]),
            pending(4, 8, OrderStatus::Complete, &[CREATED, (1, ChangeKind::Completed)]),
        ];
        let wanted = [vec!["4:0", "4:1"], vec!["3:1", "2:0", "2:1", "1:0"]];
        assert_eq!(plan(&orders, &[]), wanted);
        assert_eq!(plan(&[orders[3].clone(), orders[2].clone()], &[]), [["4:0", "4:1"].as_slice(), &["3:1"]]);
    }

    #[test]
    fn what_is_published_already_is_not_published_again_and_keeps_its_place() {
        let order = pending(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let first = format!("{}:0", order.order.id);
        assert_eq!(plan(std::slice::from_ref(&order), &[first]), [["2:0?", "2:1"]]);
        let nothing = pending(5, 9, OrderStatus::Cancelled, &[]);
        assert_eq!(plan(&[nothing], &[]), [["5:1?"]], "it is marked all the same");
    }

    #[test]
    fn an_order_whose_making_is_published_and_not_noted_is_known_and_ends_before_others_begin() {
        let known = pending(9, 7, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let brief = pending(1, 7, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        let published = [format!("{}:0", known.order.id)];
        assert_eq!(plan(&[brief, known], &published), [["9:0?", "9:1", "1:0", "1:1"]]);
    }

    #[test]
    fn what_is_told_again_has_an_id_that_nobody_knows() {
        let mut order = pending(2, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
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
        let mut order = pending(2, 9, OrderStatus::Cancelled, &[CANCELLED]);
        order.refused = vec![refused("p1"), refused("p2")];
        assert_eq!(plan(&[order.clone()], &[]), [["2:1", "2:p1", "2:p2"]]);
        order.changes.clear();
        assert_eq!(plan(&[order], &[]), [["2:p1", "2:p2"]], "that alone says nothing of its version");
    }
}
