//! Waking other replicas, by `NOTIFY`.
//!
//! What must hold: nothing depends on it. Who misses it finds the work a second later, so it may be lost, merged and late; a transaction
//! pooler does no harm. It is rung only for work that another replica is to do, and at most ten times a second.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::Way;
use super::session::{Sessions, Tx, args, transact};
use crate::postgres;
use crate::store::Error;
use crate::store::model::Queue;

/// How long it is silent once it was rung.
const SILENCE: Duration = Duration::from_millis(100);
/// How long until a connection that ended is made anew.
const PAUSE: Duration = Duration::from_secs(5);
/// How soon a connection that is dead is known to be.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What wakes other replicas, and this one's worker.
#[derive(Debug)]
pub(super) struct Bell {
    rope: Arc<Notify>,
    heard: Arc<Notify>,
    known: Mutex<Known>,
}

/// Who is at work, as this replica last saw it.
#[derive(Debug, Default)]
struct Known {
    alone: bool,
    mine: HashSet<Queue>,
}

impl Bell {
    /// Begins to ring for others, and to listen for them where there is a direct connection.
    pub(super) fn hang(
        sessions: Sessions,
        direct: Option<Way>,
        instance: &str,
        me: Uuid,
        parts: &mut JoinSet<&'static str>,
    ) -> Self {
        let (rope, heard) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (pulled, word) = (Arc::clone(&rope), format!("{instance} {me}"));
        parts.spawn(async move {
            loop {
                pulled.notified().await;
                if let Err(error) = transact!(sessions, Write, |tx| ring(&tx, &word)) {
                    tracing::debug!(error = %error, "other replicas were not woken: {error}");
                }
                tokio::time::sleep(SILENCE).await;
            }
        });
        if let Some(way) = direct {
            let (listener, instance, me) = (Arc::clone(&heard), instance.to_owned(), me.to_string());
            parts.spawn(async move {
                loop {
                    let ended = listen(&way.config, &way.tls, &listener, &instance, &me).await;
                    tracing::debug!("listening for other replicas ended: {ended}");
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { rope, heard, known: Mutex::default() }
    }

    /// Wakes the others, if there are any.
    pub(super) fn ring(&self) {
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).alone {
            self.rope.notify_one();
        }
    }

    /// Wakes the others if one of them holds a queue of `queues`, or may.
    pub(super) fn ring_for(&self, mut queues: impl Iterator<Item = Queue>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.alone && queues.any(|queue| !known.mine.contains(&queue)) {
            self.rope.notify_one();
        }
    }

    /// Learns whether this replica is alone, and what it holds.
    pub(super) fn note(&self, alone: bool, mine: impl Iterator<Item = Queue>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known { alone, mine: mine.collect() };
    }

    /// Waits until another replica has rung.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

async fn ring(tx: &Tx, word: &str) -> Result<(), Error> {
    tx.run("SELECT pg_notify('taskhook', $1)", args![word]).await.map(drop)
}

/// Listens until the connection ends, and says why. Any store of the database may ring: a word names the store and the replica.
async fn listen(config: &Config, tls: &MakeRustlsConnect, heard: &Notify, instance: &str, me: &str) -> String {
    let told = |error: &tokio_postgres::Error| postgres::reason(error, "store.listen_url");
    let mut config = config.clone();
    config.application_name("taskhook listens").connect_timeout(PAUSE);
    config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
    let (client, mut connection) = match config.connect(tls.clone()).await {
        Ok(connected) => connected,
        Err(error) => return told(&error),
    };
    let mut messages = stream::poll_fn(|context| connection.poll_message(context));
    let mut begin = pin!(client.batch_execute("LISTEN taskhook"));
    let mut listening = false;
    loop {
        tokio::select! {
            answer = &mut begin, if !listening => match answer {
                // What was said before is missed.
                Ok(()) => { listening = true; heard.notify_one() }
                Err(error) => return told(&error),
            },
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(word))) => {
                    if word.payload().split_once(' ').is_some_and(|(store, replica)| store == instance && replica != me) {
                        heard.notify_one();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return told(&error),
                None => return "the server has closed the connection".to_owned(),
            },
        }
    }
}
