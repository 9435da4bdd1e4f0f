//! `taskhook healthcheck`: whether the taskhook on this machine can accept events, for a container's health check.

use std::time::Duration;

use serde_json::Value;

use super::client::local;
use super::{Context, Error, Result, runtime};
use crate::config::Config;
use crate::http;
use crate::text::one_line;

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// Ask the taskhook on this machine whether it can accept events; exits with 0 or 1
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &mut Context<'_>) -> Result {
    let addresses = Config::load_admin(&context.inputs)
        .and_then(|admin| Ok((local(admin.listen), local(Config::load_server(&context.inputs)?.listen))));
    let (admin, public) = addresses.map_err(|_| {
        Error::failed("the configuration cannot be read, so it is not known where taskhook listens")
            .hint("`taskhook config` tells what is wrong with it")
    })?;
    let word = runtime()?.block_on(async {
        let asked = async {
            match ask(&format!("{admin}/readyz")).await {
                // Another port may be all that is reachable.
                Err(http::Error::Connect(_)) => ask(&format!("{public}/healthz")).await,
                answer => answer,
            }
        };
        let timeout = || http::Error::Timeout(TIMEOUT);
        tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| timeout()).and_then(|answer| answer)
    });
    match word {
        Ok(Ok(word)) => Ok(writeln!(context.out, "{word}")?),
        Ok(Err(why)) => Err(Error::failed(format!("no event can be accepted: {why}")).into()),
        Err(error) => Err(Error::failed(format!("no taskhook answers at {admin} or {public}: {error}")).into()),
    }
}

/// The state in a word, or why no event can be accepted.
async fn ask(url: &str) -> std::result::Result<std::result::Result<String, String>, http::Error> {
    let answer = http::send(http::client(TIMEOUT).get(url), TIMEOUT, MAX_ANSWER).await?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() {
        return Ok(Ok(one_line(body["status"].as_str().unwrap_or("ok"), 40)));
    }
    let reasons = body["reasons"].as_array().into_iter().flatten().filter_map(|reason| reason["reason"].as_str());
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    Ok(Err(if reasons.is_empty() { answer.status.to_string() } else { one_line(&reasons, 600) }))
}
