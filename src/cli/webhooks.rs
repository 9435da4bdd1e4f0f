//! `taskhook webhooks`: tells the provider where to send, and sees that it gets there.
//!
//! What must hold: the URL is registered only when it leads here and the key to verify with is there, since the provider tries it
//! at once; and a path token is printed only for who is to paste it: by `webhooks url`, and by `tunnel` and `dev` where nothing
//! else registers the URL.

mod ping;
pub(super) mod registered;

use std::io::{self, Write};

use serde_json::{Value, json};
use uuid::Uuid;

use self::registered::{Registered, Unregistered};
use super::client::{Client, Connection, TIMEOUT, our_instance};
use super::output::{self, Column, Table};
use super::{Context, Error, Exit, Result, runtime};
use crate::action::reach::reach;
use crate::clock::Clock;
use crate::config::Config;
use crate::keys::SKEW;
use crate::provider::manus::ApiVersion;
use crate::provider::{ApiError, Budgets, Own, Source, Webhook};
use crate::text::one_line;

/// Tell the provider where to send webhooks
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source, if there are several
    #[arg(long, global = true, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Register this taskhook's URL, and wait for the provider's test request; prints the webhook's id
    Register {
        /// Register without trying first whether the public URL leads here
        #[arg(long)]
        skip_check: bool,
        /// Print what was registered as JSON
        #[arg(long)]
        json: bool,
    },
    /// List what is registered, and which of it is this taskhook's
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a webhook
    Delete {
        /// Its id, from `webhooks list`
        id: String,
    },
    /// Print what to paste where the provider asks for the webhook: its URL, or all of it; it holds secrets, if there are any
    ///
    /// For WebRun it is the whole `webhook` object of the call that asks for a task.
    Url {
        /// The source, if there are several
        #[arg(value_name = "SOURCE")]
        name: Option<String>,
        /// Name the delivery, so that a repeat is known: `new`, or a name of your own (WebRun's `ai_response`, which has no id)
        #[arg(long, value_name = "NAME")]
        r#ref: Option<String>,
    },
}

/// What these commands work with.
pub(super) struct Registrar {
    pub(super) config: Config,
    pub(super) source: Source,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load(&context.inputs)?;
    let named = match &args.command {
        Command::Url { name, .. } => name.as_deref(),
        _ => None,
    };
    let registrar = Registrar::new(config, named.or(args.source.as_deref()))?;
    match &args.command {
        Command::Url { r#ref, .. } => registrar.paste(r#ref.as_deref(), context),
        Command::Register { skip_check, json } => {
            let client = Client::new(context, &args.connection, TIMEOUT).ok();
            runtime()?.block_on(registrar.register(client, *skip_check, *json, context))
        }
        Command::List { json } => runtime()?.block_on(registrar.list(*json, context)),
        Command::Delete { id } => {
            let deleted = runtime()?.block_on(registrar.source.webhooks_delete(id));
            match deleted {
                Err(ApiError::NotFound { .. }) => {
                    let error = Error::failed(format!("there is no webhook `{}`", one_line(id, 80)));
                    return Err(error.hint("`taskhook webhooks list` shows what there is").into());
                }
                deleted => deleted.map_err(|error| registrar.failed("the webhook was not deleted", &error))?,
            }
            writeln!(context.err, "The webhook `{}` is deleted.", one_line(id, 80))?;
            Ok(())
        }
    }
}

impl Registrar {
    /// For the source that is meant: the named one, or the only one.
    pub(super) fn new(config: Config, name: Option<&str>) -> Result<Self> {
        let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
        let names = || config.sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, source) = match name {
            Some(name) => config.sources.get_key_value(name).ok_or_else(|| {
                usage(format!("there is no source `{}`", one_line(name, 40))).hint(format!("there are: {}", names()))
            })?,
            None if config.sources.len() > 1 => {
                return Err(usage(format!("name the source: there are {}", names())).hint("pass it with `--source`").into());
            }
            None => config.sources.first_key_value().ok_or_else(|| usage("no source is configured".to_owned()))?,
        };
        let clock = Clock::system();
        let source = Source::new(name, source, &clock, &Budgets::new(clock.clone())).map_err(|error| usage(error.to_string()))?;
        Ok(Self { config, source })
    }

    /// The URL to register: of the first public URL, with the first path token.
    fn url(&self) -> Result<String> {
        let Some(base) = self.config.server.public_url.first() else {
            let error = Error::failed("`server.public_url` is not set, so there is no URL to register").with_exit(Exit::Usage);
            return Err(error.hint("set the variable `TASKHOOK__SERVER__PUBLIC_URL=https://hooks.example.com`").into());
        };
        Ok(self.source.webhook_url(base))
    }

    /// Prints what to paste where the provider asks for the webhook.
    fn paste(&self, reference: Option<&str>, context: &mut Context<'_>) -> Result {
        let mut url = self.url()?;
        if let Some(reference) = reference {
            let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
            if !self.source.takes_ref() {
                let text = format!("deliveries of `{}` have ids of their own: leave `--ref` out", self.source.name());
                return Err(usage(text).into());
            }
            let name = if reference == "new" { Uuid::now_v7().to_string() } else { reference.to_owned() };
            if name.is_empty()
                || name.len() > 128
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            {
                return Err(usage("`--ref` takes letters, digits, `-`, `_` and `.`, at most 128 of them".to_owned()).into());
            }
            url = format!("{url}?ref={name}");
        }
        self.write(&url, context.out)?;
        if self.source.takes_ref() && reference.is_none() {
            context.out.flush()?;
            writeln!(context.err, "Without a name, every delivery is an event of its own: `--ref new` makes one for each task.")?;
        }
        Ok(())
    }

    /// Writes what to paste, whole.
    fn write(&self, url: &str, out: &mut dyn Write) -> io::Result<()> {
        match self.source.webhook_object(url) {
            Some(object) => output::json(out, &object),
            None => writeln!(out, "{url}"),
        }
    }

    /// Writes what to paste where the provider asks for the webhook, whole.
    pub(super) fn write_url(&self, out: &mut dyn Write) -> Result {
        Ok(self.write(&self.url()?, out)?)
    }

    /// The URL to register, as it may be shown.
    pub(super) fn shown_url(&self) -> Result<String> {
        Ok(self.shown(&self.url()?))
    }

    /// Whether a registered URL leads to this source, by any public URL and any path token.
    pub(super) fn is_ours(&self, url: &str) -> bool {
        self.source.is_reached_by(&self.config.server.public_url, url)
    }

    /// `text` without any path token: a provider may repeat the URL in an error.
    pub(super) fn hide(&self, text: &str) -> String {
        self.source.hide(text)
    }

    /// A registered URL as it may be shown.
    pub(super) fn shown(&self, url: &str) -> String {
        self.source.shown(url)
    }

    /// A failed call, with what to do about it.
    pub(super) fn failed(&self, what: &str, error: &ApiError) -> Error {
        let failed = Error::failed(format!("{what}: {}", one_line(&self.hide(&error.to_string()), 600)));
        advice(&self.config, self.source.name(), error).into_iter().fold(failed, Error::hint)
    }

    async fn register(&self, client: Option<Client>, skip_check: bool, as_json: bool, context: &mut Context<'_>) -> Result {
        self.url()?;
        if !self.source.registers() {
            let provider = self.source.provider();
            let error = Error::failed(format!("`{provider}` has no API for webhooks")).with_exit(Exit::Usage);
            return Err(error.hint("paste the URL that `taskhook webhooks url` prints where the provider asks for it").into());
        }
        self.load_key(context).await?;
        if !skip_check {
            self.check_url(client.as_ref(), context).await?;
        }
        let registered = self.enter(client.as_ref(), context).await?;
        if registered.new {
            writeln!(context.err, "It is registered.")?;
        }
        if let Some(webhook) = &registered.webhook {
            self.print(webhook, as_json, context)?;
            context.out.flush()?;
        }
        registered.tried(client.as_ref(), context).await
    }

    /// Registers the URL, unless it is registered.
    pub(super) async fn enter(
        &self,
        client: Option<&Client>,
        context: &mut Context<'_>,
    ) -> std::result::Result<Registered, Unregistered> {
        let url = self.url()?;
        if let Some(known) = self.known().await? {
            let status = known.status.as_deref().map(|status| format!(", {}", one_line(status, 20))).unwrap_or_default();
            writeln!(context.err, "It is registered already: {}{status}.", self.shown(&url))?;
            if known.status.as_deref() == Some("inactive") {
                writeln!(context.err, "The provider has paused it: delete it and register again.")?;
            }
            return Ok(Registered { webhook: Some(known), new: false, before: None });
        }
        writeln!(context.err, "Registering {} …", self.shown(&url))?;
        let before = match client {
            Some(client) => ping::Seen::now(client, self.source.name()).await,
            None => None,
        };
        let webhook = match self.source.webhooks_register(&url).await {
            Ok(webhook) => webhook,
            Err(ApiError::Rejected { status: 409, .. }) => {
                writeln!(context.err, "It is registered already: {}.", self.shown(&url))?;
                return Ok(Registered { webhook: None, new: false, before: None });
            }
            Err(error) => {
                let failed = self.failed("the provider did not register it", &error);
                let refused = match (client, &before) {
                    // What the provider itself could not do is not looked for here.
                    (Some(client), Some(before)) if matches!(error, ApiError::Rejected { .. }) => before.refused(client).await,
                    _ => None,
                };
                let failed = refused.map(|refused| refused.hint()).into_iter().fold(failed, Error::hint);
                let failed = if error.outcome_unknown() {
                    failed.hint("it may be registered all the same: look with `taskhook webhooks list`")
                } else {
                    failed
                };
                return Err(Unregistered { failure: failed.into(), cause: Some(error) });
            }
        };
        // Nothing may fail from here on: who called has to know what there is to delete.
        Ok(Registered { webhook: Some(webhook), new: true, before })
    }

    /// The key comes first: the provider signs its test request as well.
    pub(super) async fn load_key(&self, context: &mut Context<'_>) -> std::result::Result<(), Unregistered> {
        if !self.source.verifies() {
            writeln!(context.err, "`{}` has `verify = \"none\"`: it believes anyone who sends.", self.source.name())?;
            return Ok(());
        }
        let answer = self.source.load_keys().await;
        if answer.keys.is_empty() {
            let Some(error) = answer.errors.first() else { return Err(Error::failed("there is no key to verify with").into()) };
            return Err(self.unregistered("the key to verify with cannot be loaded", error.clone()));
        }
        writeln!(
            context.err,
            "The key to verify with is {}.",
            if self.source.pins_key() { "pinned in a file" } else { "loaded" }
        )?;
        if let Some(skew) = answer.skew.filter(|skew| skew.abs() > SKEW) {
            let error = Error::failed(format!(
                "this machine's clock is {} s off the provider's: signatures would not verify",
                skew.as_secs()
            ));
            return Err(error.hint("set the clock, for example with NTP").into());
        }
        Ok(())
    }

    async fn check_url(&self, client: Option<&Client>, context: &mut Context<'_>) -> Result {
        let Some(public_url) = self.config.server.public_url.first() else { return Ok(()) };
        let instance = our_instance(&self.config, client).await.map_err(|error| {
            Error::failed(format!("it cannot be told whether {public_url} leads here: {error}"))
                .hint("start `taskhook serve` first")
        })?;
        reach(public_url, &instance).await.map_err(|astray| {
            Error::failed(astray.problem)
                .hint(astray.hint)
                .hint("start `taskhook serve` if it does not run; to register all the same, add `--skip-check`")
        })?;
        writeln!(context.err, "{public_url} leads to this taskhook.")?;
        Ok(())
    }

    fn unregistered(&self, what: &str, error: ApiError) -> Unregistered {
        Unregistered { failure: self.failed(what, &error).into(), cause: Some(error) }
    }

    /// Our webhook, if it is registered and the provider can tell.
    pub(super) async fn known(&self) -> std::result::Result<Option<Webhook>, Unregistered> {
        match self.source.webhooks_list().await {
            Ok(webhooks) => Ok(webhooks.into_iter().find(|webhook| webhook.url.as_deref().is_some_and(|url| self.is_ours(url)))),
            Err(ApiError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(self.unregistered("the provider does not tell what is registered", error)),
        }
    }

    fn print(&self, webhook: &Webhook, as_json: bool, context: &mut Context<'_>) -> Result {
        if as_json {
            return Ok(output::json(context.out, &self.view(webhook))?);
        }
        Ok(writeln!(context.out, "{}", one_line(&webhook.id, output::MOST))?)
    }

    fn view(&self, webhook: &Webhook) -> Value {
        let mut view = json!(webhook);
        view["url"] = json!(webhook.url.as_deref().map(|url| self.shown(url)));
        view["ours"] = json!(webhook.url.as_deref().is_some_and(|url| self.is_ours(url)));
        view
    }

    async fn list(&self, as_json: bool, context: &mut Context<'_>) -> Result {
        let webhooks = self.source.webhooks_list().await.map_err(|error| match error {
            ApiError::Unsupported { reason, .. } => Error::failed(reason),
            error => self.failed("the provider does not tell what is registered", &error),
        })?;
        if as_json {
            let views: Vec<_> = webhooks.iter().map(|webhook| self.view(webhook)).collect();
            return Ok(output::json(context.out, &json!({"data": views}))?);
        }
        if webhooks.is_empty() {
            writeln!(context.err, "No webhook is registered. `taskhook webhooks register` does it.")?;
            return Ok(());
        }
        let mut table =
            Table::new(&[Column::Whole("WEBHOOK"), Column::Whole("STATUS"), Column::Whole("OURS"), Column::Wrap("URL")]);
        for webhook in &webhooks {
            let url = webhook.url.as_deref().unwrap_or_default();
            let ours = if self.is_ours(url) { "yes" } else { "no" };
            table.row([&webhook.id, webhook.status.as_deref().unwrap_or("-"), ours, &self.shown(url)]);
        }
        Ok(table.fit(context.out, context.width)?)
    }
}

/// What the user can do about a failed call of the source `name`.
pub(super) fn advice(config: &Config, name: &str, error: &ApiError) -> Vec<String> {
    let key = |key: &str| format!("`sources.{name}.{key}`");
    match error {
        ApiError::Refused { status: 401, .. } => {
            let Some(Own::Manus(manus)) = config.sources.get(name).map(|source| &source.own) else {
                return vec![format!("check {}: is it whole, and of the right account?", key("api_key"))];
            };
            let other = if manus.api_version == ApiVersion::V1 { "v2" } else { "v1" };
            vec![
                format!("check {} (or `MANUS_API_KEY`): is it whole, and of the right account?", key("api_key")),
                format!("if it is a key for the other version of the API, set {} to \"{other}\"", key("api_version")),
            ]
        }
        ApiError::RateLimited { .. } => vec!["wait a minute, then try again".to_owned()],
        ApiError::Unavailable { arrived: false, .. } => {
            vec![format!("does this machine reach the internet, and is {} right?", key("base_url"))]
        }
        ApiError::Nonsense { .. } => {
            vec![format!("something else may answer in the provider's place: is {} right?", key("base_url"))]
        }
        _ => Vec::new(),
    }
}
