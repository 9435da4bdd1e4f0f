//! The commands.
//!
//! What must hold: data goes to stdout and talk to stderr; the exit code says what happened ([`Exit`]); a command reads the process
//! (environment, directory, streams) only through its [`Context`], so that a test can stand in for the shell.
//!
//! A command is a file of its own with an `Args` and a `run`; it is made known by one line in [`Command`] and one in its `run`.

mod again;
mod bench;
mod check;
mod client;
mod completions;
mod config;
mod deliveries;
mod demo;
mod destinations;
mod dev;
mod error;
mod events;
mod exit;
mod healthcheck;
mod man;
mod output;
mod rejections;
mod routes;
mod serve;
mod simulate;
mod stats;
mod store;
mod tail;
mod tasks;
mod tunnel;
mod webhooks;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

pub use error::{Error, Failure, Result};
pub use exit::Exit;

use crate::config::{Flag, Inputs};

/// The fewest columns that a table has: a terminal of fewer breaks its lines.
const NARROWEST: u16 = 40;

/// What the process gives a command.
pub struct World<'a> {
    /// The command line, the name of the program first.
    pub arguments: Vec<OsString>,
    /// The variables of the environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub directory: PathBuf,
    /// Where data goes.
    pub out: &'a mut dyn Write,
    /// Where talk goes.
    pub err: &'a mut dyn Write,
    /// Whether `err` is a terminal.
    pub terminal: bool,
    /// Whether `out` is a terminal.
    pub out_terminal: bool,
    /// How many columns that has, where it is one and tells.
    pub width: Option<u16>,
    /// What a person types; `None` where nobody sits at a terminal who could be asked.
    pub input: Option<&'a mut dyn BufRead>,
}

/// What a command works with.
pub struct Context<'a> {
    /// What the configuration is read from.
    pub inputs: Inputs,
    /// Where data goes.
    pub out: &'a mut dyn Write,
    /// Where talk goes.
    pub err: &'a mut dyn Write,
    /// Whether `err` is a terminal: then logs are text, and long work shows its progress.
    pub terminal: bool,
    /// Whether `out` is a terminal: then what is told there may have colour.
    pub out_terminal: bool,
    /// How many columns a table may have.
    pub width: u16,
    /// What a person types; `None` where nobody can be asked.
    pub input: Option<&'a mut dyn BufRead>,
}

/// The durable inbox for AI-agent webhooks.
///
/// It proves who sent an event, keeps it before it answers, fetches the whole task, and hands the result on.
#[derive(Debug, clap::Parser)]
#[command(name = "taskhook", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    /// The configuration file [variable: `TASKHOOK_CONFIG`]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much is logged: off, error, warn, info, debug or trace [variable: `RUST_LOG`]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Demo(demo::Args),
    Dev(dev::Args),
    Config(config::Args),
    Stats(stats::Args),
    Webhooks(webhooks::Args),
    Tunnel(tunnel::Args),
    Events(events::Args),
    Tasks(tasks::Args),
    Deliveries(deliveries::Args),
    Destinations(destinations::Args),
    Rejections(rejections::Args),
    Routes(routes::Args),
    Store(store::Args),
    Simulate(simulate::Args),
    Bench(bench::Args),
    Healthcheck(healthcheck::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    fn run(self, context: &mut Context<'_>) -> Result {
        match self {
            Self::Serve(args) => serve::run(&args, context),
            Self::Demo(args) => demo::run(&args, context),
            Self::Dev(args) => dev::run(&args, context),
            Self::Config(args) => config::run(&args, context),
            Self::Stats(args) => stats::run(&args, context),
            Self::Check(args) => check::run(&args, context),
            Self::Webhooks(args) => webhooks::run(&args, context),
            Self::Tunnel(args) => tunnel::run(&args, context),
            Self::Healthcheck(args) => healthcheck::run(&args, context),
            Self::Events(args) => events::run(&args, context),
            Self::Tasks(args) => tasks::run(&args, context),
            Self::Deliveries(args) => deliveries::run(&args, context),
            Self::Destinations(args) => destinations::run(&args, context),
            Self::Rejections(args) => rejections::run(&args, context),
            Self::Routes(args) => routes::run(&args, context),
            Self::Store(args) => store::run(&args, context),
            Self::Simulate(args) => simulate::run(args),
            Self::Bench(args) => bench::run(args, context),
            Self::Completions(args) => completions::run(&args, context),
            Self::Man(args) => man::run(&args, context),
        }
    }
}

/// The runtime of a command that does more than read and print.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.enable_all().build().map_err(|error| Error::failed(format!("cannot start: {error}")))?)
}

/// Returns at the first SIGINT, SIGTERM or SIGHUP: a terminal that is closed is to leave nothing behind either.
async fn interrupted() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let mut signals: Vec<_> = signals.into_iter().filter_map(std::io::Result::ok).collect();
    if signals.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

/// Runs the command line of `world`, and says on its `err` why it failed.
#[must_use]
pub fn run(world: World<'_>) -> Exit {
    let cli = match Cli::try_parse_from(&world.arguments) {
        Ok(cli) => cli,
        // Help and version are data; a mistake is talk. Whether either could be written changes nothing any more.
        Err(error) if error.use_stderr() => {
            let _ = write!(world.err, "{error}");
            return Exit::Usage;
        }
        Err(help) => {
            let _ = write!(world.out, "{help}");
            return Exit::Done;
        }
    };
    let level = cli.log_level.map(|value| Flag { name: "--log-level", key: "log.level", value });
    let inputs = Inputs { env: world.env, directory: world.directory, file: cli.config, flags: level.into_iter().collect() };
    let World { out, err, terminal, out_terminal, width, input, .. } = world;
    let width = width.map_or(output::WIDTH, |width| width.max(NARROWEST));
    let mut context = Context { inputs, out, err, terminal, out_terminal, width, input };
    let outcome = cli.command.run(&mut context).and_then(|()| Ok(context.out.flush()?));
    let Err(failure) = outcome else { return Exit::Done };
    if failure.exit() != Exit::Done {
        let _ = writeln!(context.err, "{failure}");
    }
    failure.exit()
}

#[cfg(test)]
mod tests {
    mod again;
    mod answer;
    mod bench;
    mod look;
    mod places;
    mod senders;
    mod set_up;
    mod site;
    mod stats;
    mod tunnel;

    use clap::CommandFactory as _;

    use super::*;

    /// The exit code, stdout and stderr of a command line.
    pub(super) fn shell(arguments: &[&str], env: &[(&str, &str)]) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(World {
            arguments: std::iter::once("taskhook").chain(arguments.iter().copied()).map(OsString::from).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            directory: directory.path().to_owned(),
            out: &mut out,
            err: &mut err,
            terminal: false,
            out_terminal: false,
            width: None,
            input: None,
        });
        (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_data() {
        let (exit, out, err) = shell(&["--help"], &[]);
        assert_eq!((exit, err.as_str()), (0, ""));
        insta::assert_snapshot!(out, @"
        The durable inbox for AI-agent webhooks.

        It proves who sent an event, keeps it before it answers, fetches the whole task, and hands the
        result on.

        Usage: taskhook [OPTIONS] <COMMAND>

        Commands:
          serve         Receive webhooks and do what follows from them, until SIGTERM or SIGINT
          check         Try everything that is configured: store, archive, keys, destinations, public URLs
          demo          Show everything at work, without an account
          dev           Serve, with the URL of a running ngrok or cloudflared registered: for a laptop
          config        Print the effective configuration as TOML, secrets redacted
          stats         See how things stand: what needs you, what waits, what came and went
          webhooks      Tell the provider where to send webhooks
          tunnel        Take the URL of a running ngrok or cloudflared to the running receiver, until Ctrl-C
          events        See what was received, and where it stands
          tasks         See tasks, create them, answer them, stop them, erase them
          deliveries    See what was handed on, what waits, and what was given up on
          destinations  See where results go, and pause or resume it
          rejections    See requests that did not verify, and what would have made them good
          routes        Try where an event would go
          store         Back the store up, restore it, copy it into a PostgreSQL, check and measure it
          simulate      Run a stand-in for a provider
          bench         Measure this machine: how many events it keeps, how fast, and that none is lost
          healthcheck   Ask the taskhook on this machine whether it can accept events; exits with 0 or 1
          completions   Print the completion script of a shell
          man           Print the manual page, or write one of each command into a folder

        Options:
              --config <FILE>
                  The configuration file [variable: `TASKHOOK_CONFIG`]

              --log-level <LEVEL>
                  How much is logged: off, error, warn, info, debug or trace [variable: `RUST_LOG`]

          -h, --help
                  Print help (see a summary with '-h')

          -V, --version
                  Print version
        ");
    }

    #[test]
    fn every_command_has_help() {
        insta::assert_snapshot!(shell(&["config", "--help"], &[]).1, @"
        Print the effective configuration as TOML, secrets redacted

        Usage: taskhook config [OPTIONS]

        Options:
              --config <FILE>      The configuration file [variable: `TASKHOOK_CONFIG`]
              --default            Print the built-in configuration instead, which every other layer goes
                                   over
              --log-level <LEVEL>  How much is logged: off, error, warn, info, debug or trace [variable:
                                   `RUST_LOG`]
          -h, --help               Print help
        ");
        insta::assert_snapshot!(shell(&["completions", "--help"], &[]).1, @"
        Print the completion script of a shell

        Usage: taskhook completions [OPTIONS] <SHELL>

        Arguments:
          <SHELL>  The shell [possible values: bash, elvish, fish, powershell, zsh]

        Options:
              --config <FILE>      The configuration file [variable: `TASKHOOK_CONFIG`]
              --log-level <LEVEL>  How much is logged: off, error, warn, info, debug or trace [variable:
                                   `RUST_LOG`]
          -h, --help               Print help
        ");
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error_on_stderr() {
        let (exit, out, err) = shell(&["conifg"], &[]);
        assert_eq!((exit, out.as_str()), (2, ""));
        insta::assert_snapshot!(err, @"
        error: unrecognized subcommand 'conifg'

          tip: a similar subcommand exists: 'config'

        Usage: taskhook [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
    }

    #[test]
    fn a_wrong_configuration_is_a_usage_error_on_stderr() {
        let (exit, out, err) = shell(&["config", "--log-level", "loud"], &[("MANUS_API_KEY", "sk-1")]);
        assert_eq!((exit, out.as_str()), (2, ""));
        insta::assert_snapshot!(err, @r#"
        error: flag `--log-level`: `log.level` must be "off" or "error" or "warn" or "info" or "debug" or "trace", not "loud"
        hint: the default is `info`
        "#);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let broken = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(broken.exit(), Exit::Done);
        let full = Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.exit(), Exit::Failed);
    }
}
