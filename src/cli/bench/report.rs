//! What a bench has to say: the machine, the settings, what was simulated, the figures, and what did not hold.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::super::output::{self, Table, WIDTH};
use super::super::{Error, Result};
use super::machine::Machine;

/// A part of the result, for people.
enum Part {
    Facts(Vec<(&'static str, String)>),
    Table(Table),
}

/// The result of a bench, as it grows.
pub(super) struct Report {
    name: &'static str,
    pub(super) machine: Machine,
    settings: Map<String, Value>,
    notes: Vec<String>,
    parts: Vec<Part>,
    result: Value,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &'static str, machine: Machine) -> Self {
        let notes = machine.warnings().into_iter().map(|warning| format!("Warning: {warning}.")).collect();
        Self { name, machine, settings: Map::new(), notes, parts: Vec::new(), result: Value::Null, failures: Vec::new() }
    }

    /// What it was told to do.
    pub(super) fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// What a reader must know to judge the figures: what was lifted, simulated or left out.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Something that must hold did not: the bench fails, and says so.
    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Lines `name: value`, below what is there.
    pub(super) fn facts(&mut self, facts: Vec<(&'static str, String)>) {
        self.parts.push(Part::Facts(facts));
    }

    /// A table, below what is there.
    pub(super) fn table(&mut self, table: Table) {
        self.parts.push(Part::Table(table));
    }

    /// The figures, for programs.
    pub(super) fn result(&mut self, result: Value) {
        self.result = result;
    }

    /// Writes it all; fails if something did not hold.
    pub(super) fn write(self, out: &mut dyn Write, as_json: bool) -> Result {
        let failure = match self.failures.as_slice() {
            [] => None,
            failures => Some(Error::failed(format!("not all held that must: {}", failures.join("; ")))),
        };
        if as_json {
            output::json(out, &self.json())?;
        } else {
            self.text(out)?;
        }
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn json(&self) -> Value {
        json!({
            "bench": self.name,
            "machine": self.machine.json(),
            "settings": self.settings,
            "notes": self.notes,
            "result": self.result,
            "failures": self.failures,
            "ok": self.failures.is_empty(),
        })
    }

    fn text(self, out: &mut dyn Write) -> io::Result<()> {
        output::facts(out, &self.machine.facts())?;
        let settings = self.settings.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        });
        wrapped(out, "bench:  ", &format!("{}: {}", self.name, settings.collect::<Vec<_>>().join(", ")))?;
        for part in self.parts {
            writeln!(out)?;
            match part {
                Part::Facts(facts) => output::facts(out, &facts)?,
                Part::Table(table) => table.write(out)?,
            }
        }
        if !self.notes.is_empty() {
            writeln!(out)?;
        }
        for note in &self.notes {
            wrapped(out, "- ", note)?;
        }
        Ok(())
    }
}

/// `text` behind `head`, over as many lines as it takes.
fn wrapped(out: &mut dyn Write, head: &str, text: &str) -> io::Result<()> {
    let indent = " ".repeat(head.len());
    let mut line = head.to_owned();
    for word in text.split(' ') {
        let space = usize::from(line.len() > head.len());
        if space > 0 && line.chars().count() + space + word.chars().count() > usize::from(WIDTH) {
            writeln!(out, "{}", line.trim_end())?;
            line.clone_from(&indent);
        } else if space > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::super::super::Exit;
    use super::super::machine;
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("rate", machine::example());
        report.setting("per_second", 100);
        report.facts(vec![("answers", "99 × accepted, 1 × 503".to_owned())]);
        report.result(json!({"accepted": 99}));
        report
    }

    #[test]
    fn what_did_not_hold_is_told_with_the_figures_and_fails() {
        let (mut report, mut out) = (report(), Vec::new());
        report.fail("of 100 events not all were accepted");
        let failure = report.write(&mut out, true).unwrap_err();
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.to_string(), "error: not all held that must: of 100 events not all were accepted");
        let told: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&told["ok"], &told["result"]["accepted"]), (&json!(false), &json!(99)));
        assert_eq!(told["failures"], json!(["of 100 events not all were accepted"]));
    }

    #[test]
    fn text_fits_eighty_columns() {
        let (mut report, mut out) = (report(), Vec::new());
        report
            .note("A note that is long enough to need a second line, since lines of more than eighty columns are hard to read.");
        report.write(&mut out, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (_, text) = text.split_once("bench:").unwrap();
        let (figures, notes) = text.split_once("- Warning").unwrap();
        insta::assert_snapshot!(format!("bench:{figures}").trim_end(), @"
        bench:  rate: per_second 100

        answers: 99 × accepted, 1 × 503
        ");
        insta::assert_snapshot!(notes.split_once("- A note").unwrap().1.trim(), @"
        that is long enough to need a second line, since lines of more than
          eighty columns are hard to read.
        ");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
