//! What commands have in common that act on rows by id, or on all that a filter means.
//!
//! What must hold: what a filter means is counted and told before anything is done, and then a person agrees: on a terminal by
//! typing `y`, elsewhere by `--yes`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::{Value, json};

use super::client::{Client, Fault};
use super::output::{self, text};
use super::{Context, Error, Exit, Result};
use crate::clock::{Clock, rfc3339};
use crate::text::one_line;

/// How long one call that acts on many rows may take.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);
/// How many rows one call acts on.
const PORTION: usize = 1000;

/// Which rows are meant, beside what is particular to their kind.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Filter {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only of events of this type, such as `task_stopped`
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only of this task
    #[arg(long, value_name = "TASK_ID")]
    task: Option<String>,
    #[command(flatten)]
    times: Times,
}

/// Those members of a filter that are set.
pub(super) fn set<'a>(members: impl IntoIterator<Item = &'a (&'static str, Option<&'a str>)>) -> Vec<(&'static str, String)> {
    members.into_iter().filter_map(|(name, value)| Some((*name, (*value)?.to_owned()))).collect()
}

/// Of which time rows are meant.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Times {
    /// Only what came then or later (a delivery: was made): a time, or how long ago, such as `2h`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what came before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Times {
    /// The members that are set, as the admin API names them.
    pub(super) fn members(&self) -> Result<Vec<(&'static str, String)>> {
        let now = Clock::system().now();
        let own = [("since", &self.since), ("until", &self.until)];
        let set = own.into_iter().filter_map(|(name, written)| Some((name, written.as_deref()?)));
        set.map(|(name, written)| Ok((name, rfc3339(time(name, written, now)?)))).collect()
    }
}

impl Filter {
    /// The members that are set, with those of `more`, as the admin API names them.
    pub(super) fn members(&self, more: &[(&'static str, Option<&str>)]) -> Result<Vec<(&'static str, String)>> {
        let own = [("source", self.source.as_deref()), ("type", self.kind.as_deref()), ("task", self.task.as_deref())];
        let mut members = set(own.iter().chain(more));
        members.extend(self.times.members()?);
        Ok(members)
    }
}

/// The time that `--name` says.
pub(super) fn time(name: &str, written: &str, now: Timestamp) -> Result<Timestamp> {
    let wrong = || Error::failed(format!("`--{name}` is no time: `{}`", one_line(written, 40))).with_exit(Exit::Usage);
    let hint = "write a moment, like `2026-01-15T12:00:00Z`, or how long ago it was, like `90m`, `2h` or `7d`";
    moment(written, now).ok_or_else(|| wrong().hint(hint).into())
}

/// A time as a person writes it.
fn moment(written: &str, now: Timestamp) -> Option<Timestamp> {
    written.parse().ok().or_else(|| {
        let ago: Span = written.parse().ok()?;
        now.checked_sub(ago.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.abs()).ok()
    })
}

/// How a filter is acted on.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Many {
    /// At most this many, the oldest first
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only count what the filter means
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

/// An act, in the words that it is told with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    /// The list, in the API and of the command.
    pub(super) list: &'static str,
    /// The verb.
    pub(super) verb: &'static str,
    /// One thing of the list.
    pub(super) one: &'static str,
    /// What is done to it: `tried again`.
    pub(super) done: &'static str,
}

impl Act {
    fn count(self, count: u64) -> String {
        if count == 1 { format!("1 {}", self.one) } else { format!("{count} {}", self.list) }
    }

    /// Does it to those of `ids`, or to all that `filter` means.
    pub(super) async fn run(
        self,
        client: &Client,
        ids: &[String],
        filter: &[(&'static str, String)],
        many: &Many,
        context: &mut Context<'_>,
    ) -> Result {
        let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
        let Self { list, verb, one, .. } = self;
        match (ids.is_empty(), filter.is_empty()) {
            (true, true) => Err(usage(format!("say which {list} are meant"))
                .hint(format!("name them by their ids, or by a filter: see `taskhook {list} {verb} --help`"))
                .into()),
            (false, false) => Err(usage(format!("name {list} by their ids or by a filter, not by both")).into()),
            (false, true) if many.dry_run => Err(usage("`--dry-run` counts what a filter means".to_owned())
                .hint(format!("leave it out: `taskhook {list} {verb}` acts on each {one} that is named"))
                .into()),
            (false, true) => self.each(client, ids, many.json, context).await,
            (true, false) => {
                let filter = filter.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
                self.all(client, &Value::Object(filter), many, context).await
            }
        }
    }

    async fn each(self, client: &Client, ids: &[String], json: bool, context: &mut Context<'_>) -> Result {
        let mut failed = 0;
        for id in ids {
            match client.post(&[self.list, id, self.verb], None).await {
                Ok(answer) if json => output::json(context.out, &answer)?,
                Ok(answer) => {
                    let behind = match text(&answer, "waits_behind") {
                        other if other.is_empty() => String::new(),
                        other => format!(", after the delivery {} of its task", one_line(&other, 40)),
                    };
                    let id = one_line(&text(&answer, "id"), 40);
                    writeln!(context.err, "The {} {id} is {}{behind}.", self.one, self.done)?;
                }
                Err(fault) => {
                    let error = match &fault {
                        Fault::Refused { code, .. } if code == "not_found" => {
                            Error::failed(format!("there is no {} `{}`", self.one, one_line(id, 80)))
                                .hint(format!("`taskhook {} list` shows what there is", self.list))
                        }
                        fault => client.explain(fault),
                    };
                    if ids.len() == 1 {
                        return Err(error.into());
                    }
                    failed += 1;
                    writeln!(context.err, "{}: {}", one_line(id, 40), super::Failure::from(error))?;
                }
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Error::failed(format!("{failed} of {} were not {}", self.count(ids.len() as u64), self.done)).into()),
        }
    }

    async fn all(self, client: &Client, filter: &Value, many: &Many, context: &mut Context<'_>) -> Result {
        let counted = self.portions(client, filter, many, true).await?;
        let count = counted["matched"].as_u64().unwrap_or_default();
        if many.dry_run && many.json {
            return Ok(output::json(context.out, &counted)?);
        }
        if count == 0 && !many.json {
            return Ok(writeln!(context.err, "No {} is like that.", self.one)?);
        }
        let more = if counted["next_cursor"].is_null() { "" } else { ", the oldest of them; there are more" };
        let would = format!("{} would be {}{more}", self.count(count), self.done);
        if many.dry_run {
            return Ok(writeln!(context.err, "{would}.")?);
        }
        if !many.yes && count > 0 {
            let Some(input) = &mut context.input else {
                return Err(Error::failed(would).with_exit(Exit::Usage).hint("add `--yes` to do it").into());
            };
            write!(context.err, "{would}. Do it? [y/N] ")?;
            context.err.flush()?;
            let mut answer = String::new();
            input.read_line(&mut answer)?;
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                return Ok(writeln!(context.err, "Nothing was done.")?);
            }
        }
        let done = self.portions(client, filter, many, false).await?;
        if many.json {
            return Ok(output::json(context.out, &done)?);
        }
        let (matched, done) = (done["matched"].as_u64().unwrap_or_default(), done["done"].as_u64().unwrap_or_default());
        let verb = if done == 1 { "is" } else { "are" };
        writeln!(context.err, "{} {verb} {}.", self.count(done), self.done)?;
        if done < matched {
            writeln!(context.err, "{} changed meanwhile: nothing was done to that.", self.count(matched - done))?;
        }
        Ok(())
    }

    /// Counts, or acts, portion by portion.
    async fn portions(self, client: &Client, filter: &Value, many: &Many, dry_run: bool) -> Result<Value> {
        let (most, mut matched, mut done) = (many.limit as usize, 0, 0);
        let mut cursor = Value::Null;
        loop {
            let limit = PORTION.min(most - matched);
            let wish = json!({"filter": filter, "dry_run": dry_run, "limit": limit, "cursor": cursor});
            let answer = client.post(&[self.list, self.verb], Some(&wish)).await.map_err(|fault| {
                let error = client.explain(&fault);
                if dry_run || matched == 0 {
                    return error;
                }
                let cut = format!("{}; until then {} were {}", error.message, self.count(done), self.done);
                Error::failed(cut).hint("what is done stays done; what is left is what the filter means now")
            })?;
            let number = |name: &str| answer[name].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
            matched += number("matched");
            done += number("done") as u64;
            cursor = answer["next_cursor"].clone();
            if cursor.is_null() || matched >= most {
                return Ok(json!({"dry_run": dry_run, "matched": matched, "done": done, "next_cursor": cursor}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_how_long_ago_it_was() {
        let now: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
        let told = |written: &str| moment(written, now).map(rfc3339);
        assert_eq!(told("2026-01-14T00:00:00+02:00").as_deref(), Some("2026-01-13T22:00:00.000Z"));
        assert_eq!(told("90m").as_deref(), Some("2026-01-15T10:30:00.000Z"));
        assert_eq!(told("7d").as_deref(), Some("2026-01-08T12:00:00.000Z"));
        assert_eq!([told("yesterday"), told("7"), told("")], [None, None, None]);
    }
}
