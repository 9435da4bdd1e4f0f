//! What changes, counted by the server: its own statistics of rows that were written, by whichever replica.
//!
//! Rows that are new are seen by their numbers at once. The server counts what a session wrote behind its commit, within a second while the
//! session is busy, and within ten if it has nothing more to do; so whoever asks after a count has risen sees what was written.

use super::Postgres;
use super::session::{Tx, args, transact};
use crate::store::Error;
use crate::store::live::{Changes, topics_of};

impl Postgres {
    pub(in crate::store) async fn changes(&self) -> Result<Changes, Error> {
        transact!(self.sessions(), Read, |tx| changes(&tx))
    }
}

async fn changes(tx: &Tx) -> Result<Changes, Error> {
    let sql = "SELECT relname::text, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE schemaname = current_schema()::name \
               UNION ALL SELECT 'events', coalesce(max(seq), 0) FROM events UNION ALL SELECT 'tasks', coalesce(max(seq), 0) FROM tasks \
               UNION ALL SELECT 'deliveries', coalesce(max(seq), 0) FROM deliveries";
    let mut changes = Changes::default();
    for row in tx.rows(sql, args![]).await? {
        let (table, written): (String, i64) = (row.get(0), row.get(1));
        let topics = topics_of(&table);
        for (topic, count) in changes.iter_mut().enumerate() {
            if topics >> topic & 1 == 1 {
                *count = count.wrapping_add(written.unsigned_abs());
            }
        }
    }
    Ok(changes)
}
