//! A span: what was done, from when to when, and for which event.
//!
//! What must hold: it ends when the last who holds it lets go, so that one whose work was given up midway is told all the same; and text
//! in it is bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::Link;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Message, Status};

use tokio::task::futures::TaskLocalFuture;
use uuid::Uuid;

use super::{Shared, new_id};
use crate::event::hex;

/// The most characters of a text.
const MAX_TEXT: usize = 256;
/// The flag of a trace that is taken.
const TAKEN: u32 = 1;

/// Where a span stands: the id of its trace, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

impl Context {
    /// Reads the header `traceparent` of the W3C. Of a version to come, what is known of it.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = bytes::<1>(version)? != [0xff] && (version != "00" || parts.next().is_none());
        let (trace, span, _flags) = (bytes::<16>(trace)?, bytes::<8>(span)?, bytes::<1>(flags)?);
        (known && trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }
}

/// Lower-case hexadecimal of exactly so many bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub struct Value(any_value::Value);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(any_value::Value::StringValue(text.chars().take(MAX_TEXT).collect()))
    }
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self(any_value::Value::StringValue(id.to_string()))
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self(any_value::Value::BoolValue(yes))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self(any_value::Value::IntValue(number.into()))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self(any_value::Value::IntValue(number.into()))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(any_value::Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<Vec<&str>> for Value {
    fn from(texts: Vec<&str>) -> Self {
        let values = texts.into_iter().map(|text| AnyValue { value: Some(Self::from(text).0) }).collect();
        Self(any_value::Value::ArrayValue(ArrayValue { values }))
    }
}

/// An attribute.
pub(super) fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value.into().0) }), ..KeyValue::default() }
}

/// A span that has begun, or nothing; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    context: Context,
    taken: bool,
    message: Mutex<Message>,
    /// Those of other events that say the same.
    others: Vec<Span>,
}

impl Span {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        context: Context,
        parent: Option<[u8; 8]>,
        name: &'static str,
        kind: Kind,
        taken: bool,
    ) -> Self {
        let message = if taken {
            Message {
                trace_id: context.trace.to_vec(),
                span_id: context.span.to_vec(),
                parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
                flags: TAKEN,
                name: name.to_owned(),
                kind: kind.into(),
                start_time_unix_nano: shared.now(),
                ..Message::default()
            }
        } else {
            Message::default()
        };
        let (shared, message) = (Arc::clone(shared), Mutex::new(message));
        Self(Some(Arc::new(Open { shared, context, taken, message, others: Vec::new() })))
    }

    /// The first of `spans`, which speaks for all of them; each is nobody else's.
    pub(super) fn of_many(spans: Vec<Self>) -> Self {
        let mut spans = spans.into_iter();
        let Some(mut first) = spans.next() else { return Self::default() };
        let others: Vec<_> = spans.collect();
        if let Some(context) = first.context() {
            for other in &others {
                other.link(context);
            }
            for other in others.iter().filter_map(Self::context) {
                first.link(other);
            }
        }
        if let Some(open) = first.0.as_mut().and_then(Arc::get_mut) {
            open.others = others;
        }
        first
    }

    fn open(&self) -> Option<&Open> {
        self.0.as_deref().filter(|open| open.taken)
    }

    /// Whether it will be told: something is traced, and its trace is taken.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.open().is_some()
    }

    /// Where it stands.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.open().map(|open| open.context)
    }

    /// What a request says that is made for it, in the form of the W3C; `None` where nothing is traced.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let open = self.0.as_deref()?;
        Some(format!("00-{}-{}-{:02x}", hex(&open.context.trace), hex(&open.context.span), u8::from(open.taken)))
    }

    /// Changes it, and those that say the same.
    fn change(&self, change: impl Fn(&mut Message)) {
        if let Some(open) = self.open() {
            change(&mut open.message());
            open.others.iter().filter_map(Self::open).for_each(|other| change(&mut other.message()));
        }
    }

    /// Says of it that `key` is `value`, in place of what that was.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if !self.is_taken() {
            return;
        }
        let attribute = attribute(key, value);
        self.change(|message| match message.attributes.iter_mut().find(|known| known.key == key) {
            Some(known) => *known = attribute.clone(),
            None => message.attributes.push(attribute.clone()),
        });
    }

    /// The same, where there is a value.
    pub fn set_some<V: Into<Value>>(&self, key: &'static str, value: Option<V>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// How it ended, in a word of ours.
    pub fn outcome(&self, outcome: &'static str) {
        self.set("taskhook.outcome", outcome);
    }

    /// It failed, for a reason in a word of ours.
    pub fn fail(&self, kind: &str) {
        self.set("error.type", kind);
        self.change(|message| message.status = Some(Status { code: StatusCode::Error.into(), ..Status::default() }));
    }

    /// Its event was replayed so often; 0 is not at all.
    pub fn replayed(&self, replay: u32) {
        if replay > 0 {
            self.set("taskhook.replay", replay);
        }
    }

    /// It has to do with another span.
    pub fn link(&self, to: Context) {
        self.change(|message| {
            let link = Link { trace_id: to.trace.to_vec(), span_id: to.span.to_vec(), ..Link::default() };
            message.links.push(link);
        });
    }

    /// It began at this time, which [`super::Tracer::now`] told.
    pub fn began_at(&self, begun: u64) {
        self.change(|message| message.start_time_unix_nano = begun);
    }

    /// A span of what is done for it.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind) -> Self {
        let Some(open) = self.open() else { return Self::default() };
        let context = Context { trace: open.context.trace, span: new_id() };
        Self::begin(&open.shared, context, Some(open.context.span), name, kind, true)
    }
}

impl Open {
    /// A panic elsewhere leaves it whole: each change is one assignment.
    fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.taken {
            let mut message = std::mem::take(&mut *self.message());
            // A clock that was set back makes no span shorter than nothing.
            message.end_time_unix_nano = self.shared.now().max(message.start_time_unix_nano);
            self.shared.queue.push(message, self.shared.clock.elapsed());
        }
    }
}

tokio::task_local! {
    static HERE: Span;
}

/// Does `work` for `span`: [`here`] is then that.
pub fn within<F: Future>(span: Span, work: F) -> TaskLocalFuture<Span, F> {
    HERE.scope(span, work)
}

/// The span of what is being done; nothing outside of any.
#[must_use]
pub fn here() -> Span {
    HERE.try_with(Clone::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_strictly() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(good).unwrap();
        assert_eq!((hex(&context.trace), hex(&context.span)), (good[3..35].to_owned(), good[36..52].to_owned()));
        assert_eq!(Context::parse(&format!(" {} ", good.replacen("00", "01", 1) + "-what-comes")), Some(context));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031€-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn nothing_is_nothing() {
        let span = Span::default();
        span.set("x", 1_u32);
        span.fail("x");
        assert_eq!((span.is_taken(), span.context(), span.traceparent()), (false, None, None));
        assert!(!span.child("x", Kind::Client).is_taken() && !here().is_taken());
        assert!(!within(span, async { here() }).await.is_taken());
    }
}
