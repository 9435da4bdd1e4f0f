//! A value as both databases mean it, and what rows of them sum up to.

use std::error::Error;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::BytesMut;
use jiff::Timestamp;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Flag,
    Number,
    Real,
    Text,
    Texts,
    Time,
    Id,
    Bytes,
}

impl Kind {
    /// The type that PostgreSQL has for it.
    pub(in crate::store) fn of_postgres(self) -> Type {
        match self {
            Self::Flag => Type::BOOL,
            Self::Number => Type::INT8,
            Self::Real => Type::FLOAT8,
            Self::Text => Type::TEXT,
            Self::Texts => Type::TEXT_ARRAY,
            Self::Time => Type::TIMESTAMPTZ,
            Self::Id => Type::UUID,
            Self::Bytes => Type::BYTEA,
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum Cell {
    Null,
    Flag(bool),
    Number(i64),
    Real(f64),
    Text(String),
    Texts(Vec<String>),
    Time(Timestamp),
    Id(Uuid),
    Bytes(Vec<u8>),
}

impl Cell {
    /// Adds it to a digest, so that no two rows look alike.
    fn digest(&self, digest: &mut Context) {
        let mut part = |sign: u8, bytes: &[u8]| {
            digest.update(&[sign]);
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        match self {
            Self::Null => part(b'0', &[]),
            Self::Flag(flag) => part(b'f', &[u8::from(*flag)]),
            Self::Number(number) => part(b'n', &number.to_be_bytes()),
            Self::Real(number) => part(b'r', &number.to_bits().to_be_bytes()),
            Self::Text(text) => part(b't', text.as_bytes()),
            Self::Texts(texts) => {
                part(b'l', &(texts.len() as u64).to_be_bytes());
                for text in texts {
                    part(b't', text.as_bytes());
                }
            }
            Self::Time(time) => part(b'w', &time.as_microsecond().to_be_bytes()),
            Self::Id(id) => part(b'i', id.as_bytes()),
            Self::Bytes(bytes) => part(b'b', bytes),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self, kind: &Type, to: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Flag(flag) => flag.to_sql(kind, to),
            Self::Number(number) => number.to_sql(kind, to),
            Self::Real(number) => number.to_sql(kind, to),
            Self::Text(text) => text.to_sql(kind, to),
            Self::Texts(texts) => texts.to_sql(kind, to),
            Self::Time(time) => time.to_sql(kind, to),
            Self::Id(id) => id.to_sql(kind, to),
            Self::Bytes(bytes) => bytes.to_sql(kind, to),
        }
    }

    fn accepts(_: &Type) -> bool {
        // A cell is made for its column.
        true
    }

    to_sql_checked!();
}

/// What rows sum up to, in whatever order they come: two databases sort texts in different ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Sum {
    rows: u64,
    digests: [u64; 4],
}

impl Sum {
    /// Adds a row.
    pub(in crate::store) fn add(&mut self, cells: &[Cell]) {
        let mut digest = Context::new(&SHA256);
        for cell in cells {
            cell.digest(&mut digest);
        }
        let digest = digest.finish();
        for (sum, part) in self.digests.iter_mut().zip(digest.as_ref().chunks_exact(8)) {
            *sum = sum.wrapping_add(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        self.rows += 1;
    }

    pub(in crate::store) fn rows(&self) -> u64 {
        self.rows
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digests.iter().try_for_each(|part| write!(f, "{part:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&[Cell]]) -> Sum {
        let mut sum = Sum::default();
        for cells in rows {
            sum.add(cells);
        }
        sum
    }

    #[test]
    fn rows_sum_up_to_the_same_in_any_order_and_to_something_else_if_anything_differs() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let (one, other) = ([Cell::Number(1), text("a")], [Cell::Number(2), text("b")]);
        let both = sum(&[&one, &other]);
        assert_eq!(both, sum(&[&other, &one]));
        assert_eq!((both.rows(), both.to_string().len()), (2, 64));
        let rows: [&[Cell]; 12] = [
            &[],
            &[Cell::Null],
            &[Cell::Null, Cell::Null],
            &[text("")],
            &[text("ab"), text("c")],
            &[text("a"), text("bc")],
            &[Cell::Texts(Vec::new())],
            &[Cell::Texts(vec!["ab".into(), "c".into()])],
            &[Cell::Bytes(Vec::new())],
            &[Cell::Flag(false)],
            &[Cell::Number(0)],
            &[Cell::Real(0.0)],
        ];
        for (place, row) in rows.iter().enumerate() {
            let alike = rows.iter().filter(|other| sum(&[other]) == sum(&[row])).count();
            assert_eq!(alike, 1, "{place}");
        }
        assert_ne!(sum(&[&one, &one]), sum(&[]), "a row that is there twice does not cancel itself out");
    }
}
