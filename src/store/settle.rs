//! What a payment does to its order: it completes it, or it is refused, once, however often and in whatever order payments
//! arrive.
//!
//! An order remembers the payment that completed it and those that were refused, and each write has both as conditions. So
//! no payment does both, and one that comes again changes nothing. A refusal is put in the outbox, to be published, by a write
//! that has its reason as a condition.
//!
//! Money is given back for what is refused, and a message is gone once it is acknowledged. So whatever is answered without a
//! write of its own is confirmed by one that changes nothing: a read alone may be of what a failover takes back, or of a
//! server that is no primary any more.

use jiff::Timestamp;
use mongodb::{
    bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    cast,
    database::Store,
    document::{ORDERS, date, object_id, statuses, to_order},
    error::StoreError,
    outbox::REFUSED,
    payments::payable_at,
    retry::{self, ROUNDS},
};
use crate::order::{Order, OrderId, OrderStatus, Refusal, ReservationTerms, Transition};

/// The field of a completed order that names its payment.
pub(super) const PAYMENT_ID: &str = "paymentId";

/// The field with the payments that were refused.
const REFUSED_PAYMENTS: &str = "refusedPayments";

/// The most payments that are refused for one order: its document must not grow without bound.
const MAX_REFUSED: usize = 100;

const SETTLING: &str = "settling a payment";

/// What a payment has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has completed its order.
    Completed,
    /// It was refused, and the refusal is in the outbox.
    Refused(Refusal),
    /// It had come before, and has changed nothing now.
    Repeated,
    /// There is no such order.
    OrderNotFound,
    /// It is refused. So many payments were refused for this order that no more are put in its outbox.
    TooManyRefused(Refusal),
}

impl Store {
    /// Settles the payment `payment` of the order `id`, which was published at `published` by the broker's clock.
    ///
    /// A payment that was published before the time of its order was over is in time if the order is still open, however
    /// late it arrives.
    ///
    /// # Errors
    /// When the order's document cannot be read, or the database fails.
    pub async fn settle(
        &self,
        id: OrderId,
        payment: &str,
        published: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<Settled, StoreError> {
        retry::patiently(SETTLING, || async {
            for _ in 0..ROUNDS {
                let at = self.server_time().await?.min(published);
                if self.complete_by(id, payment, at, terms).await? {
                    return Ok(Settled::Completed);
                }
                let Some(found) = self.order_loader.one(object_id(id.bytes())).await? else {
                    if self.holds(SETTLING, ORDERS, of(id)).await? {
                        continue;
                    }
                    return Ok(Settled::OrderNotFound);
                };
                if let Some(known) = as_known(&found, payment) {
                    if self.holds(SETTLING, ORDERS, with(of(id), known)).await? {
                        return Ok(Settled::Repeated);
                    }
                    continue;
                }
                let order = to_order(&found)?;
                let refusal = match order.status {
                    OrderStatus::Cancelled => Refusal::OrderCancelled,
                    OrderStatus::Complete if has_payment(&found) => Refusal::AlreadyPaid,
                    // The Node service does not keep which payment it was.
                    OrderStatus::Complete => {
                        if self.name_payment(id, payment).await? {
                            return Ok(Settled::Repeated);
                        }
                        continue;
                    }
                    _ if order.is_overdue(at, terms) => Refusal::TooLate,
                    // It changed meanwhile. The write decides, so it is repeated.
                    _ => {
                        retry::backoff(1).await;
                        continue;
                    }
                };
                let refusable = refusable(&order, payment);
                if refused(&found).count() >= MAX_REFUSED {
                    let full =
                        doc! { format!("{REFUSED_PAYMENTS}.{}", MAX_REFUSED - 1): { "$exists": true } };
                    if self.holds(SETTLING, ORDERS, with(refusable, full)).await? {
                        return Ok(Settled::TooManyRefused(refusal));
                    }
                } else if self.refuse(refusable, payment, refusal).await? {
                    return Ok(Settled::Refused(refusal));
                }
            }
            let detail = format!("the order {id} keeps changing");
            Err(StoreError::Unavailable { doing: SETTLING, detail })
        })
        .await
    }

    async fn complete_by(
        &self,
        id: OrderId,
        payment: &str,
        at: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<bool, StoreError> {
        let mut filter = doc! {
            "_id": object_id(id.bytes()),
            "status": { "$in": statuses(Transition::Complete.from()) },
            REFUSED_PAYMENTS: { "$ne": payment },
        };
        filter.extend(payable_at(at, terms));
        let mut update = self.transition_with_entry(Transition::Complete).await?;
        if let Some(Bson::Document(set)) = update.get_mut("$set") {
            set.insert(PAYMENT_ID, payment);
        }
        let orders = self.raw_orders();
        let done = retry::transient(SETTLING, || async {
            orders
                .find_one_and_update(filter.clone(), update.clone())
                .return_document(ReturnDocument::After)
                .await
        })
        .await?;
        if done.is_some() {
            self.outbox.written();
        }
        Ok(done.is_some())
    }

    async fn name_payment(&self, id: OrderId, payment: &str) -> Result<bool, StoreError> {
        let filter = doc! {
            "_id": object_id(id.bytes()),
            "status": OrderStatus::Complete.as_str(),
            // Missing or null.
            PAYMENT_ID: Bson::Null,
            REFUSED_PAYMENTS: { "$ne": payment },
        };
        self.update_once(filter, doc! { "$set": { PAYMENT_ID: payment } }).await
    }

    async fn refuse(&self, refusable: Document, payment: &str, refusal: Refusal) -> Result<bool, StoreError> {
        let entry = doc! {
            "payment": payment, "reason": refusal.as_str(), "since": date(self.reached().await?),
        };
        let done = self
            .update_once(refusable, doc! { "$push": { REFUSED_PAYMENTS: payment, REFUSED: entry } })
            .await?;
        if done {
            self.outbox.written();
        }
        Ok(done)
    }

    async fn update_once(&self, filter: Document, update: Document) -> Result<bool, StoreError> {
        let orders = self.orders();
        let result =
            retry::transient(SETTLING, || async { orders.update_one(filter.clone(), update.clone()).await })
                .await?;
        Ok(result.matched_count > 0)
    }
}

fn of(id: OrderId) -> Document {
    doc! { "_id": object_id(id.bytes()) }
}

fn with(mut filter: Document, condition: Document) -> Document {
    filter.extend(condition);
    filter
}

/// The condition for the order as it was read, which does not take this payment.
fn refusable(order: &Order, payment: &str) -> Document {
    with(
        of(order.id),
        doc! {
            "status": order.status.as_str(),
            PAYMENT_ID: { "$ne": payment },
            REFUSED_PAYMENTS: { "$ne": payment },
        },
    )
}

/// By what the order shows that it has this payment, or has refused it; none if it does not know it.
fn as_known(order: &RawDocumentBuf, payment: &str) -> Option<Document> {
    if payment_of(order).is_some_and(|known| known == payment) {
        // In whatever form somebody has written it.
        let written = order.get(PAYMENT_ID).ok().flatten()?;
        return Some(doc! { PAYMENT_ID: Bson::try_from(written).ok()? });
    }
    refused(order).any(|known| known == payment).then(|| doc! { REFUSED_PAYMENTS: payment })
}

/// Whether anything is named as the payment of the order.
fn has_payment(order: &RawDocumentBuf) -> bool {
    !matches!(order.get(PAYMENT_ID), Ok(None | Some(RawBsonRef::Null)))
}

/// The payment that an order was completed by, if it names one.
pub(super) fn payment_of(order: &RawDocument) -> Option<String> {
    cast::id(order.get(PAYMENT_ID).ok().flatten()?)
}

/// The payments that an order has refused.
pub(super) fn refused(order: &RawDocumentBuf) -> impl Iterator<Item = &str> {
    let list = order.get_array(REFUSED_PAYMENTS).into_iter().flatten();
    list.filter_map(|payment| payment.ok()?.as_str())
}
