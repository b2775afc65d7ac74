//! Pending orders past those that are left out for now: the ones that cannot be published before something is mended, of
//! which there may be any number.
//!
//! What is left out stays pending, so a query for the first page would return the same page for ever. So this one goes by
//! ticket, and on from where the last one ended. It has one page at a time in memory, and need not know at once all that is
//! left out.

use mongodb::bson::doc;

use super::queries::{Pending, each, of_tickets_after, ticket_of};
use crate::{
    order::TicketId,
    store::{
        database::Store,
        document::object_id,
        error::StoreError,
        own_indexes::{is_pending, pending_keys},
    },
};

impl Store {
    /// About `limit` orders as [`Store::pending_after`] finds them, of tickets after `after` and without those that are left out; and
    /// the ticket from which to go on, unless there is nothing more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_past(
        &self,
        mut after: Option<TicketId>,
        limit: u32,
        mut is_left_out: impl FnMut(TicketId) -> bool + Send,
    ) -> Result<(Pending, Option<TicketId>), StoreError> {
        let mut found = Vec::new();
        loop {
            let page = self
                .find_pending(of_tickets_after(after), pending_keys(), Some(pending_keys()), limit)
                .await?;
            let is_full = page.len() as u64 >= u64::from(limit);
            // Those without a readable ticket come first; they are set aside, so the next query does not find them.
            let last = page.last().and_then(ticket_of);
            found.extend(page.into_iter().filter(|order| !ticket_of(order).is_some_and(&mut is_left_out)));
            // Orders of the last ticket that are not on this page are found by the next pass from the first ticket.
            after = last.filter(|_| is_full);
            if !is_full || last.is_none() || found.len() as u64 >= u64::from(limit) {
                let pending = self.with_their_tickets(found, limit, is_full, each).await?;
                return Ok((pending, after));
            }
        }
    }

    /// The pending orders of these tickets; and whether these are all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_of_tickets(
        &self,
        tickets: &[TicketId],
        limit: u32,
    ) -> Result<(Pending, bool), StoreError> {
        let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.bytes())).collect();
        let mut filter = is_pending();
        filter.insert("ticket", doc! { "$in": ids });
        let found = self.find_pending(filter, pending_keys(), None, limit).await?;
        let is_all = (found.len() as u64) < u64::from(limit);
        Ok((self.with_their_tickets(found, limit, !is_all, each).await?, is_all))
    }
}
