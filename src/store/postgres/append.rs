//! Keeping events, once: a replica keeps what waits in one statement and one commit, whatever the others keep meanwhile.
//!
//! What must hold:
//! - No answer before the commit, which is on the database's disk (`synchronous_commit`).
//! - Whether an event is new, the unique key decides inside the insert. Keys are inserted in their order, so that of two replicas that
//!   keep the same events neither waits for the other in a circle.
//! - The order of acceptance is the order in which events came: numbers are given before the rows are sorted.
//! - One bad row does not take its neighbours with it: a batch that is refused is done again row by row. What is known already is told apart
//!   in a transaction of its own: so a batch of new events is one statement, which goes there and back once.
//! - A sender that cannot be served is told at once. While the database is away nothing waits for it: see [`Reach`].

use std::collections::HashSet;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Postgres;
use super::beat::Reach;
use super::crowd::Crowd;
use super::session::{Args, Kind, Sessions, Tx, args, clean, column, retry, transact, within};
use crate::clock::Clock;
use crate::event::{First, Key, NewEvent, Verification, content_digest};
use crate::store::model::{Appended, Queue};
use crate::store::{Error, HOMELESS};

/// The most events that may wait.
const QUEUE: usize = 4096;
/// The most events in one transaction.
const BATCH: usize = 512;
/// So many events are worth a commit.
const ENOUGH: usize = 24;
/// How often it is looked at what waits, if that is not enough; between two looks all else has its turn.
const GATHER: usize = 8;
/// The most bytes of events in one transaction.
const BATCH_BYTES: usize = 8 << 20;
/// How many bytes must find room for a database not to be full any more.
const TRIAL: usize = 64 << 10;

/// An event that waits to be kept.
struct Offer {
    event: NewEvent,
    headers: String,
    key: Uuid,
    answer: oneshot::Sender<Result<Appended, Error>>,
}

impl Offer {
    fn bytes(&self) -> usize {
        self.event.body.len() + self.headers.len()
    }
}

/// The way to the part that keeps events.
#[derive(Debug)]
pub(super) struct Appender {
    queue: mpsc::Sender<Offer>,
    reach: Reach,
}

impl Appender {
    /// Starts the part that keeps events on the one connection of `sessions`.
    pub(super) fn start(sessions: Sessions, crowd: Crowd, clock: Clock, parts: &mut JoinSet<&'static str>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let reach = Reach::new(clock);
        let theirs = reach.clone();
        parts.spawn(async move {
            run(sessions, waiting, theirs, crowd).await;
            "the part that keeps events"
        });
        Self { queue, reach }
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach.clone()
    }
}

impl Postgres {
    pub(in crate::store) async fn append(&self, event: NewEvent) -> Result<Appended, Error> {
        let appender = &self.shared.appender;
        appender.reach.check()?;
        let headers = serde_json::to_string(&event.headers).map_err(|error| Error::Database(error.to_string()))?;
        let key = uuid(Key::of(&event.source, &event.event_id));
        let source = Queue::Source(event.source.clone());
        let (answer, answered) = oneshot::channel();
        appender.queue.try_send(Offer { event, headers, key, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Error::Unavailable("it is shutting down".to_owned()),
        })?;
        let kept = answered.await.unwrap_or_else(|_| Err(Error::Unavailable("it is shutting down".to_owned())));
        if matches!(kept, Ok(Appended::New(_) | Appended::Collision(_))) {
            self.shared.bell.ring_for(std::iter::once(source));
        }
        kept
    }

    pub(in crate::store) async fn check(&self) -> Result<(), Error> {
        let (reach, sessions) = (&self.shared.appender.reach, self.sessions());
        reach.check()?;
        transact!(sessions, Write, |tx| check(&tx))?;
        if reach.is_full() {
            // Once this says so, a balancer sends nobody who would find out that there is room again.
            within(try_out(sessions)).await.inspect_err(|error| reach.heard_no(error))?;
            reach.has_room();
        }
        Ok(())
    }
}

/// Keeps an event as large as most, and undoes it: where there is no room, that takes none.
async fn try_out(sessions: &Sessions) -> Result<(), Error> {
    let mut body = vec![0; TRIAL];
    // What can be compressed would need less.
    aws_lc_rs::rand::fill(&mut body).map_err(|_| Error::Database("there are no random bytes".to_owned()))?;
    let (id, word) = (Uuid::now_v7(), "trial".to_owned());
    let event = NewEvent {
        id,
        source: word.clone(),
        provider: "trial",
        received_at: Timestamp::UNIX_EPOCH,
        verification: Verification::None,
        target: word.clone(),
        headers: Vec::new(),
        body: body.into(),
        kind: word.clone(),
        provider_type: None,
        event_id: word,
        task_id: None,
        ping: false,
        collides: false,
        first: First::Keep,
    };
    let offer = Offer { event, headers: "[]".to_owned(), key: id, answer: oneshot::channel().0 };
    let tx = sessions.begin(Kind::Write).await?;
    let kept = insert(&Way::In(&tx), &rows(&[offer])).await;
    tx.undo(kept).await.map(drop)
}

/// Whether the database takes writes; nothing is written, since every replica asks every second.
async fn check(tx: &Tx) -> Result<(), Error> {
    let row = tx.row("SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'", &[]).await?;
    if row.get(0) || row.get(1) {
        return Err(Error::Unreachable("it is a standby, which takes no writes".to_owned()));
    }
    Ok(())
}

/// The 16 bytes of a key as the column has them.
pub(super) fn uuid(key: Key) -> Uuid {
    Uuid::from_bytes(key.0)
}

async fn run(sessions: Sessions, mut waiting: mpsc::Receiver<Offer>, reach: Reach, crowd: Crowd) {
    while let Some(first) = waiting.recv().await {
        let offers = gather(first, &mut waiting).await;
        crowd.saw(offers.len());
        // In a box: what a batch needs is large.
        Box::pin(keep(&sessions, &reach, offers)).await;
    }
}

/// All that waits; if that is little, with what comes of the requests that are there already: a commit costs more than reading them.
async fn gather(first: Offer, waiting: &mut mpsc::Receiver<Offer>) -> Vec<Offer> {
    let (mut bytes, mut offers) = (first.bytes(), Vec::with_capacity(BATCH));
    offers.push(first);
    for turn in 0..GATHER {
        if turn > 0 {
            tokio::task::yield_now().await;
        }
        let before = offers.len();
        while offers.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.bytes();
            offers.push(next);
        }
        if offers.len() >= ENOUGH || (turn > 0 && offers.len() == before) {
            break;
        }
    }
    offers
}

/// Keeps what can be kept, and answers each.
async fn keep(sessions: &Sessions, reach: &Reach, offers: Vec<Offer>) {
    let made = match reach.asking(async { retry!(sessions, within(insert(&Way::Alone(sessions), &rows(&offers)))) }).await {
        Ok(made) => made,
        Err(error) => return refuse(sessions, reach, offers, error).await,
    };
    if !made.is_empty() {
        reach.has_room();
    }
    let (new, mut known): (Vec<_>, Vec<_>) = offers.into_iter().partition(|offer| made.contains(&offer.event.id));
    for offer in new {
        let id = offer.event.id;
        answer(offer, Ok(Appended::New(id)));
    }
    if known.is_empty() {
        return;
    }
    known.sort_by_key(|offer| offer.key);
    match Box::pin(reach.asking(async { transact!(sessions, Write, |tx| tell_apart(&tx, &known)) })).await {
        Ok(kept) => known.into_iter().zip(kept).for_each(|(offer, appended)| answer(offer, Ok(appended))),
        Err(error) => refuse(sessions, reach, known, error).await,
    }
}

/// What could not be kept at once is kept one by one, where something in it was refused: then no more than the bad one is.
async fn refuse(sessions: &Sessions, reach: &Reach, offers: Vec<Offer>, error: Error) {
    reach.heard_no(&error);
    let one_by_one = offers.len() > 1 && matches!(error, Error::Refused(_) | Error::Database(_));
    for offer in offers {
        if one_by_one {
            Box::pin(keep(sessions, reach, vec![offer])).await;
        } else {
            answer(offer, Err(error.clone()));
        }
    }
}

/// Whoever asked may have given up.
fn answer(offer: Offer, kept: Result<Appended, Error>) {
    drop(offer.answer.send(kept));
}

/// What becomes of events whose keys were known a moment ago: what was known may have gone since.
async fn tell_apart(tx: &Tx, offers: &[Offer]) -> Result<Vec<Appended>, Error> {
    let made = insert(&Way::In(tx), &rows(offers)).await?;
    let mut kept = Vec::with_capacity(offers.len());
    for offer in offers {
        let id = offer.event.id;
        kept.push(if made.contains(&id) { Appended::New(id) } else { again(tx, offer).await? });
    }
    Ok(kept)
}

/// What becomes of an event whose key is known.
async fn again(tx: &Tx, offer: &Offer) -> Result<Appended, Error> {
    let event = &offer.event;
    // Nobody may remove it while something is told apart from it.
    let first = tx.maybe("SELECT seq, id, body FROM events WHERE key = $1 FOR KEY SHARE", args![offer.key]).await?;
    let Some(first) = first else { return erased(tx, offer.key).await };
    let kept: &[u8] = first.get(2);
    let content = (event.collides && kept != event.body).then(|| content_digest(&event.body));
    let Some(content) = content.filter(|content| *content != content_digest(kept)) else {
        return repeat(tx, first.get(0), event.received_at).await;
    };
    let key = uuid(Key::of_collision(&event.source, &event.event_id, &content));
    if !insert(&Way::In(tx), &[Row { offer, key, collision_of: Some(first.get(1)) }]).await?.is_empty() {
        return Ok(Appended::Collision(event.id));
    }
    match tx.maybe("SELECT seq FROM events WHERE key = $1", args![key]).await? {
        Some(earlier) => repeat(tx, earlier.get(0), event.received_at).await,
        None => erased(tx, key).await,
    }
}

/// The event that was accepted under `key` and erased: nothing else is known of it, so any content is a repeat.
async fn erased(tx: &Tx, key: Uuid) -> Result<Appended, Error> {
    match tx.maybe("SELECT event FROM erased_keys WHERE key = $1", args![key]).await? {
        Some(row) => Ok(Appended::Duplicate(row.get(0))),
        // It was removed since the insert met it.
        None => Err(Error::Again("the event that was known has gone".to_owned())),
    }
}

async fn repeat(tx: &Tx, first: i64, at: Timestamp) -> Result<Appended, Error> {
    let sql = "UPDATE events SET repeats = repeats + 1, last_repeat_at = $2 WHERE seq = $1 RETURNING id";
    match tx.maybe(sql, args![first, at]).await? {
        Some(row) => Ok(Appended::Duplicate(row.get(0))),
        None => Err(Error::Again("the event that was known has gone".to_owned())),
    }
}

/// A row that is to be.
struct Row<'a> {
    offer: &'a Offer,
    key: Uuid,
    collision_of: Option<Uuid>,
}

fn rows(offers: &[Offer]) -> Vec<Row<'_>> {
    offers.iter().map(|offer| Row { offer, key: offer.key, collision_of: None }).collect()
}

/// How a statement is done.
enum Way<'a> {
    /// In this transaction.
    In(&'a Tx),
    /// As one of its own.
    Alone(&'a Sessions),
}

impl Way<'_> {
    /// Where the tables are, if that is still to be said.
    fn schema(&self) -> Option<&str> {
        match self {
            Self::In(_) => None,
            Self::Alone(sessions) => Some(sessions.schema()),
        }
    }

    async fn call(&self, function: &str, args: Args<'_>) -> Result<tokio_postgres::Row, Error> {
        match self {
            Self::In(tx) => tx.call(function, args).await,
            Self::Alone(sessions) => sessions.call(function, args).await,
        }
    }
}

/// Inserts those whose key is not known; says which they are, by our ids.
async fn insert(way: &Way<'_>, rows: &[Row<'_>]) -> Result<HashSet<Uuid>, Error> {
    // What a sender says in text may hold a zero byte, which PostgreSQL knows not: who is who is decided by the keys.
    let event_ids = column(rows, |row| clean(&row.offer.event.event_id));
    let (sources, kinds) = (column(rows, |row| clean(&row.offer.event.source)), column(rows, |row| clean(&row.offer.event.kind)));
    let task_ids = column(rows, |row| row.offer.event.task_id.as_deref().map(clean));
    let types = column(rows, |row| row.offer.event.provider_type.as_deref().map(clean));
    let targets = column(rows, |row| clean(&row.offer.event.target));
    let kept = way
        .call(
            "append_events",
            args![
                way.schema(),
                column(rows, |row| row.offer.event.id),
                column(rows, |row| row.key),
                column(&sources, AsRef::as_ref),
                column(rows, |row| row.offer.event.provider),
                column(&kinds, AsRef::as_ref),
                column(&types, |word| word.as_deref()),
                column(&event_ids, AsRef::as_ref),
                column(&task_ids, |id| id.as_deref()),
                column(rows, |row| row.offer.event.received_at),
                column(rows, |row| row.offer.event.verification.as_str()),
                column(rows, |row| row.offer.event.first == First::Keep),
                column(rows, |row| row.offer.event.ping),
                column(rows, |row| row.collision_of),
                column(rows, |row| row.offer.event.first == First::Quarantine),
                column(&targets, AsRef::as_ref),
                column(rows, |row| row.offer.headers.as_str()),
                column(rows, |row| &row.offer.event.body[..]),
                HOMELESS,
            ],
        )
        .await?
        .get::<_, Option<Vec<Uuid>>>(0);
    Ok(kept.map_or_else(|| rows.iter().map(|row| row.offer.event.id).collect(), HashSet::from_iter))
}
