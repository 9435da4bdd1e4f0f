//! `taskhook simulate magic-hour`: a Magic Hour to try things with, without an account.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{SimulateError, duration, listen, narrate};
use crate::clock::Clock;
use crate::simulator::magic_hour::{Drive, EVENTS, FAULTS, MagicHour, Options, PROMPTS, TOOLS};

/// Run a stand-in for Magic Hour: its job API, signed webhooks with retries, downloads, and faults on request.
///
/// Nothing is kept: everything is gone when it ends. It checks nothing about who calls it, and sends webhooks to any address:
/// do not let others reach it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = format!("Prompts:\n{PROMPTS}\n\nFaults:\n{FAULTS}"))]
pub(super) struct SimulateMagicHour {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8091")]
    pub listen: String,
    /// The address that others reach it at, for links to files [default: the listener's].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<url::Url>,
    /// A webhook of the first account, as the Developer Hub would make it.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<url::Url>,
    /// The secret that it is signed with.
    #[arg(long, value_name = "SECRET", default_value = "whsec_simulator", hide_env_values = true)]
    pub secret: String,
    /// An event that it gets; may be repeated [default: all nine].
    #[arg(long, value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(EVENTS))]
    pub event: Vec<String>,
    /// The API key of an account; may be repeated for more accounts.
    #[arg(long, value_name = "KEY", default_value = "mhk_simulator", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// How long a webhook request that was not answered 2xx is sent again: after 1 s, 2 s, 4 s and so on.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub retry_for: Duration,
    /// The wait between the steps of a job.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub pace: Duration,
    /// How long a link to a file is good.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub link_lifetime: Duration,
    /// Sign every try with the time of the event; without it each has its own. What Magic Hour does is not documented.
    #[arg(long)]
    pub keep_timestamp: bool,
}

/// Runs a simulator until `stop`, telling on standard error what happens, a line each.
///
/// # Errors
/// [`SimulateError`] if it cannot listen.
pub(super) async fn simulate(args: SimulateMagicHour, stop: CancellationToken) -> Result<(), SimulateError> {
    let listener = listen(&args.listen).await?;
    let key = args.api_key.first().cloned().unwrap_or_default();
    let options = Options {
        drive: Drive::Clock,
        accounts: args.api_key,
        retry_for: args.retry_for,
        renew_timestamp: !args.keep_timestamp,
        pace: args.pace,
        link_lifetime: args.link_lifetime,
        base_url: args.base_url.map(String::from),
        ..Options::new(Clock::system())
    };
    let simulator = MagicHour::start(listener, options, stop.clone());
    if let Some(webhook) = &args.webhook {
        let events: Vec<_> = args.event.iter().map(String::as_str).collect();
        simulator.add_webhook(&key, webhook.as_str(), &args.secret, &events);
    }
    eprintln!("{}", greeting(&simulator.base_url(), &key, &args.secret));
    narrate(simulator.happenings(), &stop).await;
    simulator.stopped().await;
    Ok(())
}

/// What to do with it, for people.
fn greeting(base_url: &str, key: &str, secret: &str) -> String {
    let tools = TOOLS.map(|(tool, ..)| tool).join(", ");
    format!(
        "A stand-in for Magic Hour listens on {base_url}. To use it with taskhook:

  export TASKHOOK__SOURCES__MH__PROVIDER=magic_hour
  export TASKHOOK__SOURCES__MH__SECRET={secret}
  export TASKHOOK__SOURCES__MH__API_KEY={key}
  export TASKHOOK__SOURCES__MH__BASE_URL={base_url}

To make a job:

  curl -H 'authorization: Bearer {key}' -d '{{\"style\":{{\"prompt\":\"A cat\"}}}}' {base_url}/v1/ai-image-generator

Tools: {tools}.

{PROMPTS}
Faults: `taskhook simulate magic-hour --help` tells.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};

    fn parse(args: &[&str]) -> Result<SimulateMagicHour, clap::Error> {
        let command = SimulateMagicHour::augment_args(clap::Command::new("magic-hour"));
        SimulateMagicHour::from_arg_matches(&command.try_get_matches_from([&["magic-hour"], args].concat())?)
    }

    #[test]
    fn flags_are_read_and_have_defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.retry_for, args.link_lifetime), (Duration::from_hours(24), Duration::from_hours(24)));
        assert_eq!(parse(&["--event", "video.completed"]).unwrap().event, ["video.completed"]);
        assert!(parse(&["--event", "video.canceled"]).is_err());
    }

    #[tokio::test]
    async fn it_ends_at_its_stop_signal() {
        let stop = CancellationToken::new();
        stop.cancel();
        simulate(parse(&["--listen", "127.0.0.1:0", "--webhook", "http://127.0.0.1:9/"]).unwrap(), stop).await.unwrap();
    }
}
