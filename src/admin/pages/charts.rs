//! How it goes, as curves over an hour, a day or a month.
//!
//! They are drawn from the samples that upkeep takes of the store. A time of which there is none has a gap: nobody was there to look.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::Wrong;
use super::layout::link;
use super::picture::curve;
use crate::admin::api::Admin;
use crate::clock;
use crate::store::{Sample, Span};
use crate::task::plain;

/// What can be looked back at: its word, how long it is, which samples it is drawn from, and how long each point stands for.
const OVER: [(&str, Duration, Span, Duration); 3] = [
    ("hour", Duration::from_hours(1), Span::Minute, Duration::from_mins(1)),
    ("day", Duration::from_hours(24), Span::Minute, Duration::from_mins(15)),
    ("month", Duration::from_hours(30 * 24), Span::Hour, Duration::from_hours(6)),
];

/// A point: what the samples in its time come to.
type Point = Option<f64>;

/// A curve: its name, what of a sample it shows, how several come to one, and what its newest value is called.
struct Curve {
    name: &'static str,
    value: fn(&Sample) -> Point,
    joins: fn(f64, f64) -> f64,
    told: fn(f64) -> String,
}

const CURVES: [Curve; 6] = [
    Curve { name: "Events", value: |sample| Some(sample.events as f64), joins: |one, more| one + more, told: whole },
    Curve { name: "Delivered", value: |sample| Some(sample.delivered as f64), joins: |one, more| one + more, told: whole },
    Curve { name: "Failed attempts", value: |sample| Some(sample.failed as f64), joins: |one, more| one + more, told: whole },
    Curve {
        name: "Until delivered (95 %)",
        value: |sample| sample.p95_ms.map(|ms| ms as f64),
        joins: f64::max,
        told: milliseconds,
    },
    Curve { name: "Backlog", value: |sample| Some(sample.backlog as f64), joins: f64::max, told: whole },
    Curve { name: "Credits", value: |sample| Some(sample.credits), joins: |one, more| one + more, told: whole },
];

fn whole(value: f64) -> String {
    plain((value * 10.0).round() / 10.0).to_string()
}

fn milliseconds(value: f64) -> String {
    if value < 1000.0 { format!("{value:.0} ms") } else { format!("{:.1} s", value / 1000.0) }
}

/// The curves, and links to other lengths of time.
pub(super) async fn charts(admin: &Admin, over: Option<&str>, now: Timestamp) -> Result<Markup, Wrong> {
    let (word, length, span, step) = *OVER.iter().find(|(word, ..)| Some(*word) == over).unwrap_or(&OVER[0]);
    let since = clock::before(now, length);
    let samples = admin.store.series(span, since).await?;
    Ok(html! {
        section {
            h2 { "How it goes" }
            p .acts {
                @for (other, ..) in OVER {
                    a href=(link("/", [("over", Some(other))])) aria-current=[(other == word).then_some("true")] { "The last " (other) }
                }
            }
            @if samples.is_empty() { p .empty { "Nothing was sampled in this time yet: the first minute makes the first point." } }
            @else { div .curves { @for one in &CURVES { (draw(one, &samples, since, length, step)) } } }
        }
    })
}

fn draw(one: &Curve, samples: &[Sample], since: Timestamp, length: Duration, step: Duration) -> Markup {
    let points = points(one, samples, since, length, step);
    let newest = points.iter().flatten().last().map_or_else(|| "–".to_owned(), |value| (one.told)(*value));
    let most = points.iter().flatten().copied().fold(0.0_f64, f64::max);
    curve(one.name, &newest, &(one.told)(most), &points)
}

/// The points of a curve, the oldest first.
fn points(one: &Curve, samples: &[Sample], since: Timestamp, length: Duration, step: Duration) -> Vec<Point> {
    let count = usize::try_from(length.as_secs() / step.as_secs()).unwrap_or(1);
    let mut points = vec![None; count];
    for sample in samples {
        let behind = u64::try_from(sample.at.as_second() - since.as_second()).unwrap_or(0) / step.as_secs();
        let place = usize::try_from(behind).ok().and_then(|place| points.get_mut(place));
        if let (Some(place), Some(value)) = (place, (one.value)(sample)) {
            *place = Some(place.map_or(value, |known| (one.joins)(known, value)));
        }
    }
    points
}
