//! What people answered to tasks.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::Sqlite;
use crate::store::Error;
use crate::store::model::{NewAnswer, Outcome, text};
use crate::store::view::{AnswerRow, LOST, TASK_EVENTS, answer_columns};

impl Sqlite {
    pub(in crate::store) async fn begin_answer(&self, answer: NewAnswer, now: Timestamp) -> Result<Option<AnswerRow>, Error> {
        self.write(move |connection| begin(connection, &answer, now)).await
    }

    pub(in crate::store) async fn end_answer(
        &self,
        id: Uuid,
        outcome: Outcome,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |connection| end(connection, id, outcome, reason.as_deref(), now)).await
    }

    pub(in crate::store) async fn doubt_answers(&self, before: Timestamp, now: Timestamp) -> Result<(), Error> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE answers SET state = 'unknown', reason = ?3, ended_at = ?2 WHERE state = 'sending' AND given_at < ?1",
                )?
                .execute(params![text(before), text(now), LOST])?;
            Ok(())
        })
        .await
    }
}

fn begin(connection: &Connection, answer: &NewAnswer, now: Timestamp) -> Result<Option<AnswerRow>, Error> {
    let NewAnswer { id, source, task_id, kind, question, by, content, again } = answer;
    if *again {
        connection
            .prepare_cached(
                "UPDATE answers SET stands = 0 WHERE source = ?1 AND task_id = ?2 AND question = ?3 AND stands AND state = 'unknown'",
            )?
            .execute(params![source, task_id, question])?;
    }
    let new = connection
        .prepare_cached(
            "INSERT INTO answers (id, source, task_id, kind, question, given_by, content, state, stands, given_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'sending', 1, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id.to_string(), source, task_id, kind.as_str(), question, by, content, text(now)])?;
    if new > 0 {
        return Ok(None);
    }
    let standing = connection
        .prepare_cached(concat!(
            "SELECT ",
            answer_columns!(),
            " FROM answers WHERE source = ?1 AND task_id = ?2 AND question = ?3 AND stands"
        ))?
        .query_row(params![source, task_id, question], row)?;
    Ok(Some(standing))
}

fn row(row: &Row<'_>) -> rusqlite::Result<AnswerRow> {
    Ok(AnswerRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        question: row.get(2)?,
        by: row.get(3)?,
        content: row.get(4)?,
        state: row.get(5)?,
        reason: row.get(6)?,
        given_at: row.get(7)?,
        ended_at: row.get(8)?,
    })
}

fn end(connection: &Connection, id: Uuid, outcome: Outcome, reason: Option<&str>, now: Timestamp) -> Result<(), Error> {
    let ended: Option<(String, String, String, String)> = connection
        .prepare_cached(
            "UPDATE answers SET state = ?2, stands = ?3 AND stands, reason = ?4, ended_at = ?5 WHERE id = ?1 \
             RETURNING source, task_id, kind, given_at",
        )?
        .query_row(params![id.to_string(), outcome.as_str(), outcome.stands(), reason, text(now)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    if let Some((source, task_id, kind, given_at)) = ended
        && outcome == Outcome::Sent
        && kind != "stop"
    {
        // It goes on; unless it was fetched since, and is known to stand somewhere else.
        connection
            .prepare_cached(
                "UPDATE tasks SET state = 'running', stop_reason = NULL WHERE source = ?1 AND task_id = ?2 AND state IS NOT NULL \
                 AND (fetched_at IS NULL OR fetched_at <= ?3)",
            )?
            .execute([source, task_id, given_at])?;
    }
    Ok(())
}

/// The newest answers to a task, the oldest of them first.
pub(super) fn answers(connection: &Connection, source: &str, task_id: &str) -> Result<Vec<AnswerRow>, Error> {
    let mut answers: Vec<AnswerRow> = connection
        .prepare_cached(concat!(
            "SELECT ",
            answer_columns!(),
            " FROM answers WHERE source = ?1 AND task_id = ?2 ORDER BY given_at DESC LIMIT ?3"
        ))?
        .query_map(params![source, task_id, TASK_EVENTS], row)?
        .collect::<Result<_, _>>()?;
    answers.reverse();
    Ok(answers)
}
