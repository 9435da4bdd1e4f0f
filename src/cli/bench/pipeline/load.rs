//! Tasks that are made through taskhook, and their events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::super::super::{Error, Result};
use super::super::BENCH;
use super::super::connection::Connection;
use super::super::load::PUBLIC_URL;
use super::super::process::Home;
use super::super::progress::Counter;
use super::board::{Board, Point};
use crate::clock::Clock;
use crate::event::hex;
use crate::signature::encode_base64;
use crate::signature::rsa::PrivateKey;
use crate::simulator::manus::{Happening, Manus};

/// Tasks that are made at the same time.
const MAKING: usize = 16;
/// Connections of the steady part.
const CONNECTIONS: usize = 64;
/// How far ahead signatures are dated: they are good for five minutes on either side.
const AHEAD: i64 = 120;
/// How long nothing may arrive before the rest is given up on.
const STANDSTILL: Duration = Duration::from_secs(30);

/// How events are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flow {
    /// The next as soon as one of so many has arrived.
    Closed { in_flight: usize },
    /// So many a second, whatever becomes of them.
    Open { per_second: u32 },
}

/// Makes the tasks of a run, lets them end, and signs their events.
pub(super) async fn prepare(
    home: &Home,
    manus: &Manus,
    key: &Arc<PrivateKey>,
    board: &Board,
    clock: &Clock,
    made: &Counter,
) -> Result<Vec<Vec<u8>>> {
    let create = |number: usize| async move {
        let wish = json!({"source": BENCH, "prompt": format!("Compare three laptops, {number}")});
        let task: Value = home.post("/api/v1/tasks", &wish).await?;
        made.add(1);
        Ok::<_, super::super::super::Failure>(task["task_id"].as_str().unwrap_or_default().to_owned())
    };
    let tasks: Vec<String> = stream::iter(0..board.len()).map(create).buffered(MAKING).try_collect().await?;
    manus.finish_all().await;
    board.name(&tasks);
    let timestamp = clock.now().as_second() + AHEAD;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parts = Vec::new();
    for part in tasks.chunks(tasks.len().div_ceil(threads).max(1)) {
        let (part, key) = (part.to_vec(), Arc::clone(key));
        parts.push(tokio::task::spawn_blocking(move || {
            part.iter().map(|task| request(&key, task, timestamp)).collect::<Vec<_>>()
        }));
    }
    let mut requests = Vec::with_capacity(tasks.len());
    for part in parts {
        requests.extend(part.await.map_err(|error| Error::failed(format!("cannot sign the events: {error}")))?);
    }
    Ok(requests)
}

/// The end of `task`, as Manus tells it: about 600 bytes.
fn request(key: &PrivateKey, task: &str, timestamp: i64) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    let message = "The second is the lightest, and the only one whose battery lasts a day. ".repeat(4);
    let body = json!({
        "event_id": format!("task_stopped_{task}_{timestamp}"),
        "event_type": "task_stopped",
        "task_detail": {
            "task_id": task,
            "task_title": "Compare three laptops",
            "task_url": format!("https://manus.im/app/{task}"),
            "message": message,
            "attachments": [],
            "stop_reason": "finish",
        },
    })
    .to_string();
    let path = format!("/webhooks/{BENCH}");
    let content = format!("{timestamp}.{PUBLIC_URL}{path}.{}", hex(digest(&SHA256, body.as_bytes()).as_ref()));
    let signature = encode_base64(&key.sign(content.as_bytes()));
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\nuser-agent: Go-http-client/2.0\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\naccept-encoding: gzip\r\nx-webhook-signature: {signature}\r\nx-webhook-timestamp: {timestamp}\r\n\
         x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: hooks.example.com\r\nvia: 1.1 Caddy\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends `requests`, and waits until all has arrived; what went wrong.
pub(super) async fn send(
    board: &Arc<Board>,
    requests: Vec<Vec<u8>>,
    home: &Home,
    flow: Flow,
    manus: &Manus,
    clock: &Clock,
) -> Result<Option<String>> {
    let mut watching = JoinSet::new();
    watching.spawn(watch(manus.happenings(), Arc::clone(board)));
    let connections = match flow {
        Flow::Closed { in_flight } => {
            board.room.add_permits(in_flight);
            in_flight
        }
        Flow::Open { .. } => CONNECTIONS,
    };
    let (requests, next, begun) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)), clock.elapsed());
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (board, requests, next, clock) = (Arc::clone(board), Arc::clone(&requests), Arc::clone(&next), clock.clone());
        let mut connection = Connection::new(home.public);
        senders.spawn(async move {
            let (mut refused, mut why) = (0, None);
            loop {
                if let Flow::Closed { .. } = flow
                    && let Ok(room) = board.room.acquire().await
                {
                    // It comes back when the task has arrived.
                    room.forget();
                }
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(place) else { break };
                let due = match flow {
                    Flow::Closed { .. } => clock.elapsed(),
                    Flow::Open { per_second } => {
                        begun + Duration::from_secs(1) * u32::try_from(place).unwrap_or(u32::MAX) / per_second
                    }
                };
                tokio::time::sleep(due.saturating_sub(clock.elapsed())).await;
                board.mark(place, Point::Sent, due);
                let answer = connection.exchange(request).await;
                let kept = answer.as_ref().is_ok_and(|answer| answer.says("accepted"));
                if kept {
                    board.mark(place, Point::Kept, clock.elapsed());
                } else {
                    refused += 1;
                    why.get_or_insert(answer.map_or_else(|error| error.to_string(), |answer| answer.status.to_string()));
                    board.room.add_permits(1);
                }
            }
            // Whoever else waits for room is to see that nothing is left.
            board.room.add_permits(1);
            (refused, why)
        });
    }
    let (mut refused, mut why) = (0, None);
    while let Some(sender) = senders.join_next().await {
        let (more, reason) = sender.map_err(|error| Error::failed(format!("a sender ended: {error}")))?;
        refused += more;
        why = why.or(reason);
    }
    let expected = (board.len() - refused) as u64;
    while board.counter().count() < expected {
        if tokio::time::timeout(STANDSTILL, board.bell.notified()).await.is_err() {
            break;
        }
    }
    Ok(why.map(|why| format!("{refused} events were not accepted: {why}")))
}

/// Writes down when the provider was asked.
async fn watch(mut happenings: tokio::sync::broadcast::Receiver<Happening>, board: Arc<Board>) {
    loop {
        match happenings.recv().await {
            Ok(Happening::Called(call)) => board.called(&call.path, &call.query),
            // The points of a few tasks are then missing; their times on the whole are not.
            Ok(Happening::Sent(_)) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
