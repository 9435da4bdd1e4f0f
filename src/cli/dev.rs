//! `taskhook dev`: everything to see the first real event, in one command: the receiver, the tunnel's URL, the registration.
//!
//! What must hold: at the end the webhook is deleted first, while events are still received, and only then the rest stops.

use std::io;
use std::pin::pin;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Connection, TIMEOUT, local};
use super::tunnel::follow::Plan;
use super::tunnel::{Which, left_behind};
use super::{Context, Failure, Result, runtime, serve, tail};
use crate::config::Config;

/// Serve, with the URL of a running ngrok or cloudflared registered: for a laptop
///
/// It is `serve` and `tunnel --register` in one. `server.public_url` need not be set, and `MANUS_API_KEY` is all that Manus needs. It
/// waits for a tunnel that leads here, follows when its URL changes, and at the end deletes the webhooks that it registered.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load_with_tunnel(&context.inputs)?;
    serve::prepare(&config, context.terminal)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(dev(args, &config, context));
    serve::wind_up(runtime);
    ended
}

async fn dev(args: &Args, config: &Config, context: &mut Context<'_>) -> Result {
    let mut signals = serve::signals()?;
    // A terminal that is closed is to leave no webhook behind.
    signals.extend(signal(SignalKind::hangup()));
    let app = serve::start(config, context.terminal).await?;
    let admin = |context: &Context<'_>| {
        let connection = Connection { url: Some(local(app.admin)), token: None };
        Client::new(context, &connection, TIMEOUT)
    };
    let (client, watching) = (admin(context)?, admin(context)?);
    let plan = Plan { register: true, wait: true, paste_to_err: true, ..Plan::default() };
    let watcher = args.which.follower(config, client, app.public.port(), &plan)?;

    // Events are printed as they come where no `log` destination tells of all that is handed on.
    let (mut nowhere, mut hidden) = (io::sink(), io::sink());
    let tells = !config.routes.is_empty();
    let inputs = context.inputs.clone();
    let (terminal, out_terminal, width) = (context.terminal, context.out_terminal, context.width);
    let mut shown =
        Context { inputs: inputs.clone(), out: &mut *context.out, err: &mut hidden, terminal, out_terminal, width, input: None };
    let mut talk = Context { inputs, out: &mut nowhere, err: &mut *context.err, terminal, out_terminal, width, input: None };

    let (stop, stopping) = oneshot::channel::<()>();
    let mut running = pin!(app.run(async move {
        // Dropped unsent when the program ends for another reason.
        let _ = stopping.await;
    }));
    let leave = CancellationToken::new();
    let mut following = pin!(watcher.run(leave.clone(), &mut talk));
    let mut events =
        pin!(async { if tells { tail::tail(&watching, false, false, &mut shown).await } else { std::future::pending().await } });
    let (mut ended, mut followed, mut printed) = (None, None, Ok(()));
    tokio::select! {
        end = &mut running => ended = Some(end),
        end = &mut following => followed = Some(end),
        end = &mut events => printed = end,
        () = serve::any(&mut signals) => {
            tracing::info!("a signal: the webhooks are deleted, then all stops in order; a second one stops at once");
        }
    }
    leave.cancel();
    let in_order = async {
        let followed = match followed {
            Some(followed) => followed,
            None => following.await,
        };
        let _ = stop.send(());
        let ended = match ended {
            Some(ended) => ended,
            None => running.await,
        };
        ended.map_err(|error| Failure::from(serve::refused(&error))).and(followed).and(printed)
    };
    tokio::select! {
        ended = in_order => ended,
        () = serve::any(&mut signals) => Err(left_behind().into()),
    }
}
