//! `taskhook tunnel`: takes the URL of the tunnel that runs to the receiver and to the provider, and takes it back at the end.

mod agent;
mod entry;
pub(super) mod follow;
mod old;

use std::pin::pin;

use tokio_util::sync::CancellationToken;

use self::agent::Search;
use self::follow::{Follower, Plan};
use super::client::{Client, Connection, TIMEOUT};
use super::{Context, Error, Result, interrupted, runtime};
use crate::config::Config;
use crate::public_url::LEASE;

/// Take the URL of a running ngrok or cloudflared to the running receiver, until Ctrl-C
///
/// Finds the tunnel that leads to the port of `server.listen`, sees that it ends at this taskhook, has it accept webhooks that are
/// signed for the tunnel's URL, and with `--register` tells the provider. It follows when the URL changes. At the end it deletes the
/// webhooks that it registered, and the URL is accepted no more; if it is killed, the URL runs out within 45 s. With several replicas,
/// only the one that is asked accepts it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Register the webhooks of the sources with their providers, and delete them at the end
    #[arg(long)]
    register: bool,
    #[command(flatten)]
    which: Which,
}

/// Which tunnel is meant, and for what.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Where the agent of the tunnel listens: ngrok's `Web Interface`, or cloudflared's `--metrics` [default: the usual ports of both,
    /// on this machine]
    #[arg(long, value_name = "URL")]
    agent: Vec<String>,
    /// The port that the tunnel forwards to, where something stands between it and taskhook [default: that of `server.listen`]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Only for this source; may be given more than once [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
}

impl Which {
    /// Who follows the tunnel for the taskhook that listens at `listens` (0: nobody knows where).
    pub(super) fn follower(&self, config: &Config, client: Client, listens: u16, plan: &Plan) -> Result<Follower> {
        let mut sources = self.source.clone();
        if sources.is_empty() {
            sources.extend(config.sources.keys().cloned());
        }
        sources.sort_unstable();
        sources.dedup();
        let port = self.port.or((listens != 0).then_some(listens));
        let plan = Plan { port, sources, ..*plan };
        Follower::new(config.clone(), client, Search::new(&self.agent)?, plan)
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load_with_tunnel(&context.inputs)?;
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let plan = Plan { register: args.register, ..Plan::default() };
    let follower = args.which.follower(&config, client, config.server.listen.port(), &plan)?;
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let mut following = pin!(follower.run(stop.clone(), context));
        tokio::select! {
            ended = &mut following => return ended,
            () = interrupted() => stop.cancel(),
        }
        tokio::select! {
            ended = following => ended,
            () = interrupted() => Err(left_behind().into()),
        }
    })
}

/// What a second signal leaves.
pub(super) fn left_behind() -> Error {
    let seconds = LEASE.as_secs();
    Error::failed("stopped at once, at the second signal: webhooks that were registered may still be there")
        .hint(format!("`taskhook webhooks list` shows them; the URL is accepted no more within {seconds} s"))
}
