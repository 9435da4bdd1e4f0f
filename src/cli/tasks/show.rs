//! `taskhook tasks show`: one task, and all that happened to it.

use std::io::{self, Write};

use serde_json::Value;

use super::super::output::{self, Column, Table, facts, text};
use crate::text::one_line;

/// The most characters of what a task answered that are shown.
const ANSWER: usize = 4000;

pub(super) fn write(out: &mut dyn Write, width: u16, shown: &Value) -> io::Result<()> {
    let task = &shown["task"];
    let proof = match text(shown, "proof") {
        proof if proof.is_empty() => "nothing yet: its events wait".to_owned(),
        proof => format!("{proof}, at {}", text(shown, "proven_at")),
    };
    facts(
        out,
        &[
            ("task", text(shown, "task_id")),
            ("source", text(shown, "source")),
            ("kind", text(shown, "kind")),
            ("title", text(shown, "title")),
            ("url", text(shown, "url")),
            ("state", text(shown, "state")),
            ("stop reason", text(shown, "stop_reason")),
            ("credits", text(shown, "credits")),
            ("used", used(&task["usage"])),
            ("model", text(task, "model")),
            ("proven by", proof),
            ("first seen", text(shown, "first_seen_at")),
            ("fetched", text(shown, "fetched_at")),
            ("deleted", text(shown, "deleted_at")),
            ("error", text(task, "error")),
        ],
    )?;
    if shown["state"] == "waiting" {
        write_question(out, &task["question"], &text(shown, "answers_to"))?;
    }
    let mut messages = task["messages"].as_array().into_iter().flatten();
    if let Some(answer) = messages.rfind(|message| message["role"] == "assistant") {
        writeln!(out, "\nlast answer:\n{}", one_line(&text(answer, "text"), ANSWER))?;
    }
    // The archive knows more of them, where there is one.
    let listed = |name: &str| shown[name].as_array().map_or(&[][..], Vec::as_slice);
    let files = if listed("archive").is_empty() { listed("files") } else { listed("archive") };
    if !files.is_empty() {
        let mut table =
            Table::new(&[Column::Cut("FILE"), Column::Number("BYTES"), Column::Whole("STATUS"), Column::Cut("REASON")]);
        for file in files {
            table.row([&text(file, "name"), &text(file, "size_bytes"), &text(file, "status"), &text(file, "reason")]);
        }
        writeln!(out)?;
        table.fit(out, width)?;
    }
    let events = listed("events");
    if !events.is_empty() {
        writeln!(out)?;
        super::super::events::table(events).fit(out, width)?;
    }
    let timeline = listed("timeline");
    if !timeline.is_empty() {
        let mut table =
            Table::new(&[Column::Whole("WHEN"), Column::Whole("PROVIDER"), Column::Whole("WHAT"), Column::Cut("DETAIL")]);
        for moment in timeline {
            let (here, there) = (text(moment, "at"), text(moment, "provider_at"));
            let (here, there) = if here.is_empty() { (second(&there), String::new()) } else { (second(&here), time(&there)) };
            table.row([&here, &there, &text(moment, "kind"), &text(moment, "text")]);
        }
        writeln!(out)?;
        table.fit(out, width)?;
    }
    Ok(())
}

/// What the task waits for, and how that is answered.
fn write_question(out: &mut dyn Write, question: &Value, answers_to: &str) -> io::Result<()> {
    let options: Vec<_> = question["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let confirms = question["kind"] == "action";
    writeln!(out)?;
    facts(
        out,
        &[
            ("it asks", text(question, "text")),
            ("options", options.join(" | ")),
            ("confirms", if confirms { text(question, "action") } else { String::new() }),
            ("answers to", answers_to.to_owned()),
        ],
    )?;
    if confirms && question["input_schema"].is_object() {
        writeln!(out, "with input like:\n{}", output::pretty(&question["input_schema"]).trim_end())?;
    }
    let how = if confirms { "taskhook tasks confirm" } else { "taskhook tasks reply" };
    writeln!(out, "answer with `{how}`")
}

/// A time to the second, as people read it.
fn second(at: &str) -> String {
    at.get(..19).unwrap_or(at).replacen('T', " ", 1)
}

/// The time of a day.
fn time(at: &str) -> String {
    at.get(11..19).unwrap_or_default().to_owned()
}

/// What a task used, as far as its provider tells.
fn used(usage: &Value) -> String {
    let parts = [
        ("input_tokens", "", " tokens in"),
        ("output_tokens", "", " tokens out"),
        ("compute_seconds", "", " s"),
        ("cost_usd", "$", ""),
    ];
    let told = parts.iter().filter(|(name, ..)| !usage[name].is_null());
    told.map(|(name, before, behind)| format!("{before}{}{behind}", text(usage, name))).collect::<Vec<_>>().join(", ")
}
