//! What the simulator knows: accounts, webhooks, tasks, files, and what happened. One lock guards it, held for moments only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::board::{Board, Outgoing};
use super::super::core::{Dressed, Model};
use super::super::fault::offset;
use super::super::handle::fields;
use super::super::shelf::Shelf;
use super::deliver::Event;
use super::faults::Faults;
use super::script::{End, Plan, Turn};
use super::{ApiFault, Delivery, File, Options, api, api_v1, api_v2};
use crate::clock::Clock;
use crate::event::hex;
use crate::signature::rsa::PrivateKey;

/// Members whose numbers are the user's own, and are never turned into strings.
const VERBATIM: [&str; 2] = ["value", "confirm_input_schema"];
/// The most entries of one conversation; a task that would grow longer takes no more messages.
pub(super) const MAX_ENTRIES: usize = 2_000;
/// The most accounts, and the most webhooks of one account.
pub(super) const MAX_ACCOUNTS: usize = 100;
#[derive(Debug)]
pub(super) struct Account {
    pub(super) key: String,
    pub(super) label: String,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) last_event_id: Option<String>,
    pub(super) held: VecDeque<Event>,
    /// When the calls of the last minute came, by rate class.
    pub(super) recent: [VecDeque<Duration>; 3],
}

#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) created_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Waiting,
    Stopped,
    Error,
}

impl Status {
    /// Manus's word in v2.
    pub(super) fn v2(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }

    /// What Manus's word in v2 means.
    pub(super) fn of_v2(word: &str) -> Option<Self> {
        [Self::Running, Self::Waiting, Self::Stopped, Self::Error].into_iter().find(|status| status.v2() == word)
    }

    /// Manus's word in v1.
    pub(super) fn v1(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "pending",
            Self::Stopped => "completed",
            Self::Error => "failed",
        }
    }
}

/// What a task does next.
#[derive(Debug)]
pub(super) enum Step {
    Announce,
    Progress(String),
    End(Box<End>, u32),
}

/// What a waiting task waits for.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) event_id: String,
    pub(super) kind: String,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) account: usize,
    pub(super) title: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) status: Status,
    pub(super) profile: String,
    pub(super) visibility: String,
    pub(super) hidden: bool,
    pub(super) credits: u32,
    pub(super) error: Option<String>,
    pub(super) background: Option<u32>,
    /// The conversation, oldest first, in the shape of v2's `TaskEvent`.
    pub(super) entries: Vec<Value>,
    pub(super) waiting: Option<Waiting>,
    pub(super) turns: VecDeque<Turn>,
    pub(super) steps: VecDeque<Step>,
    pub(super) pace: Duration,
    /// The second in the newest event id of each type.
    pub(super) seconds: Vec<(&'static str, i64)>,
    files: Vec<String>,
}

impl Task {
    /// Its page.
    pub(super) fn url(&self) -> String {
        format!("https://manus.im/app/{}", self.id)
    }
}

/// A new task, as a call asks for it.
#[derive(Debug)]
pub(super) struct NewTask {
    pub(super) prompt: String,
    pub(super) title: Option<String>,
    pub(super) profile: String,
    pub(super) plan: Plan,
}

pub(super) struct State {
    pub(super) accounts: Vec<Account>,
    pub(super) tasks: BTreeMap<u64, Task>,
    by_id: HashMap<String, u64>,
    next_task: u64,
    pub(super) shelf: Shelf,
    pub(super) faults: Faults,
    pub(super) board: Board,
    pub(super) key: Arc<PrivateKey>,
    pub(super) numbers_as_strings: bool,
    max_tasks: usize,
    /// Tells the stranger's account from every other.
    stranger: String,
    pub(super) clock: Clock,
    random: fastrand::Rng,
}

impl State {
    pub(super) fn new(options: &Options, base_url: String) -> Self {
        let mut random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let link_secret = random.u128(..).to_be_bytes();
        Self {
            accounts: Vec::new(),
            tasks: BTreeMap::new(),
            by_id: HashMap::new(),
            next_task: 0,
            shelf: Shelf::new(base_url, link_secret, options.link_lifetime),
            faults: Faults::default(),
            board: Board::new(),
            key: options.signing_key.clone().unwrap_or_else(|| Arc::new(PrivateKey::generate())),
            numbers_as_strings: options.numbers_as_strings,
            max_tasks: options.max_tasks.max(1),
            stranger: format!("sk-stranger-{}", hex(&link_secret)),
            clock: options.clock.clone(),
            random,
        }
    }

    /// 22 letters and digits, as Manus's ids are.
    pub(super) fn new_id(&mut self) -> String {
        (0..22).map(|_| self.random.alphanumeric()).collect()
    }

    /// The position of the account of `key`, which is made if there is none.
    pub(super) fn account(&mut self, key: &str) -> usize {
        if let Some(known) = self.account_of_key(key) {
            return known;
        }
        if self.accounts.len() == MAX_ACCOUNTS {
            // Tasks name accounts by position, so none is ever taken away: the last is shared.
            return MAX_ACCOUNTS - 1;
        }
        self.accounts.push(Account {
            key: key.to_owned(),
            label: format!("account-{}", self.accounts.len() + 1),
            webhooks: Vec::new(),
            last_event_id: None,
            held: VecDeque::new(),
            recent: Default::default(),
        });
        self.accounts.len() - 1
    }

    pub(super) fn account_of_key(&self, key: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.key == key)
    }

    /// The account whose tasks are nobody's here.
    pub(super) fn stranger(&mut self) -> usize {
        self.account(&self.stranger.clone())
    }

    pub(super) fn add_webhook(&mut self, account: usize, url: &str) -> Webhook {
        let webhook = Webhook { id: self.new_id(), url: url.to_owned(), created_at: self.now().as_second() };
        let webhooks = &mut self.accounts[account].webhooks;
        if webhooks.len() == MAX_ACCOUNTS {
            webhooks.remove(0);
        }
        webhooks.push(webhook.clone());
        webhook
    }

    /// Makes a task; its life begins at the next step.
    pub(super) fn create(&mut self, account: usize, new: NewTask) -> u64 {
        while self.tasks.len() >= self.max_tasks
            && let Some(oldest) = self.tasks.keys().next().copied()
        {
            self.remove(oldest);
        }
        let (id, now, number) = (self.new_id(), self.now(), self.next_task);
        self.next_task += 1;
        let title = new.title.or(new.plan.title).unwrap_or_else(|| new.prompt.chars().take(60).collect());
        let task = Task {
            id: id.clone(),
            account,
            title,
            created_at: now,
            updated_at: now,
            status: Status::Running,
            profile: new.profile,
            visibility: new.plan.visibility,
            hidden: new.plan.hidden,
            credits: 0,
            error: None,
            background: new.plan.background,
            entries: Vec::new(),
            waiting: None,
            turns: new.plan.turns,
            steps: VecDeque::from([Step::Announce]),
            pace: Duration::ZERO,
            seconds: Vec::new(),
            files: Vec::new(),
        };
        self.by_id.insert(id, number);
        self.tasks.insert(number, task);
        self.start_turn(number, &new.prompt);
        number
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.board.forget(number);
        if let Some(task) = self.tasks.remove(&number) {
            self.by_id.remove(&task.id);
            for file in task.files {
                self.shelf.remove(&file);
            }
        }
    }

    pub(super) fn task(&mut self, number: u64) -> Option<&mut Task> {
        self.tasks.get_mut(&number)
    }

    /// Keeps a file of a task; its link, not yet signed.
    pub(super) fn keep_file(&mut self, number: u64, file: &File) -> String {
        let id = self.new_id();
        if let Some(task) = self.tasks.get_mut(&number) {
            task.files.push(id.clone());
        }
        self.shelf.keep(&id, file)
    }

    /// Adds an entry to the conversation; its id.
    pub(super) fn note(&mut self, number: u64, kind: &str, payload: Value) -> String {
        let (id, now) = (self.new_id(), self.now());
        if let Some(task) = self.tasks.get_mut(&number) {
            task.updated_at = now;
            let mut entry = json!({"id": id, "type": kind, "timestamp": now.as_millisecond()});
            entry[kind] = payload;
            task.entries.push(entry);
        }
        id
    }

    /// Makes `value` fit to be sent: links are signed, and numbers become strings if asked for.
    pub(super) fn freshen(&mut self, value: &mut Value, strings: bool) {
        match value {
            Value::String(text) if self.shelf.is_plain_link(text) => {
                let policy = self.new_id();
                *text = self.shelf.sign(text, &policy, self.now());
            }
            Value::Number(number) if strings => *value = number.to_string().into(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.freshen(item, strings)),
            Value::Object(members) => {
                for (name, member) in members {
                    self.freshen(member, strings && !VERBATIM.contains(&name.as_str()));
                }
            }
            _ => {}
        }
    }
}

impl Model for State {
    type Event = Event;
    type Faults = Faults;
    type Options = Options;

    const NAME: &'static str = "manus-simulator";
    const FAULTS: &'static str = super::FAULTS;

    fields!();

    fn date(&self) -> Timestamp {
        offset(self.now(), self.faults.date_offset_seconds)
    }

    fn has_step(&self, number: u64) -> bool {
        self.tasks.get(&number).is_some_and(|task| !task.steps.is_empty())
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
        let unsigned = self.render(out);
        Box::new(move || unsigned.sign())
    }

    fn again(options: &Options, attempt: u32) -> Option<Duration> {
        (attempt <= options.retries).then_some(options.retry_delay)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<String> {
        let key = api_v1::key(headers).or_else(|| api_v2::key(headers))?;
        self.account_of_key(&key).map(|known| self.accounts[known].label.clone())
    }

    fn refuse(status: StatusCode) -> Response {
        api::refuse(status)
    }
}
