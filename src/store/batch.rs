//! One command for many callers, when many call.
//!
//! A call that finds a place free is sent at once. Those that come while all places are taken wait for the next
//! one to be free, and then go together. So a service that is not busy is as fast as the database, and a busy one
//! costs it a fraction of the commands. Every command is sent after the calls that it answers were made: nobody is
//! told what was read before he asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    error::StoreError,
    retry::{DEADLINE, within},
};

/// How many commands of one kind are under way at the same time: enough to keep a server at work while the answers
/// of others are read.
const PLACES: usize = 4;

/// How much of the calls goes into one command, so that it stays far below what a server takes or gives at once.
const MOST: usize = 100;

/// A call.
struct Call<Q, A> {
    question: Q,
    /// How much it is of a command: one for each document.
    weight: usize,
    /// Who waits for its answer.
    caller: oneshot::Sender<A>,
}

/// Calls of one kind. Clones share their commands.
pub(super) struct Batches<Q, A> {
    doing: &'static str,
    waiting: Arc<Mutex<Waiting<Q, A>>>,
}

struct Waiting<Q, A> {
    calls: VecDeque<Call<Q, A>>,
    under_way: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Batches<Q, A> {
    /// `doing` says in errors and traces what the calls are for.
    pub(super) fn new(doing: &'static str) -> Self {
        let waiting = Waiting { calls: VecDeque::new(), under_way: 0 };
        Self { doing, waiting: Arc::new(Mutex::new(waiting)) }
    }

    /// Makes a call, perhaps together with others, within the deadline. `send` gives an answer for each of those that
    /// it gets, in their order.
    pub(super) async fn ask<F, Fut>(&self, question: Q, weight: usize, send: F) -> Result<A, StoreError>
    where
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let has_place = {
            let mut waiting = lock(&self.waiting);
            waiting.calls.push_back(Call { question, weight, caller });
            let has_place = waiting.under_way < PLACES;
            waiting.under_way += usize::from(has_place);
            has_place
        };
        if has_place {
            // In a task of its own, since the others wait for it too if this caller gives up.
            drop(tokio::spawn(work(Place { waiting: self.waiting.clone(), is_held: true }, send)));
        }
        let doing = self.doing;
        let lost = |_| StoreError::Failed { doing, detail: "it has ended without an answer".into() };
        within(DEADLINE, doing, async { answer.await.map_err(lost) }).await
    }
}

/// Sends commands as long as somebody waits.
async fn work<Q, A, F, Fut>(mut place: Place<Q, A>, send: F)
where
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Vec<A>>,
{
    loop {
        let calls = place.next();
        if calls.is_empty() {
            return;
        }
        let wanted = calls.into_iter().filter(|call| !call.caller.is_closed());
        let (questions, callers): (Vec<_>, Vec<_>) = wanted.map(|call| (call.question, call.caller)).unzip();
        if !questions.is_empty() {
            for (caller, answer) in callers.into_iter().zip(send(questions).await) {
                // One who has given up needs none.
                drop(caller.send(answer));
            }
        }
    }
}

/// One of the places, as long as it is held.
struct Place<Q, A> {
    waiting: Arc<Mutex<Waiting<Q, A>>>,
    is_held: bool,
}

impl<Q, A> Place<Q, A> {
    /// The calls to send next; none when nobody waits, which gives the place up.
    fn next(&mut self) -> Vec<Call<Q, A>> {
        let mut waiting = lock(&self.waiting);
        let mut weight = 0;
        let mut calls = Vec::new();
        while let Some(call) = waiting.calls.pop_front_if(|call| weight == 0 || weight + call.weight <= MOST)
        {
            weight += call.weight;
            calls.push(call);
        }
        if calls.is_empty() {
            // Under the same lock: nobody counts on this one any more.
            waiting.under_way -= 1;
            self.is_held = false;
        }
        calls
    }
}

impl<Q, A> Drop for Place<Q, A> {
    fn drop(&mut self) {
        if self.is_held {
            lock(&self.waiting).under_way -= 1;
        }
    }
}

fn lock<Q, A>(waiting: &Mutex<Waiting<Q, A>>) -> MutexGuard<'_, Waiting<Q, A>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Q, A> Clone for Batches<Q, A> {
    fn clone(&self) -> Self {
        Self { doing: self.doing, waiting: self.waiting.clone() }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join, join_all};
    use tokio::sync::Semaphore;

    use super::*;

    /// Commands that wait until they are let through, and how large they were.
    #[derive(Clone)]
    struct Server {
        gate: Arc<Semaphore>,
        sizes: Arc<Mutex<Vec<usize>>>,
        batches: Batches<u32, u32>,
    }

    impl Server {
        fn new() -> Self {
            Self {
                gate: Arc::new(Semaphore::new(0)),
                sizes: Arc::default(),
                batches: Batches::new("testing"),
            }
        }

        async fn ask(&self, question: u32, weight: usize) -> Option<u32> {
            let server = self.clone();
            let send = move |questions: Vec<u32>| {
                let server = server.clone();
                async move {
                    server.sizes.lock().unwrap().push(questions.len());
                    server.gate.acquire().await.unwrap().forget();
                    assert!(!questions.contains(&u32::MAX), "the driver has panicked");
                    questions.into_iter().map(|question| question * 2).collect()
                }
            };
            self.batches.ask(question, weight, send).await.ok()
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }

        /// So many calls that each got a place.
        async fn fill(&self) -> Vec<tokio::task::JoinHandle<Option<u32>>> {
            let mut calls = Vec::new();
            for question in 0..PLACES as u32 {
                let server = self.clone();
                calls.push(tokio::spawn(async move { server.ask(question, 1).await }));
                settle().await;
            }
            assert_eq!(self.sizes(), [1; PLACES]);
            calls
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn each_goes_at_once_while_there_is_a_place_and_the_others_go_together() {
        let server = Server::new();
        let first = server.fill().await;
        let others = join_all((10..260).map(|question| server.ask(question, 1)));
        let let_through = async {
            settle().await;
            assert_eq!(server.sizes(), [1; PLACES], "no more than there are places");
            server.gate.add_permits(100);
        };
        let (answers, ()) = join(others, let_through).await;
        assert_eq!(answers, (10..260).map(|question| Some(question * 2)).collect::<Vec<_>>(), "each its own");
        for (question, first) in first.into_iter().enumerate() {
            assert_eq!(first.await.unwrap(), Some(question as u32 * 2));
        }
        assert_eq!(server.sizes()[PLACES..], [MOST, MOST, 50]);
        assert_eq!(server.ask(7, 1).await, Some(14), "the places are free again");
    }

    #[tokio::test]
    async fn a_command_takes_as_much_as_fits_and_one_that_never_fits_goes_alone() {
        let server = Server::new();
        let first = server.fill().await;
        let calls = join_all([60, 30, 20, 3 * MOST, 90, 10].map(|weight| server.ask(1, weight)));
        server.gate.add_permits(PLACES);
        let let_through = async {
            settle().await;
            server.gate.add_permits(100);
        };
        let (answers, ()) = join(calls, let_through).await;
        assert_eq!(answers, [Some(2); 6]);
        join_all(first).await;
        let mut sizes = server.sizes()[PLACES..].to_vec();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, 2, 2]);
    }

    #[tokio::test]
    async fn one_who_gives_up_keeps_no_other() {
        let server = Server::new();
        for call in server.fill().await {
            call.abort();
        }
        let gone = server.clone();
        let gone = tokio::spawn(async move { gone.ask(10, 1).await });
        settle().await;
        gone.abort();
        settle().await;
        server.gate.add_permits(100);
        assert_eq!(join(server.ask(11, 1), server.ask(12, 1)).await, (Some(22), Some(24)));
        assert_eq!(server.sizes().iter().sum::<usize>(), PLACES + 2, "nobody asked for the one that is gone");
    }

    #[tokio::test]
    async fn a_command_that_panics_fails_its_calls_and_gives_its_place_back() {
        let server = Server::new();
        server.gate.add_permits(1000);
        for _ in 0..3 * PLACES {
            assert_eq!(server.ask(u32::MAX, 1).await, None);
        }
        assert_eq!(server.ask(4, 1).await, Some(8));
    }
}
