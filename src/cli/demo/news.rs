//! The story: what happened, a line each, in the order in which it began.
//!
//! News come from several sides, each a moment after the fact: the answer to a request is known after what it set off. So a line
//! waits a moment before it is written, and lines are written by the time at which they began.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;

use super::check::{Check, Verdict};
use super::happening::{self, called, sent};
use super::stage::Stage;
use crate::clock::{self, Clock};
use crate::simulator::Happening;

/// How long a line waits for what began before it.
const WINDOW: Duration = Duration::from_millis(100);
/// How often is looked whether one has waited long enough.
const TICK: Duration = Duration::from_millis(20);
/// How many titles are remembered.
const TITLES: usize = 1_000;
/// Where long texts are broken.
const WIDTH: usize = 104;
/// How wide the columns are: who, what, about which task.
const COLUMNS: [usize; 3] = [10, 15, 23];
/// Where the second column begins.
const INDENT: usize = 11 + COLUMNS[0] + 2;

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// Who sends, by name.
    Sender(&'static str),
    Taskhook,
    App,
    You,
    Forger,
    Proxy,
    /// A program that tries the webhook out.
    Script,
}

impl Actor {
    /// The name, and its colour.
    fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Sender(name) => (name, "36"),
            Self::Taskhook => ("taskhook", "32"),
            Self::App => ("your app", "35"),
            Self::You => ("you", "34"),
            Self::Forger => ("a forger", "31"),
            Self::Proxy => ("a proxy", "33"),
            Self::Script => ("a script", "33"),
        }
    }
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As usual.
    Plain,
    /// As it should, and worth a mark.
    Good,
    /// Refused, as it should be.
    Refused,
    /// As it should not.
    Bad,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    actor: Actor,
    what: String,
    about: String,
    /// Whether `about` is a task's id, to be shown as its title.
    is_task: bool,
    pub(super) tone: Tone,
    pub(super) outcome: String,
    more: String,
}

impl Line {
    pub(super) fn new(at: Timestamp, actor: Actor, what: &str, about: &str, tone: Tone, outcome: String) -> Self {
        let (what, about) = (what.to_owned(), about.to_owned());
        Self { at, actor, what, about, is_task: false, tone, outcome, more: String::new() }
    }

    /// A line about the task `task_id`.
    pub(super) fn of_task(at: Timestamp, actor: Actor, what: &str, task_id: &str, tone: Tone, outcome: String) -> Self {
        Self { is_task: true, ..Self::new(at, actor, what, task_id, tone, outcome) }
    }

    /// The same with a longer text below it.
    pub(super) fn more(self, more: String) -> Self {
        Self { more, ..self }
    }
}

/// What the story is told.
#[derive(Debug)]
pub(super) enum News {
    Title(String, String),
    Line(Line),
}

/// Where news go.
#[derive(Clone, Debug)]
pub(super) struct Sender(mpsc::UnboundedSender<News>);

/// A way for news. It is emptied for as long as anything plays.
pub(super) fn channel() -> (Sender, mpsc::UnboundedReceiver<News>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender(sender), receiver)
}

impl Sender {
    /// Tells a task's title.
    pub(super) fn title(&self, task_id: &str, title: &str) {
        // Nobody listens any more at the end.
        let _ = self.0.send(News::Title(task_id.to_owned(), title.to_owned()));
    }

    /// Tells something that happened.
    pub(super) fn line(&self, line: Line) {
        let _ = self.0.send(News::Line(line));
    }
}

/// Colour, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn new(colour: bool) -> Self {
        Self(colour)
    }

    /// `text` in an SGR colour.
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes the story.
pub(super) struct Teller<'a> {
    out: &'a mut dyn Write,
    paint: Paint,
    clock: Clock,
    began: Timestamp,
    /// Who sends, by name.
    sender: &'static str,
    news: mpsc::UnboundedReceiver<News>,
    happenings: broadcast::Receiver<Happening>,
    titles: HashMap<String, String>,
    waiting: Vec<Line>,
    verdict: Verdict,
}

impl<'a> Teller<'a> {
    pub(super) fn new(stage: &Stage, news: mpsc::UnboundedReceiver<News>, paint: Paint, out: &'a mut dyn Write) -> Self {
        Self {
            happenings: stage.cast.happenings(),
            sender: stage.cast.name(),
            began: stage.clock.now(),
            clock: stage.clock.clone(),
            titles: HashMap::new(),
            waiting: Vec::new(),
            verdict: Verdict::default(),
            out,
            paint,
            news,
        }
    }

    /// Adds the checks of a round to the sums.
    pub(super) fn judged(&mut self, checks: &[Check]) {
        self.verdict.add(checks);
    }

    /// The sums.
    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Does `doing`, and tells what happens meanwhile.
    pub(super) async fn during<T>(&mut self, doing: impl Future<Output = T>) -> io::Result<T> {
        let mut doing = pin!(doing);
        let clock = self.clock.clone();
        loop {
            tokio::select! {
                done = &mut doing => {
                    // What it set off is still on its way here.
                    clock.sleep(WINDOW / 2).await;
                    while let Ok(happening) = self.happenings.try_recv() {
                        self.happened(happening);
                    }
                    while let Ok(news) = self.news.try_recv() {
                        self.hear(news);
                    }
                    self.write_until(Timestamp::MAX)?;
                    return Ok(done);
                }
                happening = self.happenings.recv() => match happening {
                    Ok(happening) => self.happened(happening),
                    Err(RecvError::Lagged(_) | RecvError::Closed) => {}
                },
                Some(news) = self.news.recv() => self.hear(news),
                () = clock.sleep(TICK) => {}
            }
            let now = clock.now();
            self.write_until(now.checked_sub(WINDOW).unwrap_or(now))?;
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Title(task_id, title) => {
                if self.titles.len() >= TITLES {
                    self.titles.clear();
                }
                self.titles.insert(task_id, title);
            }
            News::Line(line) => self.waiting.push(line),
        }
    }

    fn happened(&mut self, happening: Happening) {
        let now = self.clock.now();
        let line = match happening {
            Happening::Sent(delivery) => Some(sent(self.sender, &delivery, now)),
            Happening::Called(call) => called(self.sender, &call, now),
        };
        self.waiting.extend(line);
    }

    /// Writes what began before `until`, in order.
    fn write_until(&mut self, until: Timestamp) -> io::Result<()> {
        let (mut due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|line| line.at <= until);
        self.waiting = waiting;
        due.sort_by_key(|line| line.at);
        due.iter().try_for_each(|line| self.write(line))
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let title = self.titles.get(&line.about).filter(|_| line.is_task);
        let about = title.unwrap_or(&line.about);
        let (name, colour) = line.actor.shown();
        let [who, what, which] = [name, &line.what, about.as_str()].map(printable);
        let (mark, tone) = match line.tone {
            Tone::Plain => ("", ""),
            Tone::Good => ("✓ ", "32"),
            Tone::Refused => ("✗ ", "33"),
            Tone::Bad => ("✗ ", "31"),
        };
        let outcome = format!("{mark}{}", printable(&line.outcome));
        let text = format!(
            "{}  {} {} {} {}",
            self.paint.with("2", &format!("{:>7.2} s", clock::since(self.began, line.at).as_secs_f64())),
            self.paint.with(colour, &fit(&who, COLUMNS[0])),
            fit(&what, COLUMNS[1]),
            self.paint.with("1", &fit(&which, COLUMNS[2])),
            if tone.is_empty() { outcome } else { self.paint.with(tone, &outcome) },
        );
        writeln!(self.out, "{}", text.trim_end())?;
        for piece in wrap(&printable(&line.more), WIDTH - INDENT) {
            writeln!(self.out, "{:INDENT$}{}", "", self.paint.with("2", &piece))?;
        }
        self.out.flush()
    }

    /// What runs where.
    pub(super) fn introduce(&mut self, stage: &Stage, once: bool) -> io::Result<()> {
        let events = format!("curl http://{}/api/v1/events", stage.admin);
        let simulated = format!("{}, simulated", stage.cast.name());
        let parts = [
            (simulated.as_str(), stage.cast.base_url(), "has tasks, sends webhooks, answers API calls"),
            ("taskhook receives", stage.webhook.clone(), "verifies, keeps, then answers 200"),
            ("taskhook admin", format!("http://{}", stage.admin), if once { "" } else { events.as_str() }),
            ("your application", stage.application.url(), "gets what stops, signed"),
        ];
        writeln!(self.out, "taskhook demo: three programs in this one process. No account; nothing leaves this machine.\n")?;
        let wide = parts.iter().map(|(_, url, _)| url.len()).max().unwrap_or(0);
        for (name, url, does) in parts {
            let line = format!("  {name:<22}{}  {}", self.paint.with("1", &fit(&url, wide)), self.paint.with("2", does));
            writeln!(self.out, "{}", line.trim_end())?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A table of what was expected and seen.
    pub(super) fn table(&mut self, checks: &[Check]) -> io::Result<()> {
        writeln!(self.out, "\n  {}", self.paint.with("2", "              expected   seen"))?;
        for check in checks {
            let (mark, colour) = if check.is_right() { ("✓", "32") } else { ("✗", "31") };
            let mut line = format!("  {} {:<11}", self.paint.with(colour, mark), check.what);
            let _ = write!(line, "{:>9}{:>7}   {}", check.expected, check.seen, self.paint.with("2", check.means));
            writeln!(self.out, "{line}")?;
            if let Some(wrong) = &check.wrong {
                writeln!(self.out, "{:34}{}", "", self.paint.with("31", &printable(wrong)))?;
            }
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A later round, in a line.
    pub(super) fn round(&mut self, number: u32, checks: &[Check]) -> io::Result<()> {
        let counts: Vec<_> = checks.iter().map(|check| format!("{} {}", check.seen, check.what)).collect();
        let (mark, colour) = if checks.iter().all(Check::is_right) { ("✓", "32") } else { ("✗", "31") };
        writeln!(self.out, "{} round {number}: {}\n", self.paint.with(colour, mark), counts.join(", "))?;
        self.out.flush()
    }

    /// What to try while it goes on.
    pub(super) fn invite(&mut self, stage: &Stage) -> io::Result<()> {
        let url = format!("http://{}", stage.admin);
        writeln!(self.out, "It goes on until Ctrl-C. Meanwhile, in another terminal:\n")?;
        for command in
            [format!("taskhook events list --url {url}"), format!("curl {url}/api/v1/deliveries"), happening::create(stage)]
        {
            writeln!(self.out, "  {}", self.paint.with("1", &command))?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// How it ended.
    pub(super) fn farewell(&mut self, verdict: &Verdict) -> io::Result<()> {
        if verdict.rounds() > 0 && verdict.reasons().is_empty() {
            let took = clock::since(self.began, self.clock.now()).as_secs_f64();
            if verdict.rounds() > 1 {
                write!(self.out, "{} rounds. ", verdict.rounds())?;
            }
            let gone = "Its store was in a temporary folder, which goes with it.";
            writeln!(self.out, "{} in {took:.1} s. {gone}", self.paint.with("32", "All ended as it should"))?;
        }
        self.out.flush()
    }
}

/// `text`, as wide as `width`.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Other people's text stays on its line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `text` in lines of at most `width`, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_width() {
        assert_eq!(fit("ab", 4), "ab  ");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), Vec::<String>::new());
    }

    #[test]
    fn there_is_colour_only_where_it_is_wanted() {
        assert_eq!(Paint::new(true).with("32", "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint::new(false).with("32", "x"), "x");
    }
}
