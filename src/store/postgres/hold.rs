//! Which replica claims the jobs of which source and destination.
//!
//! What must hold:
//! - A queue is held by one replica, and who claims from it keeps its row from changing until the claim is committed. So what limits it
//!   is counted in one process, whichever that is.
//! - Queues that share their limits are held by one: all of them change hands together, or none.
//! - What a replica holds that is gone, or that stopped, others take within seconds; one that only could not reach the database for a
//!   while keeps what nobody has taken.
//! - What is handed over (see `share.rs`) goes from hand to hand when nothing is under way: no queue is without a holder for it.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::beat::{is_seen, may_judge};
use super::session::{Tx, args, transact};
use super::share::{Stand, Step, Whose, plan};
use crate::store::Error;
use crate::store::model::{Bundle, Capacity, Held, Queue};

/// Nobody has used what changed hands so long ago.
const RESTED: Duration = Duration::from_mins(1);
/// What nobody has taken for so long is taken by whoever can, whatever its share: the others may not know it.
const UNWANTED: Duration = Duration::from_secs(3);

impl Postgres {
    pub(in crate::store) async fn hold(&self, bundles: Vec<Bundle>) -> Result<Vec<Held>, Error> {
        let me = self.shared.me;
        // Mostly there is nothing to change.
        let seen = transact!(self.sessions(), Read, |tx| look(&tx, me, &bundles))?;
        let held =
            if seen.is_settled() { seen.held(&[]) } else { transact!(self.sessions(), Write, |tx| settle(&tx, me, &bundles))? };
        self.work().share_among(seen.live.len());
        self.shared.bell.note(seen.live.len() < 2, held.iter().map(|held| held.queue.clone()));
        Ok(held)
    }

    pub(in crate::store) async fn let_go(&self, kept: Vec<Queue>) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| let_go(&tx, self.shared.me, &kept))?;
        self.shared.bell.ring();
        Ok(())
    }
}

/// Queues as two columns: their kinds and their names.
fn columns<'a>(queues: impl Iterator<Item = &'a Queue>) -> (Vec<&'static str>, Vec<&'a str>) {
    queues.map(|queue| (queue.kind(), queue.name())).unzip()
}

/// Leaves those capacities whose queue nobody else holds, and lets it not change hands until the transaction ends.
pub(super) async fn ours(tx: &Tx, me: Uuid, capacities: &[Capacity]) -> Result<Vec<Capacity>, Error> {
    let queue = |capacity: &Capacity| Queue::of(capacity.kind, &capacity.queue);
    let mut queues: Vec<_> = capacities.iter().map(queue).collect();
    queues.sort();
    queues.dedup();
    let (kinds, names) = columns(queues.iter());
    let rows = tx
        .rows(
            "SELECT kind, name, holder FROM queues WHERE (kind, name) IN (SELECT * FROM unnest($1::text[], $2::text[])) \
             ORDER BY kind, name FOR SHARE",
            args![kinds, names],
        )
        .await?;
    let theirs = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(2).is_some_and(|holder| holder != me)).map(queue_of);
    let theirs: Vec<_> = theirs.collect();
    Ok(capacities.iter().filter(|capacity| !theirs.contains(&queue(capacity))).cloned().collect())
}

fn queue_of(row: &Row) -> Queue {
    let name = row.get(1);
    if row.get::<_, &str>(0) == "source" { Queue::Source(name) } else { Queue::Destination(name) }
}

/// A row of `queues`.
struct Place {
    queue: Queue,
    term: i64,
    whose: Whose,
    /// The replica that lives and waits for it.
    wanted_by: Option<Uuid>,
    rested: bool,
    /// How many of its jobs others have in hand.
    elsewhere: usize,
}

/// How things stand.
struct Seen {
    /// Those that work, this one included.
    live: Vec<Uuid>,
    /// Whether all know that this one does, and every queue has its row.
    is_told: bool,
    /// The rows of each bundle.
    bundles: Vec<Vec<Place>>,
    steps: Vec<(usize, Step)>,
}

impl Seen {
    fn is_settled(&self) -> bool {
        self.is_told && self.steps.is_empty()
    }

    /// What is this replica's, with the bundles that it has just `taken`.
    fn held(&self, taken: &[usize]) -> Vec<Held> {
        let mine = |(number, places): &(usize, &Vec<Place>)| {
            taken.contains(number) || places.iter().all(|place| place.whose == Whose::Mine && place.wanted_by.is_none())
        };
        let bundles = self.bundles.iter().enumerate().filter(mine);
        let held = bundles.flat_map(|(number, places)| {
            let took = i64::from(taken.contains(&number));
            places.iter().map(move |place| Held {
                queue: place.queue.clone(),
                term: place.term + took,
                rested: took > 0 && place.rested,
                elsewhere: place.elsewhere,
            })
        });
        held.collect()
    }
}

/// Looks at how the queues of `bundles` stand, and what is to be done about it.
async fn look(tx: &Tx, me: Uuid, bundles: &[Bundle]) -> Result<Seen, Error> {
    let rows = tx.rows(concat!("SELECT id FROM replicas WHERE works AND ", is_seen!()), &[]).await?;
    let mut live: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let mut is_told = live.contains(&me);
    if !is_told {
        live.push(me);
    }
    let queues = || bundles.iter().flat_map(|bundle| &bundle.queues);
    let (kinds, names) = columns(queues());
    let rows = tx
        .rows(
            concat!(
                "SELECT kind, name, term, holder, wanted_by, holder IS NULL OR NOT EXISTS (SELECT 1 FROM replicas WHERE id = holder AND ",
                is_seen!(),
                ") AND ",
                may_judge!("$1"),
                ", extract(epoch FROM clock_timestamp() - coalesce((SELECT seen_at FROM replicas WHERE id = holder), changed_at))::float8, \
                 (SELECT count(*) FROM jobs WHERE state = 'leased' AND jobs.kind = 'deliver' AND queue = name AND jobs.holder <> $1 \
                 AND queues.kind = 'destination') FROM queues WHERE (kind, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))"
            ),
            args![me, kinds, names],
        )
        .await?;
    let mut places: HashMap<Queue, Place> =
        rows.iter().map(|row| place(row, me, &live)).map(|place| (place.queue.clone(), place)).collect();
    is_told &= queues().all(|queue| places.contains_key(queue));
    let mut seen = Seen { live, is_told, bundles: Vec::with_capacity(bundles.len()), steps: Vec::new() };
    for bundle in bundles {
        seen.bundles.push(bundle.queues.iter().filter_map(|queue| places.remove(queue)).collect());
    }
    if seen.is_told {
        let stands: Vec<_> = seen.bundles.iter().zip(bundles).map(|(places, bundle)| stand(places, bundle.busy)).collect();
        seen.steps = plan(me, &seen.live, &stands);
    }
    Ok(seen)
}

fn place(row: &Row, me: Uuid, live: &[Uuid]) -> Place {
    let (term, holder, idle): (i64, Option<Uuid>, f64) = (row.get(2), row.get(3), row.get(6));
    let whose = match holder {
        Some(holder) if holder == me => Whose::Mine,
        _ if row.get(5) => Whose::Free { long: idle > UNWANTED.as_secs_f64() },
        // Whoever is not seen, but may not be taken for gone yet, still has it.
        holder => Whose::Theirs(holder.unwrap_or_default()),
    };
    Place {
        queue: queue_of(row),
        term,
        whose,
        wanted_by: row.get::<_, Option<Uuid>>(4).filter(|wanted_by| live.contains(wanted_by) && Some(*wanted_by) != holder),
        rested: term == 0 || idle > RESTED.as_secs_f64(),
        elsewhere: usize::try_from(row.get::<_, i64>(7)).unwrap_or_default(),
    }
}

/// How a bundle stands that has these rows.
fn stand(places: &[Place], busy: bool) -> Stand {
    let theirs = places.iter().find_map(|place| match place.whose {
        Whose::Theirs(holder) => Some(Whose::Theirs(holder)),
        Whose::Mine | Whose::Free { .. } => None,
    });
    // Of a bundle that is new in this form some may be held already.
    let free = places.iter().find(|place| place.whose != Whose::Mine).map(|place| place.whose);
    Stand { whose: theirs.or(free).unwrap_or(Whose::Mine), wanted_by: places.iter().find_map(|place| place.wanted_by), busy }
}

/// Rows as they were seen, as three columns: kinds, names and terms.
fn rows(places: &[Place]) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let (kinds, names) = columns(places.iter().map(|place| &place.queue));
    (kinds, names, places.iter().map(|place| place.term).collect())
}

/// Does what is to be done, as it stands now.
async fn settle(tx: &Tx, me: Uuid, bundles: &[Bundle]) -> Result<Vec<Held>, Error> {
    let (kinds, names) = columns(bundles.iter().flat_map(|bundle| &bundle.queues));
    tx.run(
        "INSERT INTO queues (kind, name) SELECT kind, name FROM unnest($1::text[], $2::text[]) AS known (kind, name) \
         WHERE NOT EXISTS (SELECT 1 FROM queues WHERE queues.kind = known.kind AND queues.name = known.name) \
         ORDER BY kind, name ON CONFLICT (kind, name) DO NOTHING",
        args![kinds, names],
    )
    .await?;
    tx.run("UPDATE replicas SET works = true WHERE id = $1 AND NOT works", args![me]).await?;
    let seen = look(tx, me, bundles).await?;
    let mut taken = Vec::new();
    for (number, step) in &seen.steps {
        let places = &seen.bundles[*number];
        let changed = match step {
            Step::Ask => {
                let (kinds, names, terms) = rows(places);
                tx.run(
                    concat!(
                        "UPDATE queues SET wanted_by = $1 FROM unnest($2::text[], $3::text[], $4::bigint[]) AS known (kind, name, term) \
                         WHERE queues.kind = known.kind AND queues.name = known.name AND queues.term = known.term \
                         AND NOT EXISTS (SELECT 1 FROM replicas WHERE id = wanted_by AND works AND ",
                        is_seen!(),
                        ")"
                    ),
                    args![me, kinds, names, terms],
                )
                .await?
            }
            Step::Take => {
                taken.push(*number);
                pass(tx, me, places).await?
            }
            Step::Give(to) => pass(tx, *to, places).await?,
        };
        if changed != u64::try_from(places.len()).unwrap_or_default() {
            return Err(Error::Again("another replica has changed a queue meanwhile".to_owned()));
        }
    }
    Ok(seen.held(&taken))
}

/// Gives queues that still stand as they were seen to a replica; says how many.
async fn pass(tx: &Tx, to: Uuid, places: &[Place]) -> Result<u64, Error> {
    let (kinds, names, terms) = rows(places);
    tx.run(
        "UPDATE queues SET holder = $1, wanted_by = NULL, term = queues.term + 1, changed_at = clock_timestamp() \
         FROM unnest($2::text[], $3::text[], $4::bigint[]) AS known (kind, name, term) \
         WHERE queues.kind = known.kind AND queues.name = known.name AND queues.term = known.term",
        args![to, kinds, names, terms],
    )
    .await
}

async fn let_go(tx: &Tx, me: Uuid, kept: &[Queue]) -> Result<(), Error> {
    let (kinds, names) = columns(kept.iter());
    tx.run(
        "UPDATE queues SET holder = NULL, wanted_by = NULL, term = term + 1, changed_at = clock_timestamp() \
         WHERE holder = $1 AND (kind, name) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))",
        args![me, kinds, names],
    )
    .await?;
    tx.run("UPDATE replicas SET works = false WHERE id = $1 AND works", args![me]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Uuid = Uuid::from_u128(2);
    const FREE: Whose = Whose::Free { long: false };

    #[test]
    fn sources_of_one_account_are_one_however_they_came_to_be() {
        let place =
            |whose| Place { queue: Queue::Source(String::new()), term: 1, whose, wanted_by: None, rested: false, elsewhere: 0 };
        assert_eq!(stand(&[place(Whose::Mine), place(FREE)], false).whose, FREE);
        assert_eq!(stand(&[place(Whose::Mine), place(Whose::Theirs(OTHER)), place(FREE)], false).whose, Whose::Theirs(OTHER));
        assert_eq!(stand(&[place(Whose::Mine), place(Whose::Mine)], false).whose, Whose::Mine);
    }
}
