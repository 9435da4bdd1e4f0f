//! How many signed webhooks a second are kept, beside what the same machine could do at best, in the same minute.
//!
//! `cargo bench --bench ingest` runs five servers in turn, over loopback HTTP with 64 connections, each with the same events: distinct,
//! signed beforehand, about 600 bytes with 12 headers. Each round runs them all, so that what else the machine does hits them
//! alike; what counts is the median of the rounds' ratios.
//!
//! - `bare`: reads the body, answers 200.
//! - `verify`: also checks the RSA signature and reads the event.
//! - `limit`: also appends what the store would keep to a file, through the same channel and group commit, one fdatasync a batch.
//! - `taskhook`: the whole program, workers on, its results routed to a log that writes nowhere. The provider is the simulator
//!   with its rate limit lifted, which proves the tasks; how much of the work was done by the last answer is told as well.
//! - `hmac`: the same program, to which the same events come by a sender whose own secret verifies them.

mod load;
mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use load::Load;
use servers::{Provider, Server};
use taskhook::signature::rsa::PrivateKey;

/// Rounds, of which the median counts.
const ROUNDS: usize = 5;
/// Events a server gets in a round.
const EVENTS: usize = 20_000;
/// Tasks that the events are about.
const TASKS: usize = 100;
/// Connections at once.
const CONNECTIONS: usize = 64;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--help") {
        println!("cargo bench --bench ingest [-- --rounds N --events N --only bare,verify,limit,taskhook,hmac]");
        return;
    }
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let only = arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1).cloned());
    let (rounds, events) = (number("--rounds", ROUNDS), number("--events", EVENTS));
    let cases: Vec<Server> = Server::ALL
        .into_iter()
        .filter(|server| only.as_deref().is_none_or(|only| only.split(',').any(|name| name == server.name())))
        .collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk that holds the build");
    eprintln!("signing {events} events …");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let key = Arc::new(PrivateKey::generate());
    let provider = runtime.block_on(Provider::start(Arc::clone(&key), TASKS));
    // It lives as long as the program: connections send parts of it.
    let load: &'static Load = Box::leak(Box::new(Load::signed(&key, &provider.tasks, events)));
    let hmac: &'static Load = Box::leak(Box::new(Load::signed_by_hmac(&provider.tasks, events)));
    println!("fdatasync of 4 KiB appended: p50 {:.3} ms", fdatasync_p50(folder.path()).as_secs_f64() * 1e3);
    println!("{events} events of {} bytes with 12 headers, {CONNECTIONS} connections, {rounds} rounds\n", load.body_bytes());
    println!("{:>5}  {:>10}  {:>10}  {:>8}  {:>8}  {:>9}", "round", "server", "events/s", "p50 ms", "p99 ms", "work done");
    let mut results: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 1..=rounds {
        for (case, server) in cases.iter().enumerate() {
            let load = if *server == Server::Hmac { hmac } else { load };
            let run = runtime.block_on(servers::run(*server, load, &provider, CONNECTIONS, folder.path()));
            assert_eq!(run.accepted, events, "{}: every event is answered 200, once", server.name());
            println!(
                "{round:>5}  {:>10}  {:>10.0}  {:>8.2}  {:>8.2}  {:>9}",
                server.name(),
                run.per_second(),
                run.percentile(0.5).as_secs_f64() * 1e3,
                run.percentile(0.99).as_secs_f64() * 1e3,
                run.waiting.map(|waiting| format!("{:.0} %", 100.0 - 100.0 * waiting as f64 / events as f64)).unwrap_or_default(),
            );
            results[case].push(run.per_second());
        }
    }
    let at = |server: Server| cases.iter().position(|case| *case == server);
    println!();
    for (over, under) in [
        (Server::Taskhook, Server::Limit),
        (Server::Taskhook, Server::Verify),
        (Server::Taskhook, Server::Bare),
        (Server::Hmac, Server::Taskhook),
    ] {
        let (Some(over_at), Some(under_at)) = (at(over), at(under)) else { continue };
        let ratio = median(results[over_at].iter().zip(&results[under_at]).map(|(over, under)| over / under).collect());
        println!("{} / {}: {ratio:.2} (median of {rounds} rounds)", over.name(), under.name());
    }
    for (case, server) in cases.iter().enumerate() {
        println!("{}: {:.0} events/s (median)", server.name(), median(results[case].clone()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The machine's own measure: what one sync costs.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the machine's clock")]
fn fdatasync_p50(folder: &Path) -> Duration {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("sync")).expect("a file");
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let begun = std::time::Instant::now();
            file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).expect("the disk takes it");
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
