//! A table as preformatted lines, for where there are no tables.

use crate::text::one_line;

/// The widest column, in characters.
const MAX_COLUMN: usize = 40;

/// A table whose rows are being read.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Whether the first row is a heading.
    head: bool,
}

impl Table {
    /// Begins a row.
    pub(super) fn row(&mut self, head: bool) {
        self.rows.push(Vec::new());
        self.head |= head;
    }

    /// Begins a cell of the last row.
    pub(super) fn cell(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.push(String::new());
        }
    }

    /// Adds to the last cell.
    pub(super) fn text(&mut self, text: &str) {
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.last_mut()) {
            cell.push_str(text);
        }
    }

    /// Its lines, the columns as wide as what is in them.
    pub(super) fn lines(&self) -> Vec<String> {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| one_line(cell, MAX_COLUMN)).collect()).collect();
        let columns = cells.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut lines = Vec::with_capacity(cells.len() + 1);
        for (number, row) in cells.iter().enumerate() {
            let line: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            lines.push(line.join("  ").trim_end().to_owned());
            if number == 0 && self.head {
                let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
                lines.push(rule.join("  "));
            }
        }
        lines
    }
}
