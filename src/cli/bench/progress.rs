//! How far a bench has come, on stderr: a bar on a terminal, lines elsewhere.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar moves.
const EVERY: Duration = Duration::from_millis(200);

/// What is done so far, counted by whoever does it; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells it.
pub(super) struct Progress<'a> {
    err: &'a mut dyn Write,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(err: &'a mut dyn Write, terminal: bool) -> Self {
        Self { err, terminal, bar: None }
    }

    /// A line that stays.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        self.clear();
        writeln!(self.err, "{line}")
    }

    /// Does `doing`, and shows meanwhile how much of `total` was counted. Away from a terminal there is only the line.
    pub(super) async fn during<T>(&mut self, what: &str, total: u64, done: &Counter, doing: impl Future<Output = T>) -> T {
        if !self.terminal {
            // Whether anybody hears of it changes nothing.
            let _ = self.say(&format!("{what} …"));
            return doing.await;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("the template is well-formed");
        bar.set_style(style);
        bar.set_message(what.to_owned());
        self.clear();
        self.bar = Some(bar.clone());
        let ticking = async {
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                ticks.tick().await;
                bar.set_position(done.count().min(total));
            }
        };
        let ended = tokio::select! {
            ended = doing => ended,
            () = ticking => unreachable!("ticking does not end"),
        };
        self.clear();
        ended
    }

    /// Takes the bar away.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
