//! Combines concurrent calls of one kind into fewer commands.
//!
//! A call is sent at once while fewer than [`MAX_IN_FLIGHT`] commands are in flight. Calls that arrive while all of
//! them are wait in a queue, and the next command answers as many of them as fit. An idle service has the latency of
//! a single command; a busy one sends a fraction of the commands. A command is always sent after the calls that it
//! answers were made, so no caller gets data that was read before it asked.
//!
//! A command whose reply is lost takes nothing with it for long: after [`SLOW_AFTER`] others may be sent in its place. It is
//! given up as soon as one of its callers may wait no longer: whoever is told that nothing came of a call can rely on it
//! that this process does nothing more about it. The driver then closes the connection that it waited on. So a call whose
//! caller waits for less than [`SLOW_AFTER`] is not sent any more: it would take the others of its command with it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    error::StoreError,
    retry::{DEADLINE, within},
};

/// How many commands of one kind may be in flight: enough to keep the server busy while other replies are read.
const MAX_IN_FLIGHT: usize = 4;

/// How long a command may keep its slot. It is far longer than a reply takes, and far shorter than any caller waits: four
/// lost replies delay the others by this. It also bounds how many commands a server can have that has become slow, and is the
/// least time that a command has.
const SLOW_AFTER: Duration = Duration::from_millis(500);

/// How much longer than its command a caller waits, to be told that it was given up.
const LEEWAY: Duration = Duration::from_millis(50);

/// The most documents that one command reads or writes, far below the server's limits for requests and replies.
const MAX_BATCH: usize = 100;

/// A call that waits in the queue.
struct Call<Req, Rep> {
    request: Req,
    /// How many documents it reads or writes.
    documents: usize,
    /// How long its caller waits.
    until: Instant,
    /// Gets nothing when the command was given up.
    reply_to: oneshot::Sender<Option<Rep>>,
}

/// Batches calls of one kind. Clones share the queue and the commands.
pub(super) struct Batcher<Req, Rep> {
    doing: &'static str,
    queue: Arc<Mutex<Queue<Req, Rep>>>,
}

struct Queue<Req, Rep> {
    calls: VecDeque<Call<Req, Rep>>,
    in_flight: usize,
}

impl<Req: Send + 'static, Rep: Send + 'static> Batcher<Req, Rep> {
    /// `doing` describes the calls in errors and traces.
    pub(super) fn new(doing: &'static str) -> Self {
        let queue = Queue { calls: VecDeque::new(), in_flight: 0 };
        Self { doing, queue: Arc::new(Mutex::new(queue)) }
    }

    /// Makes a call, perhaps batched with others, within the deadline. `send` returns one reply for each request that
    /// it is given, in the same order.
    pub(super) async fn call<F, Fut>(
        &self,
        request: Req,
        documents: usize,
        send: F,
    ) -> Result<Rep, StoreError>
    where
        F: Fn(Vec<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Rep>> + Send + 'static,
    {
        self.call_until(Instant::now() + DEADLINE, request, documents, send).await
    }

    /// The same within a shorter time. After an error, the command is not sent any more: one that is on its way to the
    /// server may still be carried out, and that is all.
    pub(super) async fn call_until<F, Fut>(
        &self,
        until: Instant,
        request: Req,
        documents: usize,
        send: F,
    ) -> Result<Rep, StoreError>
    where
        F: Fn(Vec<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Rep>> + Send + 'static,
    {
        let started = Instant::now();
        let (reply_to, reply) = oneshot::channel();
        let has_slot = {
            let mut queue = lock(&self.queue);
            queue.calls.push_back(Call { request, documents, until, reply_to });
            let has_slot = queue.in_flight < MAX_IN_FLIGHT;
            queue.in_flight += usize::from(has_slot);
            has_slot
        };
        if has_slot {
            start(Slot { queue: self.queue.clone(), is_held: true }, Arc::new(send));
        }
        let doing = self.doing;
        let answer = async {
            match reply.await {
                Ok(Some(reply)) => Ok(reply),
                Ok(None) => Err(StoreError::TimedOut { doing, after: started.elapsed() }),
                Err(_) => Err(StoreError::Failed { doing, detail: "it has ended without an answer".into() }),
            }
        };
        // The command ends first, unless this call is still in the queue.
        within(until.saturating_duration_since(started) + LEEWAY, doing, answer).await
    }
}

/// Sends what is in the queue. In a task of its own, since several callers depend on it even if one is cancelled.
fn start<Req, Rep, F, Fut>(slot: Slot<Req, Rep>, send: Arc<F>)
where
    Req: Send + 'static,
    Rep: Send + 'static,
    F: Fn(Vec<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Rep>> + Send + 'static,
{
    drop(tokio::spawn(send_batches(slot, send)));
}

/// Sends one command after the other until the queue is empty, or a command is slow: then another task goes on.
async fn send_batches<Req, Rep, F, Fut>(mut slot: Slot<Req, Rep>, send: Arc<F>)
where
    Req: Send + 'static,
    Rep: Send + 'static,
    F: Fn(Vec<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Rep>> + Send + 'static,
{
    loop {
        let batch = slot.next_batch();
        if batch.is_empty() {
            return;
        }
        let now = Instant::now();
        let (mut requests, mut callers, mut end) = (Vec::new(), Vec::new(), now + DEADLINE);
        for Call { request, until, reply_to, .. } in batch {
            if until <= now + SLOW_AFTER {
                answer(vec![reply_to], None);
            } else if !reply_to.is_closed() {
                requests.push(request);
                callers.push(reply_to);
                end = end.min(until);
            }
        }
        if requests.is_empty() {
            continue;
        }
        let mut command = Box::pin(send(requests));
        let in_time = timeout_at(end.min(now + SLOW_AFTER), &mut command).await;
        if in_time.is_ok() || end <= now + SLOW_AFTER {
            drop(command);
            answer(callers, in_time.ok());
            continue;
        }
        // Either the next commands are sent by that task, or the slot is given back.
        start(slot, send.clone());
        let late = timeout_at(end, &mut command).await;
        drop(command);
        answer(callers, late.ok());
        return;
    }
}

/// Gives each caller its reply, or tells all of them that the command was given up.
fn answer<Rep>(callers: Vec<oneshot::Sender<Option<Rep>>>, replies: Option<Vec<Rep>>) {
    let mut replies = replies.map(Vec::into_iter);
    for caller in callers {
        // Fails if the caller was cancelled meanwhile, which needs no reply.
        drop(caller.send(replies.as_mut().and_then(Iterator::next)));
    }
}

/// The permission to have one command in flight; given back when dropped, so that a panic cannot leak it.
struct Slot<Req, Rep> {
    queue: Arc<Mutex<Queue<Req, Rep>>>,
    is_held: bool,
}

impl<Req, Rep> Slot<Req, Rep> {
    /// The calls to send next. When there are none, the slot is given back.
    fn next_batch(&mut self) -> Vec<Call<Req, Rep>> {
        let mut queue = lock(&self.queue);
        let mut documents = 0;
        let mut batch = Vec::new();
        while let Some(call) =
            queue.calls.pop_front_if(|call| documents == 0 || documents + call.documents <= MAX_BATCH)
        {
            documents += call.documents;
            batch.push(call);
        }
        if batch.is_empty() {
            // Under the same lock, so that a caller never queues behind a slot that is about to be given back.
            queue.in_flight -= 1;
            self.is_held = false;
        }
        batch
    }
}

impl<Req, Rep> Drop for Slot<Req, Rep> {
    fn drop(&mut self) {
        if self.is_held {
            lock(&self.queue).in_flight -= 1;
        }
    }
}

fn lock<Req, Rep>(queue: &Mutex<Queue<Req, Rep>>) -> MutexGuard<'_, Queue<Req, Rep>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Req, Rep> Clone for Batcher<Req, Rep> {
    fn clone(&self) -> Self {
        Self { doing: self.doing, queue: self.queue.clone() }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join, join_all};
    use tokio::{sync::Semaphore, time::sleep};

    use super::*;

    /// A server whose commands wait for a permit, and that records how many requests each of them had.
    #[derive(Clone)]
    struct FakeServer {
        permits: Arc<Semaphore>,
        batch_sizes: Arc<Mutex<Vec<usize>>>,
        batcher: Batcher<u32, u32>,
    }

    impl FakeServer {
        fn new() -> Self {
            Self {
                permits: Arc::new(Semaphore::new(0)),
                batch_sizes: Arc::default(),
                batcher: Batcher::new("testing"),
            }
        }

        async fn call(&self, request: u32, documents: usize) -> Option<u32> {
            let server = self.clone();
            let send = move |requests: Vec<u32>| {
                let server = server.clone();
                async move {
                    server.batch_sizes.lock().unwrap().push(requests.len());
                    server.permits.acquire().await.unwrap().forget();
                    assert!(!requests.contains(&u32::MAX), "the driver has panicked");
                    requests.into_iter().map(|request| request * 2).collect()
                }
            };
            self.batcher.call(request, documents, send).await.ok()
        }

        fn batch_sizes(&self) -> Vec<usize> {
            self.batch_sizes.lock().unwrap().clone()
        }

        /// Calls that fill all slots, with one command each.
        async fn fill(&self) -> Vec<tokio::task::JoinHandle<Option<u32>>> {
            let mut calls = Vec::new();
            for request in 0..MAX_IN_FLIGHT as u32 {
                let server = self.clone();
                calls.push(tokio::spawn(async move { server.call(request, 1).await }));
                settle().await;
            }
            assert_eq!(self.batch_sizes(), [1; MAX_IN_FLIGHT]);
            calls
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn calls_are_sent_at_once_while_there_is_a_slot_and_batched_otherwise() {
        let server = FakeServer::new();
        let first = server.fill().await;
        let others = join_all((10..260).map(|request| server.call(request, 1)));
        let release = async {
            settle().await;
            assert_eq!(server.batch_sizes(), [1; MAX_IN_FLIGHT], "no more commands than slots");
            server.permits.add_permits(100);
        };
        let (replies, ()) = join(others, release).await;
        let expected: Vec<_> = (10..260).map(|request| Some(request * 2)).collect();
        assert_eq!(replies, expected, "each caller gets its own reply");
        for (request, first) in first.into_iter().enumerate() {
            assert_eq!(first.await.unwrap(), Some(request as u32 * 2));
        }
        assert_eq!(server.batch_sizes()[MAX_IN_FLIGHT..], [MAX_BATCH, MAX_BATCH, 50]);
        assert_eq!(server.call(7, 1).await, Some(14), "the slots are free again");
    }

    #[tokio::test]
    async fn a_batch_has_as_many_calls_as_fit_and_one_that_never_fits_is_sent_alone() {
        let server = FakeServer::new();
        let first = server.fill().await;
        let calls = join_all([60, 30, 20, 3 * MAX_BATCH, 90, 10].map(|documents| server.call(1, documents)));
        server.permits.add_permits(MAX_IN_FLIGHT);
        let release = async {
            settle().await;
            server.permits.add_permits(100);
        };
        let (replies, ()) = join(calls, release).await;
        assert_eq!(replies, [Some(2); 6]);
        join_all(first).await;
        let mut sizes = server.batch_sizes()[MAX_IN_FLIGHT..].to_vec();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, 2, 2]);
    }

    #[tokio::test]
    async fn a_cancelled_caller_delays_no_other() {
        let server = FakeServer::new();
        for call in server.fill().await {
            call.abort();
        }
        let cancelled = server.clone();
        let cancelled = tokio::spawn(async move { cancelled.call(10, 1).await });
        settle().await;
        cancelled.abort();
        settle().await;
        server.permits.add_permits(100);
        assert_eq!(join(server.call(11, 1), server.call(12, 1)).await, (Some(22), Some(24)));
        let sent = server.batch_sizes().iter().sum::<usize>();
        assert_eq!(sent, MAX_IN_FLIGHT + 2, "the cancelled call is not sent");
    }

    #[tokio::test(start_paused = true)]
    async fn commands_that_are_never_answered_delay_the_others_briefly_and_end_at_the_deadline() {
        let server = FakeServer::new();
        let started = Instant::now();
        let lost = server.fill().await;
        let other = {
            let server = server.clone();
            tokio::spawn(async move { server.call(10, 1).await })
        };
        let sent = async {
            while server.batch_sizes().len() == MAX_IN_FLIGHT {
                sleep(Duration::from_millis(10)).await;
            }
            started.elapsed()
        };
        let delayed = sent.await;
        assert!((SLOW_AFTER..SLOW_AFTER * 2).contains(&delayed), "{delayed:?}");
        assert_eq!(server.permits.available_permits(), 0);
        for call in lost {
            assert_eq!(call.await.unwrap(), None, "its caller has the deadline's error");
        }
        assert!(started.elapsed() < DEADLINE + SLOW_AFTER, "{:?}", started.elapsed());
        assert_eq!(other.await.unwrap(), None);
        // Nothing of them is left: no command, and no slot.
        sleep(SLOW_AFTER * 2).await;
        assert_eq!(Arc::strong_count(&server.batcher.queue), 1);
        assert_eq!(lock(&server.batcher.queue).in_flight, 0);
        server.permits.add_permits(1);
        assert_eq!(server.call(4, 1).await, Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_ends_before_the_first_of_its_callers_is_told_that_nothing_came_of_it() {
        /// Counts the commands that have ended.
        struct Ended(Arc<Mutex<usize>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let (batcher, ended, started) =
            (Batcher::new("testing"), Arc::<Mutex<usize>>::default(), Instant::now());
        let call = &|milliseconds: u64, documents: usize| {
            let (batcher, ended) = (batcher.clone(), Arc::clone(&ended));
            let send = move |requests: Vec<u64>| {
                let command = Ended(ended.clone());
                async move {
                    std::future::pending::<()>().await;
                    drop(command);
                    requests
                }
            };
            async move {
                let until = started + Duration::from_millis(milliseconds);
                batcher.call_until(until, milliseconds, documents, send).await
            }
        };
        // A command for each, and no slot is left.
        let first = join_all([4000; MAX_IN_FLIGHT].map(|milliseconds| call(milliseconds, MAX_BATCH)));
        // These wait in the queue until the first are slow, and then share a command.
        let shared = async {
            sleep(SLOW_AFTER / 2).await;
            let ended = &ended;
            let told = |milliseconds| async move {
                let error = call(milliseconds, 1).await.unwrap_err();
                (error, *ended.lock().unwrap(), started.elapsed())
            };
            join_all([100, 700, 2000, 3000].map(told)).await
        };
        let (first, shared) = join(first, shared).await;
        assert!(first.iter().all(|told| matches!(told, Err(StoreError::TimedOut { .. }))), "{first:?}");
        for ((error, ended, after), (wanted_ended, wanted_after)) in shared.into_iter().zip([
            (0, SLOW_AFTER / 2),
            // The next command could not be answered in its time, and is sent without it.
            (0, SLOW_AFTER),
            (1, Duration::from_millis(2000)),
            (1, Duration::from_millis(2000)),
        ]) {
            assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
            assert_eq!(ended, wanted_ended);
            assert!((wanted_after..wanted_after + SLOW_AFTER).contains(&after), "{after:?}");
        }
        assert_eq!(*ended.lock().unwrap(), MAX_IN_FLIGHT + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_soon_over_does_not_end_those_that_wait_with_it() {
        let batcher = Batcher::<u64, u64>::new("testing");
        let call = &|milliseconds: u64, documents: usize| {
            let batcher = batcher.clone();
            let send = |requests: Vec<u64>| async move {
                sleep(Duration::from_millis(300)).await;
                requests
            };
            let until = Instant::now() + Duration::from_millis(milliseconds);
            async move { batcher.call_until(until, milliseconds, documents, send).await }
        };
        let filling = join_all([5000; MAX_IN_FLIGHT].map(|milliseconds| call(milliseconds, MAX_BATCH)));
        // Both wait for a slot, which is free when 50 ms are left to the first of them.
        let waiting = async {
            settle().await;
            join(call(350, 1), call(5000, 1)).await
        };
        let (filled, (short, long)) = join(filling, waiting).await;
        assert!(filled.iter().all(Result::is_ok), "{filled:?}");
        assert!(matches!(short, Err(StoreError::TimedOut { .. })), "{short:?}");
        assert_eq!(long.unwrap(), 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_is_sent_few_commands_more_and_its_replies_still_count() {
        let server = FakeServer::new();
        let slow = server.fill().await;
        sleep(SLOW_AFTER * 2).await;
        server.permits.add_permits(MAX_IN_FLIGHT);
        for (request, call) in slow.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), Some(request as u32 * 2));
        }
        // However many call, and however slow it is.
        let calls = (0..1000).map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.call(1, MAX_BATCH).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), None);
        }
        let most = MAX_IN_FLIGHT * (1 + DEADLINE.as_millis().div_ceil(SLOW_AFTER.as_millis()) as usize);
        assert!(server.batch_sizes().len() <= MAX_IN_FLIGHT + most, "{}", server.batch_sizes().len());
    }

    #[tokio::test]
    async fn a_command_that_panics_fails_its_calls_and_gives_its_slot_back() {
        let server = FakeServer::new();
        server.permits.add_permits(1000);
        for _ in 0..3 * MAX_IN_FLIGHT {
            assert_eq!(server.call(u32::MAX, 1).await, None);
        }
        assert_eq!(server.call(4, 1).await, Some(8));
    }
}
