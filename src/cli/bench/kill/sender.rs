//! Who sends events, and keeps the id of each that was acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::super::{Error, Result};
use super::super::BENCH;
use super::super::load::PUBLIC_URL;
use crate::clock::Clock;
use crate::http;
use crate::simulator::manus::Manus;
use crate::text::one_line;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The least time from one event of a sender to its next: what a run of many cycles keeps stays bounded.
const PACE: Duration = Duration::from_millis(4);
/// The same while nothing is about to be killed.
const CALM: Duration = Duration::from_millis(40);
/// How long to wait after a request that nobody took.
const PAUSE: Duration = Duration::from_millis(3);
/// One event in so many is the end of a turn of a task, which is fetched; the others are only handed on.
const STOP_EVERY: u64 = 5;

/// What events are about, and where they go.
pub(super) struct Work {
    pub(super) to: Vec<SocketAddr>,
    pub(super) tasks: Vec<String>,
    pub(super) manus: Manus,
    pub(super) clock: Clock,
    /// Whether nothing is about to be killed.
    pub(super) calm: AtomicBool,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    /// Our ids of the events that were answered 200.
    pub(super) ids: Vec<Uuid>,
    /// Events that were sent again after their answer, and were known.
    pub(super) repeats: u64,
    /// Events that were answered when they were sent again, after no answer or a 503.
    pub(super) resent: u64,
    /// How many of these had been kept all the same.
    pub(super) kept_unanswered: u64,
    /// Answers that must not be.
    pub(super) problems: Vec<String>,
}

impl Acknowledged {
    pub(super) fn len(&self) -> u64 {
        self.ids.len() as u64
    }

    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.ids.append(&mut other.ids);
        self.problems.append(&mut other.problems);
        self.repeats += other.repeats;
        self.resent += other.resent;
        self.kept_unanswered += other.kept_unanswered;
        self
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    id: Uuid,
}

/// Sends events one after the other.
pub(super) struct Sender {
    number: u32,
    senders: u32,
    work: Arc<Work>,
    client: reqwest::Client,
    /// Which replica it sends to.
    at: usize,
    /// How many events it has made.
    made: u64,
    /// The body of one that was sent and has no answer.
    unanswered: Option<String>,
    /// The body of one that was answered, and our id of it: sent again after the next start.
    answered: Option<(String, Uuid)>,
    pub(super) acknowledged: Acknowledged,
}

impl Sender {
    pub(super) fn new(number: u32, senders: u32, work: Arc<Work>) -> Self {
        let (client, acknowledged) = (http::client(TIMEOUT), Acknowledged::default());
        Self { number, senders, work, client, at: 0, made: 0, unanswered: None, answered: None, acknowledged }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Sends until the program is `down`, in each `turn` to another replica first. First what was acknowledged last, which must be
    /// known whatever happened since.
    pub(super) async fn run(mut self, turn: u32, down: CancellationToken) -> Result<Self> {
        self.at = (turn + self.number) as usize;
        if let Some((body, id)) = self.answered.take() {
            match self.send(&body).await? {
                Some(answer) if answer.status == "duplicate" && answer.id == id => self.acknowledged.repeats += 1,
                Some(answer) => {
                    let problem = format!("{id} was sent again and is answered {} {}", answer.status, answer.id);
                    self.acknowledged.problems.push(problem);
                }
                None => {}
            }
        }
        while !down.is_cancelled() {
            let begun = self.work.clock.elapsed();
            let again = self.unanswered.is_some();
            let body = self.unanswered.take().unwrap_or_else(|| self.next());
            let Some(answer) = self.send(&body).await? else {
                self.unanswered = Some(body);
                self.at += 1;
                self.work.clock.sleep(PAUSE).await;
                continue;
            };
            self.acknowledged.resent += u64::from(again);
            match answer.status.as_str() {
                "accepted" => {}
                "duplicate" if again => self.acknowledged.kept_unanswered += 1,
                other => self.acknowledged.problems.push(format!("{} was sent once and is answered {other}", answer.id)),
            }
            self.acknowledged.ids.push(answer.id);
            self.answered = Some((body, answer.id));
            let took = self.work.clock.elapsed().saturating_sub(begun);
            let pace = if self.work.calm.load(Ordering::Relaxed) { CALM } else { PACE };
            self.work.clock.sleep(pace.saturating_sub(took)).await;
        }
        Ok(self)
    }

    /// The next event.
    fn next(&mut self) -> String {
        let number = self.made * u64::from(self.senders) + u64::from(self.number);
        // Each sender begins with other tasks.
        let place = u64::from(self.number) * 7 + self.made;
        self.made += 1;
        let tasks = &self.work.tasks;
        let task = &tasks[usize::try_from(place % tasks.len() as u64).unwrap_or_default()];
        // Ids are scattered, as the provider's are.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let event = if self.made.is_multiple_of(STOP_EVERY) {
            // Each is the end of a turn of its own, which the provider shows.
            let said = format!("turn {number}");
            self.work.manus.take_turn(task, &said);
            json!({"event_id": format!("task_stopped_{scattered:016x}"), "event_type": "task_stopped",
                "task_detail": {"task_id": task, "task_title": "T", "message": format!("Done: {said}"), "stop_reason": "finish"}})
        } else {
            json!({"event_id": format!("task_progress_{scattered:016x}"), "event_type": "task_progress",
                "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": "a step"}})
        };
        event.to_string()
    }

    /// The answer if there is one and it is 200; `None` if the event is to be sent again.
    async fn send(&self, body: &str) -> Result<Option<Answer>> {
        let path = format!("/webhooks/{BENCH}");
        let second = self.work.clock.now().as_second();
        let headers = self.work.manus.sign(&format!("{PUBLIC_URL}{path}"), body.as_bytes(), second);
        let to = self.work.to[self.at % self.work.to.len()];
        let request = self.client.post(format!("http://{to}{path}")).headers(headers).body(body.to_owned());
        let Ok(answer) = http::send(request, TIMEOUT, 4096).await else { return Ok(None) };
        match (answer.status, serde_json::from_slice(&answer.body)) {
            (StatusCode::OK, Ok(told)) => Ok(Some(told)),
            (StatusCode::SERVICE_UNAVAILABLE, _) => Ok(None),
            (status, _) => {
                let said = one_line(&String::from_utf8_lossy(&answer.body), 200);
                Err(Error::failed(format!("an event was answered {status}: {said}")).into())
            }
        }
    }
}
