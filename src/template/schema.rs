//! The names that expressions may use, taken from a sample.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::Value as Data;
use minijinja::value::{Object, ObjectRepr, Serde};

use super::Context;
use super::scan::Step;

/// What may be named.
#[derive(Clone, Debug)]
enum Shape {
    /// Anything below is allowed: the data is not ours.
    Free,
    /// Text, a number or a boolean: nothing is below.
    Plain,
    /// Elements of one shape.
    List(Box<Shape>),
    /// These members and no others.
    Members(BTreeMap<String, Shape>),
}

/// The data that expressions are written for: its names, and samples to try an expression on.
#[derive(Debug)]
pub struct Schema {
    shape: Shape,
    /// A sample in which everything is known.
    pub(super) full: Context,
    /// The same, where whatever is free has every member.
    pub(super) whole: Context,
    /// Samples in which as little is known as can be.
    pub(super) sparse: Vec<Context>,
}

impl Schema {
    /// The names are those of `full`, a sample in which everything is known and no list is empty. Below the paths in `free`, such
    /// as `event.payload`, every name is allowed. `sparse` are samples in which as little is known as can be.
    #[must_use]
    pub fn new(full: &serde_json::Value, sparse: &[serde_json::Value], free: &[&str]) -> Self {
        let shape = shape_of(full, "", free);
        let whole = Context(fill(full, &shape));
        Self { shape, full: Context::of(full), whole, sparse: sparse.iter().map(Context::of).collect() }
    }

    /// Follows the steps of a name; says where it leaves what is known, and why.
    pub(super) fn resolve(&self, steps: &[(Step<'_>, usize)]) -> Option<(usize, String)> {
        let root = &self.shape;
        let (mut shape, mut path) = (root, String::new());
        for (step, offset) in steps {
            let next = match (shape, step) {
                // The last: a text has parts.
                (Shape::Free, _)
                | (Shape::Members(_), Step::Computed)
                | (Shape::Plain, Step::Part | Step::Element | Step::Computed) => return None,
                (Shape::List(_), Step::Part) => continue,
                (Shape::List(item), Step::Element | Step::Computed) => {
                    path.push_str("[0]");
                    item
                }
                (Shape::Members(members), Step::Member(name)) => {
                    let Some(next) = members.get(*name) else {
                        return Some((*offset, unknown_name(root, members, &path, name)));
                    };
                    path = join(&path, name);
                    next
                }
                (Shape::List(_), Step::Member(name)) => {
                    let hint = format!("its elements are `{path}[0]`, its length is `{path} | length`");
                    return Some((*offset, format!("`{path}` is a list and has no `{name}`; {hint}")));
                }
                (Shape::Plain, Step::Member(name)) => {
                    return Some((*offset, format!("`{path}` is one value and has no `{name}`")));
                }
                (Shape::Members(_), Step::Element | Step::Part) => {
                    return Some((*offset, format!("`{path}` is not a list: name one of its members")));
                }
            };
            shape = next;
        }
        None
    }

    /// Whether a name goes below what is free.
    pub(super) fn is_free(&self, steps: &[(Step<'_>, usize)]) -> bool {
        let mut shape = &self.shape;
        for (step, _) in steps {
            shape = match (shape, step) {
                (Shape::Members(members), Step::Member(name)) => match members.get(*name) {
                    Some(next) => next,
                    None => return false,
                },
                (Shape::List(item), Step::Element | Step::Computed) => item,
                (Shape::Members(_), Step::Computed) => return true,
                _ => break,
            };
        }
        matches!(shape, Shape::Free)
    }
}

fn fill(sample: &serde_json::Value, shape: &Shape) -> Data {
    match shape {
        Shape::Free => Data::from_object(Anything),
        Shape::Plain => Data::from(Serde(sample)),
        Shape::List(item) => {
            let items: Vec<Data> = sample.as_array().into_iter().flatten().map(|each| fill(each, item)).collect();
            Data::from(items)
        }
        Shape::Members(members) => {
            let members: BTreeMap<String, Data> =
                members.iter().map(|(name, shape)| (name.clone(), fill(&sample[name], shape))).collect();
            Data::from(members)
        }
    }
}

/// A value that has every member.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _: &Data) -> Option<Data> {
        Some(Data::from_object(Self))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn shape_of(sample: &serde_json::Value, path: &str, free: &[&str]) -> Shape {
    use serde_json::Value;
    if free.contains(&path) {
        return Shape::Free;
    }
    match sample {
        Value::Object(members) => {
            Shape::Members(members.iter().map(|(name, value)| (name.clone(), shape_of(value, &join(path, name), free))).collect())
        }
        // An empty list tells nothing about its elements.
        Value::Array(items) => {
            Shape::List(Box::new(items.first().map_or(Shape::Free, |item| shape_of(item, &format!("{path}[0]"), free))))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Shape::Plain,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unknown_name(root: &Shape, members: &BTreeMap<String, Shape>, path: &str, name: &str) -> String {
    let mut elsewhere = Vec::new();
    paths_ending(root, "", name, &mut elsewhere);
    // The same word somewhere else is a better guess than a similar word here.
    let near = elsewhere.into_iter().min_by_key(|path| (path.matches('.').count(), path.clone())).or_else(|| {
        let here: Vec<_> = members.keys().map(String::as_str).collect();
        nearest(name, here).map(|near| join(path, near))
    });
    let written = join(path, name);
    if let Some(near) = near {
        return format!("`{written}` is not known; did you mean `{near}`?");
    }
    let known: Vec<_> = members.keys().map(|member| format!("`{}`", join(path, member))).collect();
    format!("`{written}` is not known; known are {}", known.join(", "))
}

/// Every path whose last word is `name`.
fn paths_ending(shape: &Shape, path: &str, name: &str, out: &mut Vec<String>) {
    match shape {
        Shape::Members(members) => {
            for (member, below) in members {
                let path = join(path, member);
                paths_ending(below, &path, name, out);
                if member == name {
                    out.push(path);
                }
            }
        }
        Shape::List(item) => paths_ending(item, &format!("{path}[0]"), name, out),
        Shape::Free | Shape::Plain => {}
    }
}

/// The name among `names` that `written` was most likely meant to be; none if nothing is like it.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let likeness = |name: &str| strsim::jaro_winkler(&written.to_lowercase(), &name.to_lowercase());
    let (name, likeness) =
        names.into_iter().map(|name| (name, likeness(name))).max_by(|(_, one), (_, two)| one.total_cmp(two))?;
    (likeness >= ALIKE).then_some(name)
}
