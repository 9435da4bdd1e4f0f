//! Reads a section of the merged tree into its struct, and tells everything that is wrong with it.
//!
//! Stricter than the `config` crate's own reading, which takes `true` for 1 and rounds 1.5: a value of a file has the type that it
//! was written with. Only text is read as what the key means, since every environment value is text. An unknown key does not end
//! the reading, and a key with a wrong value is put aside and the rest read again, so that one start shows all errors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use config::{Map, Value, ValueKind};
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::place::{Path, Step};

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The value; not known until the error leaves it.
    pub(super) path: Option<Path>,
    /// Ends a sentence that begins with the key.
    pub(super) text: String,
    /// The key that is missing, which may only be the consequence of another fault.
    pub(super) missing: Option<&'static str>,
}

/// A key that nothing reads, and the keys that it could have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) path: Path,
    pub(super) known: Vec<&'static str>,
}

/// What is wrong with one section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) unknown: BTreeMap<Path, Unknown>,
    pub(super) faults: Vec<Fault>,
}

/// Reads `value`, which stands at `path`, by `parse`; `spare` is what replaces a key that cannot be read, to go on.
pub(super) fn read<T>(
    value: &Value,
    path: &Path,
    spare: Option<&Value>,
    parse: impl Fn(Node<'_>) -> Result<T, Fault>,
) -> Result<T, Faults> {
    let unknown = RefCell::new(BTreeMap::new());
    let mut faults: Vec<Fault> = Vec::new();
    let mut value = value.clone();
    let read = loop {
        match parse(Node { value: &value, path: path.clone(), unknown: &unknown }) {
            Ok(read) => break Some(read),
            Err(fault) => {
                if fault.missing.is_some() && !faults.is_empty() {
                    break None;
                }
                let inside = fault.path.as_ref().and_then(|at| at.0.strip_prefix(path.0.as_slice())).map(<[Step]>::to_vec);
                faults.push(fault);
                let again = inside.is_some_and(|steps| replace(&mut value, &steps, spare));
                // A value that cannot be put aside would give the same error for ever.
                if !again || faults.len() > 100 {
                    break None;
                }
            }
        }
    };
    let unknown = unknown.into_inner();
    match read {
        Some(read) if unknown.is_empty() && faults.is_empty() => Ok(read),
        _ => Err(Faults { unknown, faults }),
    }
}

/// Takes away the key at `steps`, or puts in its place what `spare` has there. False if there is nothing to take.
fn replace(value: &mut Value, steps: &[Step], spare: Option<&Value>) -> bool {
    let ([Step::Key(key), rest @ ..], ValueKind::Table(table)) = (steps, &mut value.kind) else { return false };
    let spare = match spare.map(|value| &value.kind) {
        Some(ValueKind::Table(table)) => table.get(key),
        _ => None,
    };
    if let Some(inner) = table.get_mut(key)
        && replace(inner, rest, spare)
    {
        return true;
    }
    match spare {
        Some(spare) => table.insert(key.clone(), spare.clone()).is_some_and(|old| old != *spare),
        None => table.remove(key).is_some(),
    }
}

/// One value of the merged tree, as serde reads it.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: Path,
    unknown: &'a RefCell<BTreeMap<Path, Unknown>>,
}

impl Fault {
    fn new(text: impl Into<String>) -> Self {
        Self { path: None, text: text.into(), missing: None }
    }

    fn at(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.clone());
        self
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(format!("is refused: {message}"))
    }

    /// Names the kind of the value only: the value itself may be a secret in the wrong form.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "`true` or `false`",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "text",
        };
        Self::new(format!("must be {}, not {found}", plain(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("{text:?}"),
            Unexpected::Unsigned(number) => format!("{number}"),
            Unexpected::Signed(number) => format!("{number}"),
            other => other.to_string(),
        };
        Self::new(format!("must be {}, not {found}", plain(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let words: Vec<_> = expected.iter().map(|word| format!("\"{word}\"")).collect();
        Self::new(format!("must be {}, not {variant:?}", words.join(" or ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: None, text: format!("needs `{field}`"), missing: Some(field) }
    }
}

/// What is expected, in words for people who do not write Rust.
fn plain(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a nonzero u32" | "a nonzero usize" | "a nonzero u64" | "a nonzero u16" => "a whole number above 0".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "text".to_owned(),
        "a duration" => "a duration such as \"4s\" or \"2m\"".to_owned(),
        "an integer or string" | "parsable string" => "a size such as \"64MiB\"".to_owned(),
        "integer overflow" => "0 or more".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        _ => expected,
    }
}

impl<'a> Node<'a> {
    /// Reads the value by its own kind.
    fn visit<'de, V: Visitor<'de>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, Fault> {
        let path = self.path.clone();
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(yes) => visitor.visit_bool(*yes),
            ValueKind::I64(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            ValueKind::I128(number) => visitor.visit_i128(*number),
            ValueKind::U64(number) => visitor.visit_u64(*number),
            ValueKind::U128(number) => visitor.visit_u128(*number),
            ValueKind::Float(number) => visitor.visit_f64(*number),
            ValueKind::String(text) => visitor.visit_str(text),
            ValueKind::Table(table) => visitor.visit_map(Entries::new(&self, table, fields)),
            ValueKind::Array(items) => visitor.visit_seq(Items { node: &self, items: items.iter().enumerate() }),
        }
        .map_err(|fault| fault.at(&path))
    }

    fn text(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::String(text) => Some(text.trim()),
            _ => None,
        }
    }
}

/// Text is read as the number that it spells; anything else is read as it is.
macro_rules! numbers {
    ($($deserialize:ident: $number:ty => $visit:ident,)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.text().map(str::parse::<$number>) {
                Some(Ok(number)) => visitor.$visit(number).map_err(|fault: Fault| fault.at(&self.path)),
                _ => self.visit(visitor, None),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor, None)
    }

    numbers! {
        deserialize_bool: bool => visit_bool,
        deserialize_i8: i64 => visit_i64,
        deserialize_i16: i64 => visit_i64,
        deserialize_i32: i64 => visit_i64,
        deserialize_i64: i64 => visit_i64,
        deserialize_u8: u64 => visit_u64,
        deserialize_u16: u64 => visit_u64,
        deserialize_u32: u64 => visit_u64,
        deserialize_u64: u64 => visit_u64,
        deserialize_f32: f64 => visit_f64,
        deserialize_f64: f64 => visit_f64,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                visitor.visit_seq(SeqDeserializer::new(items)).map_err(|fault: Fault| fault.at(&self.path))
            }
            None => self.visit(visitor, None),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else {
            let words: Vec<_> = variants.iter().map(|word| format!("\"{word}\"")).collect();
            return Err(Fault::new(format!("must be {}", words.join(" or "))).at(&self.path));
        };
        let word: StrDeserializer<'_, Fault> = text.into_deserializer();
        word.deserialize_enum(name, variants, visitor).map_err(|fault| fault.at(&self.path))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

/// The keys of a table, in the order of their names; those that a struct does not know are noted and left out.
struct Entries<'a> {
    node: &'a Node<'a>,
    rest: std::vec::IntoIter<(&'a String, &'a Value)>,
    value: Option<(&'a String, &'a Value)>,
}

impl<'a> Entries<'a> {
    fn new(node: &'a Node<'a>, table: &'a Map<String, Value>, fields: Option<&'static [&'static str]>) -> Self {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        if let Some(fields) = fields {
            entries.retain(|(key, _)| {
                let known = fields.contains(&key.as_str());
                if !known {
                    let path = node.path.key(key);
                    node.unknown.borrow_mut().insert(path.clone(), Unknown { path, known: fields.to_vec() });
                }
                known
            });
        }
        Self { node, rest: entries.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.rest.next();
        self.value.map(|(key, _)| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.value.take().ok_or_else(|| Fault::new("is refused: a value without a key"))?;
        let path = self.node.path.key(key);
        let node = Node { value, path: path.clone(), unknown: self.node.unknown };
        seed.deserialize(node).map_err(|fault| fault.at(&path))
    }
}

/// The items of a list.
struct Items<'a, I> {
    node: &'a Node<'a>,
    items: I,
}

impl<'a, 'de, I: Iterator<Item = (usize, &'a Value)>> SeqAccess<'de> for Items<'a, I> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((at, value)) = self.items.next() else { return Ok(None) };
        let path = self.node.path.step(Step::Index(at));
        let node = Node { value, path: path.clone(), unknown: self.node.unknown };
        seed.deserialize(node).map(Some).map_err(|fault| fault.at(&path))
    }
}
