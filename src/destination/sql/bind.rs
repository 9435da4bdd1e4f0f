//! Values, as a database takes them.

use std::error::Error;

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

/// The value with every null character in its texts replaced.
pub(super) fn keepable(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.into_iter().map(keepable).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name.replace('\0', "\u{fffd}"), keepable(value))).collect()
        }
        other => other,
    }
}

/// A value for a parameter of any type: it is sent as text, which PostgreSQL reads by the parameter's own type. A text that is no
/// number is then refused by the server, with the type in its message.
#[derive(Debug)]
pub(super) struct Bound(pub(super) Value);

impl ToSql for Bound {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let json = *ty == Type::JSON || *ty == Type::JSONB;
        let text = match (&self.0, ty.kind()) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (value, _) if json => value.to_string(),
            (Value::Array(items), Kind::Array(_)) => array(items),
            (Value::String(text), _) => text.clone(),
            (value, _) => value.to_string(),
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A list as PostgreSQL writes one.
fn array(items: &[Value]) -> String {
    let items: Vec<_> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(items) => array(items),
            Value::String(text) => quoted(text),
            Value::Object(_) => quoted(&item.to_string()),
            other => other.to_string(),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value as SQLite keeps it: lists and members as JSON text, `true` as 1.
pub(super) fn to_sqlite(value: Value) -> rusqlite::types::Value {
    use rusqlite::types::Value as Sqlite;
    match value {
        Value::Null => Sqlite::Null,
        Value::Bool(yes) => Sqlite::Integer(i64::from(yes)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Sqlite::Integer(whole),
            None => number.as_f64().map_or(Sqlite::Null, Sqlite::Real),
        },
        Value::String(text) => Sqlite::Text(text),
        other => Sqlite::Text(other.to_string()),
    }
}
