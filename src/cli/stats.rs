//! `taskhook stats`: how things stand, what needs a person first.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::Value;

use super::client::{Client, Connection, TIMEOUT};
use super::output::{self, Column, Table, age, text};
use super::{Context, Result, again, runtime};
use crate::clock::{Clock, rfc3339};

/// See how things stand: what needs you, what waits, what came and went
///
/// What needs you comes first: questions that wait, what was given up on, what is in quarantine, what does not work. Then what there is
/// by source and destination, the work that waits, and what was done since `--since`, as far as taskhook was there to count it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// What came and went since then: a time, or how long ago; counted by the minute for two days back, by the hour for 62
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// Print JSON: what `/api/v1/stats` and `/readyz` say
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let now = Clock::system().now();
    let since = again::time("since", &args.since, now)?;
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let (mut stats, ready) = runtime()?.block_on(async {
        let stats = client.ask(&["stats"], &[("since", rfc3339(since))]).await?;
        Ok::<_, super::Failure>((stats, client.ready().await))
    })?;
    if args.json {
        stats["readyz"] = ready;
        return Ok(output::json(context.out, &stats)?);
    }
    Ok(write(context.out, context.width, &stats, &ready, now)?)
}

fn write(out: &mut dyn Write, width: u16, stats: &Value, ready: &Value, now: Timestamp) -> io::Result<()> {
    let needs = needs(stats, ready, now);
    if needs.is_empty() {
        writeln!(out, "Nothing needs you.")?;
    } else {
        let mut table = Table::new(&[Column::Whole("NEEDS YOU"), Column::Wrap("WHY")]);
        for (what, why) in &needs {
            table.row([what, why]);
        }
        table.fit(out, width)?;
    }
    for table in [sources(stats, now), destinations(stats), jobs(stats, now), done(&stats["rates"])] {
        writeln!(out)?;
        table.fit(out, width)?;
    }
    writeln!(out)?;
    let facts = [
        ("since", format!("{} ago", age(stats, "since", now))),
        ("counted", counted(stats, now)),
        ("half arrived", within(&stats["rates"]["median_ms"], "of the event")),
        ("95 of 100", within(&stats["rates"]["p95_ms"], "of it, in the worst minute")),
    ];
    output::facts(out, &facts)
}

/// What a person should see to: how many of what, and why, with the command that shows it.
fn needs(stats: &Value, ready: &Value, now: Timestamp) -> Vec<(String, String)> {
    let count = |value: &Value| value.as_i64().unwrap_or_default();
    let dead_deliveries: i64 = list(stats, "destinations").iter().map(|row| count(&row["dead"])).sum();
    let dead = count(&stats["dead"]);
    let mut needs = Vec::new();
    for (number, what, why) in [
        (count(&stats["waiting"]), "waiting", "tasks that wait for an answer: `taskhook tasks list --waiting`"),
        (dead_deliveries, "dead", "deliveries given up on: `taskhook deliveries list --state dead`"),
        (dead - dead_deliveries, "dead", "events given up on: `taskhook events list --state dead`"),
        (count(&stats["quarantined"]), "quarantined", "not seen by the key: `taskhook events list --state quarantined`"),
    ] {
        if number > 0 {
            needs.push((format!("{number} {what}"), why.to_owned()));
        }
    }
    for watch in list(stats, "watches") {
        let kind = text(watch, "type");
        needs.push((format!("{} noticed", text(watch, "count")), format!("{} (`{kind}`)", told(&kind))));
    }
    for reason in list(ready, "reasons") {
        let since = match age(reason, "since", now) {
            since if since.is_empty() => since,
            since => format!(", for {since}"),
        };
        needs.push(("degraded".to_owned(), format!("{}{since}: {}", text(reason, "part"), text(reason, "reason"))));
    }
    needs
}

/// What events of this type tell of, in words.
fn told(kind: &str) -> &'static str {
    match kind {
        "watch.task_silent" => "task(s) of which nothing was heard for long",
        "watch.task_waiting" => "task(s) that have waited for an answer for long",
        "watch.not_delivered" => "deliveries that have waited for long",
        "watch.dead_letter" => "what was given up on",
        "watch.source_silent" => "source(s) whose webhooks do not come",
        "watch.budget" => "budget(s) that are spent, or nearly",
        _ => "something holds that should not",
    }
}

fn sources(stats: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::Cut("SOURCE"),
        Column::Number("EVENTS"),
        Column::Number("LAST"),
        Column::Number("OPEN TASKS"),
        Column::Number("WAITING"),
        Column::Number("CREDITS"),
    ]);
    // Not all of many were counted.
    let more = if stats["sources_complete"] == false { "+" } else { "" };
    for row in list(stats, "sources") {
        let events = format!("{}{more}", text(row, "events"));
        let last = age(row, "last_webhook_at", now);
        table.row([&text(row, "source"), &events, &last, &text(row, "open"), &text(row, "waiting"), &text(row, "credits")]);
    }
    table
}

fn destinations(stats: &Value) -> Table {
    let mut table =
        Table::new(&[Column::Cut("DESTINATION"), Column::Whole("STATE"), Column::Number("PENDING"), Column::Number("DEAD")]);
    for row in list(stats, "destinations") {
        table.row([&text(row, "name"), &text(row, "state"), &text(row, "pending"), &text(row, "dead")]);
    }
    table
}

fn jobs(stats: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::Whole("WORK THAT WAITS"),
        Column::Number("JOBS"),
        Column::Number("OLDEST"),
        Column::Number("DUE FOR"),
    ]);
    for kind in ["prove", "fetch", "archive", "deliver"] {
        let of_kind = || list(stats, "jobs").iter().filter(|row| row["kind"] == kind);
        let count: i64 = of_kind().filter_map(|row| row["count"].as_i64()).sum();
        // Times sort as text.
        let oldest = of_kind().min_by_key(|row| text(row, "oldest")).map(|row| age(row, "oldest", now));
        let due = list(stats, "due").iter().find(|row| row["kind"] == kind).map(|row| age(row, "since", now));
        table.row([kind, &count.to_string(), &oldest.unwrap_or_default(), &due.unwrap_or_default()]);
    }
    table
}

fn done(rates: &Value) -> Table {
    let mut table = Table::new(&[Column::Whole("WHAT WAS DONE"), Column::Number("COUNT"), Column::Number("A MINUTE")]);
    let minutes = rates["minutes"].as_f64().unwrap_or_default();
    for (what, member) in [
        ("events accepted", "events"),
        ("requests rejected", "rejections"),
        ("stops recovered", "recovered"),
        ("deliveries arrived", "delivered"),
        ("attempts failed", "failed"),
    ] {
        let count = rates[member].as_f64().unwrap_or_default();
        let rate = if minutes > 0.0 { format!("{:.1}", count / minutes) } else { String::new() };
        table.row([what, &text(rates, member), &rate]);
    }
    table
}

/// How long it took from events to their deliveries.
fn within(ms: &Value, more: &str) -> String {
    ms.as_i64().map(|ms| format!("within {} {more}", short(ms))).unwrap_or_default()
}

/// How much of the time was counted, where it was not all of it.
fn counted(stats: &Value, now: Timestamp) -> String {
    let minutes = stats["rates"]["minutes"].as_i64().unwrap_or_default();
    let Some(since) = stats["since"].as_str().and_then(|since| since.parse::<Timestamp>().ok()) else { return String::new() };
    let all = now.duration_since(since).as_mins();
    // The minute in which it begins, and the one that has not ended, are none.
    if minutes + 2 >= all { String::new() } else { format!("{minutes} of {all} minutes: the rest nobody saw") }
}

fn short(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => format!("{} min", ms / 60_000),
    }
}

/// The rows of a member.
fn list<'a>(of: &'a Value, member: &str) -> &'a [Value] {
    of[member].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(width: u16) -> String {
        let now = "2026-01-15T12:00:00Z".parse().unwrap();
        let stats = json!({
            "jobs": [
                {"kind": "deliver", "queue": "crm", "count": 3, "oldest": "2026-01-15T10:00:00.000Z"},
                {"kind": "deliver", "queue": "log", "count": 1, "oldest": "2026-01-15T09:00:00.000Z"},
                {"kind": "prove", "queue": "manus", "count": 7, "oldest": "2026-01-15T11:59:00.000Z"},
            ],
            "events": 9, "quarantined": 4, "dead": 3, "since": "2026-01-15T11:00:00.000Z", "waiting": 2,
            "watches": [{"type": "watch.task_silent", "count": 1}, {"type": "watch.to_come", "count": 2}],
            "due": [{"kind": "deliver", "since": "2026-01-15T11:30:00.000Z"}],
            "sources": [
                {"source": "manus", "events": 100_000, "last_webhook_at": "2026-01-15T11:58:00.000Z", "open": 12, "waiting": 2, "credits": 17.5},
                {"source": "github", "events": 0, "last_webhook_at": null, "open": 0, "waiting": 0, "credits": 0},
            ],
            "sources_complete": false,
            "destinations": [
                {"name": "crm", "state": "degraded", "pending": 4, "dead": 2},
                {"name": "log", "state": "ok", "pending": 0, "dead": 0},
            ],
            "rates": {"minutes": 50, "events": 100_000, "rejections": 5, "recovered": 0, "delivered": 2000, "failed": 12,
                "median_ms": 850, "p95_ms": 12_400},
        });
        let reason = "401 \u{1b}[2J\u{202e}Unauthorized: `destinations.crm.headers` has a token that the receiver does not take";
        let ready = json!({"status": "degraded", "reasons": [
            {"part": "destination crm", "reason": reason, "since": "2026-01-15T09:00:00Z"},
            {"part": "store", "reason": "it takes no write within 2 s"},
        ]});
        let mut out = Vec::new();
        write(&mut out, width, &stats, &ready, now).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn all_is_told_of_what_there_is() {
        insta::assert_snapshot!(shown(output::WIDTH), @"
        NEEDS YOU      WHY
        2 waiting      tasks that wait for an answer: `taskhook tasks list --waiting`
        2 dead         deliveries given up on: `taskhook deliveries list --state dead`
        1 dead         events given up on: `taskhook events list --state dead`
        4 quarantined  not seen by the key: `taskhook events list --state quarantined`
        1 noticed      task(s) of which nothing was heard for long (`watch.task_silent`)
        2 noticed      something holds that should not (`watch.to_come`)
        degraded       destination crm, for 3h: 401 [2JUnauthorized:
                       `destinations.crm.headers` has a token that the receiver does not
                       take
        degraded       store: it takes no write within 2 s

        SOURCE   EVENTS  LAST  OPEN TASKS  WAITING  CREDITS
        manus   100000+    2m          12        2     17.5
        github       0+                 0        0        0

        DESTINATION  STATE     PENDING  DEAD
        crm          degraded        4     2
        log          ok              0     0

        WORK THAT WAITS  JOBS  OLDEST  DUE FOR
        prove               7     60s
        fetch               0
        archive             0
        deliver             4      3h      30m

        WHAT WAS DONE        COUNT  A MINUTE
        events accepted     100000    2000.0
        requests rejected        5       0.1
        stops recovered          0       0.0
        deliveries arrived    2000      40.0
        attempts failed         12       0.2

        since:        60m ago
        counted:      50 of 60 minutes: the rest nobody saw
        half arrived: within 850 ms of the event
        95 of 100:    within 12.4 s of it, in the worst minute
        ");
        let narrow = shown(60);
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        let wide = shown(200);
        assert!(wide.lines().count() < narrow.lines().count(), "{wide}");
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0, 999, 1000, 119_999, 120_000].map(short), ["0 ms", "999 ms", "1.0 s", "120.0 s", "2 min"]);
    }
}
