//! What the simulator knows: accounts, webhooks, jobs and their steps.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::board::{Board, Outgoing};
use super::super::core::{Dressed, Model};
use super::super::fault::offset;
use super::super::handle::fields;
use super::super::shelf::Shelf;
use super::deliver::Event;
use super::faults::Faults;
use super::script::{End, Plan, Resource};
use super::{ApiFault, Delivery, Options, api};
use crate::clock::{self, Clock};

/// The most jobs that are kept; of more, the oldest goes.
const MAX_JOBS: usize = 5_000;
/// The most accounts, and the most webhooks of one account.
const MAX_ACCOUNTS: usize = 100;

#[derive(Debug)]
pub(super) struct Account {
    pub(super) key: String,
    label: String,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) held: VecDeque<Event>,
}

#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) secret: String,
    /// None: every event.
    pub(super) events: Vec<String>,
}

/// What a job does next.
#[derive(Debug)]
enum Step {
    Start,
    End(End),
}

#[derive(Debug)]
pub(super) struct Job {
    id: String,
    pub(super) account: usize,
    pub(super) resource: Resource,
    project: String,
    name: Option<String>,
    created_at: Timestamp,
    status: &'static str,
    credits: u32,
    /// Links that are not signed yet.
    downloads: Vec<String>,
    files: Vec<String>,
    error: Option<Value>,
    pace: Duration,
    starts: bool,
    steps: VecDeque<Step>,
}

pub(super) struct State {
    pub(super) accounts: Vec<Account>,
    pub(super) jobs: BTreeMap<u64, Job>,
    by_id: HashMap<String, u64>,
    next_job: u64,
    pub(super) shelf: Shelf,
    pub(super) faults: Faults,
    pub(super) board: Board,
    pub(super) renew_timestamp: bool,
    clock: Clock,
    random: fastrand::Rng,
}

impl State {
    pub(super) fn new(options: &Options, base_url: String) -> Self {
        let mut random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let link_secret = random.u128(..).to_be_bytes();
        Self {
            accounts: Vec::new(),
            jobs: BTreeMap::new(),
            by_id: HashMap::new(),
            next_job: 0,
            shelf: Shelf::new(base_url, link_secret, options.link_lifetime),
            faults: Faults::default(),
            board: Board::new(),
            renew_timestamp: options.renew_timestamp,
            clock: options.clock.clone(),
            random,
        }
    }

    /// A `c` and 24 small letters and digits, as Magic Hour's ids are.
    pub(super) fn new_id(&mut self) -> String {
        std::iter::once('c').chain((0..24).map(|_| self.random.alphanumeric().to_ascii_lowercase())).collect()
    }

    /// The position of the account of `key`, which is made if there is none.
    pub(super) fn account(&mut self, key: &str) -> usize {
        if let Some(known) = self.account_of_key(key) {
            return known;
        }
        if self.accounts.len() == MAX_ACCOUNTS {
            // Jobs name accounts by position, so none is ever taken away: the last is shared.
            return MAX_ACCOUNTS - 1;
        }
        let label = format!("account-{}", self.accounts.len() + 1);
        self.accounts.push(Account { key: key.to_owned(), label, webhooks: Vec::new(), held: VecDeque::new() });
        self.accounts.len() - 1
    }

    pub(super) fn account_of_key(&self, key: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.key == key)
    }

    pub(super) fn add_webhook(&mut self, key: &str, url: &str, secret: &str, events: &[&str]) {
        let account = self.account(key);
        let webhooks = &mut self.accounts[account].webhooks;
        if webhooks.len() == MAX_ACCOUNTS {
            webhooks.remove(0);
        }
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        webhooks.push(Webhook { url: url.to_owned(), secret: secret.to_owned(), events });
    }

    /// Makes a job, which waits in the queue for its first step; its id.
    pub(super) fn create(&mut self, account: usize, plan: Plan) -> String {
        while self.jobs.len() >= MAX_JOBS
            && let Some(oldest) = self.jobs.keys().next().copied()
        {
            self.remove(oldest);
        }
        let (id, number) = (self.new_id(), self.next_job);
        self.next_job += 1;
        let job = Job {
            id: id.clone(),
            account,
            resource: plan.resource,
            project: plan.project,
            name: plan.name,
            created_at: self.now(),
            status: "queued",
            credits: plan.credits,
            downloads: Vec::new(),
            files: Vec::new(),
            error: None,
            pace: plan.pace,
            starts: plan.starts,
            steps: VecDeque::from([Step::Start, Step::End(plan.end)]),
        };
        self.by_id.insert(id.clone(), number);
        self.board.schedule(number, Some(clock::after(self.clock.now(), job.pace)));
        self.jobs.insert(number, job);
        id
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.board.forget(number);
        if let Some(job) = self.jobs.remove(&number) {
            self.by_id.remove(&job.id);
            for file in job.files {
                self.shelf.remove(&file);
            }
        }
    }

    /// Does a job's next step; the event that tells of it, if one does.
    fn live(&mut self, number: u64) -> Option<Event> {
        let now = self.clock.now();
        let job = self.jobs.get_mut(&number)?;
        let step = job.steps.pop_front();
        let next = (!job.steps.is_empty()).then(|| clock::after(now, job.pace));
        self.board.schedule(number, next);
        let action = match step? {
            Step::Start => {
                job.status = "rendering";
                job.starts.then_some("started")?
            }
            Step::End(End::Complete(files)) => {
                for file in &files {
                    let id = self.new_id();
                    let link = self.shelf.keep(&id, file);
                    let job = self.jobs.get_mut(&number)?;
                    job.files.push(id);
                    job.downloads.push(link);
                }
                self.jobs.get_mut(&number)?.status = "complete";
                "completed"
            }
            Step::End(End::Fail { code, message }) => {
                job.status = "error";
                job.credits = 0;
                job.error = Some(json!({"message": message, "code": code}));
                "errored"
            }
            Step::End(End::Cancel) => {
                job.status = "canceled";
                job.credits = 0;
                return None;
            }
            Step::End(End::Never) => return None,
        };
        let job = self.jobs.get(&number)?;
        let body = json!({"type": format!("{}.{action}", job.resource.word()), "payload": view(job)});
        Some(Event { account: job.account, body, made_at: self.now().as_second(), secret: String::new() })
    }

    /// Turns the links of `downloads` into signed ones, each with its expiry.
    pub(super) fn freshen(&mut self, payload: &mut Value) {
        let Some(downloads) = payload.get_mut("downloads").and_then(Value::as_array_mut) else { return };
        let now = self.now();
        for download in downloads {
            let Some(link) = download.as_str().map(ToOwned::to_owned) else { continue };
            let policy = self.new_id();
            let url = self.shelf.sign(&link, &policy, now);
            *download = json!({"url": url, "expires_at": clock::rfc3339(self.shelf.expiry(now))});
        }
    }
}

/// A job as its details call and its events show it. Links are not signed yet.
pub(super) fn view(job: &Job) -> Value {
    let mut view = json!({
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "type": job.project,
        "created_at": clock::rfc3339(job.created_at),
        "enabled": true,
        "credits_charged": job.credits,
        "downloads": job.downloads,
        "error": job.error,
    });
    match job.resource {
        Resource::Video => {
            for (name, value) in
                [("width", json!(512)), ("height", json!(960)), ("start_seconds", json!(0)), ("end_seconds", json!(5.0))]
            {
                view[name] = value;
            }
            view["fps"] = json!(30);
        }
        Resource::Image => view["image_count"] = json!(job.downloads.len().max(1)),
        Resource::Audio => {}
    }
    view
}

impl Model for State {
    type Event = Event;
    type Faults = Faults;
    type Options = Options;

    const NAME: &'static str = "magic-hour-simulator";
    const FAULTS: &'static str = super::FAULTS;

    fields!();

    fn has_step(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|job| !job.steps.is_empty())
    }

    fn advance(&mut self, number: u64) -> Vec<Outgoing<Event>> {
        self.live(number).map(|event| self.dispatch(event)).unwrap_or_default()
    }

    fn release_held(&mut self) -> Vec<Outgoing<Event>> {
        self.let_go()
    }

    fn holds(&self) -> bool {
        self.accounts.iter().any(|account| !account.held.is_empty())
    }

    fn delivery(event: &Event, url: &str, attempt: u32) -> Delivery {
        event.delivery(url, attempt)
    }

    fn dress(&mut self, out: &Outgoing<Event>) -> Dressed {
        let request = self.render(&out.event);
        Box::new(move || request)
    }

    fn again(options: &Options, attempt: u32) -> Option<Duration> {
        // 1 s, 2 s, 4 s: after n waits 2^n - 1 seconds have gone.
        let wait = Duration::from_secs(2_u64.checked_pow(attempt - 1)?);
        let gone = wait.checked_sub(Duration::from_secs(1))?;
        (gone + wait <= options.retry_for).then_some(wait)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<String> {
        self.account_of_key(api::key(headers)?).map(|known| self.accounts[known].label.clone())
    }

    fn refuse(status: StatusCode) -> Response {
        api::Refusal(status, status.canonical_reason().unwrap_or("Error")).into_response()
    }
}
