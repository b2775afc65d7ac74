//! Judges what the neighbours could hear, from the whole stream and the database: whatever was killed, and when. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::nats::Event;

/// An order, as the database has it in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) ticket: String,
    pub(crate) status: String,
    pub(crate) version: u64,
    /// The payment that has completed it.
    pub(crate) payment: Option<String>,
    /// The payments that it has refused.
    pub(crate) refused: Vec<String>,
}

/// What was told, or heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Created,
    Updated,
    Cancelled,
    Completed,
    Refused,
    Paid,
    Ticket,
}

/// One event, in the order of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Told {
    pub(crate) kind: Kind,
    /// The order; of a ticket's event, the ticket.
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) ticket: String,
    pub(crate) payment: String,
}

impl Told {
    /// Reads an event whose subject has this prefix.
    pub(crate) fn read(event: &Event, prefix: &str) -> Self {
        let kind = match event.subject.strip_prefix(prefix) {
            Some("order:created") => Kind::Created,
            Some("order:updated") => Kind::Updated,
            Some("order:cancelled") => Kind::Cancelled,
            Some("order:completed") => Kind::Completed,
            Some("payment:refused") => Kind::Refused,
            Some("payment:created") => Kind::Paid,
            Some("ticket:created" | "ticket:updated") => Kind::Ticket,
            _ => panic!("{event:?} has a subject of nobody"),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let data = &event.data;
        let is_of_payment = matches!(kind, Kind::Refused | Kind::Paid);
        Self {
            kind,
            id: text(&data[if is_of_payment { "orderId" } else { "id" }]),
            version: data["version"].as_u64().unwrap_or_default(),
            ticket: text(&data["ticket"]["id"]),
            payment: text(&data[if is_of_payment { "id" } else { "paymentId" }]),
        }
    }
}

/// All that is known in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) orders: Vec<Order>,
    /// The copies of tickets, with their versions.
    pub(crate) tickets: HashMap<String, u64>,
    pub(crate) told: Vec<Told>,
}

/// What was told of one ticket so far.
#[derive(Default)]
struct Line<'a> {
    holder: Option<&'a str>,
    seen: HashSet<&'a Told>,
    last: Option<&'a Told>,
}

impl Case {
    /// Everything that is wrong; empty if all is as it must be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let orders: HashMap<_, _> = self.orders.iter().map(|order| (order.id.as_str(), order)).collect();
        let mut problems = self.of_changes(&orders);
        problems.extend(self.of_order(&orders));
        problems.extend(self.of_payments(&orders));
        problems.extend(self.of_tickets());
        problems
    }

    /// How many events were told more than once.
    pub(crate) fn duplicates(&self) -> usize {
        let told: Vec<_> = self.told.iter().filter(|told| told.kind <= Kind::Refused).collect();
        told.len() - told.iter().collect::<HashSet<_>>().len()
    }

    fn of_orders(&self) -> impl Iterator<Item = &Told> {
        self.told.iter().filter(|told| told.kind < Kind::Refused)
    }

    /// Each event has its change, and each change its event.
    fn of_changes(&self, orders: &HashMap<&str, &Order>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut told = BTreeMap::<&str, HashSet<u64>>::new();
        for event in self.of_orders() {
            told.entry(&event.id).or_default().insert(event.version);
            let Some(order) = orders.get(event.id.as_str()) else {
                problems.push(format!("{event:?} is about an order that is not there"));
                continue;
            };
            let made = match (event.version, order.status.as_str()) {
                (0, _) => Kind::Created,
                (version, _) if version < order.version => Kind::Updated,
                (_, "cancelled") => Kind::Cancelled,
                (_, "complete") => Kind::Completed,
                _ => Kind::Updated,
            };
            if event.version > order.version || event.kind != made || event.ticket != order.ticket {
                problems.push(format!("{event:?} tells what was not done to {order:?}"));
            }
        }
        for order in &self.orders {
            let known = told.get(order.id.as_str());
            for version in 0..=order.version {
                if !known.is_some_and(|known| known.contains(&version)) {
                    problems.push(format!("version {version} of {order:?} was never told"));
                }
            }
        }
        problems
    }

    /// Each order's events by version, the orders of a ticket one after the other, and nothing again after something later
    /// of the same ticket.
    fn of_order(&self, orders: &HashMap<&str, &Order>) -> Vec<String> {
        let mut problems = Vec::new();
        let (mut lines, mut next) = (HashMap::<&str, Line<'_>>::new(), HashMap::<&str, u64>::new());
        for event in self.told.iter().filter(|told| told.kind <= Kind::Refused) {
            // A payment of an order that never was has no ticket.
            let Some(order) = orders.get(event.id.as_str()) else { continue };
            let line = lines.entry(&order.ticket).or_default();
            if !line.seen.insert(event) {
                if line.last != Some(event) {
                    problems.push(format!("{event:?} is told again after {:?}", line.last));
                }
                continue;
            }
            line.last = Some(event);
            if event.kind == Kind::Refused {
                continue;
            }
            let next = next.entry(&event.id).or_default();
            if event.version != *next {
                problems.push(format!("{event:?} comes where version {next} was due"));
            }
            *next = event.version + 1;
            let holder = if event.kind == Kind::Created { None } else { Some(event.id.as_str()) };
            if line.holder != holder {
                problems.push(format!("{event:?} comes while the ticket is held by {:?}", line.holder));
            }
            line.holder = (event.kind != Kind::Cancelled).then_some(&event.id);
        }
        problems
    }

    /// Each payment has completed its order or was refused, and what was told says the same.
    fn of_payments(&self, orders: &HashMap<&str, &Order>) -> Vec<String> {
        let mut problems = Vec::new();
        let told = |kind: Kind| {
            let told = self.told.iter().filter(move |told| told.kind == kind);
            told.map(|told| (told.payment.as_str(), told.id.as_str())).collect::<HashSet<_>>()
        };
        let paid = told(Kind::Paid);
        let (completed, refused) = (told(Kind::Completed), told(Kind::Refused));
        for pair in completed.iter().chain(&refused) {
            if !paid.contains(pair) {
                problems.push(format!("{pair:?} is settled, and nobody has paid"));
            }
        }
        for pair in &paid {
            let (payment, id) = *pair;
            let order = orders.get(id);
            let has_completed = order.is_some_and(|order| order.payment.as_deref() == Some(payment));
            // An order that never was has nothing noted.
            let was_refused =
                order.is_none_or(|order| order.refused.iter().any(|refused| refused == payment));
            if has_completed == was_refused {
                problems.push(format!(
                    "{pair:?} has {} its order and was {} refused",
                    if has_completed { "completed" } else { "not completed" },
                    if was_refused { "also" } else { "not" }
                ));
            }
            if (has_completed, was_refused) != (completed.contains(pair), refused.contains(pair)) {
                problems.push(format!("what is told of {pair:?} is not what was done"));
            }
        }
        problems
    }

    /// Of each ticket the newest version is known.
    fn of_tickets(&self) -> Vec<String> {
        let mut newest = HashMap::<&str, u64>::new();
        for event in self.told.iter().filter(|told| told.kind == Kind::Ticket) {
            let known = newest.entry(&event.id).or_default();
            *known = event.version.max(*known);
        }
        let is_wrong = |(id, version): &(&str, u64)| self.tickets.get(*id) != Some(version);
        let wrong = newest.into_iter().filter(is_wrong);
        wrong
            .map(|(id, version)| {
                format!("of the ticket {id} version {:?} is known, not {version}", self.tickets.get(id))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, id: &str, version: u64, payment: &str) -> Told {
        let ticket = if kind < Kind::Refused { "t" } else { "" };
        Told { kind, id: id.into(), version, ticket: ticket.into(), payment: payment.into() }
    }

    /// Two orders of one ticket: the first was cancelled, and the second paid for, twice.
    fn case() -> Case {
        let order = |id: &str, status: &str| Order {
            id: id.into(),
            ticket: "t".into(),
            status: status.into(),
            version: 1,
            ..Order::default()
        };
        let refused = Order { refused: vec!["p1".into()], ..order("a", "cancelled") };
        let paid = Order { payment: Some("p2".into()), refused: vec!["p3".into()], ..order("b", "complete") };
        Case {
            orders: vec![refused, paid],
            tickets: HashMap::from([("t".to_owned(), 2)]),
            told: vec![
                told(Kind::Ticket, "t", 2, ""),
                told(Kind::Ticket, "t", 0, ""),
                told(Kind::Created, "a", 0, ""),
                told(Kind::Cancelled, "a", 1, ""),
                told(Kind::Cancelled, "a", 1, ""),
                told(Kind::Created, "b", 0, ""),
                told(Kind::Paid, "a", 0, "p1"),
                told(Kind::Paid, "b", 0, "p2"),
                told(Kind::Refused, "a", 0, "p1"),
                told(Kind::Completed, "b", 1, "p2"),
                told(Kind::Paid, "b", 0, "p3"),
                told(Kind::Paid, "b", 0, "p3"),
                told(Kind::Refused, "b", 0, "p3"),
                told(Kind::Paid, "x", 0, "p4"),
                told(Kind::Refused, "x", 0, "p4"),
            ],
        }
    }

    #[test]
    fn what_is_as_it_must_be_has_no_problems() {
        assert_eq!(case().problems(), [""; 0]);
        assert_eq!(case().duplicates(), 1);
        let mut begun = case();
        begun.orders[1].version = 2;
        begun.told[9].version = 2;
        begun.told.insert(7, told(Kind::Updated, "b", 1, ""));
        assert_eq!(begun.problems(), [""; 0]);
    }

    #[test]
    fn whatever_breaks_a_rule_has_a_problem() {
        type Break = fn(&mut Case);
        let broken: [(&str, Break); 17] = [
            ("a change that is not told", |case| drop(case.told.remove(9))),
            ("an order that is not told", |case| {
                case.orders.push(Order { id: "c".into(), ticket: "u".into(), ..Order::default() });
            }),
            ("an event of no order", |case| case.told.push(told(Kind::Created, "c", 0, ""))),
            ("an event of no change", |case| case.told.push(told(Kind::Cancelled, "b", 2, ""))),
            ("an event of another change", |case| case.told[3].kind = Kind::Completed),
            ("an event with another ticket", |case| case.told[3].ticket = "u".into()),
            ("an end before its beginning", |case| case.told.swap(2, 3)),
            ("the next order before the end of the last", |case| case.told.swap(4, 5)),
            ("the next order before the end of the last, told once", |case| {
                drop(case.told.remove(4));
                case.told.swap(3, 4);
            }),
            ("a late duplicate of another order", |case| case.told.push(told(Kind::Cancelled, "a", 1, ""))),
            ("a late duplicate of the same order", |case| {
                case.told.insert(4, told(Kind::Created, "a", 0, ""));
            }),
            ("a late duplicate of a refusal", |case| case.told.push(told(Kind::Refused, "a", 0, "p1"))),
            ("a payment that did both", |case| case.orders[1].refused.push("p2".into())),
            ("a payment that did neither", |case| case.orders[1].refused.clear()),
            ("a refusal that is not told", |case| drop(case.told.remove(8))),
            ("a refusal of an order that never was is not told", |case| drop(case.told.pop())),
            ("an old copy of a ticket", |case| {
                case.tickets.insert("t".into(), 0);
            }),
        ];
        for (what, change) in broken {
            let mut case = case();
            change(&mut case);
            assert!(!case.problems().is_empty(), "{what}");
        }
        let mut unpaid = case();
        unpaid.told.retain(|told| told.kind != Kind::Paid);
        assert!(!unpaid.problems().is_empty());
    }
}
