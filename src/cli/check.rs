//! `taskhook check`: tries everything that is configured, and says what does not work.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::client::{Client, Connection, TIMEOUT, our_instance};
use super::routes::build;
use super::webhooks::advice;
use super::{Context, Error, Exit, Result, output, runtime};
use crate::action::reach::reach;
use crate::archive::Archive;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::guard::{Guard, Names};
use crate::keys::SKEW;
use crate::provider::{ApiError, Budgets, Source, Use};
use crate::store::care::{self, Server};
use crate::store::{self, Store};
use crate::telemetry::trace;
use crate::text::one_line;

/// Try everything that is configured: store, archive, keys, destinations, public URLs
///
/// Sends no event and creates no task; a collector of traces gets an empty request. To see that the public URL leads here, `taskhook serve` must be running.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was tried.
struct Finding {
    part: String,
    ok: bool,
    /// It works, and yet somebody should know.
    warns: bool,
    detail: String,
    hints: Vec<String>,
}

/// What a try comes to: what was found; or what is wrong, and what to do.
type Tried = std::result::Result<String, (String, Vec<String>)>;

/// The findings so far, told as they come.
struct Report<'a, 'b> {
    context: &'a mut Context<'b>,
    json: bool,
    findings: Vec<Finding>,
}

impl Report<'_, '_> {
    fn add(&mut self, part: impl Into<String>, tried: Tried) -> io::Result<()> {
        let (ok, detail, hints) = match tried {
            Ok(detail) => (true, detail, Vec::new()),
            Err((problem, hints)) => (false, problem, hints),
        };
        self.tell(Finding { part: part.into(), ok, warns: false, detail: one_line(&detail, 600), hints })
    }

    /// Adds what is no problem of this program, so that it fails no check.
    fn warn(&mut self, part: impl Into<String>, (detail, hints): (String, Vec<String>)) -> io::Result<()> {
        self.tell(Finding { part: part.into(), ok: true, warns: true, detail: one_line(&detail, 600), hints })
    }

    fn tell(&mut self, finding: Finding) -> io::Result<()> {
        if !self.json {
            let word = match (finding.ok, finding.warns) {
                (true, false) => "ok     ",
                (true, true) => "warning",
                (false, _) => "problem",
            };
            writeln!(self.context.out, "{word}  {}: {}", finding.part, finding.detail)?;
            for hint in &finding.hints {
                writeln!(self.context.out, "         hint: {}", one_line(hint, 600))?;
            }
            self.context.out.flush()?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn end(self) -> Result {
        let problems = self.findings.iter().filter(|finding| !finding.ok).count();
        if self.json {
            let view =
                |of: &Finding| json!({"part": of.part, "ok": of.ok, "warning": of.warns, "detail": of.detail, "hints": of.hints});
            let checks: Vec<Value> = self.findings.iter().map(view).collect();
            output::json(self.context.out, &json!({"ok": problems == 0, "checks": checks}))?;
        }
        match problems {
            0 => Ok(()),
            _ => Err(Error::failed(format!("{problems} of {} checks found a problem", self.findings.len())).into()),
        }
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load(&context.inputs)?;
    let client = Client::new(context, &args.connection, TIMEOUT).ok();
    let report = Report { context, json: args.json, findings: Vec::new() };
    runtime()?.block_on(check(&config, client.as_ref(), report))
}

async fn check(config: &Config, client: Option<&Client>, mut report: Report<'_, '_>) -> Result {
    let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
    let clock = Clock::system();
    let budgets = Budgets::new(clock.clone());
    let mut sources = Vec::new();
    for (name, source) in &config.sources {
        sources.push(Source::new(name, source, &clock, &budgets).map_err(|error| usage(error.to_string()))?);
    }
    let destinations = build(config, &clock)?;
    report.add("configuration", Ok(summary(config)))?;
    report.add("store", try_store(config, &clock).await)?;
    if !config.archive.is_off() {
        report.add("archive", try_archive(config, &clock).await)?;
    }
    if config.trace.endpoint.is_some() {
        report.add("traces", trace::check(&config.trace, &clock).await)?;
    }
    for source in &sources {
        if source.verifies() && !source.is_keyed() {
            let what = format!("{} verifies by what its configuration says; there is nothing to ask", source.provider());
            report.add(format!("source {}", source.name()), Ok(what))?;
        }
        if source.is_keyed() {
            report.add(format!("key of source {}", source.name()), try_key(config, source).await)?;
        }
        if source.fetches() {
            let tried = try_api(config, source).await;
            let answers = tried.is_ok();
            report.add(format!("API of source {}", source.name()), tried)?;
            if answers && source.registers() && !config.server.public_url.is_empty() {
                let part = format!("webhook of source {}", source.name());
                match try_registration(config, source).await {
                    Ok(detail) => report.add(part, Ok(detail))?,
                    Err(wrong) => report.warn(part, wrong)?,
                }
            }
        }
        if let Some(reason) = source.unasked() {
            report.warn(format!("lost webhooks of source {}", source.name()), (reason.to_owned(), Vec::new()))?;
        }
    }
    for destination in destinations.values() {
        let tried = destination.check().await.map_err(|problem| (problem, Vec::new()));
        report.add(format!("destination {}", destination.name()), tried)?;
    }
    let instance = our_instance(config, client).await;
    let instance = instance.as_deref().ok();
    for public_url in config.server.public_url.iter() {
        report.add("public URL", try_url(public_url, instance).await)?;
    }
    if let Some(public_url) = &config.files.public_url {
        // What is said of the one listener holds for the other.
        let tried = try_url(public_url, instance).await;
        let told = |(problem, hints): (String, Vec<String>)| {
            (problem, hints.iter().map(|hint| hint.replace("`server.", "`files.").replace("/webhooks/", "/files/")).collect())
        };
        report.add("public URL of files", tried.map_err(told))?;
    }
    report.end()
}

/// Whether `public_url` leads to the taskhook with the id `instance`.
async fn try_url(public_url: &str, instance: Option<&str>) -> Tried {
    let Some(instance) = instance else {
        return Err((
            format!("it cannot be told whether {public_url} leads here: this taskhook has never run"),
            vec!["start `taskhook serve`, then check again".to_owned()],
        ));
    };
    match reach(public_url, instance).await {
        Ok(()) => Ok(format!("{public_url} leads to this taskhook")),
        Err(astray) => Err((astray.problem, vec![astray.hint, "does `taskhook serve` run?".to_owned()])),
    }
}

/// Writes, reads and deletes one small object; makes no folder, since it might then belong to the wrong user.
async fn try_archive(config: &Config, clock: &Clock) -> Tried {
    let folder = config.archive.url.strip_prefix("file://").map(Path::new);
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        return match writable(folder) {
            Ok(()) => Ok(format!("{} will be made at the first start", folder.display())),
            Err((folder, error)) => {
                let hint = store::unwritable(&folder, &error, "archive.url");
                Err((format!("cannot write to {}: {error}", folder.display()), vec![hint]))
            }
        };
    }
    let archive = Archive::new(&config.archive, "check", Guard::new(config.outbound, Names::System), None, clock.clone());
    match archive.check().await {
        Ok(()) => Ok(format!("{} takes files and gives them back", archive.place())),
        Err(error) => Err((error.to_string(), Vec::new())),
    }
}

fn summary(config: &Config) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let routes = match config.routes.len() {
        0 => "no route: everything goes to `log`".to_owned(),
        routes => count(routes, "route"),
    };
    let unverified = config.sources.iter().filter(|(_, source)| !source.verifies()).map(|(name, _)| name.as_str());
    let unverified = unverified.collect::<Vec<_>>().join(", ");
    let note = if unverified.is_empty() { String::new() } else { format!("; believes anyone on: {unverified}") };
    format!("{}, {}, {routes}{note}", count(config.sources.len(), "source"), count(config.destinations.len(), "destination"))
}

/// Opens the store if it is a file that is there and nobody has; makes none, since it might then belong to the wrong user.
async fn try_store(config: &Config, clock: &Clock) -> Tried {
    let told = |error: store::Error| (error.to_string(), error.hint().map(str::to_owned).into_iter().collect());
    if config.store.is_shared() {
        return care::look(&config.store).await.map(|server| in_words(&server)).map_err(told);
    }
    let path = Path::new(config.store.url.expose().strip_prefix("sqlite://").unwrap_or_default());
    if !path.exists() {
        return match writable(path) {
            Ok(()) => Ok(format!("{} will be made at the first start", path.display())),
            Err((folder, error)) => {
                let hint = store::unwritable(&folder, &error, "store.url");
                Err((format!("cannot write to {}: {error}", folder.display()), vec![hint]))
            }
        };
    }
    match Store::open(&config.store, clock.clone()).await {
        Ok(store) => match store.check().await {
            Ok(()) => Ok(format!("{} takes writes", path.display())),
            Err(error) => Err(told(error)),
        },
        Err(store::Error::Locked(_)) => match Store::peek_instance_id(&config.store) {
            Ok(_) => Ok(format!("{} is in use by a taskhook that runs", path.display())),
            Err(error) => Err(told(error)),
        },
        Err(error) => Err(told(error)),
    }
}

/// What is found on a server.
fn in_words(server: &Server) -> String {
    let Server { place, version, schema, exists } = server;
    let there = if *exists {
        format!("has the store in its schema `{schema}`")
    } else {
        format!("will get the schema `{schema}` at the first start")
    };
    format!("{place} (PostgreSQL {version}) {there}")
}

/// Whether a file could be made at `path`: whether the nearest folder that exists can be written to.
fn writable(path: &Path) -> std::result::Result<(), (std::path::PathBuf, io::Error)> {
    let folder = path.ancestors().skip(1).map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let Some(folder) = folder.into_iter().find(|folder| folder.exists()) else { return Ok(()) };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(|error| (folder.to_owned(), error.into()))
}

async fn try_key(config: &Config, source: &Source) -> Tried {
    let answer = source.load_keys().await;
    let first = answer.errors.first();
    if answer.keys.is_empty() {
        let problem = first.map_or_else(|| "there is none".to_owned(), ToString::to_string);
        return Err((problem, first.map(|error| advice(config, source.name(), error)).unwrap_or_default()));
    }
    if let Some(skew) = answer.skew.filter(|skew| skew.abs() > SKEW) {
        let problem = format!("this machine's clock is {} s off the provider's: genuine requests look stale", skew.as_secs());
        return Err((problem, vec!["set the clock, for example with NTP".to_owned()]));
    }
    let keys = answer.keys.iter().map(crate::signature::rsa::PublicKey::fingerprint).collect::<Vec<_>>().join(", ");
    let from = if source.pins_key() { "pinned" } else { "loaded" };
    Ok(format!("{from} ({keys})"))
}

/// Whether the provider sends its webhooks here, as far as it tells.
async fn try_registration(config: &Config, source: &Source) -> Tried {
    let public_urls = &config.server.public_url;
    match source.webhooks_list().await {
        Ok(webhooks) => {
            let is = source.registration(public_urls, &webhooks);
            let run =
                |(problem, run): (String, Vec<String>)| (problem, run.iter().map(|command| format!("run `{command}`")).collect());
            source
                .unregistered(public_urls, &is)
                .map_or_else(|| Ok("is registered, and active".to_owned()), |wrong| Err(run(wrong)))
        }
        Err(ApiError::Unsupported { reason, .. }) => Ok(format!("whether it is registered cannot be told: {reason}")),
        Err(error) => Err((source.hide(&error.to_string()), advice(config, source.name(), &error))),
    }
}

async fn try_api(config: &Config, source: &Source) -> Tried {
    source.budget().take(Use::Answer).await;
    match source.recent_tasks().await {
        Ok(tasks) if tasks.len() >= 100 => Ok("answers; the newest 100 tasks are seen".to_owned()),
        Ok(tasks) => Ok(format!("answers; {} task(s) are seen", tasks.len())),
        // There is no call that would tell without a task.
        Err(ApiError::Unsupported { .. }) => Ok("is asked when a task ends; there is no call to try it with".to_owned()),
        Err(error) => Err((error.to_string(), advice(config, source.name(), &error))),
    }
}
