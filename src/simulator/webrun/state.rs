//! What the simulator knows: accounts, sessions, tasks and their steps.

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
use super::deliver::{Event, Webhook};
use super::faults::Faults;
use super::script::{End, Plan};
use super::{ApiFault, Delivery, Options, api};
use crate::clock::{self, Clock};

/// The most tasks that are kept; of more, the oldest goes.
const MAX_TASKS: usize = 5_000;
/// The window of the rate limit.
const WINDOW: Duration = Duration::from_mins(1);

/// What a task used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) seconds: f64,
    pub(super) cost: f64,
}

/// Where a task stands.
#[derive(Clone, Debug)]
enum Status {
    Pending,
    Running,
    Done,
    Guardrail(String),
    Failed { code: String, message: String },
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    session: String,
    pub(super) plan: Plan,
    webhook: Option<Webhook>,
    status: Status,
    pub(super) message: String,
    pub(super) usage: Usage,
    pub(super) completed_at: Option<Timestamp>,
    files: Vec<Kept>,
}

/// A file that a task handed out.
#[derive(Debug)]
struct Kept {
    id: String,
    name: String,
    /// Not signed yet.
    link: String,
    at: Timestamp,
}

#[derive(Debug)]
struct Session {
    account: usize,
    tasks: Vec<u64>,
}

pub(super) struct State {
    keys: Vec<String>,
    sessions: HashMap<String, Session>,
    tasks: BTreeMap<u64, Task>,
    by_id: HashMap<String, u64>,
    next_task: u64,
    pub(super) held: VecDeque<Event>,
    /// When the calls of the last minute came, of each account.
    recent: Vec<VecDeque<Duration>>,
    pub(super) shelf: Shelf,
    pub(super) faults: Faults,
    pub(super) board: Board,
    clock: Clock,
    random: fastrand::Rng,
}

impl State {
    pub(super) fn new(options: &Options, base_url: String) -> Self {
        let mut random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let link_secret = random.u128(..).to_be_bytes();
        Self {
            keys: options.accounts.clone(),
            sessions: HashMap::new(),
            tasks: BTreeMap::new(),
            by_id: HashMap::new(),
            next_task: 0,
            held: VecDeque::new(),
            recent: vec![VecDeque::new(); options.accounts.len()],
            shelf: Shelf::new(base_url, link_secret, options.link_lifetime),
            faults: Faults::default(),
            board: Board::new(),
            clock: options.clock.clone(),
            random,
        }
    }

    /// 12 small letters and digits, as WebRun's ids are.
    fn new_id(&mut self) -> String {
        (0..12).map(|_| self.random.alphanumeric().to_ascii_lowercase()).collect()
    }

    pub(super) fn account_of_key(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Counts a call that starts something; `None` if it is one too many for this minute.
    pub(super) fn count(&mut self, account: usize, per_minute: usize) -> Option<()> {
        let now = self.clock.elapsed();
        let recent = self.recent.get_mut(account)?;
        while recent.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            recent.pop_front();
        }
        (recent.len() < per_minute).then(|| recent.push_back(now))
    }

    pub(super) fn open_session(&mut self, account: usize) -> String {
        let id = self.new_id();
        self.sessions.insert(id.clone(), Session { account, tasks: Vec::new() });
        id
    }

    /// Whether a session is this account's.
    pub(super) fn owns(&self, account: usize, session: &str) -> bool {
        self.sessions.get(session).is_some_and(|session| session.account == account)
    }

    pub(super) fn close_session(&mut self, session: &str) -> bool {
        let Some(session) = self.sessions.remove(session) else { return false };
        for number in session.tasks {
            self.remove(number);
        }
        true
    }

    /// Makes a task in a session; its id.
    pub(super) fn create(&mut self, session: &str, webhook: Option<Webhook>, plan: Plan) -> String {
        while self.tasks.len() >= MAX_TASKS
            && let Some(oldest) = self.tasks.keys().next().copied()
        {
            self.remove(oldest);
        }
        let (id, number) = (self.new_id(), self.next_task);
        self.next_task += 1;
        self.board.schedule(number, Some(clock::after(self.clock.now(), plan.pace)));
        let task = Task {
            id: id.clone(),
            session: session.to_owned(),
            plan,
            webhook,
            status: Status::Pending,
            message: String::new(),
            usage: Usage::default(),
            completed_at: None,
            files: Vec::new(),
        };
        self.by_id.insert(id.clone(), number);
        self.tasks.insert(number, task);
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks.push(number);
        }
        id
    }

    fn remove(&mut self, number: u64) {
        self.board.forget(number);
        let Some(task) = self.tasks.remove(&number) else { return };
        self.by_id.remove(&task.id);
        for file in task.files {
            self.shelf.remove(&file.id);
        }
        if let Some(session) = self.sessions.get_mut(&task.session) {
            session.tasks.retain(|other| *other != number);
            if session.tasks.is_empty() {
                self.sessions.remove(&task.session);
            }
        }
    }

    /// Does a task's next step; the webhook that tells of it, if one does.
    fn live(&mut self, number: u64) -> Option<Event> {
        let wall = self.clock.now();
        let now = self.now();
        let task = self.tasks.get_mut(&number)?;
        if matches!(task.status, Status::Pending) {
            task.status = Status::Running;
            task.usage = Usage { input_tokens: 8000, output_tokens: 2100, seconds: 12.3, cost: 0.0067 };
            let next = (!matches!(task.plan.end, End::Never)).then(|| clock::after(wall, task.plan.pace));
            self.board.schedule(number, next);
            return None;
        }
        self.board.schedule(number, None);
        task.usage = Usage { input_tokens: 8500, output_tokens: 2300, seconds: 12.5, cost: 0.0124 };
        match task.plan.end.clone() {
            End::Done { message, files } => {
                task.message = message;
                task.status = Status::Done;
                task.completed_at = Some(now);
                for file in files {
                    let id = self.new_id();
                    let kept = Kept { link: self.shelf.keep(&id, &file), name: file.name, at: now, id };
                    self.tasks.get_mut(&number)?.files.push(kept);
                }
                let task = self.tasks.get(&number)?;
                task.webhook.clone().map(|webhook| Event::of(&task.session, task, webhook))
            }
            End::Guardrail(value) => {
                task.status = Status::Guardrail(value);
                None
            }
            End::Fail { code, message } => {
                task.status = Status::Failed { code, message };
                None
            }
            End::Never => None,
        }
    }

    /// What `GET /task/{session}/{task}` answers.
    pub(super) fn poll(&mut self, session: &str, id: &str) -> Option<Value> {
        let number = self.number(id).filter(|number| self.tasks[number].session == session)?;
        let links: Vec<String> = self.tasks[&number].files.iter().map(|file| file.link.clone()).collect();
        let now = self.now();
        let mut signed = Vec::new();
        for link in links {
            let policy = self.new_id();
            signed.push(self.shelf.sign(&link, &policy, now));
        }
        let task = &self.tasks[&number];
        let usage = json!({
            "prompt_tokens": task.usage.input_tokens,
            "completion_tokens": task.usage.output_tokens,
            "total_tokens": task.usage.input_tokens + task.usage.output_tokens,
            "completion_time": task.usage.seconds,
            "cost": task.usage.cost,
        });
        Some(match &task.status {
            Status::Pending => pending(&self.shelf.base_url, session, id),
            Status::Running => {
                json!({"success": true, "sessionId": session, "taskId": id, "status": "running", "usage": usage})
            }
            Status::Done => {
                let file = |(file, url): (&Kept, String)| {
                    json!({
                        "source": format!("https://example.com/{}", file.name),
                        "downloadUrl": url,
                        "filename": file.name,
                        "timestamp": file.at.as_millisecond(),
                    })
                };
                json!({
                    "success": true,
                    "sessionId": session,
                    "taskId": id,
                    "type": "task_completed",
                    "data": {
                        "message": task.message,
                        "files": task.files.iter().zip(signed).map(file).collect::<Vec<_>>(),
                        "network": [],
                    },
                    "usage": usage,
                    "completedAt": task.completed_at.map(clock::rfc3339),
                })
            }
            Status::Guardrail(value) => {
                json!({"success": true, "type": "guardrail_trigger", "data": {"type": "human_input_needed", "value": value}})
            }
            Status::Failed { code, message } => json!({
                "success": false, "sessionId": session, "taskId": id, "status": "failed", "error": message, "code": code,
                "usage": usage,
            }),
        })
    }
}

/// The answer while nothing is known yet.
pub(super) fn pending(base_url: &str, session: &str, id: &str) -> Value {
    json!({
        "success": true, "sessionId": session, "taskId": id, "status": "pending", "pending": true,
        "pollUrl": format!("{base_url}/task/{session}/{id}"),
        "message": "Task still running. Poll GET /task/:sessionId/:taskId for result.",
    })
}

impl Model for State {
    type Event = Event;
    type Faults = Faults;
    type Options = Options;

    const NAME: &'static str = "webrun-simulator";
    const FAULTS: &'static str = super::FAULTS;

    fields!();

    fn has_step(&self, number: u64) -> bool {
        self.tasks.get(&number).is_some_and(|task| match task.status {
            Status::Pending => true,
            Status::Running => !matches!(task.plan.end, End::Never),
            Status::Done | Status::Guardrail(_) | Status::Failed { .. } => false,
        })
    }

    fn advance(&mut self, number: u64) -> Vec<Outgoing<Event>> {
        self.live(number).map(|event| self.dispatch(event)).unwrap_or_default()
    }

    fn release_held(&mut self) -> Vec<Outgoing<Event>> {
        self.let_go()
    }

    fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    fn delivery(event: &Event, url: &str, attempt: u32) -> Delivery {
        event.delivery(url, attempt)
    }

    fn dress(&mut self, out: &Outgoing<Event>) -> Dressed {
        let request = self.render(&out.event);
        Box::new(move || request)
    }

    fn again(_: &Options, _: u32) -> Option<Duration> {
        None
    }

    fn caller(&self, headers: &HeaderMap) -> Option<String> {
        self.account_of_key(api::key(headers)?).map(|known| format!("account-{}", known + 1))
    }

    fn refuse(status: StatusCode) -> Response {
        let code = match status.as_u16() {
            401 => "INVALID_API_KEY",
            402 => "INSUFFICIENT_BALANCE",
            404 => "SESSION_NOT_FOUND",
            429 => "RATE_LIMIT_EXCEEDED",
            _ => "INTERNAL_ERROR",
        };
        api::refuse(status, code, "a fault of the simulator").into_response()
    }
}
