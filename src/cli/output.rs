//! What commands print: tables for people, JSON for programs.
//!
//! What must hold: text from outside (titles, agents' words, headers) cannot move the cursor, turn the reading direction or start
//! a line, in tables and in JSON alike; and a table fits the terminal, or [`WIDTH`] columns where there is none.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Width, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::clock;
use crate::text::{escape_json, one_line};

/// How wide a table may be that goes elsewhere than to a terminal.
pub(super) const WIDTH: u16 = 80;
/// The most characters of one cell, or of one value of a single thing.
pub(super) const MOST: usize = 400;

/// How a column gives way where the table would be too wide.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Not at all, so that it can be copied; unless it would take more than half of the table.
    Whole(&'static str),
    /// The same, for numbers.
    Number(&'static str),
    /// It is cut.
    Cut(&'static str),
    /// It goes on in the next lines.
    Wrap(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Whole(name) | Self::Number(name) | Self::Cut(name) | Self::Wrap(name) => name,
        }
    }
}

/// A table without lines.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; the texts may be anything.
    pub(super) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.cells(cells);
    }

    /// Adds a row of as many texts as there are columns.
    pub(super) fn cells<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(cell.as_ref(), MOST)).collect());
    }

    /// Within [`WIDTH`] columns.
    pub(super) fn write(self, out: &mut dyn Write) -> io::Result<()> {
        self.fit(out, WIDTH)
    }

    /// Within `width` columns, if what cannot give way leaves room.
    pub(super) fn fit(self, out: &mut dyn Write, width: u16) -> io::Result<()> {
        let widest: Vec<usize> = (0..self.columns.len())
            .map(|column| self.rows.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default())
            .collect();
        let wraps = self.columns.iter().any(|column| matches!(column, Column::Wrap(_)));
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        table.force_no_tty().set_truncation_indicator("…");
        table.set_header(self.columns.iter().map(|column| column.name()));
        for cells in self.rows {
            let mut row = Row::from(cells);
            if !wraps {
                row.max_height(1);
            }
            table.add_row(row);
        }
        for (index, column) in self.columns.iter().enumerate() {
            let Some(shown) = table.column_mut(index) else { continue };
            shown.set_padding((0, if index + 1 == self.columns.len() { 0 } else { 2 }));
            match column {
                Column::Whole(_) if widest[index] > usize::from(width / 2) => {
                    shown.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width / 2)));
                }
                Column::Whole(_) => drop(shown.set_constraint(ColumnConstraint::ContentWidth)),
                Column::Number(_) => {
                    shown.set_constraint(ColumnConstraint::ContentWidth);
                    shown.set_cell_alignment(CellAlignment::Right);
                }
                Column::Cut(name) | Column::Wrap(name) => {
                    let least = u16::try_from(name.len()).unwrap_or(8).max(6) + 2;
                    shown.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
                }
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `value` over several lines, harmless to a terminal.
pub(super) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    out.write_all(pretty(value).as_bytes())
}

/// `value` on one line, harmless to a terminal.
pub(super) fn json_line(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{}", escape_json(&value.to_string()))
}

/// `value` over several lines, each with its line break.
pub(super) fn pretty(value: &Value) -> String {
    // The line breaks of this form are between values; inside a string they are escaped already.
    format!("{value:#}").lines().fold(String::new(), |text, line| text + &escape_json(line) + "\n")
}

/// The lines `name: value` of one thing; a value that is empty is left out.
pub(super) fn facts(out: &mut dyn Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{:width$} {}", format!("{name}:"), one_line(value, MOST))?;
    }
    Ok(())
}

/// A member as text: empty if it is not there.
pub(super) fn text(of: &Value, name: &str) -> String {
    match &of[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // What came as `5` may have been kept as `5.0`.
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        other => other.to_string(),
    }
}

/// The rows of a list.
pub(super) fn rows(list: &Value) -> &[Value] {
    list["data"].as_array().map_or(&[], Vec::as_slice)
}

/// How long ago the time in a member was, in its largest unit; empty if there is none.
pub(super) fn age(of: &Value, name: &str, now: Timestamp) -> String {
    let Some(then) = of[name].as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { return String::new() };
    short(clock::since(then, now))
}

fn short(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Cuts ids to the least length that still tells them apart: the first is the time to the millisecond.
pub(super) fn short_ids(ids: &[&str]) -> usize {
    const LENGTHS: [usize; 3] = [13, 18, 23];
    let distinct = |length: usize| {
        let mut starts: Vec<_> = ids.iter().map(|id| id.get(..length).unwrap_or(id)).collect();
        starts.sort_unstable();
        starts.windows(2).all(|pair| pair[0] != pair[1])
    };
    LENGTHS.into_iter().find(|length| distinct(*length)).unwrap_or(36)
}

/// The first `length` characters of an id.
pub(super) fn cut(id: &str, length: usize) -> &str {
    id.get(..length).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(table: Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_fits_eighty_columns_whatever_is_in_it() {
        let mut table = Table::new(&[Column::Whole("TASK"), Column::Cut("TITLE"), Column::Number("CREDITS"), Column::Cut("URL")]);
        table.row(["9rP8DLRXVC9fkKBKEELXkg", "What is 2 + 2?", "22", "https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg"]);
        table.row(["0123456789012345678901", &"x".repeat(1 << 20), "1", ""]);
        table.row(["a", "東京".repeat(100).as_str(), "100000", "\u{202e}gpj.exe\u{1b}[2J\r\nforged line"]);
        let text = written(table);
        insta::assert_snapshot!(text, @"
        TASK                    TITLE                    CREDITS  URL
        9rP8DLRXVC9fkKBKEELXkg  What is 2 + 2?                22  https://manus.im/app/…
        0123456789012345678901  xxxxxxxxxxxxxxxxxxxxxx…        1
        a                       東京東京東京東京東京東…   100000  gpj.exe [2J forged…
        ");
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_table_fits_a_terminal_of_any_width() {
        let table = |width| {
            let mut table = Table::new(&[Column::Whole("TASK"), Column::Number("AGE"), Column::Cut("TITLE")]);
            table.row([&"0123456789".repeat(12), "2h", &"A title ".repeat(20)]);
            table.row(["t1", "5s", "Short"]);
            let mut out = Vec::new();
            table.fit(&mut out, width).unwrap();
            String::from_utf8(out).unwrap()
        };
        for width in [40, 60, 80, 120, 300] {
            let text = table(width);
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= usize::from(width) && text.lines().count() == 3, "{width}: {text}");
            assert_eq!(text.contains(&"0123456789".repeat(12)), width == 300, "{text}");
        }
        insta::assert_snapshot!(table(60), @"
        TASK                         AGE  TITLE
        01234567890123456789012345…   2h  A title A title A title A…
        t1                            5s  Short
        ");
    }

    #[test]
    fn a_column_may_go_on_in_the_next_lines() {
        let mut table = Table::new(&[Column::Whole("ID"), Column::Wrap("WHY")]);
        table.row(["1", &"the signature is good for another address ".repeat(3)]);
        insta::assert_snapshot!(written(table), @"
        ID  WHY
        1   the signature is good for another address the signature is good for another
            address the signature is good for another address
        ");
    }

    #[test]
    fn json_is_the_same_value_and_harmless() {
        let value = json!({"title": "a\u{202e}b\u{9b}\n", "list": [1, {}]});
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.is_ascii() && text.lines().count() == 7, "{text}");
    }

    #[test]
    fn ages_are_short() {
        let ages = [0, 119, 120, 7199, 7200, 172_800].map(|seconds| short(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn ids_are_cut_to_what_tells_them_apart() {
        assert_eq!(short_ids(&["019a9936-de14-7c3a-9d52-0f6c1e8b4a77", "019a9936-de15-7c3a-9d52-0f6c1e8b4a77"]), 13);
        assert_eq!(short_ids(&["019a9936-de14-7c3a-9d52-0f6c1e8b4a77", "019a9936-de14-7c3b-9d52-0f6c1e8b4a77"]), 18);
        assert_eq!(short_ids(&["019a9936-de14-7c3a-9d52-0f6c1e8b4a77", "019a9936-de14-7c3a-9d52-0f6c1e8b4a78"]), 36);
        assert_eq!((short_ids(&[]), cut("no id", 13)), (13, "no id"));
    }
}
