//! One command for many callers, when many call.
//!
//! A call that finds a place free is sent at once. Those that come while all places are taken wait for the next
//! one to be free, and then go together. So a service that is not busy is as fast as the database, and a busy one
//! costs it a fraction of the commands. Every command is sent after the calls that it answers were made: nobody is
//! told what was read before he asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many commands of one kind are under way at the same time: enough to keep a server at work while the answers
/// of others are read.
const PLACES: usize = 4;

/// The most calls in one command, so that it stays far below what a server takes or gives at once.
const MOST: usize = 100;

/// A call, and who waits for its answer.
type Call<Q, A> = (Q, oneshot::Sender<A>);

/// Calls of one kind. Clones share their commands.
pub(super) struct Batches<Q, A>(Arc<Mutex<Waiting<Q, A>>>);

struct Waiting<Q, A> {
    calls: Vec<Call<Q, A>>,
    under_way: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Batches<Q, A> {
    /// Makes these calls, perhaps together with others'. `send` gives an answer for each of those that it gets, in
    /// their order. A receiver fails where it does not.
    pub(super) fn ask<F, Fut>(
        &self,
        questions: impl IntoIterator<Item = Q>,
        send: F,
    ) -> Vec<oneshot::Receiver<A>>
    where
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let mut answers = Vec::new();
        let mut waiting = lock(&self.0);
        for question in questions {
            let (caller, answer) = oneshot::channel();
            waiting.calls.push((question, caller));
            answers.push(answer);
        }
        if waiting.under_way < PLACES && !waiting.calls.is_empty() {
            waiting.under_way += 1;
            // In a task of its own, since the others wait for it too if this caller gives up.
            drop(tokio::spawn(work(Place { waiting: self.0.clone(), is_held: true }, send)));
        }
        answers
    }
}

/// Sends commands as long as somebody waits.
async fn work<Q, A, F, Fut>(mut place: Place<Q, A>, send: F)
where
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Vec<A>>,
{
    while let Some(calls) = place.next() {
        let (questions, callers): (Vec<_>, Vec<_>) =
            calls.into_iter().filter(|(_, caller)| !caller.is_closed()).unzip();
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
    fn next(&mut self) -> Option<Vec<Call<Q, A>>> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.calls.len().min(MOST);
        if count == 0 {
            // Under the same lock: nobody counts on this one any more.
            waiting.under_way -= 1;
            self.is_held = false;
            return None;
        }
        Some(waiting.calls.drain(..count).collect())
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

impl<Q, A> Default for Batches<Q, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { calls: Vec::new(), under_way: 0 })))
    }
}

impl<Q, A> Clone for Batches<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Commands that wait until they are let through, and how large they were.
    #[derive(Clone)]
    struct Server {
        gate: Arc<Semaphore>,
        sizes: Arc<Mutex<Vec<usize>>>,
    }

    impl Server {
        fn new() -> Self {
            Self { gate: Arc::new(Semaphore::new(0)), sizes: Arc::default() }
        }

        fn ask(
            &self,
            batches: &Batches<u32, u32>,
            questions: impl IntoIterator<Item = u32>,
        ) -> Vec<oneshot::Receiver<u32>> {
            let server = self.clone();
            batches.ask(questions, move |questions| {
                let server = server.clone();
                async move {
                    server.sizes.lock().unwrap().push(questions.len());
                    server.gate.acquire().await.unwrap().forget();
                    assert!(!questions.contains(&u32::MAX), "the driver has panicked");
                    questions.into_iter().map(|question| question * 2).collect()
                }
            })
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn each_goes_at_once_while_there_is_a_place_and_the_others_go_together() {
        let (server, batches) = (Server::new(), Batches::default());
        let mut answers = Vec::new();
        for question in 0..PLACES as u32 {
            answers.extend(server.ask(&batches, [question]));
            settle().await;
        }
        for question in 10..260 {
            answers.extend(server.ask(&batches, [question]));
        }
        settle().await;
        assert_eq!(server.sizes(), [1; PLACES], "no more than there are places");
        server.gate.add_permits(100);
        let answers: Vec<_> = join_all(answers).await.into_iter().map(Result::unwrap).collect();
        let expected: Vec<_> = (0..PLACES as u32).chain(10..260).map(|question| question * 2).collect();
        assert_eq!(answers, expected, "each its own");
        assert_eq!(server.sizes()[PLACES..], [MOST, MOST, 50]);

        let alone = server.ask(&batches, [7]).pop().unwrap();
        assert_eq!(alone.await, Ok(14), "the places are free again");
        assert!(server.ask(&batches, []).is_empty());
    }

    #[tokio::test]
    async fn one_who_gives_up_keeps_no_other() {
        let (server, batches) = (Server::new(), Batches::default());
        for question in 0..PLACES as u32 {
            drop(server.ask(&batches, [question]));
        }
        let (gone, stays) = (server.ask(&batches, [10]), server.ask(&batches, [11, 12]));
        drop(gone);
        server.gate.add_permits(100);
        let answers: Vec<_> = join_all(stays).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [22, 24]);
        settle().await;
        assert!(server.sizes().iter().sum::<usize>() <= PLACES + 2, "nobody asked for the one that is gone");
    }

    #[tokio::test]
    async fn a_command_that_panics_fails_its_calls_and_gives_its_place_back() {
        let (server, batches) = (Server::new(), Batches::default());
        server.gate.add_permits(1000);
        for _ in 0..3 * PLACES {
            for failed in server.ask(&batches, [u32::MAX]) {
                assert!(failed.await.is_err());
            }
        }
        assert_eq!(server.ask(&batches, [4]).pop().unwrap().await, Ok(8));
    }
}
