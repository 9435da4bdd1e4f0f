//! The running program: builds the parts, watches them, stops them in order, and says why it ended.
//!
//! What must hold: every part is watched, and if one ends uninvited the program ends, saying which. At a stop `/readyz` says no
//! first; events are accepted for `server.shutdown_delay` more; then listeners close, requests and jobs in hand end, within
//! `server.drain_timeout` in all; what does not is handed back. What they say in traces is sent last. A kill at any point loses nothing: that is the store's affair. The
//! worker runs behind the rest: see `behind`.

mod behind;
mod files;
mod listen;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::listen::listen;
use crate::action::{Actions, TryOut};
use crate::admin::{Admin, Door, Live, TokenError};
use crate::archive;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::destination::{self, Destination, Unready};
use crate::http::guard::Names;
use crate::keys::Keys;
use crate::provider::{self, Budgets, Source};
use crate::public_url::PublicUrls;
use crate::receive::rejections::{Keeper, rejections};
use crate::receive::{Limits, Receiver};
use crate::route::{self, Routes};
use crate::server::{self, Probes};
use crate::store::{self, Store};
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Health, Metrics};
use crate::upkeep::Upkeep;
use crate::worker::{Environment, Worker};

/// What a start needs beside the configuration.
#[derive(Debug)]
pub struct Start {
    /// Time.
    pub clock: Clock,
    /// How `log` destinations write.
    pub format: destination::log::Format,
    /// Where `log` destinations write.
    pub output: destination::log::Output,
    /// Who says which addresses the names in links of payloads have.
    pub names: Names,
    /// Whether the worker and the keeper of rejections run by themselves; if not, the caller drives them ([`App::worker`]).
    pub by_itself: bool,
}

/// Why the program could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A source cannot be built.
    #[error("source `{name}`: {problem}")]
    Source {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: provider::Error,
    },
    /// A destination cannot be built.
    #[error(transparent)]
    Destination(#[from] destination::Error),
    /// Routes are wrong.
    #[error("{}", join(.0))]
    Routes(Vec<route::Error>),
    /// The admin token is not there.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (`{key}`): {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// What the system says.
        problem: std::io::Error,
    },
    /// Nothing can be traced as it is configured.
    #[error("{0}")]
    Trace(String),
    /// The system gives no threads.
    #[error("cannot start threads to work on: {0}")]
    Threads(std::io::Error),
    /// The system gives no random numbers.
    #[error("the system has no random numbers to make a key of")]
    Random,
    /// A part ended uninvited.
    #[error("{0} ended by itself, which it must not; stopping")]
    Ended(&'static str),
}

impl Error {
    /// What the user can do, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::Token(error) => error.hint().map(str::to_owned),
            Self::Listen { key, .. } => Some(format!("stop what uses it, or set `{key}` to another address")),
            _ => None,
        }
    }
}

fn join(errors: &[route::Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The running program.
#[derive(Debug)]
pub struct App {
    /// The address of the public listener.
    pub public: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
    /// The address of the listener for archived files, where there is one.
    pub files: Option<SocketAddr>,
    /// The store.
    pub store: Store,
    /// The verification keys.
    pub keys: Keys,
    /// What jobs work with.
    pub environment: Arc<Environment>,
    /// The worker, where the caller drives it.
    pub worker: Option<Worker>,
    /// The keeper of rejections, where the caller drives it.
    pub keeper: Option<Keeper>,
    /// Upkeep, where the caller drives it.
    pub upkeep: Option<Upkeep>,
    parts: JoinSet<&'static str>,
    draining: CancellationToken,
    stop: CancellationToken,
    /// Stops what sends traces, where there is one, once all other parts have ended.
    last: Option<CancellationToken>,
    shutdown_delay: Duration,
    drain_timeout: Duration,
}

impl App {
    /// Opens the store, builds every part and starts it.
    ///
    /// # Errors
    /// [`Error`], before anything is listened on.
    pub async fn start(config: &Config, start: Start) -> Result<Self, Error> {
        let Start { clock, format, output, names: lookup, by_itself } = start;
        let health = Health::new(clock.clone());
        let budgets = Budgets::new(clock.clone());
        let mut sources = BTreeMap::new();
        for (name, source) in &config.sources {
            let built =
                Source::new(name, source, &clock, &budgets).map_err(|problem| Error::Source { name: name.clone(), problem })?;
            sources.insert(name.clone(), Arc::new(built));
        }
        for source in sources.values() {
            if let Some(reason) = source.unasked() {
                tracing::info!(source = source.name(), "{reason}");
            }
        }
        let names: Vec<String> = config.destinations.keys().cloned().collect();
        let routes = Routes::compile(&config.routes, &names).map_err(Error::Routes)?;
        // The store first: it makes the folder that the token's file lies in as a rule, or says why it cannot.
        let store = Store::open(&config.store, clock.clone()).await?;
        let door = Door::open(&config.admin, &store, &clock).await?;
        let expired = store.expire(clock.now()).await?;
        if expired > 0 {
            tracing::warn!(
                jobs = expired,
                "taskhook did not stop in order last time; {expired} job(s) in hand then are done again"
            );
        }
        let archive = files::open(config, &store, &clock, lookup).await?;
        let saved = (!config.archive.is_off()).then(|| Arc::new(archive.clone()) as Arc<dyn destination::Files>);
        let parts = destination::Parts { clock: clock.clone(), format, output, files: saved };
        let mut destinations = BTreeMap::new();
        for (name, destination) in &config.destinations {
            destinations.insert(name.clone(), Destination::build(name, destination, &parts)?);
        }
        ready(&destinations, &health).await?;
        for row in store.backlog().await?.jobs {
            if !sources.contains_key(&row.queue) && !destinations.contains_key(&row.queue) {
                let reason = format!("{} job(s) wait for `{}`, which is not in the configuration any more", row.count, row.queue);
                health.degrade(&format!("{} {}", row.kind, row.queue), reason);
            }
        }
        let public = listen(config.server.listen, "server.listen")?;
        let admin = listen(config.admin.listen, "admin.listen")?;
        let files = match config.files.listen {
            Some(address) => Some(listen(address, "files.listen")?),
            None => None,
        };

        let instance = store.replica().map_or_else(|| store.instance_id().to_owned(), |replica| replica.to_string());
        let (tracer, exporter) = Tracer::new(&config.trace, &clock, &health, &instance).map_err(Error::Trace)?;
        let wake = Arc::new(Notify::new());
        let keys = Keys::open(sources.values().cloned(), &store, &clock, &health).await?;
        let public_urls = PublicUrls::new(config.server.public_url.to_vec(), clock.clone());
        let (rejections, keeper) = rejections(store.clone(), clock.clone(), public_urls.clone());
        let expected = public_urls.clone();
        let limits = Limits {
            public_urls: public_urls.clone(),
            trusted_proxies: config.server.trusted_proxies.to_vec(),
            max_inflight_bytes: config.server.max_inflight_bytes.bytes(),
            request_timeout: config.server.request_timeout,
            commit_timeout: config.server.commit_timeout,
        };
        let receiver = Arc::new(Receiver::new(
            sources.clone(),
            keys.clone(),
            store.clone(),
            clock.clone(),
            limits,
            routes.takes_unknown(),
            rejections,
            Arc::clone(&wake),
            tracer.clone(),
        ));
        let draining = CancellationToken::new();
        let probes = Probes::new(store.clone(), keys.clone(), health.clone(), clock.clone(), draining.clone());
        let kinds = destinations.iter().map(|(name, destination)| (name.clone(), destination.kind())).collect();
        let actions = Actions::new(sources.clone(), kinds, store.clone(), clock.clone(), health.clone(), Arc::clone(&wake));
        actions.tell_paused().await?;
        let actions = actions.with_archive(archive.clone());
        let upkeep = Upkeep::new(config.retention, store.clone(), archive.clone(), clock.clone(), health.clone());
        let time_zone = config.server.time_zone.clone();
        let days = (clock.clone(), time_zone.clone());
        let served = archive.links().map(|links| archive::router(archive.clone(), links.clone(), clock.clone()));
        let environment = Environment {
            store: store.clone(),
            clock,
            sources,
            public_urls: expected,
            destinations,
            routes,
            archive,
            health,
            wake,
            watch: config.watch,
            time_zone,
            tracer,
        };
        let environment = Arc::new(environment);
        let actions = actions.with_routes(Arc::clone(&environment) as Arc<dyn TryOut>);
        let live = Live::new(environment.store.clone(), environment.health.clone(), days.0.clone(), draining.clone());
        let api = Admin::new(environment.store.clone(), actions, public_urls, Metrics::of_process(), door, live, days);
        let worker = Worker::new(Arc::clone(&environment));
        let worker = if by_itself { worker.reconciling().watching() } else { worker };

        let mut app = Self {
            public: public.local_addr().unwrap_or(config.server.listen),
            admin: admin.local_addr().unwrap_or(config.admin.listen),
            files: files.as_ref().and_then(|files| files.local_addr().ok()),
            store,
            keys,
            environment,
            worker: None,
            keeper: None,
            upkeep: None,
            parts: JoinSet::new(),
            draining,
            stop: CancellationToken::new(),
            last: exporter.is_some().then(CancellationToken::new),
            shutdown_delay: config.server.shutdown_delay,
            drain_timeout: config.server.drain_timeout,
        };
        let (most, header_timeout, drain) = (config.server.max_connections, config.server.header_timeout, app.drain_timeout);
        let public_router = server::public(receiver, probes.clone());
        let files_probes = probes.clone().router(false);
        let acts = api.acts();
        let admin_router = api.router().merge(probes.router(true));
        app.spawn("the public listener", |stop| server::serve(public, public_router, most, header_timeout, stop));
        app.spawn("the admin listener", |stop| async move {
            server::serve(admin, admin_router, ADMIN_CONNECTIONS, header_timeout, stop).await;
            // What was begun for who has gone.
            acts.ended().await;
        });
        if let (Some(files), Some(served)) = (files, served) {
            let served = server::guarded(served.merge(files_probes));
            app.spawn("the listener for files", |stop| server::serve(files, served, FILES_CONNECTIONS, header_timeout, stop));
        }
        if let (Some(exporter), Some(last)) = (exporter, app.last.clone()) {
            let exporter = behind::run("traces", Some(1), exporter.run(last, drain)).map_err(Error::Threads)?;
            app.spawn("what sends traces", |_| exporter);
        }
        let (archive, health) = (app.environment.archive.clone(), app.environment.health.clone());
        if by_itself {
            let clock = app.environment.clock.clone();
            app.spawn("the watch on the archive", |stop| files::watch(archive, health, clock, stop));
            let keys = app.keys.clone();
            app.spawn("the key refresher", |stop| keys.keep_fresh(stop));
            let worker = behind::run("worker", None, worker.run(app.stop.clone(), drain)).map_err(Error::Threads)?;
            app.spawn("the worker", |_| worker);
            let (metrics, clock) = (Metrics::of_process(), app.environment.clock.clone());
            app.spawn("the keeper of metrics", |stop| metrics.keep_up(clock, stop));
            app.spawn("the keeper of rejections", |stop| keeper.run(stop));
            app.spawn("upkeep", |stop| upkeep.run(stop));
        } else {
            (app.worker, app.keeper, app.upkeep) = (Some(worker), Some(keeper), Some(upkeep));
        }
        Ok(app)
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, name: &'static str, part: impl FnOnce(CancellationToken) -> F) {
        let part = part(self.stop.clone());
        self.parts.spawn(async move {
            part.await;
            name
        });
    }

    /// Runs until `stop` resolves, then stops in order. A part that ends by itself, or a store that fails, ends it as well.
    ///
    /// # Errors
    /// What ended uninvited.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let store = self.store.clone();
        let ended = tokio::select! {
            () = stop => None,
            error = store.failed() => Some(Error::Store(error)),
            Some(ended) = self.parts.join_next() => Some(Error::Ended(ended.unwrap_or("a part"))),
        };
        drop(store);
        let delay = if ended.is_some() { Duration::ZERO } else { self.shutdown_delay };
        self.stop_in_order(delay).await;
        ended.map_or(Ok(()), Err)
    }

    /// Stops in order, without the delay.
    pub async fn stop(self) {
        self.stop_in_order(Duration::ZERO).await;
    }

    async fn stop_in_order(mut self, delay: Duration) {
        self.draining.cancel();
        if !delay.is_zero() {
            tracing::info!(delay_ms = clock::millis(delay), "stopping: `/readyz` says no, events are still accepted");
            tokio::time::sleep(delay).await;
        }
        tracing::info!("stopping: what is in hand is finished");
        self.stop.cancel();
        let all = async {
            while self.parts.join_next().await.is_some() {
                if let Some(last) = self.last.as_ref().filter(|_| self.parts.len() == 1) {
                    last.cancel();
                }
            }
        };
        // The worker keeps to the same time-out and then hands back, which takes a commit or two.
        if tokio::time::timeout(self.drain_timeout + HAND_BACK, all).await.is_err() {
            tracing::warn!("not everything in hand was finished in time; the next start goes on with it");
        }
        self.parts.shutdown().await;
        // Whoever starts it again needs the lock of its file. Who keeps a handle beyond the stop is not waited for.
        let closed = self.store.closed();
        drop(self);
        let _ = tokio::time::timeout(HAND_BACK, closed).await;
    }
}

/// Connections to the listener for files.
const FILES_CONNECTIONS: usize = 256;
/// Asks every destination whether it can do what its section says. One that cannot be asked now is degraded, and tried with the
/// first delivery.
async fn ready(destinations: &BTreeMap<String, Destination>, health: &Health) -> Result<(), Error> {
    let asked = futures_util::future::join_all(destinations.values().map(Destination::prepare)).await;
    for (name, asked) in destinations.keys().zip(asked) {
        match asked {
            Ok(()) => {}
            Err(Unready::Refused(error)) => return Err(error.into()),
            Err(Unready::Down(reason)) => health.degrade(&format!("destination {name}"), reason),
        }
    }
    Ok(())
}

/// Connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 128;
/// What handing jobs back may take on top of `server.drain_timeout`.
const HAND_BACK: Duration = Duration::from_secs(1);
