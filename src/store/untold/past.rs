//! Orders of which something is to be told, past those that are left out for now: of which nothing can be told before
//! something is mended, and of which there may be any number.
//!
//! What is left out stays where it is, so whoever read a page of what is to be told would read the same page for ever. So this
//! look goes by ticket, and on from where the last one has ended. It has a page at a time in memory, and does not need to know all
//! that is left out at once.

use mongodb::bson::doc;

use super::looks::{Untold, each, of_tickets_after, ticket_of};
use crate::{
    order::TicketId,
    store::{
        database::Store,
        document::object_id,
        error::StoreError,
        own_indexes::{is_untold, untold_keys},
    },
};

impl Store {
    /// About `limit` orders as [`Store::untold`] finds them, of tickets after `after` and without those that are left out; and
    /// the ticket from which to go on, unless there is nothing more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold_past(
        &self,
        mut after: Option<TicketId>,
        limit: u32,
        mut is_left_out: impl FnMut(TicketId) -> bool + Send,
    ) -> Result<(Untold, Option<TicketId>), StoreError> {
        let mut found = Vec::new();
        loop {
            let page =
                self.find_untold(of_tickets_after(after), untold_keys(), Some(untold_keys()), limit).await?;
            let is_full = page.len() as u64 >= u64::from(limit);
            // Those without a readable ticket come first; they are set aside, so the next look does not find them.
            let last = page.last().and_then(ticket_of);
            found.extend(page.into_iter().filter(|order| !ticket_of(order).is_some_and(&mut is_left_out)));
            // What of the last ticket is not on the page, whoever begins anew finds.
            after = last.filter(|_| is_full);
            if !is_full || last.is_none() || found.len() as u64 >= u64::from(limit) {
                let untold = self.with_their_tickets(found, limit, is_full, each).await?;
                return Ok((untold, after));
            }
        }
    }

    /// The same of these tickets; and whether that is all that is to be told of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold_of_tickets(
        &self,
        tickets: &[TicketId],
        limit: u32,
    ) -> Result<(Untold, bool), StoreError> {
        let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.bytes())).collect();
        let mut filter = is_untold();
        filter.insert("ticket", doc! { "$in": ids });
        let found = self.find_untold(filter, untold_keys(), None, limit).await?;
        let is_all = (found.len() as u64) < u64::from(limit);
        Ok((self.with_their_tickets(found, limit, !is_all, each).await?, is_all))
    }
}
