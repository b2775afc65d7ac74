//! The memory for lists that are being read. It is taken before anything is read, so that however many are asked for at
//! the same time, there is enough; whoever finds none waits for those before.
//!
//! It is separate from the [budget](super::budget) of what clients have not taken yet: what is taken here is given back by
//! the server's own work, and no client can hold it.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::ApiError;
use crate::store::patience;

/// What an order may take, in bytes: as the database answers it, and as it is kept.
const ORDER: usize = 512;

/// What a ticket may take, nearly all of it for its title. Several copies of it are made.
const TICKET: usize = 10 * 1024;

/// The memory for lists that are being read. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Of its own, since whoever has some of it waits for some of the other.
    orders: Pool,
    tickets: Pool,
}

#[derive(Clone, Debug)]
struct Pool {
    free: Arc<Semaphore>,
    /// In KiB, as everything here.
    all: u32,
}

/// Some of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

impl Reading {
    /// The memory for reading beside a budget of so many bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self { orders: Pool::new(budget / 2), tickets: Pool::new(budget / 4) }
    }

    /// Waits until there is room for so many orders.
    pub(super) async fn orders(&self, count: usize) -> Result<Room, ApiError> {
        self.orders.take(kib(count * ORDER)).await
    }

    /// Waits until there is room for so many tickets.
    pub(super) async fn tickets(&self, count: usize) -> Result<Room, ApiError> {
        self.tickets.take(kib(count * TICKET)).await
    }
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let all = kib(bytes);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    async fn take(&self, kib: u32) -> Result<Room, ApiError> {
        let taken = self.free.clone().acquire_many_owned(kib.min(self.all));
        // As long as for the database.
        match timeout(patience(), taken).await {
            Ok(Ok(permit)) => Ok(Room(permit)),
            Ok(Err(_)) | Err(_) => Err(ApiError::Unavailable),
        }
    }
}

impl Room {
    /// Gives back what is not needed for so many orders.
    pub(super) fn keep_for_orders(&mut self, count: usize) {
        let excess = self.0.num_permits().saturating_sub(kib(count * ORDER) as usize);
        drop(self.0.split(excess));
    }
}

/// At least one.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_room_waits_for_it_and_what_is_not_needed_is_given_back() {
        let reading = Reading::new(2 * 1000 * ORDER);
        let mut first = reading.orders(1000).await.unwrap();
        let waiting = tokio::spawn({
            let reading = reading.clone();
            async move { reading.orders(500).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.keep_for_orders(10);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(reading.orders.free.available_permits(), 495);
        drop(first);
        assert_eq!(reading.orders.free.available_permits(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_all_of_it_is_all_of_it_and_nobody_waits_for_ever() {
        let reading = Reading::new(4 * 1024);
        let all = reading.tickets(1_000_000).await.unwrap();
        assert_eq!(reading.tickets(1).await.map(drop), Err(ApiError::Unavailable));
        drop(all);
        assert!(reading.tickets(1).await.is_ok());
    }
}
