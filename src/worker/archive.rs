//! Archiving the files of a task, once for all its events that wait, and handing these on in the order they came.
//!
//! What must hold: a result is never kept back for ever by a file. An event waits for its own files, for at most `archive.wait`, and
//! only where a route wants that; then it goes out and says where each file stands. What stands behind such a one waits for at most
//! `order_wait`, then goes first, marked `out_of_order`. A file that is not saved by then is still tried: its ladder is its own.
//!
//! What became of each file is kept as it ends, so that a kill costs what was on its way and nothing else. A dead link is asked for
//! anew, once in a turn; the provider is asked for the whole task, which is kept as any fetch is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;

use super::Environment;
use super::dispatch::{self, Known, Place};
use super::entry::new_files;
use super::lease::end;
use super::prove::{complain, part};
use super::trace;
use crate::archive::{Failure, Room, Saved, type_of};
use crate::clock;
use crate::provider::{ApiError, Source, Use};
use crate::retry::{self, LADDER};
use crate::store::model::{FileRow, Finish, Job, JobKind, Lease, Move, Progress, TURN_EVENTS, TaskNews, Told, Waiting, Work};
use crate::task::{Fetched, FileStatus, keys_of};
use crate::telemetry::trace::{Span, within};
use crate::telemetry::{logged, name as metric};

/// Files of a task at once.
const AT_ONCE: usize = 3;
/// How often a turn looks whether more events came.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a turn begins with new files: then the jobs of other tasks have theirs.
const TURN_TIME: Duration = Duration::from_mins(10);
/// How often in a row the link of a file may be dead, fresh ones among them.
const DEAD_LINKS: u32 = 4;
/// The longest that asking for fresh links may take: nothing else goes on meanwhile.
const RENEW_TIME: Duration = Duration::from_mins(1);
/// The archive in `/readyz`.
pub(super) const PART: &str = "archive";

/// Does `job`.
pub(super) async fn run(environment: &Environment, source: &Source, job: Job) {
    let Work::Files { task_id, subject } = job.work else { return };
    let (stands, spans, renewed) = (HashMap::new(), BTreeMap::new(), false);
    let turn = Turn { environment, source, lease: job.lease, task_id: task_id.as_deref(), subject, stands, spans, renewed };
    turn.run().await;
}

/// One turn of a job.
struct Turn<'a> {
    environment: &'a Environment,
    source: &'a Source,
    lease: Lease,
    /// The task; `None` for an event that names none.
    task_id: Option<&'a str>,
    /// What the store calls it by.
    subject: i64,
    /// What is known of events that wait, by [`crate::store::model::StoredEvent::seq`].
    stands: HashMap<i64, Stand>,
    /// The span of each that waits, since this turn found it.
    spans: BTreeMap<i64, Span>,
    /// Whether fresh links were asked for.
    renewed: bool,
}

/// What decides whether an event waits.
struct Stand {
    /// The keys of its files.
    keys: BTreeSet<String>,
    /// Whether a route wants it to wait for them.
    waits: bool,
}

/// What a turn finds in the store.
struct Found {
    rows: Vec<FileRow>,
    waiting: Vec<Waiting>,
    fetched: Option<Fetched>,
    /// Its task as it stood at the stops that waiting events tell of, where it has gone on since.
    turns: HashMap<String, Fetched>,
    /// How often contents were deleted from the archive so far, where a file is to be saved.
    deletions: i64,
}

impl Turn<'_> {
    async fn run(mut self) {
        let (archive, clock) = (&self.environment.archive, &self.environment.clock);
        let (mut saving, mut in_hand) = (FuturesUnordered::new(), BTreeSet::new());
        let (mut room, last_begin) = (None, clock::after(clock.now(), TURN_TIME));
        loop {
            let found = self.look().await;
            for Waiting { event, .. } in &found.waiting {
                if self.environment.tracer.is_on() && !self.spans.contains_key(&event.seq) {
                    self.spans.insert(event.seq, trace::of_event(self.environment, event, "archive"));
                }
            }
            let now = clock.now();
            let (moves, next) = self.moves(&found, now);
            let files = self.hopeless(&found.rows, &in_hand);
            if !moves.is_empty() || !files.is_empty() {
                let gone: Vec<_> = moves.iter().map(|gone| gone.event).collect();
                if !self.keep(Progress { files, moves, ..Progress::default() }).await {
                    return;
                }
                let spans = gone.iter().filter_map(|event| self.spans.remove(event));
                spans.for_each(|span| trace::archived(&span, "handed_on", &found.rows));
                continue;
            }
            let room = room.get_or_insert_with(|| Arc::new(self.room(&found.rows)));
            let pending = found.rows.iter().filter(|row| row.status == FileStatus::Pending && !in_hand.contains(&row.key));
            let due = pending.filter(|row| now < last_begin && row.due_at.is_none_or(|at| at <= now));
            for row in due.take(AT_ONCE.saturating_sub(in_hand.len())).cloned().collect::<Vec<_>>() {
                in_hand.insert(row.key.clone());
                let (room, deletions) = (Arc::clone(room), found.deletions);
                saving.push(async move {
                    let saved = archive.save(row.url.as_deref().unwrap_or_default(), &room).await;
                    (row, saved, deletions)
                });
            }
            let all = found.waiting.len() < TURN_EVENTS;
            let seen = found.waiting.last().map(|last| if all { last.event.seq } else { i64::MAX });
            if in_hand.is_empty() {
                self.spans.values().for_each(|span| trace::archived(span, "again", &found.rows));
            }
            // Events hold their bodies: these are not kept for as long as a file takes.
            drop(found);
            if in_hand.is_empty() {
                let finish = Finish { again_at: next, seen, ..Finish::default() };
                end(self.environment, JobKind::Archive, || self.environment.store.finish(self.lease, now, finish.clone())).await;
                return;
            }
            let look = clock::after(now, LOOK_EVERY);
            let alarm = clock.sleep_until(next.map_or(look, |next| next.min(look)));
            tokio::select! {
                Some((row, saved, deletions)) = saving.next() => {
                    in_hand.remove(&row.key);
                    let _hold = saved.as_ref().ok().map(|saved| saved.hold.clone());
                    let progress = self.judge(row, saved).await;
                    if !self.keep(Progress { deletions, ..progress }).await {
                        return;
                    }
                }
                () = alarm => {}
            }
        }
    }

    /// What the store knows now.
    async fn look(&self) -> Found {
        let (store, source) = (&self.environment.store, self.source.name());
        let mut attempt = 0;
        loop {
            let looked = async {
                let (rows, waiting) = (store.files(self.subject).await?, store.waiting_for_files(self.subject).await?);
                let saves = rows.iter().any(|row| row.status == FileStatus::Pending);
                let deletions = if saves { store.deletions().await? } else { 0 };
                let asked = self.task_id.filter(|_| waiting.iter().any(|waiting| waiting.told == Told::Fetched));
                let fetched = match asked {
                    Some(task_id) => store.fetched(source, task_id).await?,
                    None => None,
                };
                let turns = self.turns(&waiting, fetched.as_ref()).await?;
                Ok::<_, crate::store::Error>(Found { rows, waiting, fetched, turns, deletions })
            };
            match looked.await {
                Ok(found) => return found,
                Err(error) => {
                    attempt += 1;
                    tracing::warn!(source, error = %error, "cannot read which files are to be archived, will ask again: {error}");
                    self.environment.clock.sleep(LADDER[usize::min(attempt, 3) - 1]).await;
                }
            }
        }
    }

    /// The task as it stood at stops that it has gone on from since, as far as what is kept of it shows that.
    async fn turns(
        &self,
        waiting: &[Waiting],
        fetched: Option<&Fetched>,
    ) -> Result<HashMap<String, Fetched>, crate::store::Error> {
        let mut turns = HashMap::new();
        let (Some(fetched), Some(task_id)) = (fetched, self.task_id) else { return Ok(turns) };
        let told = waiting.iter().filter(|waiting| waiting.told == Told::Fetched).filter_map(|waiting| waiting.anchor.as_ref());
        let earlier: BTreeSet<_> = told.filter(|anchor| Some(*anchor) != fetched.stands_at.as_ref()).collect();
        if earlier.is_empty() {
            return Ok(turns);
        }
        let raw = self.environment.store.raw(self.source.name(), task_id).await?.unwrap_or_default();
        for anchor in earlier {
            if let Some(turn) = self.source.turn(task_id, &raw, anchor) {
                turns.insert(anchor.clone(), turn);
            }
        }
        Ok(turns)
    }

    /// The events that wait no more, and when the first of the others does not.
    fn moves(&mut self, found: &Found, now: Timestamp) -> (Vec<Move>, Option<Timestamp>) {
        let environment = self.environment;
        let pending: BTreeSet<_> =
            found.rows.iter().filter(|row| row.status == FileStatus::Pending).map(|row| row.key.as_str()).collect();
        let (mut moves, mut next): (Vec<Move>, Option<Timestamp>) = (Vec::new(), None);
        for waiting in &found.waiting {
            let event = &waiting.event;
            let known = match (waiting.told, &found.fetched) {
                (Told::Nothing, _) => Known::NotAsked,
                (Told::Fetched, Some(fetched)) => {
                    let turn = waiting.anchor.as_ref().and_then(|anchor| found.turns.get(anchor));
                    Known::Fetched(turn.unwrap_or(fetched))
                }
                _ => Known::FromWebhook,
            };
            let held_until = clock::after(waiting.since, environment.archive.config().wait);
            let behind_until = clock::after(event.received_at, self.source.order_wait());
            let waits = !pending.is_empty() && now < held_until && {
                let stand = self.stands.entry(event.seq).or_insert_with(|| {
                    let envelope = dispatch::with_files(environment, self.source, event, known, Place::default(), &found.rows);
                    let keys = keys_of(&envelope.files).into_iter().collect();
                    Stand { keys, waits: environment.routes.wait_for_files(&envelope) }
                });
                stand.waits && stand.keys.iter().any(|key| pending.contains(key.as_str()))
            };
            let until = match next {
                _ if waits => held_until,
                // It stays behind the one that is held.
                Some(_) if now < behind_until => behind_until,
                behind => {
                    let out_of_order = waiting.out_of_order || behind.is_some();
                    let place = Place { out_of_order, may_repeat: waiting.may_repeat };
                    let envelope = dispatch::with_files(environment, self.source, event, known, place, &found.rows);
                    let to = dispatch::deliveries(environment, self.source, event, &envelope);
                    moves.push(Move { event: event.seq, to });
                    continue;
                }
            };
            next = Some(next.map_or(until, |next| next.min(until)));
        }
        (moves, next)
    }

    /// The files that are not tried at all, as they are to be kept.
    fn hopeless(&self, rows: &[FileRow], in_hand: &BTreeSet<String>) -> Vec<FileRow> {
        let archive = &self.environment.archive;
        let most = archive.config().max_files;
        let pending = rows.iter().enumerate().filter(|(_, row)| row.status == FileStatus::Pending && !in_hand.contains(&row.key));
        let end = |(number, row): (usize, &FileRow)| {
            let (status, reason) = match &row.url {
                _ if !archive.is_on() => (FileStatus::Skipped, "there is no archive any more".to_owned()),
                None => (FileStatus::Failed, "the provider gives no link to it".to_owned()),
                Some(_) if number >= most => {
                    (FileStatus::Failed, format!("its task has more files than `archive.max_files`, {most}"))
                }
                Some(_) => return None,
            };
            self.count(status, &reason);
            Some(FileRow { status, reason: Some(reason), due_at: None, ..row.clone() })
        };
        pending.filter_map(end).collect()
    }

    /// The bytes that are left to the files of this task.
    fn room(&self, rows: &[FileRow]) -> Room {
        let archived = rows.iter().filter(|row| row.status == FileStatus::Archived);
        let taken = archived.filter_map(|row| row.size_bytes).fold(0, u64::saturating_add);
        Room::new(self.environment.archive.config().max_task_bytes.0.saturating_sub(taken))
    }

    /// What an attempt at a file comes to.
    async fn judge(&mut self, row: FileRow, saved: Result<Saved, Failure>) -> Progress {
        let dead_links = if matches!(saved, Err(Failure::LinkDied(_))) { row.dead_links + 1 } else { 0 };
        let row = FileRow { attempts: row.attempts + 1, dead_links, due_at: None, ..row };
        let (reason, after) = match saved {
            Ok(saved) => return self.archived(row, saved),
            Err(Failure::TooLarge(reason)) => return self.ended(row, FileStatus::TooLarge, reason),
            Err(Failure::Refused(reason)) => return self.ended(row, FileStatus::Failed, reason),
            Err(Failure::LinkDied(status)) => return self.link_died(row, &status).await,
            Err(Failure::Later { reason, after }) => (reason, after),
            Err(Failure::Archive(error)) => {
                self.environment.health.degrade(PART, error.to_string());
                ("the archive does not work".to_owned(), None)
            }
        };
        self.again(row, reason, after)
    }

    fn archived(&self, row: FileRow, saved: Saved) -> Progress {
        self.environment.health.recover(PART);
        metrics::counter!(metric::FILE_BYTES, "source" => self.source.name().to_owned()).increment(saved.size_bytes);
        let content_type = saved.content_type.or_else(|| type_of(&row.name));
        let (sha256, size_bytes) = (Some(saved.sha256), Some(saved.size_bytes));
        self.count(FileStatus::Archived, "");
        let row = FileRow { status: FileStatus::Archived, reason: None, sha256, size_bytes, content_type, ..row };
        Progress { files: vec![row], ..Progress::default() }
    }

    fn ended(&self, row: FileRow, status: FileStatus, reason: String) -> Progress {
        self.count(status, &reason);
        Progress { files: vec![FileRow { status, reason: Some(reason), ..row }], ..Progress::default() }
    }

    /// It is tried again, until its ladder ends.
    fn again(&self, row: FileRow, reason: String, after: Option<Duration>) -> Progress {
        let Some(wait) = retry::wait(&LADDER, row.attempts, after) else {
            let reason = format!("given up after {} attempts, the last: {reason}", row.attempts);
            return self.ended(row, FileStatus::Failed, reason);
        };
        tracing::info!(
            source = self.source.name(),
            task = self.task_id.map(logged),
            attempt = row.attempts,
            wait_ms = clock::millis(wait),
            "a file was not saved ({}), will try again",
            logged(&reason)
        );
        let due_at = Some(clock::after(self.environment.clock.now(), wait));
        Progress { files: vec![FileRow { reason: Some(reason), due_at, ..row }], ..Progress::default() }
    }

    /// The link of `row` is dead: a fresh one is asked for, once in a turn.
    async fn link_died(&mut self, row: FileRow, status: &str) -> Progress {
        let reason = format!("its link is dead ({status})");
        if row.dead_links >= DEAD_LINKS {
            return self.ended(row, FileStatus::Failed, reason);
        }
        let Some(task_id) = self.task_id.filter(|_| self.source.fetches() && !self.renewed) else {
            return self.again(row, reason, None);
        };
        if let Err(wait) = self.source.budget().try_take(Use::Fetch) {
            return self.again(
                row,
                "its link is dead, and `requests_per_minute` leaves no call for a fresh one".to_owned(),
                Some(wait),
            );
        }
        self.renewed = true;
        let event = match self.environment.store.stored_event(row.event).await {
            Ok(Some(event)) => event,
            Ok(None) => return self.ended(row, FileStatus::Failed, format!("{reason}, and its event is gone")),
            Err(error) => return self.again(row, format!("{reason}, and its event cannot be read: {error}"), None),
        };
        let kept = dispatch::kept(&event);
        let first = self.spans.values().next().cloned().unwrap_or_default();
        let fetched = tokio::select! {
            fetched = within(first, self.source.fetch(task_id, &kept)) => fetched,
            () = self.environment.clock.sleep(RENEW_TIME) => {
                let reason = "it took too long".to_owned();
                Err(ApiError::Unavailable { call: "fetch", reason, after: None, arrived: false })
            }
        };
        match fetched {
            Ok(fetched) => {
                self.environment.health.recover(&part(self.source));
                self.stands.clear();
                let renewed = new_files(self.environment, row.event, &fetched.files);
                let known = renewed.iter().any(|file| file.key == row.key && file.refused.is_none());
                let task = TaskNews { fetched: Some(Box::new(fetched)), ..TaskNews::default() };
                let progress = if known {
                    // With its fresh link it is tried again at once.
                    Progress { files: vec![FileRow { reason: Some(reason), ..row }], ..Progress::default() }
                } else {
                    self.ended(row, FileStatus::Failed, format!("{reason}, and its task does not name it any more"))
                };
                Progress { renewed, task, ..progress }
            }
            Err(ApiError::NotFound { .. }) => {
                let task = TaskNews { deleted: true, ..TaskNews::default() };
                Progress { task, ..self.ended(row, FileStatus::Failed, format!("{reason}, and its task is gone")) }
            }
            Err(error) if error.degrades() => {
                let wait = complain(self.environment, self.source, row.attempts, &error);
                self.again(row, format!("{reason}, and no fresh one is to be had: {error}"), Some(wait))
            }
            Err(error) => self.ended(row, FileStatus::Failed, format!("{reason}, and no fresh one is to be had: {error}")),
        }
    }

    /// Keeps what was done; false where the job is somebody else's by now.
    async fn keep(&self, progress: Progress) -> bool {
        let now = self.environment.clock.now();
        end(self.environment, JobKind::Archive, || self.environment.store.progress(self.lease, now, progress.clone())).await
    }

    fn count(&self, status: FileStatus, reason: &str) {
        let source = self.source.name();
        metrics::counter!(metric::FILES, "source" => source.to_owned(), "status" => status.as_str()).increment(1);
        if status == FileStatus::Archived {
            tracing::debug!(source, task = self.task_id.map(logged), "a file was archived");
        } else {
            tracing::warn!(source, task = self.task_id.map(logged), "a file is not archived: {}", logged(reason));
        }
    }
}
