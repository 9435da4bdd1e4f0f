//! Connections that say nothing, or little, beside senders that mean it.

use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::harness::{Harness, Wire};

/// How long a good sender is let wait at the most, whoever else is there. Who is there for long is closed after half a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets this process, and what it starts, open so many files.
fn allow_files(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map(|most| most.max(count));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: most });
    assert!(
        raised.is_ok(),
        "this test opens {count} files at once: raise the hard limit, `ulimit -Hn`, which is {:?}",
        limit.maximum
    );
}

/// Sends `event` over a connection of its own; its status, once the answer is whole.
async fn alone(to: SocketAddr, event: &Value) -> u16 {
    let body = event.to_string();
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let head =
            format!("POST /webhooks/open HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{}: no answer in time", event["event_id"]))
}

/// A connection that is open and idle, after one request if `used`; it stays so until the other side closes it.
async fn idle(to: SocketAddr, used: bool) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    if used {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut some = [0; 1024];
        let _ = stream.read(&mut some).await;
    }
    stream
}

/// How many events the program has kept, told by its own count.
fn is_all_kept(folder: &std::path::Path, events: usize) {
    let store = rusqlite::Connection::open(folder.join("taskhook.db")).unwrap();
    let kept: usize = store.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, events);
}

#[tokio::test]
async fn ten_thousand_idle_connections_and_slow_bodies_disturb_no_good_sender() {
    const IDLE: usize = 10_000;
    allow_files(12_000);
    let folder = tempfile::tempdir().unwrap();
    let many = "[server]\nmax_connections = 10500\nheader_timeout = \"5m\"\nrequest_timeout = \"1s\"\n";
    // The limit that most systems begin with: the program raises it by itself.
    let setting = Setting::new(folder.path()).config(many).by(["sh", "-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""]);
    let mut program = setting.start().await;
    let public = program.public;
    let mut open = Vec::with_capacity(IDLE);
    for some in 0..IDLE / 250 {
        open.extend(futures_util::future::join_all((0..250).map(|number| idle(public, some < 4 && number % 2 == 0))).await);
    }
    let slow = (0..200).map(|_| async move {
        let mut stream = TcpStream::connect(public).await.unwrap();
        stream.write_all(b"POST /webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"slow\":").await.unwrap();
        let mut answer = String::new();
        within("an answer to a slow sender", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    });
    let good = (0..8).map(|sender| async move {
        for number in 0..25 {
            assert_eq!(alone(public, &stopped(&format!("{sender}-{number}"), 100)).await, 200);
        }
    });
    let (slow, _) = tokio::join!(futures_util::future::join_all(slow), futures_util::future::join_all(good));
    assert!(slow.iter().all(|answer| answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout")), "{slow:?}");
    assert!(program.runs() && !program.said().contains("cannot accept"), "{}", program.said());
    // All are still open: nobody needed their places.
    for stream in open.iter().step_by(100) {
        assert_eq!(stream.try_read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    program.kill();
    is_all_kept(folder.path(), 200);
}

#[tokio::test]
async fn a_flood_of_idle_connections_keeps_no_good_sender_out_of_the_usual_number_of_places() {
    const FLOOD: usize = 1_200;
    allow_files(4_000);
    let folder = tempfile::tempdir().unwrap();
    let mut program = Setting::new(folder.path()).start().await;
    let public = program.public;
    // Each comes again as soon as it is closed.
    let mut flood = JoinSet::new();
    for number in 0..FLOOD {
        flood.spawn(async move {
            loop {
                let mut stream = idle(public, number % 3 == 0).await;
                if number % 3 == 1 {
                    let _ = stream.write_all(b"POST /webhooks/open HTTP/1.1\r\nHo").await;
                }
                let _ = stream.read(&mut [0; 16]).await;
            }
        });
    }
    within("all places are taken", async {
        while !program.said().contains("connections of a listener are in use") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for number in 0..15 {
        assert_eq!(alone(public, &stopped(&format!("e{number}"), 100)).await, 200);
    }
    flood.shutdown().await;
    assert!(program.runs(), "{}", program.said());
    program.kill();
    is_all_kept(folder.path(), 15);
}

#[tokio::test]
async fn slow_senders_make_room_and_who_waits_for_us_is_never_closed() {
    let config = "[server]\nmax_connections = 4\nheader_timeout = \"10m\"\nrequest_timeout = \"10m\"\ncommit_timeout = \"10m\"\n\
                  [sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    let mut harness = Harness::with(config).await;
    harness.expect_leftover();
    let to = harness.public();
    for words in ["", "POST /webhooks/op", "POST /webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"slow\":"] {
        let mut slow = Vec::new();
        for _ in 0..4 {
            let mut wire = Wire::open(to).await;
            wire.send(words).await;
            slow.push(wire);
        }
        assert_eq!(alone(to, &stopped(&format!("beside {}", words.len()), 100)).await, 200, "{words}");
        // One of them had to go.
        let (said, ..) = futures_util::future::select_all(slow.into_iter().map(|wire| Box::pin(wire.rest()))).await;
        assert_eq!(said, "", "{words}");
    }
    // The store takes nothing now: four senders wait for their commits, a fifth for a place.
    let other = rusqlite::Connection::open(harness.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let events: Vec<_> = (0..5).map(|number| stopped(&format!("e{number}"), 100)).collect();
    let senders = futures_util::future::join_all(events.iter().map(|event| alone(to, event)));
    let release = async {
        // For longer than anybody is waited for.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        other.execute_batch("COMMIT").unwrap();
    };
    let (answers, ()) = tokio::join!(senders, release);
    assert_eq!(answers, [200; 5]);
}

#[tokio::test]
async fn slow_headers_are_closed_in_time() {
    let harness = Harness::with("[server]\nheader_timeout = \"300ms\"\n").await;
    for words in ["", "POST /webhooks/manus HTTP/1.1\r\nHost: x\r\nX-Slow"] {
        let mut wire = Wire::open(harness.public()).await;
        wire.send(words).await;
        let said = wire.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
}
