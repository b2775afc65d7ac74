//! Requests that come all the time while something changes: none may fail, and each must be answered by one who may.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{
    StatusCode,
    header::{COOKIE, HOST, HeaderMap},
};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::cluster::eventually;

/// Each of these asks one request after the other.
const ASKING: usize = 3;

/// How soon after the last one a request may come. Who answers, and who changes the system, needs the processors too.
const PACE: Duration = Duration::from_millis(10);

/// An answer to a request for a host.
pub struct Answer<'a> {
    pub host: &'a str,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

/// Where requests go in, and how those who answer are known.
#[derive(Clone)]
pub struct Entry {
    /// Such as `http://127.0.0.1:80`.
    base: String,
    cookie: String,
    /// Who has given a proper answer; none if it is not one.
    who: fn(&Answer) -> Option<String>,
    client: reqwest::Client,
}

impl Entry {
    pub fn new(base: &str, cookie: &str, who: fn(&Answer) -> Option<String>) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { base: base.trim_end_matches('/').to_owned(), cookie: cookie.to_owned(), who, client }
    }

    /// Who answers this request, or what comes instead.
    pub async fn ask(&self, host: &str, path: &str) -> Result<String, String> {
        let request = self.client.get(format!("{}{path}", self.base)).header(HOST, host);
        let answer = async {
            let response = request.header(COOKIE, &self.cookie).send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok::<_, reqwest::Error>(Answer { host, status, headers, body: response.text().await? })
        };
        let answer = answer.await.map_err(|error| format!("{error:?}"))?;
        (self.who)(&answer).ok_or_else(|| format!("{} {}", answer.status, answer.body))
    }

    /// Waits until this one answers a request.
    pub async fn up(&self, host: &str, path: &str, who: &str) {
        eventually(&format!("{who} answers at {host}{path}"), || async {
            self.ask(host, path).await.is_ok_and(|by| by == who).then_some(())
        })
        .await;
    }
}

/// A request, and who may answer it.
#[derive(Clone)]
pub struct Question {
    pub path: String,
    pub by: Vec<&'static str>,
}

/// Requests that go on until this is ended.
pub struct Load {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
    questions: Vec<Question>,
}

#[derive(Default)]
struct Seen {
    /// How many requests each has answered.
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Load {
    pub fn start(entry: &Entry, host: &str, questions: Vec<Question>) -> Self {
        let (is_over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let start = |_| {
            let (entry, host, questions) = (entry.clone(), host.to_owned(), questions.clone());
            tokio::spawn(ask_on(entry, host, questions, is_over.clone(), seen.clone()))
        };
        let tasks = (0..ASKING).map(start).collect();
        Self { is_over, seen, tasks, questions }
    }

    fn count(&self, name: &str) -> u64 {
        self.seen.lock().unwrap().answers.get(name).copied().unwrap_or(0)
    }

    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.seen.lock().unwrap().answers.values().sum()
    }

    fn has_failed(&self) -> bool {
        !self.seen.lock().unwrap().failures.is_empty()
    }

    /// Waits until so many more requests were answered, or one has failed. However slow they are, some must be.
    pub async fn goes_on(&self, more: u64) {
        let end = self.answered() + more;
        while self.answered() < end && !self.has_failed() {
            let before = self.answered();
            eventually("a request is answered", async || {
                (self.has_failed() || self.answered() > before).then_some(())
            })
            .await;
        }
    }

    /// Waits until this one has answered, and that other one does not any more.
    pub async fn led_to(&self, to: &str, no_more: &str) {
        let (first, since) = (self.count(to), Mutex::new(self.count(no_more)));
        eventually(&format!("{to} answers and {no_more} does not"), || async {
            let now = self.count(no_more);
            let is_still = std::mem::replace(&mut *since.lock().unwrap(), now) == now;
            (self.count(to) > first && is_still).then_some(())
        })
        .await;
    }

    /// Ends it. No request may have failed, and each who may answer must have answered more than so many.
    pub async fn end(self, least: u64) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let seen = self.seen.lock().unwrap();
        let (failed, first) = (seen.failures.len(), seen.failures.iter().take(10).collect::<Vec<_>>());
        assert!(failed == 0, "{failed} requests failed, {:?} were answered: {first:#?}", seen.answers);
        for name in self.questions.iter().flat_map(|question| &question.by) {
            let count = seen.answers.get(*name).copied().unwrap_or(0);
            assert!(count > least, "{name}: {:?}", seen.answers);
        }
    }
}

async fn ask_on(
    entry: Entry,
    host: String,
    questions: Vec<Question>,
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is_over.load(Ordering::Relaxed) {
        for Question { path, by } in &questions {
            pace.tick().await;
            let answer = entry.ask(&host, path).await;
            let mut seen = seen.lock().unwrap();
            match answer {
                Ok(name) if by.contains(&name.as_str()) => *seen.answers.entry(name).or_default() += 1,
                other => seen.failures.push(format!("{} {path}: {other:?}", jiff::Timestamp::now())),
            }
        }
    }
}
