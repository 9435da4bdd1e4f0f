//! What `taskhook store` prints for people.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::cli::output::{Column, Table, facts};
use crate::store::care::{Count, Finding, Restored, Stats};

/// `data` as JSON.
pub(super) fn value(data: &impl Serialize) -> Value {
    // What is shown here is made of texts, numbers and lists of them.
    serde_json::to_value(data).unwrap_or_default()
}

/// A number of bytes, in a unit that fits.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

pub(super) fn restored(out: &mut dyn Write, done: &Restored) -> io::Result<()> {
    writeln!(out, "Restored {} event(s) into {}, as of {}.", done.events, done.store.display(), done.backup_of)?;
    if let Some(aside) = &done.put_aside {
        writeln!(out, "The store that was there is {} now: delete it when you need it no more.", aside.display())?;
    }
    let (pending, open) = (done.pending_deliveries, done.open_events);
    if pending + open == 0 {
        return writeln!(out, "Nothing in it was still to be handed on, so nothing repeats.");
    }
    writeln!(
        out,
        "{pending} delivery(s) were pending in it, and {open} event(s) not handed on yet: they may have been since. Each gets an \
         attempt of unknown outcome, and goes again under the id that it has, unless its destination has `on_unknown = \"hold\"`."
    )?;
    if open > 0 {
        writeln!(out, "What those events make gets a new `webhook-id`: know a repeat by the event's `id`.")?;
    }
    Ok(())
}

pub(super) fn findings(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{} times: {} ({})", finding.count, finding.problem, finding.examples.join(", "))?;
    }
    Ok(())
}

pub(super) fn stats(out: &mut dyn Write, stats: &Stats) -> io::Result<()> {
    let told = |value: &Option<String>| value.clone().unwrap_or_default();
    let counted = |counts: &[Count]| {
        let counts: Vec<_> = counts.iter().map(|each| format!("{} {}", each.count, each.name)).collect();
        counts.join(", ")
    };
    let mut told_of = vec![("store", stats.place.clone())];
    match (stats.free_bytes, stats.log_bytes) {
        (Some(free), Some(log)) => {
            let gives_none = stats.shrinks == Some(false);
            let note = if gives_none { " (used again; this file was made before files could give pages back)" } else { "" };
            told_of.extend([
                ("file", bytes(stats.file_bytes)),
                ("free in it", format!("{}{note}", bytes(free))),
                ("log", bytes(log)),
            ]);
        }
        _ => told_of.push(("tables", bytes(stats.file_bytes))),
    }
    told_of.extend([
        ("schema", stats.schema.clone()),
        ("created", told(&stats.created_at)),
        ("restored", told(&stats.restored_at)),
        ("oldest event", told(&stats.oldest_event)),
        ("newest event", told(&stats.newest_event)),
        ("events", counted(&stats.events)),
        ("deliveries", counted(&stats.deliveries)),
        ("bytes an event", stats.bytes_per_event.map(|bytes| bytes.to_string()).unwrap_or_default()),
        ("removed", counted(&stats.removed)),
    ]);
    facts(out, &told_of)?;
    let mut table = Table::new(&[Column::Whole("TABLE"), Column::Number("ROWS"), Column::Number("BYTES")]);
    for each in &stats.tables {
        table.row([&each.name, &each.rows.to_string(), &each.bytes.to_string()]);
    }
    writeln!(out)?;
    table.write(out)
}
