//! `taskhook simulate manus`: a Manus to try things with, without an account.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{SimulateError, duration, listen, narrate, outcome};
use crate::clock::Clock;
use crate::simulator::manus::{Drive, FAULTS, Limits, Manus, Options, PROMPTS};

/// The wait between two tries of the webhook that is to be registered.
const REGISTER_AGAIN: Duration = Duration::from_secs(2);

/// Run a stand-in for Manus: its API in both versions, signed webhooks, files, and faults on request.
///
/// Nothing is kept: everything is gone when it ends. It checks nothing about who calls it, and sends webhooks to any address:
/// do not let others reach it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = format!("Prompts:\n{PROMPTS}\n\nFaults:\n{FAULTS}"))]
pub(super) struct SimulateManus {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: String,
    /// The address that others reach it at, for links to files [default: the listener's].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<url::Url>,
    /// A webhook to register at the start; tried every 2 s until it answers the test request with 200.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<url::Url>,
    /// The API key of an account; may be repeated for more accounts. A webhook is registered in the first.
    #[arg(long, value_name = "KEY", default_value = "sk-simulator", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// How often a webhook request that was not answered 2xx is sent again, a second later. What Manus does is not documented.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub retries: u32,
    /// The wait between the steps of a task.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub pace: Duration,
    /// How long a link to a file is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub link_lifetime: Duration,
    /// Send every number as a string, as Manus was seen to do.
    #[arg(long)]
    pub numbers_as_strings: bool,
    /// Allow any number of calls a minute; without it 10 creates, 40 other changes and 100 reads, as Manus does.
    #[arg(long)]
    pub no_rate_limit: bool,
}

/// Runs a simulator until `stop`, telling on standard error what happens, a line each.
///
/// # Errors
/// [`SimulateError`] if it cannot listen.
pub(super) async fn simulate(args: SimulateManus, stop: CancellationToken) -> Result<(), SimulateError> {
    let listener = listen(&args.listen).await?;
    let clock = Clock::system();
    let key = args.api_key.first().cloned().unwrap_or_default();
    let options = Options {
        drive: Drive::Clock,
        accounts: args.api_key,
        limits: (!args.no_rate_limit).then(Limits::default),
        retries: args.retries,
        retry_delay: Duration::from_secs(1),
        numbers_as_strings: args.numbers_as_strings,
        pace: args.pace,
        link_lifetime: args.link_lifetime,
        base_url: args.base_url.map(String::from),
        ..Options::new(clock.clone())
    };
    let manus = Manus::start(listener, options, stop.clone());
    eprintln!("{}", greeting(&manus.base_url(), &key));
    tokio::join!(narrate(manus.happenings(), &stop), async {
        if let Some(webhook) = &args.webhook {
            tokio::select! {
                () = stop.cancelled() => {}
                () = register(&manus, &clock, &key, webhook.as_str()) => {}
            }
        }
    });
    manus.stopped().await;
    Ok(())
}

/// What to do with it, for people.
fn greeting(base_url: &str, key: &str) -> String {
    format!(
        "A stand-in for Manus listens on {base_url}. To use it with taskhook:

  export MANUS_API_KEY={key}
  export TASKHOOK__SOURCES__MANUS__PROVIDER=manus
  export TASKHOOK__SOURCES__MANUS__API_VERSION=v2
  export TASKHOOK__SOURCES__MANUS__BASE_URL={base_url}

To make a task:

  curl -H 'x-manus-api-key: {key}' -d '{{\"message\":{{\"content\":\"Write a file\"}}}}' {base_url}/v2/task.create

{PROMPTS}
Faults: `taskhook simulate manus --help` tells.
"
    )
}

async fn register(manus: &Manus, clock: &Clock, key: &str, url: &str) {
    let mut told = None;
    loop {
        let tried = manus.register_with_ping(key, url).await;
        if tried.status == Some(200) {
            eprintln!("The webhook is registered.");
            return;
        }
        let outcome = outcome(&tried);
        if told.as_ref() != Some(&outcome) {
            eprintln!("The webhook is not registered yet: {outcome}. Trying again every {} s.", REGISTER_AGAIN.as_secs());
            told = Some(outcome);
        }
        clock.sleep(REGISTER_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};
    use tokio::net::TcpListener;

    fn parse(args: &[&str]) -> Result<SimulateManus, clap::Error> {
        let command = SimulateManus::augment_args(clap::Command::new("manus"));
        SimulateManus::from_arg_matches(&command.try_get_matches_from([&["manus"], args].concat())?)
    }

    #[test]
    fn flags_are_read_and_have_defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.listen.as_str(), args.pace), ("127.0.0.1:8090", Duration::from_secs(1)));
        assert_eq!(args.api_key, ["sk-simulator"]);
        let args = parse(&["--pace", "250ms", "--api-key", "a", "--api-key", "b", "--webhook", "http://x/y"]).unwrap();
        assert_eq!((args.pace, args.api_key.len()), (Duration::from_millis(250), 2));
        assert!(parse(&["--pace", "soon"]).is_err());
        assert!(parse(&["--pace", "-1s"]).is_err());
        assert!(parse(&["--webhook", "nowhere"]).is_err());
    }

    #[test]
    fn the_help_tells_of_prompts_and_faults() {
        let mut command = SimulateManus::augment_args(clap::Command::new("manus"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("ends in an error; no webhook tells") && help.contains("POST /_simulator/faults"), "{help}");
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let args = SimulateManus { listen: listen.clone(), ..parse(&[]).unwrap() };
        let error = simulate(args, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.contains(&listen), "{error}");
    }

    #[tokio::test]
    async fn it_ends_at_its_stop_signal() {
        let stop = CancellationToken::new();
        stop.cancel();
        let args = parse(&["--listen", "127.0.0.1:0", "--webhook", "http://127.0.0.1:9/"]).unwrap();
        simulate(args, stop).await.unwrap();
    }
}
