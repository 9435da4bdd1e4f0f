//! The span of a request: the first of its event's trace.
//!
//! A request that is not believed has none: whoever floods us is not to fill traces. One that repeats an event stands in that event's
//! trace, below the request that brought it first.

use axum::http::HeaderMap;
use uuid::Uuid;

use super::problem::Problem;
use crate::event::{NewEvent, Verification};
use crate::store::model::Appended;
use crate::telemetry::trace::{Context, Kind, Span, Tracer};

/// What is said of a request that was believed.
pub(super) struct Arrival {
    id: Uuid,
    source: String,
    kind: String,
    task_id: Option<String>,
    verification: Verification,
    /// When it began to come.
    begun: u64,
    /// What its sender does at it, in a trace of its own: nobody proved that, and it is not ours to go on with.
    theirs: Option<Context>,
}

impl Arrival {
    pub(super) fn of(event: &NewEvent, headers: &HeaderMap, begun: u64) -> Self {
        let mut theirs = headers.get_all("traceparent").into_iter();
        // Two say nothing.
        let theirs = theirs.next().filter(|_| theirs.next().is_none());
        Self {
            id: event.id,
            source: event.source.clone(),
            kind: event.kind.clone(),
            task_id: event.task_id.clone(),
            verification: event.verification,
            begun,
            theirs: theirs.and_then(|header| Context::parse(header.to_str().ok()?)),
        }
    }

    /// Ends its span: what became of it is known.
    pub(super) fn tell(&self, tracer: &Tracer, appended: &Result<Appended, Problem>) {
        let (span, outcome) = match appended {
            Ok(Appended::New(_)) => (self.root(tracer), "accepted"),
            Ok(Appended::Collision(_)) => (self.root(tracer), "collision"),
            Ok(Appended::Duplicate(first)) => (tracer.span(*first, NAME, Kind::Server), "duplicate"),
            Err(_) => (self.root(tracer), "not_kept"),
        };
        span.began_at(self.begun);
        span.outcome(outcome);
        span.set("taskhook.source", self.source.as_str());
        span.set("taskhook.event.type", self.kind.as_str());
        span.set("taskhook.event.id", appended.as_ref().map_or(self.id, |appended| appended.id()));
        span.set_some("taskhook.task.id", self.task_id.as_deref());
        span.set("taskhook.verification", self.verification.as_str());
        if let Some(theirs) = self.theirs {
            span.link(theirs);
        }
        if let Err(problem) = appended {
            span.set("http.response.status_code", problem.status().as_u16());
            span.fail(problem.code());
        }
    }

    fn root(&self, tracer: &Tracer) -> Span {
        tracer.root(self.id, NAME, Kind::Server)
    }
}

const NAME: &str = "receive";
