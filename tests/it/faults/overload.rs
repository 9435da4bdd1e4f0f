//! More load than the disk takes: senders are told to come again, memory stays bounded, and nothing accepted is lost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Senders at once.
const SENDERS: usize = 100;
/// What each sends.
const EVENTS: usize = 15;
/// The most memory that the program may have, in bytes: its buffers are bounded by `max_inflight_bytes` and by the cache of its
/// writer, which is 16 MiB at the most. A build for tests is a large program by itself.
const MEMORY: u64 = 250 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_load_than_the_disk_takes_is_turned_away_and_memory_stays_flat() {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::new());
    let setting = Setting::new(folder.path()).faults(&faults).environment("FAULT_SLOW_US", "50000");
    let bounds = "[server]\nmax_inflight_bytes = \"4MiB\"\ncommit_timeout = \"150ms\"\nrequest_timeout = \"1m\"\nheader_timeout = \"1m\"\n";
    let mut program = setting.config(bounds).start().await;
    let client = http::client(Duration::from_mins(2));
    let kept = Mutex::new(Vec::new());
    let (turned_away, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sender = async |sender: usize| {
        for number in 0..EVENTS {
            let event = stopped(&format!("{sender}-{number}"), 60_000);
            let answer = sent(&client, &program, &event).await.expect("it answers");
            if status(&answer) == 200 {
                kept.lock().unwrap().push(event);
            } else {
                let code = code(&answer);
                assert!(code == "queue_full" || code == "store_unavailable", "{code}");
                come_again(&answer, &code);
                turned_away.fetch_add(1, Ordering::Relaxed);
            }
            most.fetch_max(program.memory().try_into().unwrap(), Ordering::Relaxed);
        }
    };
    futures_util::future::join_all((0..SENDERS).map(sender)).await;
    let (kept, turned_away) = (kept.into_inner().unwrap(), turned_away.into_inner());
    assert!(kept.len() > 50 && turned_away > 50, "{} accepted, {turned_away} turned away", kept.len());
    let most = most.into_inner() as u64;
    assert!(most < MEMORY, "{most} bytes");
    // The load has ended: who comes again is served as soon as the commit in hand has ended.
    let mut answered = Vec::new();
    while answered.last() != Some(&200) && answered.len() < 20 {
        let answer = sent(&client, &program, &stopped("afterwards", 100)).await.expect("it answers");
        answered.push(status(&answer));
    }
    assert_eq!(answered.last(), Some(&200), "{answered:?}");
    assert!(program.runs(), "{}", program.said());
    program.kill();
    let program = Setting::new(folder.path()).start().await;
    for some in kept.chunks(32) {
        let found = futures_util::future::join_all(some.iter().map(|event| is_kept(&client, &program, event))).await;
        assert!(found.into_iter().all(|found| found), "what was accepted is kept");
    }
}
