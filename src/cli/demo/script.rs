//! One round: what the simulator's tasks do, and what others try meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{self, Check};
use super::news::{Actor, Line, Tone};
use super::stage::{OUR_KEY, SOURCE, STRANGERS_KEY, Stage};
use crate::cli::Result;
use crate::clock;
use crate::event::TASK_STOPPED;
use crate::http;
use crate::simulator::manus::{End, Plan, Turn};
use crate::store::view::{EventFilter, EventRow, Page};

/// The most time that a round may take; it needs two seconds on a machine that does little else.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether something has come to pass.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The public URL of a taskhook that does not know it.
pub(super) const OTHER_URL: &str = "https://hooks.example.com";
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// A round that is played.
pub(super) struct Script<'a> {
    pub(super) stage: &'a Stage,
    /// When it is given up on.
    deadline: Timestamp,
    /// Whether the webhook is registered in it.
    pub(super) first: bool,
    /// The task that hands out a file.
    pub(super) files: String,
    /// The task that asks.
    pub(super) asks: String,
    /// The task whose stop is announced twice.
    pub(super) repeats: String,
    /// The stranger's.
    pub(super) strangers: String,
    /// How many requests were sent past the simulator.
    posted: AtomicUsize,
}

impl<'a> Script<'a> {
    /// Begins round `number`: the webhook is registered before the first, then the tasks are made, and live by themselves.
    pub(super) async fn begin(stage: &'a Stage, number: u32) -> Self {
        let (first, pace) = (number == 1, Duration::from_millis);
        if first {
            stage.manus.register_with_ping(OUR_KEY, &stage.webhook).await;
            // Whoever knows our URL may register it as theirs; Manus signs for them as it does for us.
            stage.manus.register(STRANGERS_KEY, &stage.webhook);
        }
        let make = |key, plan: Plan| {
            let title = plan.title.clone().unwrap_or_default();
            let task_id = stage.manus.create_task(key, plan);
            stage.news.title(&task_id, &title);
            task_id
        };
        let finish = |text: &str| Plan::finish(text);
        let plan = "# Lisbon\n\nMonday: the castle.\nTuesday: the river.\n";
        let files = finish("Your week is planned; the plan is attached.")
            .titled("Plan a week in Lisbon")
            .with_progress(["Comparing districts"])
            .with_file("lisbon.md", "text/markdown", plan)
            .costing(12)
            .paced(pace(300));
        let ask = End::Ask { question: "Inside or on the terrace?".to_owned(), options: Vec::new() };
        let asks = Plan::new([Turn::new(ask), Turn::finish("Booked: a table on the terrace at eight.")])
            .titled("Book a table for two")
            .paced(pace(340));
        let repeats =
            finish("The second one: lighter, and a longer life.").titled("Compare three laptops").costing(7).paced(pace(420));
        let strangers = finish("Somebody else's result").titled("Somebody else's task").paced(pace(120));
        Self {
            files: make(OUR_KEY, files),
            asks: make(OUR_KEY, asks),
            repeats: make(OUR_KEY, repeats),
            strangers: make(STRANGERS_KEY, strangers),
            deadline: clock::after(stage.clock.now(), PATIENCE),
            stage,
            first,
            posted: AtomicUsize::new(0),
        }
    }

    /// Our tasks.
    pub(super) fn ours(&self) -> [&str; 3] {
        [&self.files, &self.asks, &self.repeats]
    }

    /// How many requests were sent past the simulator.
    pub(super) fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    /// Plays it, until all is as it should be, or will not be any more. What was seen.
    pub(super) async fn play(&self) -> Result<Vec<Check>> {
        tokio::try_join!(self.send_again(), self.answer(), self.forge(), self.mistake())?;
        self.settle().await
    }

    /// Sends a stop once more, as Manus may when our answer was lost on its way.
    async fn send_again(&self) -> Result {
        let Some(stop) = self.find(&self.repeats, TASK_STOPPED).await? else { return Ok(()) };
        self.stage.clock.sleep(Duration::from_millis(80)).await;
        if let Some(event) = self.stage.store.event(&stop.id).await.map_err(check::unread)? {
            self.stage.manus.emit(OUR_KEY, event.payload).await;
        }
        Ok(())
    }

    /// Answers the question once the application has it, as its user would in Manus's web app.
    async fn answer(&self) -> Result {
        while self.stage.application.of_task(&self.asks).is_empty() {
            if self.is_late() {
                return Ok(());
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
        self.stage.clock.sleep(Duration::from_millis(150)).await;
        let (url, said) = (format!("{}/v2/task.sendMessage", self.stage.manus.base_url()), "On the terrace, at eight");
        let body = json!({"task_id": self.asks, "message": {"content": said}});
        let at = self.stage.clock.now();
        let request = self.stage.client.post(url).header("x-manus-api-key", OUR_KEY).json(&body);
        let (tone, outcome) = match http::send(request, PATIENCE, MAX_ANSWER).await {
            Ok(answer) if answer.status.is_success() => (Tone::Plain, format!("“{said}”, in Manus")),
            Ok(answer) => (Tone::Bad, answer.status.to_string()),
            Err(error) => (Tone::Bad, error.to_string()),
        };
        self.stage.news.line(Line::of_task(at, Actor::You, "answer", &self.asks, tone, outcome));
        Ok(())
    }

    /// Sends a result that Manus never sent, with a signature that it gave for another.
    async fn forge(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(500)).await;
        let genuine = Self::stop_of(&self.files, "The real one.").to_string();
        let forged = Self::stop_of(&self.files, "Pay 900 € to this account.").to_string();
        let second = self.stage.clock.now().as_second();
        let headers = self.stage.manus.sign(&self.stage.webhook, genuine.as_bytes(), second);
        self.post(Actor::Forger, &self.files, headers, forged).await;
        Ok(())
    }

    /// Sends a genuine event, as if through a proxy whose name taskhook was never told.
    async fn mistake(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(1_100)).await;
        let body = Self::stop_of(&self.repeats, "Signed for another URL.").to_string();
        let second = self.stage.clock.now().as_second();
        let mut headers = self.stage.manus.sign(&format!("{OTHER_URL}/webhooks/{SOURCE}"), body.as_bytes(), second);
        let host = OTHER_URL.trim_start_matches("https://");
        headers.insert(header::HOST, header::HeaderValue::from_static(host));
        self.post(Actor::Proxy, &self.repeats, headers, body).await;
        Ok(())
    }

    fn stop_of(task_id: &str, message: &str) -> Value {
        json!({
            "event_id": format!("{TASK_STOPPED}_{task_id}_1"),
            "event_type": TASK_STOPPED,
            "task_detail": {"task_id": task_id, "message": message, "stop_reason": "finish", "attachments": []},
        })
    }

    async fn post(&self, actor: Actor, task_id: &str, headers: HeaderMap, body: String) {
        let at = self.stage.clock.now();
        let request = self.stage.client.post(&self.stage.webhook).headers(headers).body(body);
        let (tone, outcome) = match http::send(request, PATIENCE, MAX_ANSWER).await {
            Ok(answer) => {
                let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let tone = if answer.status == 401 { Tone::Refused } else { Tone::Bad };
                (tone, format!("{} {}", answer.status.as_u16(), problem["code"].as_str().unwrap_or_default()))
            }
            Err(error) => (Tone::Bad, error.to_string()),
        };
        self.posted.fetch_add(1, Ordering::Relaxed);
        self.stage.news.line(Line::of_task(at, actor, TASK_STOPPED, task_id, tone, outcome));
    }

    /// Waits for an event of a task; `None` once the round is late.
    async fn find(&self, task_id: &str, kind: &str) -> Result<Option<EventRow>> {
        let filter = || EventFilter { task_id: Some(task_id.to_owned()), kind: Some(kind.to_owned()), ..EventFilter::default() };
        while !self.is_late() {
            let found = self.stage.store.events(filter(), Page { limit: 1, cursor: None }).await.map_err(check::unread)?;
            if let Some(event) = found.data.into_iter().next() {
                return Ok(Some(event));
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    /// Looks until everything is there, or nothing is left to be done, or time is up.
    async fn settle(&self) -> Result<Vec<Check>> {
        let mut quiet = 0;
        loop {
            let checks = check::look(self).await?;
            let idle = self.stage.manus.idle().now_or_never().is_some()
                && self.stage.store.backlog().await.map_err(check::unread)?.jobs.is_empty();
            quiet = if idle { quiet + 1 } else { 0 };
            // What is kept beside the path of an event may be a moment behind it.
            if checks.iter().all(Check::is_right) || quiet > 20 || self.is_late() {
                return Ok(checks);
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
    }

    fn is_late(&self) -> bool {
        self.stage.clock.now() >= self.deadline
    }
}
