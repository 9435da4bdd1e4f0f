//! `taskhook simulate webrun`: a WebRun to try things with, without an account.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{SimulateError, duration, listen, narrate};
use crate::clock::Clock;
use crate::simulator::webrun::{Drive, FAULTS, Options, PROMPTS, WebRun};

/// Run a stand-in for WebRun: sessions, tasks, webhooks in their three shapes, files, and faults on request.
///
/// Nothing is kept: everything is gone when it ends. It checks nothing about who calls it, and sends webhooks to any address:
/// do not let others reach it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = format!("Prompts:\n{PROMPTS}\n\nFaults:\n{FAULTS}"))]
pub(super) struct SimulateWebRun {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8092")]
    pub listen: String,
    /// The address that others reach it at, for links [default: the listener's].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<url::Url>,
    /// The API key of an account; may be repeated for more accounts.
    #[arg(long, value_name = "KEY", default_value = "enig_simulator", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// The wait between the steps of a task.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub pace: Duration,
    /// How long a link to a file is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub link_lifetime: Duration,
    /// Allow any number of calls a minute; without it 10 that start something, as WebRun does.
    #[arg(long)]
    pub no_rate_limit: bool,
}

/// Runs a simulator until `stop`, telling on standard error what happens, a line each.
///
/// # Errors
/// [`SimulateError`] if it cannot listen.
pub(super) async fn simulate(args: SimulateWebRun, stop: CancellationToken) -> Result<(), SimulateError> {
    let listener = listen(&args.listen).await?;
    let key = args.api_key.first().cloned().unwrap_or_default();
    let usual = Options::new(Clock::system());
    let options = Options {
        drive: Drive::Clock,
        accounts: args.api_key,
        per_minute: usual.per_minute.filter(|_| !args.no_rate_limit),
        pace: args.pace,
        link_lifetime: args.link_lifetime,
        base_url: args.base_url.map(String::from),
        ..usual
    };
    let simulator = WebRun::start(listener, options, stop.clone());
    eprintln!("{}", greeting(&simulator.base_url(), &key));
    narrate(simulator.happenings(), &stop).await;
    simulator.stopped().await;
    Ok(())
}

/// What to do with it, for people.
fn greeting(base_url: &str, key: &str) -> String {
    format!(
        "A stand-in for WebRun listens on {base_url}. To use it with taskhook:

  export TASKHOOK__SOURCES__WR__PROVIDER=webrun
  export TASKHOOK__SOURCES__WR__AUTHORIZATION='Bearer your-secret-token'
  export TASKHOOK__SOURCES__WR__PAYLOAD=full_response
  export TASKHOOK__SOURCES__WR__FETCH=on
  export TASKHOOK__SOURCES__WR__BASE_URL={base_url}

To run a task, with what `taskhook webhooks url` prints as its webhook:

  curl -H 'authorization: Bearer {key}' -d '{{\"taskDetails\":\"A file\",\"webhook\":{{…}}}}' {base_url}/start/run-task

{PROMPTS}
Faults: `taskhook simulate webrun --help` tells.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};

    fn parse(args: &[&str]) -> Result<SimulateWebRun, clap::Error> {
        let command = SimulateWebRun::augment_args(clap::Command::new("webrun"));
        SimulateWebRun::from_arg_matches(&command.try_get_matches_from([&["webrun"], args].concat())?)
    }

    #[test]
    fn flags_are_read_and_have_defaults() {
        let args = parse(&["--api-key", "a", "--api-key", "b", "--no-rate-limit"]).unwrap();
        assert_eq!((args.api_key.len(), args.pace, args.no_rate_limit), (2, Duration::from_secs(1), true));
        assert!(parse(&["--pace", "soon"]).is_err());
    }

    #[tokio::test]
    async fn it_ends_at_its_stop_signal() {
        let stop = CancellationToken::new();
        stop.cancel();
        simulate(parse(&["--listen", "127.0.0.1:0"]).unwrap(), stop).await.unwrap();
    }
}
