//! A round of Manus: tasks finish, ask, and are announced twice, while a stranger, a forger and a proxy try as well.

use std::time::Duration;

use axum::http::header;
use serde_json::{Value, json};

use super::check::{self, Check, Seen};
use super::news::{Actor, Line, Tone};
use super::round::{LOOK_EVERY, MAX_ANSWER, PATIENCE, Round};
use super::stage::{OUR_KEY, STRANGERS_KEY, Stage};
use crate::cli::Result;
use crate::event::TASK_STOPPED;
use crate::http;
use crate::simulator::manus::{End, Manus, Plan, Turn};
use crate::store::view::EventRow;

/// The task of the request that Manus tries a webhook with.
const PING: &str = "test_task_id";
/// The public URL of a taskhook that does not know it.
const OTHER_URL: &str = "https://hooks.example.com";

/// A round that is played.
pub(super) struct Script<'a> {
    round: Round<'a>,
    stage: &'a Stage,
    simulator: &'a Manus,
    /// Whether the webhook is registered in it.
    first: bool,
    /// The task that hands out a file.
    files: String,
    /// The task that asks.
    asks: String,
    /// The task whose stop is announced twice.
    repeats: String,
    /// The stranger's.
    strangers: String,
}

impl<'a> Script<'a> {
    /// Begins round `number`: the webhook is registered before the first, then the tasks are made, and live by themselves.
    pub(super) async fn begin(stage: &'a Stage, simulator: &'a Manus, number: u32) -> Self {
        let (first, pace) = (number == 1, Duration::from_millis);
        if first {
            simulator.register_with_ping(OUR_KEY, &stage.webhook).await;
            // Whoever knows our URL may register it as theirs; Manus signs for them as it does for us.
            simulator.register(STRANGERS_KEY, &stage.webhook);
        }
        let make = |key, plan: Plan| {
            let title = plan.title.clone().unwrap_or_default();
            let task_id = simulator.create_task(key, plan);
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
            round: Round::new(stage),
            stage,
            simulator,
            first,
        }
    }

    /// Our tasks.
    fn ours(&self) -> [&str; 3] {
        [&self.files, &self.asks, &self.repeats]
    }

    /// Plays it, until all is as it should be, or will not be any more. What was seen.
    pub(super) async fn play(&self) -> Result<Vec<Check>> {
        tokio::try_join!(self.send_again(), self.answer(), self.forge(), self.mistake())?;
        self.round.settle(async || self.look().await).await
    }

    /// Sends a stop once more, as Manus may when our answer was lost on its way.
    async fn send_again(&self) -> Result {
        let Some(stop) = self.round.find(&self.repeats, TASK_STOPPED).await? else { return Ok(()) };
        self.stage.clock.sleep(Duration::from_millis(80)).await;
        if let Some(event) = self.stage.store.event(&stop.id).await.map_err(check::unread)? {
            self.simulator.emit(OUR_KEY, event.payload).await;
        }
        Ok(())
    }

    /// Answers the question once the application has it, as its user would in Manus's web app.
    async fn answer(&self) -> Result {
        while self.stage.application.of_task(&self.asks).is_empty() {
            if self.round.is_late() {
                return Ok(());
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
        self.stage.clock.sleep(Duration::from_millis(150)).await;
        let (url, said) = (format!("{}/v2/task.sendMessage", self.simulator.base_url()), "On the terrace, at eight");
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
        let headers = self.simulator.sign(&self.stage.webhook, genuine.as_bytes(), second);
        self.round.post(Actor::Forger, TASK_STOPPED, &self.files, headers, forged).await;
        Ok(())
    }

    /// Sends a genuine event, as if through a proxy whose name taskhook was never told.
    async fn mistake(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(1_100)).await;
        let body = Self::stop_of(&self.repeats, "Signed for another URL.").to_string();
        let second = self.stage.clock.now().as_second();
        let mut headers = self.simulator.sign(&format!("{OTHER_URL}/webhooks/{}", self.stage.source), body.as_bytes(), second);
        let host = OTHER_URL.trim_start_matches("https://");
        headers.insert(header::HOST, header::HeaderValue::from_static(host));
        self.round.post(Actor::Proxy, TASK_STOPPED, &self.repeats, headers, body).await;
        Ok(())
    }

    fn stop_of(task_id: &str, message: &str) -> Value {
        json!({
            "event_id": format!("{TASK_STOPPED}_{task_id}_1"),
            "event_type": TASK_STOPPED,
            "task_detail": {"task_id": task_id, "message": message, "stop_reason": "finish", "attachments": []},
        })
    }

    /// Looks at what came of it so far.
    async fn look(&self) -> Result<Vec<Check>> {
        let strangers = [self.strangers.as_str()];
        let tasks: Vec<_> = self.ours().into_iter().chain(strangers).chain(self.first.then_some(PING)).collect();
        let seen = Seen::of(self.stage, &tasks).await?;
        let (ping, ours, strangers, repeated, posted) = (usize::from(self.first), 3 + 3 + 2, 2, 1, 2);
        let of_ours = |body: &str| self.ours().into_iter().any(|task_id| body.contains(task_id));
        let mistake = ("signature_invalid", OTHER_URL);
        Ok(vec![
            Check::new("sent", ping + ours + strangers + repeated + posted, "requests to our URL")
                .seen(seen.sent + self.round.posted()),
            Check::new("accepted", ping + ours + strangers, "answered 200, on disk before")
                .seen(seen.events.len())
                .wrong(self.misplaced(&seen.events)),
            Check::new("duplicates", repeated, "came again: answered 200, done once").seen(seen.repeats()),
            check::refused(self.stage, of_ours, mistake, posted).await?,
            Check::new("quarantined", strangers, "genuine, of somebody else's account: kept, never sent")
                .seen(seen.events.iter().filter(|event| event.state == "quarantined").count())
                .wrong(self.leaked(&seen)),
            check::delivered(self.stage, &seen, &self.ours(), 4, (&self.files, "lisbon.md")),
        ])
    }

    /// Events that are not where they belong.
    fn misplaced(&self, events: &[EventRow]) -> Option<String> {
        let ping = events.iter().find(|event| event.task_id.as_deref() == Some(PING));
        if self.first && ping.is_some_and(|event| !event.ping) {
            return Some("the registration ping is not marked as one".to_owned());
        }
        let collision = events.iter().find(|event| event.collision_of.is_some());
        check::buried(events).or_else(|| collision.map(|event| format!("`{}` counts as a collision", event.event_id)))
    }

    /// Whether something went out that is not ours.
    fn leaked(&self, seen: &Seen) -> Option<String> {
        let strangers = |task_id: &Option<String>| task_id.as_deref() == Some(&self.strangers);
        let delivery = seen.deliveries.iter().any(|delivery| strangers(&delivery.task_id));
        let arrived = !self.stage.application.of_task(&self.strangers).is_empty();
        let state = seen.events.iter().any(|event| !strangers(&event.task_id) && event.state == "quarantined");
        if delivery || arrived {
            Some("the stranger's task was dispatched".to_owned())
        } else {
            state.then(|| "one of our own events is quarantined".to_owned())
        }
    }
}
