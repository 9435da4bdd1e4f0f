//! A collector: a recorder, whose bodies are read as OTLP.

use std::collections::BTreeMap;
use std::ops::Deref;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use taskhook::event::hex;

use crate::harness::Recorder;

/// The section that has spans sent to `collector`, to which `keys` may add.
pub(super) fn section(collector: &Recorder, keys: &str) -> String {
    let address = collector.url().replace("/hook", "");
    format!("[trace]\nendpoint = \"{address}\"\n{keys}\n")
}

/// The id of the trace of the event with this id.
pub(super) fn trace_id(event: &str) -> String {
    event.replace('-', "")
}

/// A span, as it was told.
#[derive(Clone, Debug)]
pub(super) struct Told(Span);

impl Deref for Told {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.0
    }
}

impl Told {
    pub(super) fn trace_id(&self) -> String {
        hex(&self.0.trace_id)
    }

    pub(super) fn id(&self) -> String {
        hex(&self.0.span_id)
    }

    /// The attribute `key`, if it is there.
    pub(super) fn find(&self, key: &str) -> Option<&Value> {
        value(&self.0.attributes, key)
    }

    /// The same, which must be there and text.
    pub(super) fn text(&self, key: &str) -> &str {
        match self.find(key) {
            Some(Value::StringValue(text)) => text,
            other => panic!("`{key}` is {other:?} in {self:?}"),
        }
    }

    /// The same, which must be a number.
    pub(super) fn number(&self, key: &str) -> i64 {
        match self.find(key) {
            Some(Value::IntValue(number)) => *number,
            other => panic!("`{key}` is {other:?} in {self:?}"),
        }
    }

    /// The traces and spans that it links to.
    pub(super) fn links(&self) -> Vec<(String, String)> {
        self.0.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next()?.value.as_ref()?.value.as_ref();
    assert!(found.next().is_none(), "`{key}` is there twice");
    value
}

/// What came so far, one for each request.
fn requests(collector: &Recorder) -> Vec<ResourceSpans> {
    let read = |body| ExportTraceServiceRequest::decode(body).expect("OTLP").resource_spans;
    let one = |all: Vec<_>| <[ResourceSpans; 1]>::try_from(all).expect("one program").into_iter();
    collector.recorded().into_iter().flat_map(|request| one(read(request.body))).collect()
}

/// The spans of each request so far.
pub(super) fn batches(collector: &Recorder) -> Vec<Vec<Told>> {
    let of = |one: ResourceSpans| one.scope_spans.into_iter().flat_map(|scope| scope.spans).map(Told).collect();
    requests(collector).into_iter().map(of).collect()
}

/// All spans so far; one that was sent again is one.
pub(super) fn spans(collector: &Recorder) -> Vec<Told> {
    let mut spans: Vec<Told> = Vec::new();
    for span in batches(collector).into_iter().flatten() {
        if !spans.iter().any(|known| known.span_id == span.span_id) {
            spans.push(span);
        }
    }
    spans
}

/// What is said of the program that sends.
pub(super) fn resource(collector: &Recorder) -> BTreeMap<String, String> {
    let resource = requests(collector).remove(0).resource.expect("a resource");
    let texts = resource.attributes.into_iter().map(|attribute| match attribute.value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => (attribute.key, text),
        other => panic!("{other:?}"),
    });
    texts.collect()
}
