//! `taskhook serve`: the receiver and the worker, until a signal.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, Error, Exit, Result, runtime};
use crate::admin::TokenError;
use crate::app::{self, App, Start};
use crate::clock::Clock;
use crate::config::Config;
use crate::destination::log::{self, Output};
use crate::http::guard::Names;
use crate::setting::REDACTED;
use crate::telemetry;

/// Receive webhooks and do what follows from them, until SIGTERM or SIGINT
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load(&context.inputs)?;
    prepare(&config, context.terminal)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(&config, context.terminal));
    wind_up(runtime);
    ended
}

/// Ends what still runs: it was told to stop and had its time.
pub(super) fn wind_up(runtime: tokio::runtime::Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// What comes before the start: the log, and files enough.
pub(super) fn prepare(config: &Config, terminal: bool) -> Result {
    telemetry::init(&config.log, config.rust_log.as_deref(), terminal)
        .map_err(|problem| Error::failed(format!("`RUST_LOG`: {problem}")).with_exit(Exit::Usage))?;
    allow_files(config.server.max_connections);
    Ok(())
}

/// Files that are open beside the connections of the public listener: those of the other listeners, of deliveries, and the store's.
const OTHER_FILES: usize = 1024;

/// Lets this process open as many files as its connections need, as far as the system lets it.
fn allow_files(max_connections: usize) {
    let needed = u64::try_from(max_connections.saturating_add(OTHER_FILES)).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = limit.maximum.map_or(needed, |most| most.min(needed));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    if raised < needed {
        tracing::warn!(
            "`server.max_connections` is {max_connections}, and the system lets this process open {raised} files only: raise `ulimit -n` to {needed}, or lower it"
        );
    }
}

async fn serve(config: &Config, terminal: bool) -> Result {
    let mut signals = signals()?;
    let app = start(config, terminal).await?;
    let mut first = any(&mut signals);
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let mut running = Box::pin(app.run(async move {
        // Dropped unsent when the program ends for another reason.
        let _ = stopping.await;
    }));
    tokio::select! {
        ended = &mut running => return ended.map_err(|error| refused(&error).into()),
        () = &mut first => {}
    }
    drop(first);
    tracing::info!("a signal: stopping in order; a second one stops at once");
    let _ = stop.send(());
    tokio::select! {
        ended = running => ended.map_err(|error| refused(&error).into()),
        () = any(&mut signals) => Err(Error::failed("stopped at once, at the second signal; the next start goes on with what was in hand").into()),
    }
}

/// The signals that end the program.
pub(super) fn signals() -> Result<Vec<Signal>> {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal).into_iter();
    let signals = signals.collect::<std::result::Result<Vec<_>, _>>();
    Ok(signals.map_err(|error| Error::failed(format!("cannot listen for signals: {error}")))?)
}

/// Starts everything, and says where it is.
pub(super) async fn start(config: &Config, terminal: bool) -> Result<App> {
    let format = if config.log.format.is_json(terminal) { log::Format::Json } else { log::Format::Text };
    let start = Start { clock: Clock::system(), format, output: Output::Stdout, names: Names::System, by_itself: true };
    let app = App::start(config, start).await.map_err(|error| refused(&error))?;
    announce(config, &app);
    Ok(app)
}

/// Returns at the next of `signals`.
pub(super) fn any(signals: &mut [Signal]) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
    Box::pin(async move {
        let next = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(next).await;
    })
}

/// Says where everything is, and what to register.
fn announce(config: &Config, app: &App) {
    tracing::info!(
        listen = %app.public,
        admin = %app.admin,
        store = %app.store.place(),
        "taskhook {} receives on {}; admin on http://{}",
        env!("CARGO_PKG_VERSION"),
        app.public,
        app.admin
    );
    let archive = &app.environment.archive;
    if archive.is_on() {
        tracing::info!(archive = archive.place(), "files of tasks are saved in {}", archive.place());
    } else {
        tracing::info!("files of tasks are not saved (`archive.url` is \"off\")");
    }
    if let (Some(files), Some(public_url)) = (app.files, &config.files.public_url) {
        tracing::info!(files = %files, "saved files are served on {files}, with links that begin with {public_url}/files/");
    }
    for source in app.environment.sources.values() {
        let token = if source.path_tokens().is_empty() { String::new() } else { format!("/{REDACTED}") };
        let url = config.server.public_url.first().map_or("", String::as_str);
        tracing::info!("source `{}`: {url}/webhooks/{}{token}", source.name(), source.name());
        if !source.verifies() {
            tracing::warn!("source `{}` has `verify = \"none\"`: it believes anyone", source.name());
        }
    }
}

/// An error of the program as a command's.
pub(super) fn refused(error: &app::Error) -> Error {
    use crate::store::Error::{Locked, Open, Server, Url};
    let exit = match error {
        app::Error::Store(Open { .. } | Server { .. } | Url { .. } | Locked(_)) | app::Error::Token(TokenError::Make { .. }) => {
            Exit::StoreRefused
        }
        app::Error::Source { .. } | app::Error::Destination(_) | app::Error::Routes(_) | app::Error::Token(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let failed = Error::failed(error.to_string()).with_exit(exit);
    match error.hint() {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}
