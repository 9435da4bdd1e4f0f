//! Follows a tunnel: lends its URL to the receiver and registers it, as long as it is there; then the next one's.
//!
//! What must hold:
//! - Nothing is lent or registered before the URL's `/healthz` has said that it leads to this very receiver.
//! - The URL is lent before it is registered, since the provider tries it at once; and taken back only when the webhook is deleted.
//! - What was registered here is deleted at the end, whatever ends it, and nothing else is. A kill leaves the webhook: the lease runs out,
//!   so nothing is accepted for it, and the next start tells that it is there.
//! - A step that registers is never cut: a webhook that nobody knows of would stay.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::client::{Client, Fault};
use super::super::webhooks::Registrar;
use super::super::{Context, Error, Result};
use super::agent::{Found, Search, Tunnel};
use super::entry::{Entry, State};
use crate::action::reach::reach;
use crate::clock::Clock;
use crate::config::Config;
use crate::public_url::LEASE;
use crate::setting::List;

/// How often the agents are asked, and the lease is renewed.
const EVERY: Duration = Duration::from_secs(2);
/// How long a tunnel that is there may take to lead here: the name of a new one may not be known everywhere at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done with the tunnel that is found.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Plan {
    /// The port that it must lead to; any, if there is none.
    pub(in crate::cli) port: Option<u16>,
    /// The sources whose webhooks come through it.
    pub(in crate::cli) sources: Vec<String>,
    /// Whether they are registered.
    pub(in crate::cli) register: bool,
    /// Whether the first tunnel is waited for.
    pub(in crate::cli) wait: bool,
    /// Whether what is to be pasted is talk, since stdout has other lines.
    pub(in crate::cli) paste_to_err: bool,
}

/// Who follows.
pub(in crate::cli) struct Follower {
    config: Config,
    client: Client,
    search: Search,
    plan: Plan,
    /// The name of our lease, over changes of the URL and restarts of the receiver.
    lease: Uuid,
    clock: Clock,
    begun: Duration,
    held: Option<Held>,
    /// Whether the receiver does not answer now.
    away: bool,
    /// What was said last of why it waits.
    said: String,
}

/// The tunnel that is followed.
struct Held {
    url: String,
    /// The receiver that it leads to.
    instance: String,
    entries: Vec<Entry>,
    /// Whether it was told that all is done.
    told: bool,
}

/// What a look at the agents comes to.
enum Look {
    /// The tunnel that is followed is there.
    Same,
    /// It is not, and leads here no more.
    Gone,
    /// One that leads to the receiver of this id.
    Here(Tunnel, String),
    /// None does; and whether one may soon.
    None(Error, bool),
}

impl Follower {
    pub(super) fn new(config: Config, client: Client, search: Search, plan: Plan) -> Result<Self> {
        let clock = Clock::system();
        for name in &plan.sources {
            Registrar::new(config.clone(), Some(name))?;
        }
        let begun = clock.elapsed();
        let (lease, said) = (Uuid::now_v7(), String::new());
        Ok(Self { config, client, search, plan, lease, clock, begun, held: None, away: false, said })
    }

    /// Follows until `stop`, or until it makes no sense any more; then takes back what it did.
    pub(in crate::cli) async fn run(mut self, stop: CancellationToken, context: &mut Context<'_>) -> Result {
        let followed = self.follow(&stop, context).await;
        let left = self.leave(context).await;
        followed.and(left)
    }

    async fn follow(&mut self, stop: &CancellationToken, context: &mut Context<'_>) -> Result {
        let asked = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            asked = self.client.get(&["public_urls"], &[]) => asked,
        };
        asked.map_err(|fault| self.client.explain(&fault))?;
        loop {
            let look = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                look = self.look() => look,
            };
            match look {
                Look::Same => self.renew(context).await?,
                Look::Gone => {
                    let url = self.held.as_ref().map_or("", |held| &held.url);
                    writeln!(context.err, "The tunnel {url} is gone.")?;
                    // What is left of it is told, and no reason to end.
                    if let Err(failure) = self.leave(context).await {
                        writeln!(context.err, "{failure}")?;
                    }
                    self.plan.wait = true;
                    continue;
                }
                Look::Here(tunnel, instance) => self.take(&tunnel, instance, context).await?,
                Look::None(why, soon) => self.wait(why, soon, context)?,
            }
            let lent = self.keep_lent();
            tokio::select! {
                registered = self.register(stop, context) => registered?,
                never = lent => match never {},
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.clock.sleep(EVERY) => {}
            }
        }
    }

    async fn look(&self) -> Look {
        let found: Found = self.search.find().await;
        if let Some(held) = &self.held {
            // An agent may be silent for a while, and its tunnel still be there: the URL itself decides.
            let there = found.has(&held.url) || reach(&held.url, &held.instance).await.is_ok();
            return if there { Look::Same } else { Look::Gone };
        }
        let candidates = found.candidates(self.plan.port);
        if candidates.is_empty() {
            return Look::None(found.why_none(self.plan.port), false);
        }
        let Some(instance) = self.client.instance().await else {
            return Look::None(Error::failed("the taskhook does not answer"), true);
        };
        let mut why = None;
        for tunnel in candidates {
            match reach(&tunnel.url, &instance).await {
                Ok(()) => return Look::Here(tunnel.clone(), instance),
                Err(astray) => why.get_or_insert(Error::failed(astray.problem).hint(astray.hint)),
            };
        }
        Look::None(why.unwrap_or_else(|| found.why_none(self.plan.port)), true)
    }

    /// Says why there is no tunnel, unless that is known; fails if none is waited for.
    fn wait(&mut self, why: Error, soon: bool, context: &mut Context<'_>) -> Result {
        let patience = if soon { PATIENCE } else { Duration::ZERO };
        if !self.plan.wait && self.clock.elapsed().saturating_sub(self.begun) >= patience {
            return Err(why.into());
        }
        if self.said != why.message {
            writeln!(context.err, "Waiting for a tunnel: {}.", why.message)?;
            for hint in &why.hints {
                writeln!(context.err, "  {hint}")?;
            }
            self.said = why.message;
        }
        Ok(())
    }

    async fn lend(&self, url: &str) -> std::result::Result<(), Fault> {
        self.client.put(&["public_urls", &self.lease.to_string()], &json!({"url": url})).await.map(drop)
    }

    /// Renews the lease for as long as it is polled: registering may take longer than a lease lasts.
    fn keep_lent(&self) -> impl Future<Output = Infallible> + use<> {
        let (client, clock, lease) = (self.client.clone(), self.clock.clone(), self.lease.to_string());
        let wish = self.held.as_ref().map(|held| json!({"url": held.url}));
        async move {
            let Some(wish) = wish else { return std::future::pending().await };
            loop {
                clock.sleep(LEASE / 4).await;
                // What comes of it is told by the next renewal.
                let _ = client.put(&["public_urls", &lease], &wish).await;
            }
        }
    }

    /// What may pass is told once and waited for.
    fn missed(&mut self, fault: &Fault, context: &mut Context<'_>) -> Result {
        let error = self.client.explain(fault);
        if !fault.passes() {
            return Err(error.into());
        }
        if !std::mem::replace(&mut self.away, true) {
            writeln!(context.err, "{}. Waiting for it to come back.", error.message)?;
        }
        Ok(())
    }

    async fn renew(&mut self, context: &mut Context<'_>) -> Result {
        let Some(held) = &self.held else { return Ok(()) };
        if let Err(fault) = self.lend(&held.url).await {
            return self.missed(&fault, context);
        }
        if std::mem::take(&mut self.away) {
            if self.client.instance().await.as_ref() != Some(&held.instance) {
                writeln!(context.err, "Another taskhook answers there now.")?;
                return self.leave(context).await;
            }
            writeln!(context.err, "It is back, and accepts webhooks for {} again.", held.url)?;
        }
        Ok(())
    }

    async fn take(&mut self, tunnel: &Tunnel, instance: String, context: &mut Context<'_>) -> Result {
        let url = &tunnel.url;
        if let Err(fault) = self.lend(url).await {
            return self.missed(&fault, context);
        }
        let mut config = self.config.clone();
        config.server.public_url = List(vec![url.clone()]);
        let mut entries = Vec::new();
        for name in &self.plan.sources {
            entries.push(Entry::new(Registrar::new(config.clone(), Some(name))?, self.plan.register));
        }
        self.held = Some(Held { url: url.clone(), instance, entries, told: false });
        (self.away, self.said) = (false, String::new());
        writeln!(context.err, "{url} ({}) leads to this taskhook, which accepts webhooks for it from now on.", tunnel.agent)?;
        let Some(held) = &self.held else { return Ok(()) };
        for entry in held.entries.iter().filter(|entry| matches!(entry.state, State::Pasted)) {
            let source = &entry.registrar.source;
            let how = if source.registers() { " (or add `--register`)" } else { "" };
            let (name, provider) = (source.name(), source.provider());
            writeln!(context.err, "For `{name}` ({provider}), paste this where the webhook is asked for{how}:")?;
            let out = if self.plan.paste_to_err { &mut *context.err } else { &mut *context.out };
            entry.registrar.write_url(out)?;
            out.flush()?;
        }
        Ok(())
    }

    /// Registers what is due.
    async fn register(&mut self, stop: &CancellationToken, context: &mut Context<'_>) -> Result {
        let Some(held) = &mut self.held else { return Ok(()) };
        for entry in &mut held.entries {
            if stop.is_cancelled() {
                return Ok(());
            }
            if !matches!(entry.state, State::Due) || self.clock.elapsed() < entry.next {
                continue;
            }
            if let Err(unregistered) = entry.register(&self.client, stop, context).await {
                let wait = entry.again(unregistered, context)?;
                entry.next = self.clock.elapsed().saturating_add(wait);
            }
        }
        if !held.told && held.entries.iter().all(|entry| !matches!(entry.state, State::Due)) {
            held.told = true;
            for entry in held.entries.iter().filter(|entry| !matches!(entry.state, State::Pasted)) {
                let (name, url) = (entry.registrar.source.name(), entry.registrar.shown_url()?);
                writeln!(context.err, "Ready: events of `{name}` come to {url}.")?;
            }
            writeln!(context.err, "Ctrl-C takes it all back.")?;
        }
        Ok(())
    }

    /// Deletes what was registered here, then takes the URL back. Nothing that cannot be written keeps it from that.
    async fn leave(&mut self, context: &mut Context<'_>) -> Result {
        let Some(held) = self.held.take() else { return Ok(()) };
        let mut left = Ok(());
        for entry in held.entries {
            if let Err(failure) = entry.delete(context).await {
                left = Err(failure);
            }
        }
        match self.client.delete(&["public_urls", &self.lease.to_string()]).await {
            Ok(_) => {
                let _ = writeln!(context.err, "Webhooks for {} are accepted no more.", held.url);
            }
            Err(fault) => {
                let (why, seconds) = (self.client.explain(&fault).message, LEASE.as_secs());
                let _ = writeln!(context.err, "{} could not be taken back ({why}); it runs out within {seconds} s.", held.url);
            }
        }
        left
    }
}
