//! A round of Magic Hour: jobs complete, fail, are called off and announced twice, while a forger and a script try as well.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::{self, Check, Seen};
use super::news::Actor;
use super::round::Round;
use super::stage::{OUR_KEY, Stage, WEBHOOK_SECRET};
use crate::cli::Result;
use crate::simulator::magic_hour::{End, MagicHour, Plan, Resource};

const VIDEO_COMPLETED: &str = "video.completed";

/// A round that is played.
pub(super) struct Script<'a> {
    round: Round<'a>,
    stage: &'a Stage,
    simulator: &'a MagicHour,
    /// The job that is done before anybody could say that it began.
    quick: String,
    /// The job whose end is announced twice.
    repeats: String,
    /// The job that fails.
    fails: String,
    /// The job that is called off.
    canceled: String,
}

impl<'a> Script<'a> {
    /// Begins round `number`: the webhook is made before the first, then the jobs, which live by themselves.
    pub(super) fn begin(stage: &'a Stage, simulator: &'a MagicHour, number: u32) -> Self {
        if number == 1 {
            simulator.add_webhook(OUR_KEY, &stage.webhook, WEBHOOK_SECRET, &[]);
        }
        let make = |plan: Plan, name: &str, pace: u64| {
            let id = simulator.create_task(OUR_KEY, plan.named(name).paced(Duration::from_millis(pace)));
            stage.news.title(&id, name);
            id
        };
        let face = "Please use an image with a detectable face";
        Self {
            quick: make(Plan::image("cat.png", b"a picture").quick(), "A cat with glasses", 250),
            repeats: make(Plan::video("beach.mp4", b"a film").costing(30), "A walk on the beach", 330),
            fails: make(Plan::fail("no_source_face", face), "A face swap", 280),
            canceled: make(Plan::new(Resource::Audio, End::Cancel), "A jingle, called off", 300),
            round: Round::new(stage),
            stage,
            simulator,
        }
    }

    /// Plays it, until all is as it should be, or will not be any more. What was seen.
    pub(super) async fn play(&self) -> Result<Vec<Check>> {
        tokio::try_join!(self.send_again(), self.forge(), self.mistake())?;
        self.round.settle(async || self.look().await).await
    }

    fn jobs(&self) -> [&str; 4] {
        [&self.quick, &self.repeats, &self.fails, &self.canceled]
    }

    /// Sends an end once more, as Magic Hour does when our answer was lost on its way.
    async fn send_again(&self) -> Result {
        let Some(end) = self.round.find(&self.repeats, VIDEO_COMPLETED).await? else { return Ok(()) };
        self.stage.clock.sleep(Duration::from_millis(80)).await;
        if let Some(event) = self.stage.store.event(&end.id).await.map_err(check::unread)? {
            self.simulator.emit(OUR_KEY, event.payload).await;
        }
        Ok(())
    }

    /// Sends a result that Magic Hour never sent, with a signature that it gave for another.
    async fn forge(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(500)).await;
        let genuine = Self::end_of(&self.quick, "https://videos.example.com/mine.mp4").to_string();
        let forged = Self::end_of(&self.quick, "https://malware.example.com/theirs.mp4").to_string();
        let headers = MagicHour::sign(WEBHOOK_SECRET, genuine.as_bytes(), self.stage.clock.now().as_second());
        self.round.post(Actor::Forger, VIDEO_COMPLETED, &self.quick, headers, forged).await;
        Ok(())
    }

    /// Sends a request as a test script may: it signs compact JSON, and its library prints it anew with spaces.
    async fn mistake(&self) -> Result {
        self.stage.clock.sleep(Duration::from_millis(900)).await;
        let body = Self::end_of(&self.repeats, "https://videos.example.com/test.mp4");
        let headers = MagicHour::sign(WEBHOOK_SECRET, body.to_string().as_bytes(), self.stage.clock.now().as_second());
        self.round.post(Actor::Script, VIDEO_COMPLETED, &self.repeats, headers, format!("{body:#}")).await;
        Ok(())
    }

    fn end_of(id: &str, url: &str) -> Value {
        let download = json!({"url": url, "expires_at": "2030-01-01T00:00:00Z"});
        json!({"type": VIDEO_COMPLETED, "payload": {"id": id, "status": "complete", "downloads": [download]}})
    }

    /// Looks at what came of it so far.
    async fn look(&self) -> Result<Vec<Check>> {
        let seen = Seen::of(self.stage, &self.jobs()).await?;
        // Started and ended, but for the one that was too quick, and the one whose end nobody tells.
        let (ours, repeated, posted, ended) = (1 + 2 + 2 + 1, 1, 2, 3);
        let of_ours = |body: &str| self.jobs().into_iter().any(|id| body.contains(id));
        let fetched = self.simulator.requests().into_iter().filter(|call| call.status == 200 && of_ours(&call.path)).count();
        Ok(vec![
            Check::new("sent", ours + repeated + posted, "requests to our URL").seen(seen.sent + self.round.posted()),
            Check::new("accepted", ours, "answered 200, on disk before")
                .seen(seen.events.len())
                .wrong(check::buried(&seen.events)),
            Check::new("duplicates", repeated, "came again: answered 200, done once").seen(seen.repeats()),
            check::refused(self.stage, of_ours, ("signature_invalid", "white space"), posted).await?,
            Check::new("fetched", ended, "jobs that ended, for links that have just been made").seen(fetched),
            check::delivered(self.stage, &seen, &self.jobs(), ended, (&self.repeats, "beach.mp4")),
        ])
    }
}
