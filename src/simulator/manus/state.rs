//! What the simulator knows: accounts, webhooks, tasks, files, and what happened. One lock guards it, held for moments only.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::super::Ring;
use super::Options;
use super::deliver::Event;
use super::faults::Faults;
use super::script::{End, File, Plan, Turn};
use crate::clock::Clock;
use crate::signature::rsa::PrivateKey;

/// The most tasks that are kept; of more, the oldest goes.
pub(super) const MAX_TASKS: usize = 5_000;
/// The most entries of one conversation; a task that would grow longer takes no more messages.
pub(super) const MAX_ENTRIES: usize = 2_000;
/// The most accounts, and the most webhooks of one account.
pub(super) const MAX_ACCOUNTS: usize = 100;
/// The most calls, and the most deliveries, that are remembered.
pub(super) const MAX_RECORDS: usize = 10_000;
/// The most events of one account that are held back.
pub(super) const MAX_HELD: usize = 100;

/// An API call that was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, empty if there is none.
    pub query: String,
    /// The status that it was answered with.
    pub status: u16,
    /// The label of the account whose key it bore, such as `account-1`; `None` without a key that is known.
    pub account: Option<String>,
}

/// A webhook request that was sent, or kept back by a fault.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// The webhook's URL.
    pub url: String,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The task.
    pub task_id: String,
    /// Which try it is, from 1; 0 if a fault dropped the event.
    pub attempt: u32,
    /// The status that it was answered with.
    pub status: Option<u16>,
    /// The beginning of what it was answered with.
    pub answer: String,
    /// How long the answer took, in milliseconds.
    pub took_ms: f64,
    /// Why there was no answer.
    pub error: Option<String>,
}

impl Delivery {
    /// Whether it was answered 2xx.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

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
    due: Option<Timestamp>,
    /// Ends when the events before have been sent: one task's events leave in order.
    pub(super) lane: Option<oneshot::Receiver<()>>,
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
    due: BTreeSet<(Timestamp, u64)>,
    next_task: u64,
    pub(super) files: HashMap<String, File>,
    pub(super) faults: Faults,
    pub(super) calls: Ring<Call>,
    pub(super) deliveries: Ring<Delivery>,
    pub(super) key: Arc<PrivateKey>,
    pub(super) link_secret: [u8; 16],
    pub(super) link_lifetime: Duration,
    /// Batches of webhook requests that are on their way.
    pub(super) in_flight: usize,
    pub(super) base_url: String,
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
            due: BTreeSet::new(),
            next_task: 0,
            files: HashMap::new(),
            faults: Faults::default(),
            calls: Ring::new(MAX_RECORDS),
            deliveries: Ring::new(MAX_RECORDS),
            key: options.signing_key.clone().unwrap_or_else(|| Arc::new(PrivateKey::generate())),
            link_secret,
            link_lifetime: options.link_lifetime,
            in_flight: 0,
            base_url,
            clock: options.clock.clone(),
            random,
        }
    }

    /// Wall time as the simulator tells it, faults included.
    pub(super) fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.faults.clock_offset_seconds);
        self.clock.now().checked_add(offset).unwrap_or(Timestamp::MAX)
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
        let key = crate::event::hex(&self.link_secret);
        self.account(&format!("sk-stranger-{key}"))
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
        while self.tasks.len() >= MAX_TASKS
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
            due: None,
            lane: None,
            seconds: Vec::new(),
            files: Vec::new(),
        };
        self.by_id.insert(id, number);
        self.tasks.insert(number, task);
        self.start_turn(number, &new.prompt);
        number
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.schedule(number, None);
        if let Some(task) = self.tasks.remove(&number) {
            self.by_id.remove(&task.id);
            for file in task.files {
                self.files.remove(&file);
            }
        }
    }

    pub(super) fn number(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    pub(super) fn task(&mut self, number: u64) -> Option<&mut Task> {
        self.tasks.get_mut(&number)
    }

    /// Keeps a file of a task; its link, not yet signed.
    pub(super) fn keep_file(&mut self, number: u64, file: &File) -> String {
        let id = self.new_id();
        if let Some(task) = self.tasks.get_mut(&number) {
            task.files.push(id.clone());
            self.files.insert(id.clone(), file.clone());
        }
        let mut url = url::Url::parse(&self.base_url).expect("the base URL was checked at the start");
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(["files", &id, &file.name]);
        }
        url.to_string()
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

    /// Says when a task's next step is due, on the clock without faults.
    pub(super) fn schedule(&mut self, number: u64, at: Option<Timestamp>) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        if let Some(before) = std::mem::replace(&mut task.due, at) {
            self.due.remove(&(before, number));
        }
        if let Some(at) = at {
            self.due.insert((at, number));
        }
    }

    /// The task whose next step comes first, and when.
    pub(super) fn next_due(&self) -> Option<(Timestamp, u64)> {
        self.due.first().copied()
    }

    /// Whether there is nothing to do, and nothing on its way.
    pub(super) fn rests(&self) -> bool {
        self.due.is_empty() && self.in_flight == 0 && self.accounts.iter().all(|account| account.held.is_empty())
    }
}
