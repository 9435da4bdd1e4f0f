//! taskhook: the durable inbox for AI-agent webhooks.
//!
//! It proves who sent an event, keeps it before it answers, fetches the whole task, and hands the result on.
//!
//! ```text
//! provider ─POST─▶ receive ─▶ store ─▶ worker ─▶ provider API (prove, fetch) ─▶ archive ─▶ route ─▶ destination
//!                    │ verify, append, 200  │ claim, do, finish, retry, bury
//! admin (dashboard, JSON API, metrics) reads the store and asks `action` for what a person wants: create or answer a task, release an event
//! ```
//!
//! 1. [`server`] takes the connection, [`receive`] finds the source, reads the body, and has it verified by [`provider`] with
//!    the keys of [`keys`].
//! 2. [`store`] keeps the event and its key, in one commit. Only then the sender is answered. The job that starts its work is made as
//!    the worker next asks for jobs.
//! 3. [`worker`] claims jobs: *prove* that the task is ours, *fetch* it, *archive* its files, *deliver* to a destination. What
//!    follows from a job is inserted in the transaction that ends it.
//!    Beside, it reads the provider's list of tasks, and makes an event of each stop that no webhook told.
//! 4. [`route`] makes the envelope and picks destinations; [`destination`] renders the content once and sends it as often as it takes.
//!
//! # The house
//!
//! A module imports only modules of lower rank, and the same rank does not import each other. `tests/it/house.rs` enforces it;
//! tests stand outside the ranks.
//!
//! | rank | module | what it is |
//! |---|---|---|
//! | 0 | [`clock`] | time, as an argument: the machine's, or one that a test moves |
//! | | [`setting`] | types of settings: secrets, lists, sizes |
//! | | [`text`] | text from outside, made fit for one line |
//! | 1 | [`markdown`] | what agents write, made into mrkdwn, HTML or a line |
//! | | [`public_url`] | our public URLs: configured, and lent for a while
//! | | [`retry`] | the verdict of a failure, the ladder of waits |
//! | | [`task`] | the provider-neutral task and its files |
//! | 2 | [`event`] | what an event says and what is kept of it; its key, its content |
//! | | [`http`] | the only place that builds an outbound client |
//! | 3 | [`postgres`] | what a URL of a PostgreSQL says, TLS, what an error may tell |
//! | | [`rate`] | so many in a minute |
//! | | [`signature`] | HMAC, Ed25519, RSA and Standard Webhooks, signing and verifying, pure |
//! | | [`template`] | expressions and texts, and what they may name |
//! | | [`telemetry`] | logs, metrics, traces, what is degraded |
//! | 4 | [`provider`] | vendors: verifying and reading their webhooks, calling their APIs |
//! | | [`store`] | what is kept, and what is still to be done about it |
//! | | [`archive`] | files of tasks: saved, and served by signed links |
//! | | [`route`] | the envelope, and where it goes |
//! | | [`simulator`] | stand-ins for providers that speak their real HTTP, with faults |
//! | 5 | [`destination`] | rendering and sending |
//! | | [`keys`] | verification keys: loaded, kept, refreshed |
//! | | [`action`] | what a person may ask for |
//! | 6 | [`receive`] | from a request to a kept event |
//! | | [`worker`] | from a kept event to its deliveries |
//! | | [`admin`] | the dashboard, the JSON API and the metrics |
//! | | [`upkeep`] | what is done with goes, by age and by size |
//! | 7 | [`server`] | listeners, limits, the order of stopping |
//! | 8 | [`config`] | the layers, put together; each component declares its own `Config` beside its code |
//! | 9 | [`app`] | builds the parts, starts them, stops them, says why it ended |
//! | 10 | [`cli`] | the commands |
//!
//! # Where to find what
//!
//! Every line of behaviour should be found in half a minute.
//!
//! | question | place |
//! |---|---|
//! | what a sender is answered, and why | `src/receive/problem.rs`; the order of checks in `src/receive/mod.rs` |
//! | how a Manus signature is checked | `src/provider/manus/signature.rs` |
//! | how any other is | `src/provider/signed.rs`; what it covers, `content.rs` |
//! | what a key of a custom sender means | `src/provider/custom/build.rs` |
//! | what finds a tunnel | `src/cli/tunnel/agent.rs`; what is done with it, `follow.rs`, `entry.rs` |
//! | which public URLs a signature may cover | `src/public_url.rs`; how one is lent, `src/admin/public_url.rs`; by whom, `src/cli/tunnel/` |
//! | which address a request came from | `src/receive/peer.rs` |
//! | how a Manus event or task becomes ours | `src/provider/manus/event.rs`, `v1.rs`, `v2.rs` |
//! | how one of Magic Hour or WebRun does | `convert` in `src/provider/magic_hour.rs`, `src/provider/webrun/task.rs` |
//! | what hides WebRun's sessions | `src/provider/webrun/mask.rs` |
//! | what all simulators do | `src/simulator/core.rs`; what each sends, its `deliver.rs` |
//! | what makes a duplicate or a collision | `src/event.rs` (key, content), `src/store/sqlite/append.rs`, `keys.rs` |
//! | whose connection is closed when all are taken | `src/server/places.rs` |
//! | which store is refused | `src/store/sqlite/inspect.rs`, `open.rs` |
//! | what one commit holds | `src/store/sqlite/writer.rs` |
//! | when a kept event becomes work | `src/store/sqlite/intake.rs` |
//! | the tables | `src/store/sqlite/schema/`, `src/store/postgres/schema/` |
//! | what is done otherwise on a PostgreSQL | the file of the same name in `src/store/postgres/` |
//! | what replicas must not do at once | `src/store/postgres/lock.rs`; whose leases have run out, `beat.rs`; whose claim was not answered, `doubt.rs` |
//! | which replica works for what | `src/store/postgres/hold.rs`, `share.rs`; what that means for limits, `src/worker/holdings.rs` |
//! | what waits while senders crowd | `src/store/sqlite/writer.rs`, `src/store/postgres/crowd.rs` |
//! | when a task is ours, when it is quarantined | `src/worker/prove.rs` |
//! | which stop of a task an event tells of | `src/worker/turns.rs`; what a stop is, `Talk` in `src/provider/manus/talk.rs` |
//! | what is answered to a task, and why only once | `src/action/answer.rs`; which answer stands, `src/store/sqlite/answer.rs` |
//! | what a task's timeline is joined from | `src/store/timeline.rs` |
//! | what no webhook told, and how it is found | `src/worker/reconcile.rs`, `src/store/sqlite/reconcile.rs` |
//! | what a trace is, and what its spans may say | `src/telemetry/trace.rs`; of a job, `src/worker/trace.rs`; how they are sent, `src/telemetry/trace/export.rs` |
//! | what is told of that is not as it should be, and by which event | `src/worker/watch/`, `src/store/sqlite/watch.rs` |
//! | what tasks cost, by day | `src/store/spending.rs` |
//! | what was done in each minute and hour | `src/store/series.rs` |
//! | whether webhooks are registered where events are to come | `src/provider/source/registered.rs`, `src/worker/registration.rs` |
//! | what waits for what, and how long | `src/worker/fetch.rs`, `src/store/sqlite/lane.rs` |
//! | what an event waits for files, and for how long | `src/worker/archive.rs` |
//! | which addresses of a payload are never asked | `src/http/guard.rs` |
//! | what a retry, a replay or a discard by hand does | `src/store/sqlite/again.rs`; where a dead letter goes in its lane, `join` in `lane.rs` |
//! | what becomes of a download that breaks | `src/archive/save.rs` |
//! | what a destination's answer means | `judge` in `src/destination/`, one file a kind |
//! | the envelope | `src/route/envelope.rs` |
//! | when something is deleted | `src/upkeep.rs`; what goes with it, `src/store/sqlite/forget.rs` |
//! | what a backup and a restore do | `src/store/sqlite/backup.rs`, `restore.rs` |
//! | a default | `config/default.toml`; of a source or destination in the `Config` beside its code |
//! | a rule between settings | `src/config/check.rs` |
//! | a command | `src/cli/`, one file each |
//! | what a bench measures | `src/cli/bench/`, one file each; what it cannot tell, [`docs::benchmarks`] |
//! | who may see the dashboard and the admin API, and who may act | `src/admin/auth/` |
//! | a page of the dashboard | `src/admin/pages/`, a file each; what all share, `layout.rs`; its style and its script, `src/admin/assets/` |
//! | what is done once, whoever asks twice | `src/admin/idempotency.rs`, `src/store/idempotency.rs` |
//! | what is told as it happens | `src/admin/live.rs`; what counts as news, `src/store/live.rs` |
//! | where a replay would go | `src/worker/try_out.rs` |
//! | whether a public URL leads here | `src/action/reach.rs` |
//! | what a list of the admin API can be narrowed to | `src/admin/`, a file each; how it is found, `src/store/view/page.rs`, `search.rs` |
//! | what is seen once by who reads a list forth | `src/store/postgres/place.rs` |
//! | what the log may hold, and in which form | `src/telemetry.rs`; every line, [`docs::logs`] |
//! | why something is bounded | the constant, beside the code that it bounds |
//!
//! To add a destination: a file in `src/destination/`, a variant in its `mod.rs`. To add a provider: a file in `src/provider/` with a
//! `Config` and an [`provider::Account`], and two lines in its `mod.rs`. To add a table or a column: a new numbered file in both `schema/` folders, and in `src/store/copy/table.rs`; a
//! release's migrations only add.
//!
//! The longer texts are in [`docs`].

pub mod action;
pub mod admin;
pub mod app;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod destination;
pub mod event;
pub mod http;
pub mod keys;
pub mod markdown;
pub mod postgres;
pub mod provider;
pub mod public_url;
pub mod rate;
pub mod receive;
pub mod retry;
pub mod route;
pub mod server;
pub mod setting;
pub mod signature;
pub mod simulator;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod template;
pub mod text;
pub mod upkeep;
pub mod worker;

/// The longer texts, as `src/docs` holds them.
pub mod docs {
    #[doc = include_str!("docs/promises.md")]
    pub mod promises {}

    #[doc = include_str!("docs/envelope.md")]
    pub mod envelope {}

    #[doc = include_str!("docs/durability.md")]
    pub mod durability {}

    #[doc = include_str!("docs/admin.md")]
    pub mod admin {}

    #[doc = include_str!("docs/benchmarks.md")]
    pub mod benchmarks {}

    #[doc = include_str!("docs/sizing.md")]
    pub mod sizing {}

    #[doc = include_str!("docs/monitoring.md")]
    pub mod monitoring {}

    #[doc = include_str!("docs/logs.md")]
    pub mod logs {}

    #[doc = include_str!("docs/files.md")]
    pub mod files {}

    #[doc = include_str!("docs/traces.md")]
    pub mod traces {}

    #[doc = include_str!("docs/manus.md")]
    pub mod manus {}

    #[doc = include_str!("docs/senders.md")]
    pub mod senders {}

    #[doc = include_str!("docs/custom.md")]
    pub mod custom {}

    #[doc = include_str!("docs/provider.md")]
    pub mod provider {}
}
