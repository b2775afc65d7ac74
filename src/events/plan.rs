//! What is told one after the other: all that is to be told of one ticket. What is to be told of different tickets is told
//! at the same time. Pure.
//!
//! Where an order that is over is told again, the one that holds its ticket is told again after it: neighbours keep one order
//! for each ticket. What is told of it then has ids that follow from what comes before it, so nobody knows them unless it was
//! told after just that. And nothing of the ticket is noted before that is told: whoever is interrupted leaves the next one
//! the whole of it.

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
    store::{ChangeKind, Told, Untold, UntoldOrder},
};

/// What is noted once a step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The order is told up to a version.
    Told(Told),
    /// It is told that the order has refused a payment.
    Refused(OrderId, String),
}

/// One step: something is told of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Nothing, if that has to wait for a later step.
    pub(super) note: Option<Note>,
    /// What is published; nothing if that was done before.
    pub(super) message: Option<Message>,
    pub(super) since: Option<Timestamp>,
}

/// The steps for each ticket, without those messages that are `published` already.
pub(super) fn steps(
    untold: &Untold,
    published: &HashSet<String>,
) -> serde_json::Result<BTreeMap<TicketId, Vec<Step>>> {
    let mut by_ticket = BTreeMap::<TicketId, Vec<&UntoldOrder>>::new();
    for order in &untold.orders {
        by_ticket.entry(order.ticket).or_default().push(order);
    }
    let line = |(ticket, orders)| Ok((ticket, of_ticket(orders, untold.holders.get(&ticket), published)?));
    by_ticket.into_iter().map(line).collect()
}

fn of_ticket(
    mut orders: Vec<&UntoldOrder>,
    holder: Option<&UntoldOrder>,
    published: &HashSet<String>,
) -> serde_json::Result<Vec<Step>> {
    orders.sort_by_key(|untold| (place(untold, published), untold.order.id));
    let mut steps = match holder {
        Some(holder) => with_holder_last(&orders, holder)?,
        None => of_orders(&orders)?,
    };
    for step in &mut steps {
        step.message = step.message.take().filter(|message| !published.contains(&message.id));
    }
    Ok(steps)
}

/// The most orders that are told before the one that holds their ticket: all of that is told before anything else is read.
const BEFORE_HOLDER: usize = 200;

/// What is told of `orders`, then all that there is to tell of `holder`, and only then the notes.
///
/// Of very many orders only the first: the others are left to the next round, which ends with the holder again.
fn with_holder_last(orders: &[&UntoldOrder], holder: &UntoldOrder) -> serde_json::Result<Vec<Step>> {
    let (own, mut others): (Vec<_>, Vec<_>) =
        orders.iter().copied().partition(|untold| untold.order.id == holder.order.id);
    others.truncate(BEFORE_HOLDER);
    let mut steps = of_orders(&others)?;
    let notes: Vec<_> = steps.iter_mut().filter_map(|step| step.note.take()).collect();
    let told = UntoldOrder { again: Some(mark_after(&steps)), ..holder.clone() };
    steps.extend(of_orders(&[&told])?.into_iter().map(|step| Step { note: None, ..step }));
    steps.extend(notes.into_iter().map(|note| Step { note: Some(note), message: None, since: None }));
    for step in of_orders(&own)? {
        let is_told = matches!(&step.note, Some(Note::Told(told)) if told.version <= holder.order.version);
        steps.push(if is_told { Step { message: None, ..step } } else { step });
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
fn of_orders(orders: &[&UntoldOrder]) -> serde_json::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for untold in orders {
        let id = untold.order.id;
        let message_id = |known| message_id(untold, known);
        let told = |version| Some(Note::Told(Told { id, version, again: untold.again.clone() }));
        if untold.changes.is_empty() && untold.refused.is_empty() {
            steps.push(Step { note: told(untold.order.version), message: None, since: None });
        }
        for change in &untold.changes {
            let event = OrderEvent::new(untold, *change);
            let message =
                Message { subject: event.subject(), id: message_id(event.message_id()), data: event.data()? };
            steps.push(Step { note: told(change.version), message: Some(message), since: untold.since });
        }
        for refused in &untold.refused {
            let event = PaymentRefused::new(&refused.payment, id, refused.reason);
            let message = Message {
                subject: Subject::PaymentRefused,
                id: message_id(event.message_id()),
                data: event.data()?,
            };
            let note = Some(Note::Refused(id, refused.payment.clone()));
            steps.push(Step { note, message: Some(message), since: refused.since });
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
            match step.note.as_ref().unwrap() {
                Note::Told(told) => format!("{}:{}{mark}", told.id.bytes()[0], told.version),
                Note::Refused(id, payment) => format!("{}:{payment}{mark}", id.bytes()[0]),
            }
        };
        let untold = Untold { orders: orders.to_vec(), ..Untold::default() };
        steps(&untold, &published).unwrap().values().map(|line| line.iter().map(shown).collect()).collect()
    }

    /// One that is over, told again with the mark `again`.
    fn former(id: u8, again: &str) -> UntoldOrder {
        let order = untold(id, 9, OrderStatus::Cancelled, &[CREATED, CANCELLED]);
        UntoldOrder { again: Some(again.into()), ..order }
    }

    /// The one that holds the ticket.
    fn holder() -> UntoldOrder {
        untold(8, 9, OrderStatus::Created, &[CREATED])
    }

    /// Takes the steps of a ticket that the holder has, the first `taken` of them, and adds to what is `published`. Returns
    /// the orders whose messages were published, and those that are noted as told.
    fn take(orders: &[UntoldOrder], published: &mut HashSet<String>, taken: usize) -> (Vec<u8>, Vec<Told>) {
        let holders = [(holder().ticket, holder())].into();
        let untold = Untold { orders: orders.to_vec(), holders, is_full: false };
        let (mut told, mut noted) = (Vec::new(), Vec::new());
        let mut lines = steps(&untold, published).unwrap();
        for step in lines.pop_first().unwrap().1.into_iter().take(taken) {
            if let Some(message) = step.message {
                told.push(u8::from_str_radix(&message.id[..2], 16).unwrap());
                assert!(published.insert(message.id), "the broker knows that");
            }
            match step.note {
                Some(Note::Told(told)) => noted.push(told),
                Some(Note::Refused(..)) => panic!("nothing is refused here"),
                None => {}
            }
        }
        (told, noted)
    }

    #[test]
    fn whatever_is_told_again_of_former_orders_the_holder_is_told_after_it_with_ids_that_nobody_knows() {
        let mut published = HashSet::new();
        let noted = UntoldOrder { again: Some("x".into()), ..holder() };
        // The orders of a run with the mark x are seen one after the other, while it notes them.
        assert_eq!(take(&[former(1, "x")], &mut published, 99).0, [1, 1, 8]);
        assert_eq!(take(&[former(2, "x"), noted.clone()], &mut published, 99).0, [2, 2, 8]);
        // Another run has noted one of them meanwhile, and not the holder.
        assert_eq!(
            take(&[former(3, "y"), former(1, "y"), noted.clone()], &mut published, 99).0,
            [1, 1, 3, 3, 8]
        );
        // The holder's making is published, and that is not noted.
        published.insert(format!("{}:0", holder().order.id));
        assert_eq!(take(&[holder(), former(1, "z")], &mut published, 99).0, [1, 1, 8]);
    }

    #[test]
    fn a_line_that_breaks_off_is_begun_again_until_the_holder_is_told() {
        let all = [former(1, "x"), former(2, "x"), former(3, "x")];
        for (first, second) in (0..9).flat_map(|first| (0..9).map(move |second| (first, second))) {
            let (mut published, mut told) = (HashSet::new(), Vec::new());
            // What comes before the others by its id is noted after them.
            for (orders, taken) in [(&all[1..], first), (&all[..], second), (&all[..], 99)] {
                let (published, noted) = take(orders, &mut published, taken);
                told.extend(published);
                assert!(noted.is_empty() || told.last() == Some(&8), "{first} {second}: {told:?} {noted:?}");
            }
            assert_eq!(told.last(), Some(&8), "{first} {second}: {told:?}");
            let count = told.len();
            told.extend(take(&all, &mut published, 99).0);
            assert_eq!(told.len(), count, "nothing is told for nothing");
        }
    }

    #[test]
    fn of_very_many_former_orders_some_are_told_at_a_time_and_the_holder_after_each_of_these() {
        let many = |marks: std::ops::Range<usize>| -> Vec<_> {
            marks.map(|mark| UntoldOrder { refused: Vec::new(), ..former(1, &mark.to_string()) }).collect()
        };
        let mut published = HashSet::new();
        let (told, noted) = take(&many(0..BEFORE_HOLDER + 5), &mut published, usize::MAX);
        assert_eq!((told.len(), noted.len()), (2 * BEFORE_HOLDER + 1, 2 * BEFORE_HOLDER));
        assert_eq!(told.last(), Some(&8));
        let (told, _) = take(&many(BEFORE_HOLDER..BEFORE_HOLDER + 5), &mut published, usize::MAX);
        assert_eq!((told.len(), told.last()), (11, Some(&8)));
    }

    #[test]
    fn a_holder_that_has_come_meanwhile_is_not_noted_as_told_and_another_once() {
        let noted = |orders: &[UntoldOrder]| {
            let noted = take(orders, &mut HashSet::new(), 99).1;
            noted.into_iter().filter(|told| told.id == holder().order.id).collect::<Vec<_>>()
        };
        assert_eq!(noted(&[former(1, "x")]), []);
        let told = |again: Option<&str>| Told {
            id: holder().order.id,
            version: Version(0),
            again: again.map(str::to_owned),
        };
        assert_eq!(noted(&[former(1, "x"), holder()]), [told(None)]);
        assert_eq!(
            noted(&[former(1, "x"), UntoldOrder { again: Some("y".into()), ..holder() }]),
            [told(Some("y"))]
        );
    }

    #[test]
    fn what_the_holder_has_become_since_it_was_read_is_told_after_it() {
        let complete = untold(8, 9, OrderStatus::Complete, &[(1, ChangeKind::Completed)]);
        let mut published = HashSet::new();
        // As a look at an older state finds it, it is not complete.
        assert_eq!(take(&[former(1, "x"), complete], &mut published, 99).0, [1, 1, 8, 8]);
        assert!(published.contains(&format!("{}:1", holder().order.id)));
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
