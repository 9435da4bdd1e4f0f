//! `taskhook simulate`: stand-ins for providers to try things with, without an account.

mod magic_hour;
mod manus;
mod webrun;

use std::time::Duration;

use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::simulator::{Call, Delivery, Happening};

/// Why the simulator did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum SimulateError {
    /// The address is taken, or is none.
    #[error("cannot listen on `{address}`: {source}; choose another with `--listen`")]
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let read: SignedDuration = text.parse().map_err(|_| "write it like `500ms`, `2s` or `1h`".to_owned())?;
    Duration::try_from(read).map_err(|_| "it cannot be negative".to_owned())
}

/// Run a stand-in for a provider
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    provider: Provider,
}

#[derive(Debug, clap::Subcommand)]
enum Provider {
    Manus(manus::SimulateManus),
    MagicHour(magic_hour::SimulateMagicHour),
    #[command(name = "webrun")]
    WebRun(webrun::SimulateWebRun),
}

pub(super) fn run(args: Args) -> super::Result {
    let stop = CancellationToken::new();
    super::runtime()?.block_on(async {
        let simulated = simulate(args.provider, stop.clone());
        tokio::pin!(simulated);
        let ended = tokio::select! {
            ended = &mut simulated => ended,
            _ = tokio::signal::ctrl_c() => {
                stop.cancel();
                simulated.await
            }
        };
        ended.map_err(|error| Error::failed(error.to_string()).into())
    })
}

async fn simulate(provider: Provider, stop: CancellationToken) -> Result<(), SimulateError> {
    match provider {
        Provider::Manus(args) => manus::simulate(args, stop).await,
        Provider::MagicHour(args) => magic_hour::simulate(args, stop).await,
        Provider::WebRun(args) => webrun::simulate(args, stop).await,
    }
}

async fn listen(address: &str) -> Result<TcpListener, SimulateError> {
    TcpListener::bind(address).await.map_err(|source| SimulateError::Listen { address: address.to_owned(), source })
}

/// Tells what happens until `stop`, a line each, on standard error.
async fn narrate(mut happenings: broadcast::Receiver<Happening>, stop: &CancellationToken) {
    loop {
        let happening = tokio::select! {
            () = stop.cancelled() => return,
            happening = happenings.recv() => happening,
        };
        match happening {
            Ok(Happening::Called(call)) => eprintln!("{}", called(&call)),
            Ok(Happening::Sent(delivery)) => eprintln!("{}", sent(&delivery)),
            Err(RecvError::Lagged(missed)) => eprintln!("… {missed} more"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// The query is left out: it may hold the signature of a link. So is a session of WebRun: who knows it can read its tasks.
fn called(call: &Call) -> String {
    let account = call.account.as_deref().unwrap_or("no account");
    let path = match call.path.strip_prefix("/task/").and_then(|ids| ids.split_once('/')) {
        Some((_, task)) => format!("/task/…/{task}"),
        None => call.path.clone(),
    };
    format!("API      {} {} -> {} ({account})", call.method, printable(&path), call.status)
}

/// The webhook's address is left out: it may hold a token.
fn sent(delivery: &Delivery) -> String {
    let again = if delivery.attempt > 1 { format!(", try {}", delivery.attempt) } else { String::new() };
    format!("webhook  {} {} -> {}{again}", delivery.event_type, delivery.task_id, outcome(delivery))
}

fn outcome(delivery: &Delivery) -> String {
    match (delivery.status, &delivery.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => error.clone(),
        (None, None) => "not sent".to_owned(),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_no_address_and_no_query() {
        let call = Call {
            method: "GET".to_owned(),
            path: "/files/a/b\u{1b}.md".to_owned(),
            query: "Signature=secret".to_owned(),
            status: 200,
            account: None,
        };
        assert_eq!(called(&call), "API      GET /files/a/b?.md -> 200 (no account)");
        let poll = Call { path: "/task/sess_abc123/task_xyz789".to_owned(), ..call };
        assert_eq!(called(&poll), "API      GET /task/…/task_xyz789 -> 200 (no account)");
        let delivery = Delivery {
            url: "https://h.example/webhooks/manus/token".to_owned(),
            event_id: "e".to_owned(),
            event_type: "task_stopped".to_owned(),
            task_id: "t".to_owned(),
            attempt: 2,
            status: Some(503),
            answer: String::new(),
            took_ms: 1.0,
            error: None,
        };
        assert_eq!(sent(&delivery), "webhook  task_stopped t -> 503, try 2");
    }
}
