//! The provider's test request: whether it arrived, and why it was refused if it was.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::super::client::{Client, Fault};
use super::super::output::{rows, text};
use super::super::{Context, Error, Result};
use crate::clock::Clock;
use crate::text::one_line;

/// How long the test request may take to arrive once the provider has said yes.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a rejection may take to be looked at.
const LOOKED_AT: Duration = Duration::from_secs(3);
/// How often the admin API is asked.
const EVERY: Duration = Duration::from_millis(500);
/// How many of the newest are looked at.
const NEWEST: &str = "100";

/// What there was before.
pub(super) struct Seen {
    source: String,
    /// Pings, with how often each came again.
    pings: HashMap<String, i64>,
    /// The newest rejection.
    rejection: i64,
}

/// A request that was refused since.
pub(super) struct Refused {
    id: i64,
    code: String,
    explanation: String,
}

impl Refused {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        let why = if self.explanation.is_empty() { "see the request" } else { &self.explanation };
        let shown = format!("`taskhook rejections show {}`", self.id);
        format!("this taskhook refused the test request with `{}`: {} ({shown})", self.code, one_line(why, 600))
    }
}

impl Seen {
    /// What there is now; `None` if the admin API cannot be asked.
    pub(super) async fn now(client: &Client, source: &str) -> Option<Self> {
        let pings = pings(client, source).await.ok()?.into_iter().collect();
        let rejection = rejections(client).await.ok()?.iter().filter_map(|row| row["id"].as_i64()).max().unwrap_or_default();
        Some(Self { source: source.to_owned(), pings, rejection })
    }

    /// The newest request to the source that was refused since, waited for a little.
    pub(super) async fn refused(&self, client: &Client) -> Option<Refused> {
        let clock = Clock::system();
        let begun = clock.elapsed();
        loop {
            let found = self.newest_refused(client).await.ok()?;
            if found.is_some() || clock.elapsed().saturating_sub(begun) > LOOKED_AT {
                return found;
            }
            clock.sleep(EVERY).await;
        }
    }

    async fn newest_refused(&self, client: &Client) -> std::result::Result<Option<Refused>, Fault> {
        let new = |row: &Value| row["id"].as_i64().is_some_and(|id| id > self.rejection) && text(row, "source") == self.source;
        let found = rejections(client).await?.into_iter().find(new);
        Ok(found.map(|row| Refused {
            id: row["id"].as_i64().unwrap_or_default(),
            code: text(&row, "code"),
            explanation: text(&row, "explanation"),
        }))
    }

    /// Waits for the test request, and says what became of it.
    pub(super) async fn wait(&self, client: &Client, context: &mut Context<'_>) -> Result {
        let clock = Clock::system();
        let begun = clock.elapsed();
        let problem = loop {
            match pings(client, &self.source).await {
                Ok(pings) if pings.iter().any(|(id, repeats)| self.pings.get(id).is_none_or(|before| repeats > before)) => {
                    writeln!(context.err, "The test request arrived, and its signature is good. Events will come.")?;
                    return Ok(());
                }
                Ok(_) => {}
                Err(fault) => break client.explain(&fault).message,
            }
            if let Ok(Some(refused)) = self.newest_refused(client).await {
                return Err(Error::failed("it is registered, but the test request was refused here").hint(refused.hint()).into());
            }
            if clock.elapsed().saturating_sub(begun) > PATIENCE {
                break format!("none came within {} s", PATIENCE.as_secs());
            }
            clock.sleep(EVERY).await;
        };
        writeln!(
            context.err,
            "Whether the test request arrived is not known: {problem}. Try it with a task: `taskhook tasks create \"…\"`."
        )?;
        Ok(())
    }
}

/// The pings of `source` among the newest events that are kept only, with how often each came again.
async fn pings(client: &Client, source: &str) -> std::result::Result<Vec<(String, i64)>, Fault> {
    let query = [("source", source.to_owned()), ("state", "kept".to_owned()), ("limit", NEWEST.to_owned())];
    let list = client.get(&["events"], &query).await?;
    let pings = rows(&list).iter().filter(|row| row["ping"] == true);
    Ok(pings.map(|row| (text(row, "id"), row["repeats"].as_i64().unwrap_or_default())).collect())
}

/// The newest rejections, newest first.
async fn rejections(client: &Client) -> std::result::Result<Vec<Value>, Fault> {
    let list = client.get(&["rejections"], &[("limit", NEWEST.to_owned())]).await?;
    Ok(rows(&list).to_vec())
}
