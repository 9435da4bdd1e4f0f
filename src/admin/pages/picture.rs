//! Small pictures, drawn as SVG without a script: a task's timeline, and curves over time.
//!
//! What must hold: each says in words what it shows, for who does not see it; and it takes its colours from the style sheet.

use std::fmt::Write as _;

use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::span;

/// The size of a timeline: its width and the height of a row, in units of the picture.
const WIDTH: f64 = 800.0;
const ROW: f64 = 22.0;
/// Where its rows begin, behind their names.
const LEFT: f64 = 96.0;

/// The rows of a timeline, and the kinds of moments on each.
const ROWS: [(&str, &[&str]); 4] = [
    ("task", &["created", "expected", "stop", "question", "answer"]),
    ("events", &["event"]),
    ("fetches", &["fetched", "file"]),
    ("deliveries", &["delivery"]),
];

/// Moments, each with its kind and its time, on a line from the first to the last.
pub(super) fn timeline(moments: &[(&str, Timestamp)]) -> Markup {
    let (Some(first), Some(last)) = (moments.iter().map(|(_, at)| *at).min(), moments.iter().map(|(_, at)| *at).max()) else {
        return html! {};
    };
    let whole = (last.as_millisecond() - first.as_millisecond()).max(1) as f64;
    let x = |at: Timestamp| LEFT + 8.0 + (at.as_millisecond() - first.as_millisecond()) as f64 / whole * (WIDTH - LEFT - 24.0);
    let height = ROW * ROWS.len() as f64 + 20.0;
    let lasted = span((last.as_second() - first.as_second()).max(0));
    html! {
        svg .timeline viewBox={ "0 0 " (WIDTH) " " (height) } role="img" aria-label={ "Timeline over " (lasted) ": " (moments.len()) " moments, listed below" } {
            @for (index, (name, kinds)) in ROWS.iter().enumerate() {
                @let y = ROW * index as f64 + 14.0;
                text x="0" y={ (y + 4.0) } { (name) }
                line x1=(LEFT) x2={ (WIDTH - 8.0) } y1=(y) y2=(y) {}
                @for (kind, at) in moments.iter().filter(|(kind, _)| kinds.contains(kind)) {
                    circle class=(kind) cx={ (format!("{:.1}", x(*at))) } cy=(y) r="5" { title { (kind) ", " (span(at.as_second() - first.as_second())) " after the first" } }
                }
            }
            text x=(LEFT) y={ (height - 2.0) } { "0" }
            text x={ (WIDTH - 8.0) } y={ (height - 2.0) } text-anchor="end" { (lasted) }
        }
    }
}

/// A curve: its name, its newest and its highest value in words, and its points; where nothing is known, it has a gap.
pub(super) fn curve(name: &str, newest: &str, peak: &str, points: &[Option<f64>]) -> Markup {
    const HEIGHT: f64 = 48.0;
    let most = points.iter().flatten().copied().fold(0.0_f64, f64::max);
    let step = 300.0 / (points.len().max(2) - 1) as f64;
    let y = |value: f64| HEIGHT - 2.0 - if most > 0.0 { value / most * (HEIGHT - 6.0) } else { 0.0 };
    let mut paths: Vec<String> = Vec::new();
    let mut open = false;
    for (index, point) in points.iter().enumerate() {
        let Some(value) = point else {
            open = false;
            continue;
        };
        let at = format!("{:.1} {:.1}", step * index as f64, y(*value));
        match paths.last_mut().filter(|_| open) {
            Some(path) => {
                let _ = write!(path, " L{at}");
            }
            // A point alone is seen as a dot, by the round end of its line.
            None => paths.push(format!("M{at} h0.01")),
        }
        open = true;
    }
    html! {
        figure .curve {
            figcaption { span { (name) } strong { (newest) } }
            svg viewBox={ "0 0 300 " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (name) ": now " (newest) ", at most " (peak) } {
                @for path in &paths { path d=(path) vector-effect="non-scaling-stroke" {} }
            }
            small { "at most " (peak) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_a_gap_where_nothing_is_known() {
        let shown = curve("Events", "3", "2", &[Some(0.0), Some(2.0), None, Some(1.0)]).into_string();
        assert_eq!(shown.matches("<path").count(), 2);
        assert!(shown.contains(r#"d="M0.0 46.0 h0.01 L100.0 4.0""#), "{shown}");
        assert!(shown.contains("at most 2"), "{shown}");
        for points in [&[][..], &[None], &[Some(0.0)], &[Some(f64::MAX), Some(0.0)]] {
            assert!(!curve("Events", "–", "0", points).into_string().contains("NaN"), "{points:?}");
        }
    }

    #[test]
    fn a_timeline_of_one_moment_is_one() {
        assert_eq!(timeline(&[]).into_string(), "");
        let shown = timeline(&[("event", Timestamp::UNIX_EPOCH)]).into_string();
        assert!(shown.contains("1 moments") && !shown.contains("NaN"), "{shown}");
    }
}
