//! A round of WebRun: tasks are done, and one needs a person, of which nobody tells; one webhook comes twice, and two come that are
//! not WebRun's.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::check::{self, Check, Seen};
use super::news::Actor;
use super::round::Round;
use super::stage::{AUTHORIZATION, OUR_KEY, Stage};
use crate::cli::Result;
use crate::simulator::webrun::{End, Faults, File, Output, Plan, Shape, Times, WebRun, Webhook};

const TASK_COMPLETED: &str = "task_completed";

/// A round that is played.
pub(super) struct Script<'a> {
    round: Round<'a>,
    stage: &'a Stage,
    simulator: &'a WebRun,
    /// The task that answers in a form.
    structured: String,
    /// The task that downloads a file.
    files: String,
    /// The task that needs a person.
    stuck: String,
}

impl<'a> Script<'a> {
    /// Begins a round: the tasks are made, each with its webhook, and live by themselves. The first webhook is sent twice.
    pub(super) fn begin(stage: &'a Stage, simulator: &'a WebRun) -> Self {
        simulator.set_faults(Faults { duplicate: Times::Next(1), ..Faults::default() });
        let webhook = || Webhook {
            name: "taskhook".to_owned(),
            url: stage.webhook.clone(),
            auth: Some(AUTHORIZATION.to_owned()),
            submitted_data: Shape::FullResponse,
        };
        let make = |plan: Plan, title: &str, pace: u64| {
            let (_, task) = simulator.create_task(OUR_KEY, webhook(), plan.paced(Duration::from_millis(pace)));
            stage.news.title(&task, title);
            task
        };
        let laptop = json!({"laptop": "B", "price": 899}).to_string();
        let report =
            Plan::done("The report is downloaded.").with_file(File::new("report.csv", "text/csv", "month,total\n1,29.99\n"));
        Self {
            structured: make(Plan::done(&laptop).giving(Output::Json), "Compare three laptops", 250),
            files: make(report, "Download the report", 330),
            stuck: make(Plan::ending(End::Guardrail("I need login credentials to proceed".to_owned())), "Pay the bill", 300),
            round: Round::new(stage),
            stage,
            simulator,
        }
    }

    /// Plays it, until all is as it should be, or will not be any more. What was seen.
    pub(super) async fn play(&self) -> Result<Vec<Check>> {
        tokio::try_join!(self.forge(), self.mistake())?;
        self.round.settle(async || self.look().await).await
    }

    fn tasks(&self) -> [&str; 3] {
        [&self.structured, &self.files, &self.stuck]
    }

    /// Sends a result that WebRun never sent.
    async fn forge(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(500)).await;
        let body = Self::end_of(&self.files, "Pay 900 € to this account.");
        self.round.post(Actor::Forger, TASK_COMPLETED, &self.files, headers("Bearer guessed"), body.to_string()).await;
        Ok(())
    }

    /// Sends a request whose value lacks its scheme.
    async fn mistake(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(900)).await;
        let body = Self::end_of(&self.structured, "Sent by hand.");
        let value = AUTHORIZATION.trim_start_matches("Bearer ");
        self.round.post(Actor::Script, TASK_COMPLETED, &self.structured, headers(value), body.to_string()).await;
        Ok(())
    }

    fn end_of(task_id: &str, message: &str) -> Value {
        json!({"type": TASK_COMPLETED, "sessionId": "demo", "taskId": task_id, "data": {"message": message}})
    }

    /// Looks at what came of it so far.
    async fn look(&self) -> Result<Vec<Check>> {
        let seen = Seen::of(self.stage, &self.tasks()).await?;
        let (ours, repeated, posted) = (2, 1, 2);
        let of_ours = |body: &str| self.tasks().into_iter().any(|id| body.contains(id));
        let fetched = self.simulator.requests().into_iter().filter(|call| call.status == 200 && of_ours(&call.path)).count();
        Ok(vec![
            Check::new("sent", ours + repeated + posted, "requests to our URL").seen(seen.sent + self.round.posted()),
            Check::new("accepted", ours, "answered 200, on disk before")
                .seen(seen.events.len())
                .wrong(check::buried(&seen.events)),
            Check::new("duplicates", repeated, "came again: answered 200, done once").seen(seen.repeats()),
            check::refused(self.stage, of_ours, ("authorization_invalid", "right value"), posted).await?,
            Check::new("fetched", ours, "tasks that are done, with their files").seen(fetched),
            check::delivered(self.stage, &seen, &self.tasks(), ours, (&self.files, "report.csv")),
        ])
    }
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::try_from(authorization).ok().map(|value| (header::AUTHORIZATION, value)));
    headers
}
