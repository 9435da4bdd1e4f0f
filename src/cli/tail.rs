//! `taskhook events tail`: events as they come.
//!
//! What must hold: each event that comes is printed once, also over a restart of what is asked; nothing is asked while nothing is news.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Fault, News};
use super::events::kind;
use super::output::{self, text};
use super::{Context, Result};
use crate::clock::Clock;
use crate::text::one_line;

/// How long to wait until a stream that ended is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many events of the past are printed at the start.
const FIRST: usize = 10;
/// The most that are asked for at a time.
const PAGE: usize = 100;

/// Prints events as they come; with `past`, the last few before them.
pub(super) async fn tail(client: &Client, json: bool, past: bool, context: &mut Context<'_>) -> Result {
    let clock = Clock::system();
    let mut tail = Tail::default();
    let mut away = false;
    loop {
        match tail.next(client, past).await {
            Ok(Told::Nothing) => clock.sleep(PAUSE).await,
            Ok(Told::Events(events)) => {
                if std::mem::take(&mut away) {
                    writeln!(context.err, "It is back.")?;
                }
                for event in &events {
                    if json { output::json_line(context.out, event)? } else { line(context.out, event)? }
                }
                context.out.flush()?;
            }
            // What may pass is waited for, once it was seen to work.
            Err(fault) if tail.after.is_some() && fault.passes() => {
                if !std::mem::replace(&mut away, true) {
                    writeln!(context.err, "{}. Waiting for it to come back; Ctrl-C ends.", client.explain(&fault).message)?;
                }
                clock.sleep(PAUSE).await;
            }
            Err(fault) => return Err(client.explain(&fault).into()),
        }
    }
}

/// Time, source, type, task, state.
fn line(out: &mut dyn Write, event: &Value) -> io::Result<()> {
    let (time, source, task) = (text(event, "received_at"), text(event, "source"), text(event, "task_id"));
    let task = if task.is_empty() { "-" } else { &task };
    let cells = [(time.as_str(), 24), (&source, 8), (&kind(event), 13), (task, 22), (&text(event, "state"), 0)];
    let cells = cells.map(|(cell, width)| format!("{:width$}", one_line(cell, 60)));
    writeln!(out, "{}", cells.join("  ").trim_end())
}

/// What came of following for a while.
enum Told {
    /// The stream ended.
    Nothing,
    /// It answers, and these events came, the oldest first.
    Events(Vec<Value>),
}

/// How far it is.
#[derive(Default)]
struct Tail {
    news: Option<News>,
    /// The message that was heard last.
    last: Option<String>,
    /// The cursor up to which events were printed.
    after: Option<String>,
    /// Those of the past that were printed: they may stand behind the cursor.
    past: HashSet<String>,
    /// Whether more came than one page has.
    more: bool,
}

impl Tail {
    async fn next(&mut self, client: &Client, past: bool) -> std::result::Result<Told, Fault> {
        if self.more {
            return self.page(client).await;
        }
        let Some(news) = &mut self.news else {
            self.news = Some(client.follow(self.last.as_deref()).await?);
            return Ok(Told::Events(Vec::new()));
        };
        let Some(message) = news.next().await else {
            self.news = None;
            return Ok(Told::Nothing);
        };
        if message.data["changed"].as_array().is_some_and(|topics| topics.iter().any(|topic| topic == "events")) {
            if self.after.is_none() {
                let begun = self.begin(client, past, &message.data["cursors"]["events"]).await?;
                self.last = message.id;
                return Ok(begun);
            }
            self.more = true;
        }
        self.last = message.id;
        Ok(Told::Events(Vec::new()))
    }

    /// Notes where to go on, and tells the last few of the past.
    async fn begin(&mut self, client: &Client, past: bool, cursor: &Value) -> std::result::Result<Told, Fault> {
        let mut rows = Vec::new();
        if past {
            let page = client.get(&["events"], &[("limit", FIRST.to_string())]).await?;
            rows.extend(output::rows(&page).iter().rev().cloned());
            self.past = rows.iter().map(|row| text(row, "id")).collect();
        }
        self.after = cursor.as_str().map(ToOwned::to_owned);
        // What was kept while the last few were asked for is told next.
        self.more = self.after.is_some();
        Ok(Told::Events(rows))
    }

    /// The next page of what came.
    async fn page(&mut self, client: &Client) -> std::result::Result<Told, Fault> {
        let after = self.after.clone().unwrap_or_default();
        let page = client.get(&["events"], &[("limit", PAGE.to_string()), ("after", after)]).await?;
        let rows = output::rows(&page);
        // Only now: a page that could not be read is asked for again.
        self.more = rows.len() == PAGE;
        self.after = page["next_cursor"].as_str().map(ToOwned::to_owned).or(self.after.take());
        let new = rows.iter().filter(|row| !self.past.remove(&text(row, "id")));
        Ok(Told::Events(new.cloned().collect()))
    }
}
