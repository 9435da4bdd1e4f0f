//! `taskhook demo`: a simulated provider, the receiver, the worker and an application that gets the results, in one process.
//!
//! What must hold: nothing of the user's is read or touched: no environment, no `.env`, no configuration file, no account. All of
//! it listens on loopback, and what it keeps lies in a temporary folder that is gone at the end. What it shows was read from the
//! store and from the application, and the exit code says whether that was what should be there.

mod application;
mod check;
mod happening;
mod magic_hour;
mod manus;
mod news;
mod round;
mod stage;
mod watch;
mod webrun;

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;

use self::check::Verdict;
use self::news::{Paint, Teller};
use self::stage::Stage;
use self::watch::Watcher;
use super::{Context, Error, Result, interrupted, runtime};
use crate::config::Flag;

/// The pause between two rounds.
const BETWEEN: Duration = Duration::from_secs(5);

/// Show everything at work, without an account
///
/// A simulated provider, the receiver, the worker and an application run in one process. Tasks finish, fail or ask, and are announced twice; a forger tries as well. It goes on until Ctrl-C, so that other
/// commands can be tried against it. It reads no environment, no `.env` and no configuration, and leaves nothing behind.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Play one round, check it, and exit: 0 if all ended as it should
    #[arg(long)]
    once: bool,
    /// Who sends
    #[arg(long, value_enum, value_name = "PROVIDER", default_value_t = Provider::Manus)]
    provider: Provider,
}

/// Who sends in the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Provider {
    /// Agents' tasks, signed with one key for all customers
    Manus,
    /// Videos, images and sound, signed with a secret
    MagicHour,
    /// A browser agent's tasks, authorised by a value that was agreed
    #[value(name = "webrun")]
    WebRun,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let flags = context.inputs.flags.clone();
    let options = Options { provider: args.provider, once: args.once, refuse: false, flags, terminal: context.terminal };
    let no_color = context.inputs.env.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint::new(context.out_terminal && !no_color);
    let runtime = runtime()?;
    let ended = runtime.block_on(play(&options, interrupted(), paint, context.out));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// How to play.
#[derive(Debug)]
struct Options {
    provider: Provider,
    /// One round only.
    once: bool,
    /// The application answers 410 to everything: then the demo must fail.
    refuse: bool,
    /// What was asked for on the command line: `--log-level`.
    flags: Vec<Flag>,
    /// Whether stderr is a terminal.
    terminal: bool,
}

/// Plays until the end of the first round, or until `stop`.
async fn play(options: &Options, stop: impl Future<Output = ()>, paint: Paint, out: &mut dyn Write) -> Result {
    let (stage, app, news) = Stage::open(options).await?;
    let (end, ending) = oneshot::channel::<()>();
    let mut running = pin!(app.run(async move {
        // Dropped unsent when the story ends for another reason.
        let _ = ending.await;
    }));
    let mut teller = Teller::new(&stage, news, paint, out);
    let told = tokio::select! {
        told = rounds(&stage, options.once, &mut teller) => told.map(Some),
        ended = &mut running => {
            let why = ended.err().map_or_else(|| Error::failed("it ended by itself"), |error| super::serve::refused(&error));
            stage.close().await;
            return Err(why.into());
        }
        () = stop => Ok(None),
    };
    let finished = match told {
        Ok(finished) => {
            let verdict = finished.unwrap_or_else(|| teller.verdict().clone());
            conclude(&verdict, &mut teller).map(|()| verdict)
        }
        Err(error) => Err(error),
    };
    drop(teller);
    let _ = end.send(());
    let stopped = running.await;
    stage.close().await;
    let verdict = finished?;
    stopped.map_err(|error| super::serve::refused(&error))?;
    match verdict.reasons() {
        reasons if !reasons.is_empty() => {
            Err(Error::failed(format!("not all ended as it should: {}", reasons.join("; "))).into())
        }
        _ if options.once && verdict.rounds() == 0 => Err(Error::failed("it was stopped before the round had ended").into()),
        _ => Ok(()),
    }
}

/// Plays one round, or one after the other for ever.
async fn rounds(stage: &Stage, once: bool, teller: &mut Teller<'_>) -> Result<Verdict> {
    teller.introduce(stage, once)?;
    let mut watcher = Watcher::new(stage);
    for number in 1.. {
        let round = round::play(stage, number);
        let checks = Box::pin(teller.during(watcher.beside(round))).await???;
        teller.judged(&checks);
        if once {
            break;
        }
        if number == 1 {
            teller.table(&checks)?;
            teller.invite(stage)?;
        } else {
            teller.round(number, &checks)?;
        }
        teller.during(watcher.beside(stage.clock.sleep(BETWEEN))).await??;
    }
    Ok(teller.verdict().clone())
}

/// What it came to.
fn conclude(verdict: &Verdict, teller: &mut Teller<'_>) -> Result {
    if verdict.rounds() > 0 {
        teller.table(verdict.checks())?;
    }
    teller.farewell(verdict)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn once(provider: Provider, refuse: bool) -> (Result, String) {
        let mut out = Vec::new();
        let options = Options { provider, once: true, refuse, flags: Vec::new(), terminal: false };
        let ended = play(&options, std::future::pending(), Paint::new(false), &mut out).await;
        (ended, String::from_utf8(out).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_destination_that_refuses_fails_the_demo_and_is_named() {
        for provider in [Provider::Manus, Provider::MagicHour, Provider::WebRun] {
            let (ended, out) = once(provider, true).await;
            let error = ended.unwrap_err().to_string();
            assert!(error.starts_with("error: not all ended as it should: delivered: "), "{error}\n{out}");
            assert!(error.contains("410 Gone: the demo was told to refuse"), "{error}\n{out}");
            assert!(out.contains("✗ delivered") && out.contains("✓ accepted"), "{out}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_before_the_end_of_the_round_is_a_failure_and_leaves_nothing() {
        let mut out = Vec::new();
        let options = Options { provider: Provider::Manus, once: true, refuse: false, flags: Vec::new(), terminal: false };
        let ended = play(&options, std::future::ready(()), Paint::new(false), &mut out).await;
        assert_eq!(ended.unwrap_err().to_string(), "error: it was stopped before the round had ended");
    }
}
