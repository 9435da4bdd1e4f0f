//! What a person asks for: trying deliveries again, discarding them, replaying events.
//!
//! What must hold: nothing here starts work beside the usual way. A delivery that is tried again is the same row with the next
//! attempt, in its place in its lane; an event that is replayed proves its task like any other before it goes on. What is meant by a
//! filter is looked for a stretch of rows at a time, and done in steps of a few rows: each looks at the row anew, under the locks of
//! what it does, so that nothing is done twice or to what has changed meanwhile. Whether something is being sent, its job says, whose
//! row is locked before it is read: a claim takes no lock of a lane.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::claim::attempt;
use super::session::{Tx, args, known, number, tidy, transact};
use super::{Postgres, intake, lane, lock, work};
use crate::store::Error;
use crate::store::model::{Act, Discarded, JobKind, Matching, Replayed, Retried, STEP, Select};
use crate::store::view::DestinationCounts;

/// How many rows are looked at in one go, however few of them are meant.
const STRETCH: i64 = 10_000;

impl Postgres {
    pub(in crate::store) async fn retry_delivery(&self, id: &str, now: Timestamp) -> Result<Retried, Error> {
        let Some(id) = whole_id(id) else { return Ok(Retried::Unknown) };
        self.and_ring(transact!(self.sessions(), Write, |tx| retry_one(&tx, id, now)))
    }

    pub(in crate::store) async fn event_seq(&self, id: &str) -> Result<Option<i64>, Error> {
        let Some(id) = whole_id(id) else { return Ok(None) };
        transact!(self.sessions(), Read, |tx| event(&tx, id))
    }

    pub(in crate::store) async fn discard_delivery(&self, id: &str, now: Timestamp) -> Result<Discarded, Error> {
        let Some(id) = whole_id(id) else { return Ok(Discarded::Unknown) };
        self.and_ring(transact!(self.sessions(), Write, |tx| discard_one(&tx, id, now)))
    }

    pub(in crate::store) async fn replay_event(&self, id: &str, now: Timestamp) -> Result<Replayed, Error> {
        let Some(id) = whole_id(id) else { return Ok(Replayed::Unknown) };
        self.take_in_most(now).await?;
        self.and_ring(transact!(self.sessions(), Write, |tx| replay_one(&tx, id, now)))
    }

    pub(in crate::store) async fn matching(&self, select: Select, after: i64) -> Result<Matching, Error> {
        transact!(self.sessions(), Read, |tx| matching(&tx, &select, after))
    }

    pub(in crate::store) async fn act(&self, act: Act, rows: Vec<i64>, now: Timestamp) -> Result<usize, Error> {
        if act == Act::Replay {
            self.take_in_most(now).await?;
        }
        self.and_ring(transact!(self.sessions(), Write, |tx| do_to(&tx, act, &rows, now)))
    }

    pub(in crate::store) async fn destination_counts(&self) -> Result<Vec<DestinationCounts>, Error> {
        transact!(self.sessions(), Read, |tx| counts(&tx))
    }

    pub(in crate::store) async fn delivery_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        let Some(range) = id_range(start) else { return Ok(Vec::new()) };
        transact!(self.sessions(), Read, |tx| delivery_ids(&tx, range, limit))
    }

    /// Takes in what was kept, in short transactions, so that little is left for one that needs all of it taken in.
    pub(super) async fn take_in_most(&self, now: Timestamp) -> Result<(), Error> {
        while transact!(self.sessions(), Write, |tx| intake::take_in(&tx, now))? {}
        Ok(())
    }
}

/// The first and the last id that begin with `start`, as we write them; `None` if none does.
pub(super) fn id_range(start: &str) -> Option<(Uuid, Uuid)> {
    let fits = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        0..36 => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        _ => false,
    };
    if !start.bytes().enumerate().all(fits) {
        return None;
    }
    let filled = |from: Uuid| Uuid::parse_str(&format!("{start}{}", from.to_string().get(start.len()..)?)).ok();
    Some((filled(Uuid::nil())?, filled(Uuid::max())?))
}

/// The id that `text` is, as we write it.
pub(super) fn whole_id(text: &str) -> Option<Uuid> {
    id_range(text).filter(|(first, last)| first == last).map(|(id, _)| id)
}

/// Does `act` to rows; says to how many.
async fn do_to(tx: &Tx, act: Act, rows: &[i64], now: Timestamp) -> Result<usize, Error> {
    let mut done = 0;
    match act {
        Act::Replay => {
            intake::catch_up(tx, now).await?;
            let replayed = replay(tx, rows, now).await?;
            done = replayed.iter().filter(|replayed| matches!(replayed, Replayed::Yes(_))).count();
        }
        // One after the other: what is done to one changes where others of its lane stand.
        Act::Retry => {
            for row in hold(tx, rows).await? {
                done += usize::from(matches!(retry(tx, row, now).await?, Retried::Due | Retried::Behind(_)));
            }
        }
        Act::Discard => {
            for row in hold(tx, rows).await? {
                done += usize::from(discard(tx, row, now).await? == Discarded::Yes);
            }
        }
    }
    Ok(done)
}

/// Lets nobody else work on the lanes of `deliveries`, and nobody claim them; says which there are. Of one that is made while this waits
/// the lane is not locked, so it is none of them.
async fn hold(tx: &Tx, deliveries: &[i64]) -> Result<Vec<i64>, Error> {
    let known = tx.rows("SELECT seq FROM deliveries WHERE seq = ANY($1)", args![deliveries.to_vec()]).await?;
    let known: Vec<i64> = known.iter().map(|row| row.get(0)).collect();
    let known: Vec<i64> = deliveries.iter().copied().filter(|delivery| known.contains(delivery)).collect();
    lock::lanes(tx, known.clone()).await?;
    let jobs = "SELECT id FROM jobs WHERE kind = 'deliver' AND subject = ANY($1) ORDER BY id FOR UPDATE";
    tx.run(jobs, args![known]).await?;
    Ok(known)
}

/// The row of the delivery `id`.
async fn delivery(tx: &Tx, id: Uuid) -> Result<Option<i64>, Error> {
    Ok(tx.maybe("SELECT seq FROM deliveries WHERE id = $1", args![id]).await?.map(|row| row.get(0)))
}

/// The row of the event `id`.
async fn event(tx: &Tx, id: Uuid) -> Result<Option<i64>, Error> {
    Ok(tx.maybe("SELECT seq FROM events WHERE id = $1", args![id]).await?.map(|row| row.get(0)))
}

async fn retry_one(tx: &Tx, id: Uuid, now: Timestamp) -> Result<Retried, Error> {
    let Some(row) = delivery(tx, id).await? else { return Ok(Retried::Unknown) };
    hold(tx, &[row]).await?;
    retry(tx, row, now).await
}

async fn discard_one(tx: &Tx, id: Uuid, now: Timestamp) -> Result<Discarded, Error> {
    let Some(row) = delivery(tx, id).await? else { return Ok(Discarded::Unknown) };
    hold(tx, &[row]).await?;
    discard(tx, row, now).await
}

async fn replay_one(tx: &Tx, id: Uuid, now: Timestamp) -> Result<Replayed, Error> {
    intake::catch_up(tx, now).await?;
    let Some(row) = event(tx, id).await? else { return Ok(Replayed::Unknown) };
    Ok(replay(tx, &[row], now).await?.pop().unwrap_or(Replayed::Unknown))
}

/// Where a delivery stands.
struct Stands {
    state: String,
    /// State of its job, if it has one.
    job: Option<String>,
    destination: String,
    lane: i64,
    behind: Option<i64>,
}

/// Where a delivery stands that is held.
async fn stands(tx: &Tx, delivery: i64) -> Result<Option<Stands>, Error> {
    let found = tx
        .maybe(
            "SELECT deliveries.state, jobs.state, destination, lane, behind FROM deliveries \
             LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq WHERE deliveries.seq = $1",
            args![delivery],
        )
        .await?;
    Ok(found.map(|row| Stands {
        state: row.get(0),
        job: row.get(1),
        destination: row.get(2),
        lane: row.get(3),
        behind: row.get(4),
    }))
}

/// Tries a delivery again that is held: a dead letter joins its lane again, and one that backs off is due now.
async fn retry(tx: &Tx, delivery: i64, now: Timestamp) -> Result<Retried, Error> {
    let Some(stands) = stands(tx, delivery).await? else { return Ok(Retried::Unknown) };
    let behind = match (stands.state.as_str(), stands.job.as_deref()) {
        ("dead", _) => lane::join(tx, delivery, now).await?,
        ("pending", Some("leased")) => return Ok(Retried::InFlight),
        ("pending", Some("due")) => {
            tx.run(
                "UPDATE jobs SET due_at = least(due_at, $2), first_attempt = attempt + 1 WHERE kind = 'deliver' AND subject = $1",
                args![delivery, now],
            )
            .await?;
            None
        }
        // The delivery that it waits for.
        ("pending", _) => {
            let first = lane::first(tx, &stands.destination, stands.lane, Some(delivery)).await?;
            first.filter(|first| *first < delivery).or(stands.behind)
        }
        _ => return Ok(Retried::Not(stands.state)),
    };
    let Some(behind) = behind else { return Ok(Retried::Due) };
    let id: Uuid = tx.row("SELECT id FROM deliveries WHERE seq = $1", args![behind]).await?.get(0);
    Ok(Retried::Behind(id.to_string()))
}

/// Gives a delivery up for good that is held. It is kept, and frees its lane.
async fn discard(tx: &Tx, delivery: i64, now: Timestamp) -> Result<Discarded, Error> {
    let Some(stands) = stands(tx, delivery).await? else { return Ok(Discarded::Unknown) };
    match (stands.state.as_str(), stands.job.as_deref()) {
        ("dead", _) => {
            // Why it was dead is still to be seen.
            tx.run("UPDATE deliveries SET state = 'discarded', ended_at = $2 WHERE seq = $1", args![delivery, now]).await?;
        }
        ("pending", Some("leased")) => return Ok(Discarded::InFlight),
        ("pending", _) => {
            tx.run("DELETE FROM jobs WHERE kind = 'deliver' AND subject = $1", args![delivery]).await?;
            lane::end(tx, vec![delivery], "discarded", None, now).await?;
        }
        _ => return Ok(Discarded::Not(stands.state)),
    }
    Ok(Discarded::Yes)
}

/// Lets events go their way again, from the proof of their tasks on; says what came of each that is there. They must be taken in, also
/// those that are only to be kept.
async fn replay(tx: &Tx, events: &[i64], now: Timestamp) -> Result<Vec<Replayed>, Error> {
    lock::events(tx, events.to_vec()).await?;
    let found = tx
        .rows(
            "SELECT seq, subject, source, released_at IS NOT NULL, ping, state, replay \
             FROM standing LEFT JOIN replays ON replays.event = seq WHERE seq = ANY($1) ORDER BY seq",
            args![events.to_vec()],
        )
        .await?;
    let (mut told, mut rows, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
    for row in &found {
        if let Some(not) = not_replayed(row) {
            told.push(not);
            continue;
        }
        rows.push(row.get::<_, i64>(0));
        subjects.push(row.get::<_, i64>(1));
    }
    tx.run(
        "INSERT INTO open_events (subject, event, state) SELECT subject, event, 'proving' \
         FROM unnest($1::bigint[], $2::bigint[]) AS again (subject, event) \
         ON CONFLICT (subject, event) DO UPDATE SET state = 'proving', reason = NULL, reasons = NULL",
        args![subjects, rows],
    )
    .await?;
    let numbers = tx
        .rows(
            "INSERT INTO replays (event, replay, asked_at) SELECT event, 1, $2 FROM unnest($1::bigint[]) AS event \
             ON CONFLICT (event) DO UPDATE SET replay = replays.replay + 1, asked_at = excluded.asked_at RETURNING replay",
            args![rows, now],
        )
        .await?;
    told.extend(numbers.iter().map(|row| Replayed::Yes(attempt(row.get(0)))));
    let again = || found.iter().filter(|row| rows.contains(&row.get(0)));
    let wanted: Vec<(&str, i64)> = again().map(|row| (row.get(2), row.get(1))).collect();
    work::add_jobs(tx, JobKind::Prove, &wanted, now).await?;
    work::hurry(tx, again().filter(|row| row.get(3)).map(|row| row.get(1)).collect(), now).await?;
    Ok(told)
}

/// Why an event is not replayed, if it is not.
fn not_replayed(row: &Row) -> Option<Replayed> {
    let (ping, state, replay): (bool, String, Option<i64>) = (row.get(4), row.get(5), row.get(6));
    match state.as_str() {
        _ if ping => Some(Replayed::Not("ping".to_owned())),
        "done" | "kept" | "dead" => None,
        "quarantined" => Some(Replayed::Not(state)),
        _ => Some(replay.map_or(Replayed::Not(state), |number| Replayed::Already(attempt(number)))),
    }
}

/// Some of the rows that `select` means, behind row `after`.
async fn matching(tx: &Tx, select: &Select, after: i64) -> Result<Matching, Error> {
    // Numbers that nothing has, there may be many: a stretch begins with the first row that is there.
    let (like, ends) = match select {
        Select::Events(like) => (like, "SELECT (SELECT min(seq) FROM events WHERE seq > $1), (SELECT max(seq) FROM events)"),
        Select::Deliveries(like) => {
            (like, "SELECT (SELECT min(seq) FROM deliveries WHERE seq > $1), (SELECT max(seq) FROM deliveries)")
        }
    };
    let ends = tx.row(ends, args![after]).await?;
    let (Some(first), Some(newest)) = (ends.get::<_, Option<i64>>(0), ends.get::<_, Option<i64>>(1)) else {
        return Ok(Matching::default());
    };
    let stretch = first.saturating_add(STRETCH);
    let [source, kind, task, state] = [&like.source, &like.kind, &like.task, &like.state].map(|text| tidy(text.as_deref()));
    let (since, until) = (like.since.map(known), like.until.map(known));
    let rows = match select {
        Select::Events(_) => {
            tx.rows(
                "SELECT seq FROM standing WHERE seq >= $1 AND seq <= $2 AND NOT ping AND ($4::text IS NULL OR source = $4) \
                 AND ($5::text IS NULL OR type = $5) AND ($6::text IS NULL OR task_id = $6) AND ($7::timestamptz IS NULL OR received_at >= $7) \
                 AND ($8::timestamptz IS NULL OR received_at < $8) \
                 AND CASE WHEN $9::text IS NULL THEN state IN ('done', 'dead') ELSE state = $9 END ORDER BY seq LIMIT $3",
                args![first, stretch, number(STEP), source, kind, task, since, until, state],
            )
            .await?
        }
        Select::Deliveries(_) => {
            let [destination, route] = [&like.destination, &like.route].map(|text| tidy(text.as_deref()));
            // What is dead, by its index: the state is known when the statement is planned.
            tx.rows(
                "SELECT deliveries.seq FROM deliveries JOIN events ON events.seq = deliveries.event \
                 WHERE deliveries.seq >= $1 AND deliveries.seq <= $2 AND ($4::text IS NULL OR events.source = $4) \
                 AND ($5::text IS NULL OR events.type = $5) AND ($6::text IS NULL OR events.task_id = $6) \
                 AND ($7::timestamptz IS NULL OR deliveries.created_at >= $7) AND ($8::timestamptz IS NULL OR deliveries.created_at < $8) \
                 AND deliveries.state = coalesce($9, 'dead') AND ($10::text IS NULL OR deliveries.destination = $10) \
                 AND ($11::text IS NULL OR deliveries.route = $11) ORDER BY deliveries.seq LIMIT $3",
                args![first, stretch, number(STEP), source, kind, task, since, until, state, destination, route],
            )
            .await?
        }
    };
    let rows: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let reached = if rows.len() < STEP { stretch } else { rows.last().copied().unwrap_or(stretch) };
    Ok(Matching { rows, next: (reached < newest).then_some(reached) })
}

/// How many deliveries wait for each destination, and how many were given up on.
async fn counts(tx: &Tx) -> Result<Vec<DestinationCounts>, Error> {
    let rows = tx
        .rows(
            "SELECT destination, sum(pending)::bigint, sum(dead)::bigint FROM \
             (SELECT destination, count(*) AS pending, 0 AS dead FROM deliveries WHERE state = 'pending' GROUP BY destination \
             UNION ALL SELECT destination, 0, count(*) FROM deliveries WHERE state = 'dead' GROUP BY destination) AS counted \
             GROUP BY destination ORDER BY destination COLLATE \"C\"",
            &[],
        )
        .await?;
    let counts = |row: &Row| DestinationCounts { destination: row.get(0), pending: row.get(1), dead: row.get(2) };
    Ok(rows.iter().map(counts).collect())
}

/// The ids of deliveries in a range, at most `limit`.
async fn delivery_ids(tx: &Tx, (first, last): (Uuid, Uuid), limit: usize) -> Result<Vec<String>, Error> {
    let rows = tx
        .rows("SELECT id FROM deliveries WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3", args![first, last, number(limit)])
        .await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>(0).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a9936-de14-7c3a-9d52-0f6c1e8b4a77";

    fn range(start: &str) -> Option<(String, String)> {
        id_range(start).map(|(first, last)| (first.to_string(), last.to_string()))
    }

    #[test]
    fn the_start_of_an_id_is_a_range_of_ids() {
        let of = |first: &str, last: &str| Some((first.to_owned(), last.to_owned()));
        assert_eq!(range(""), of("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"));
        assert_eq!(range("019a9"), of("019a9000-0000-0000-0000-000000000000", "019a9fff-ffff-ffff-ffff-ffffffffffff"));
        assert_eq!(range("019a9936"), range("019a9936-"));
        assert_eq!(range("019a9936-de14-7"), of("019a9936-de14-7000-0000-000000000000", "019a9936-de14-7fff-ffff-ffffffffffff"));
        assert_eq!(range(ID), of(ID, ID));
        assert_eq!(whole_id(ID), Uuid::parse_str(ID).ok());
        for end in 0..ID.len() {
            let (first, last) = id_range(&ID[..end]).unwrap();
            let id = Uuid::parse_str(ID).unwrap();
            assert!(first <= id && id <= last && first.to_string().starts_with(&ID[..end]), "{end}");
            assert_eq!(whole_id(&ID[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_no_id_begins_with_is_no_range() {
        let longer = format!("{ID}0");
        let plain = ID.replace('-', "");
        let upper = ID.to_uppercase();
        for start in ["g", "019A", "019a9936d", "019-", "-", " 019a", "019a%", "é", "019a9936é", "0\0", &longer, &plain, &upper]
        {
            assert_eq!(range(start), None, "{start}");
            assert_eq!(whole_id(start), None, "{start}");
        }
    }
}
