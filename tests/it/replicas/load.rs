//! Who sends events to the replicas, and what became of each that was acknowledged.
//!
//! What must hold: a sender comes again with an event until it is answered 200, to another replica each time, as one behind a balancer
//! does. Nothing but 200 and a 503 with its `Retry-After` is ever an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use taskhook::clock::Clock;
use taskhook::http;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, LOOK_EVERY};
use crate::faults::come_again;
use crate::harness::{Recorder, code, json, status, within};
use crate::work::stopped;

/// Senders at once.
const SENDERS: usize = 4;
/// Those who come while nothing is taken.
const CROWD: usize = 12;
/// From one event of a sender to its next, at the least.
const PACE: Duration = Duration::from_millis(25);
/// From a request that was not taken to the next.
const PAUSE: Duration = Duration::from_millis(8);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Events of one task that follow each other: they are delivered in order.
const IN_ORDER: usize = 3;

/// One request, and its answer.
#[derive(Clone, Debug)]
pub(super) struct Try {
    pub(super) to: SocketAddr,
    /// When it began, by the clock of the load.
    pub(super) at: Duration,
    pub(super) took: Duration,
    /// 200, or 503, or 0 where there was no answer.
    pub(super) status: u16,
    /// Why not, of a 503.
    pub(super) code: String,
}

/// All that was sent so far.
#[derive(Debug, Default)]
struct Sent {
    /// Our ids of what was answered 200.
    acknowledged: BTreeSet<String>,
    tries: Vec<Try>,
    /// The most requests that an event took.
    most_tries: usize,
}

/// Senders that send until they are told to end.
pub(super) struct Load {
    to: Vec<SocketAddr>,
    clock: Clock,
    sent: Arc<Mutex<Sent>>,
    stop: CancellationToken,
    senders: JoinSet<()>,
}

impl Load {
    /// Senders who know all of `addresses`.
    pub(super) fn start(addresses: &[SocketAddr]) -> Self {
        let (stop, senders) = (CancellationToken::new(), JoinSet::new());
        let mut load = Self { to: addresses.to_vec(), clock: Clock::system(), sent: Arc::default(), stop, senders };
        for number in 0..SENDERS {
            load.senders.spawn(load.sender(number).run());
        }
        load
    }

    fn sender(&self, number: usize) -> Sender {
        Sender {
            number,
            to: self.to.clone(),
            client: http::client(PATIENCE),
            clock: self.clock.clone(),
            sent: Arc::clone(&self.sent),
            stop: self.stop.clone(),
        }
    }

    /// Sends so many requests as fast as they are answered, which must be by 503.
    pub(super) async fn crowd(&self, count: usize) {
        let client = async |number: usize| {
            let sender = self.sender(number);
            for made in 0..count / CROWD {
                let event = stopped(&format!("crowd{number}-{made}"), "crowd");
                assert!(
                    !sender.send(self.to[made % self.to.len()], event.to_string(), 1).await,
                    "it is kept, and no database is there"
                );
            }
        };
        futures_util::future::join_all((0..CROWD).map(client)).await;
    }

    /// The time of [`Try::at`].
    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Goes on until it is `until`.
    pub(super) async fn reach(&mut self, until: Duration) {
        while self.now() < until {
            self.complain();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How much was acknowledged so far.
    pub(super) fn acknowledged(&self) -> usize {
        self.sent.lock().unwrap().acknowledged.len()
    }

    /// Waits until so much more has been acknowledged.
    pub(super) async fn more(&mut self, count: usize) {
        let until = self.acknowledged() + count;
        within("senders are answered 200", async {
            while self.acknowledged() < until {
                self.complain();
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// The requests so far that `wanted` picks.
    pub(super) fn tries(&self, wanted: impl Fn(&Try) -> bool) -> Vec<Try> {
        self.sent.lock().unwrap().tries.iter().filter(|one| wanted(one)).cloned().collect()
    }

    /// The most requests that an event took.
    pub(super) fn most_tries(&self) -> usize {
        self.sent.lock().unwrap().most_tries
    }

    /// A sender that met what must not be has ended by a panic, which is passed on.
    fn complain(&mut self) {
        if let Some(ended) = self.senders.try_join_next() {
            ended.unwrap();
            panic!("a sender ended by itself");
        }
    }

    /// Our ids of what was answered 200 so far.
    pub(super) fn acknowledged_ids(&self) -> BTreeSet<String> {
        self.sent.lock().unwrap().acknowledged.clone()
    }

    /// Ends the load, and waits until all that came of it is done.
    pub(super) async fn end(self, fleet: &Fleet, crm: &Recorder) -> Verdict {
        let acknowledged = self.done(fleet, crm, &BTreeSet::new()).await;
        Verdict::of(fleet, crm, &acknowledged).await
    }

    /// Ends the load, and waits until all that came of it is done, but for what is `lost`. Our ids of the rest.
    pub(super) async fn done(mut self, fleet: &Fleet, crm: &Recorder, lost: &BTreeSet<String>) -> BTreeSet<String> {
        self.complain();
        self.stop.cancel();
        let senders = std::mem::take(&mut self.senders);
        within("the end of the senders", senders.join_all()).await;
        let acknowledged: BTreeSet<_> = self.acknowledged_ids().difference(lost).cloned().collect();
        within("all that was acknowledged arrives", async {
            while !arrived(crm).is_superset(&acknowledged) {
                tokio::time::sleep(LOOK_EVERY * 4).await;
            }
        })
        .await;
        within("all work is done", async {
            while fleet.admin("/api/v1/stats").await["jobs"] != serde_json::json!([]) {
                tokio::time::sleep(LOOK_EVERY * 4).await;
            }
        })
        .await;
        acknowledged
    }
}

/// Our ids of the events that came to `crm`.
fn arrived(crm: &Recorder) -> BTreeSet<String> {
    crm.bodies().iter().map(|body| body["id"].as_str().expect("an id").to_owned()).collect()
}

struct Sender {
    number: usize,
    to: Vec<SocketAddr>,
    client: reqwest::Client,
    clock: Clock,
    sent: Arc<Mutex<Sent>>,
    stop: CancellationToken,
}

impl Sender {
    async fn run(self) {
        for made in 0.. {
            let begun = self.clock.elapsed();
            let event = stopped(&format!("e{}-{made}", self.number), &format!("t{}-{}", self.number, made / IN_ORDER));
            for tries in 1.. {
                if self.stop.is_cancelled() {
                    return;
                }
                let to = self.to[(self.number + made + tries) % self.to.len()];
                if self.send(to, event.to_string(), tries).await {
                    break;
                }
                self.clock.sleep(PAUSE).await;
            }
            self.clock.sleep(PACE.saturating_sub(self.clock.elapsed().saturating_sub(begun))).await;
        }
    }

    /// Whether it was answered 200.
    async fn send(&self, to: SocketAddr, body: String, tries: usize) -> bool {
        let request = self.client.post(format!("http://{to}/webhooks/open")).body(body);
        let at = self.clock.elapsed();
        let answer = http::send(request, PATIENCE, 4096).await.ok();
        let took = self.clock.elapsed().saturating_sub(at);
        let status = answer.as_ref().map_or(0, status);
        let refused = answer.as_ref().filter(|_| status != 200);
        let mut sent = self.sent.lock().unwrap();
        sent.tries.push(Try { to, at, took, status, code: refused.map(code).unwrap_or_default() });
        sent.most_tries = sent.most_tries.max(tries);
        match answer {
            Some(answer) if status == 200 => {
                sent.acknowledged.insert(json(&answer)["id"].as_str().expect("an id").to_owned());
                true
            }
            Some(answer) => {
                // Nobody else than the database is in the way here.
                let code = code(&answer);
                come_again(&answer, &code);
                assert!(code == "store_unavailable" || code == "store_full", "{code}");
                false
            }
            None => false,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DeliveryRow {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) state: String,
    attempts: Vec<AttemptRow>,
}

impl DeliveryRow {
    /// How many of its attempts are of unknown outcome.
    pub(super) fn unknown(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.outcome == "unknown").count()
    }
}

#[derive(Deserialize)]
struct AttemptRow {
    outcome: String,
}

/// How often each delivery came to `crm`.
pub(super) fn times(crm: &Recorder) -> BTreeMap<String, usize> {
    let mut came = BTreeMap::new();
    for recorded in crm.recorded() {
        *came.entry(recorded.header("webhook-id").to_owned()).or_default() += 1;
    }
    came
}

/// What became of all of it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) acknowledged: usize,
    /// Attempts of unknown outcome.
    pub(super) unknown: usize,
    /// Deliveries that came more than once.
    pub(super) twice: usize,
}

impl Verdict {
    /// Each event that was acknowledged came as one delivery, and no delivery came more often than once and once more for each of its
    /// attempts of unknown outcome, as the admin API tells them.
    async fn of(fleet: &Fleet, crm: &Recorder, acknowledged: &BTreeSet<String>) -> Self {
        let mut came = times(crm);
        let mut verdict = Self { acknowledged: acknowledged.len(), unknown: 0, twice: 0 };
        let mut events: BTreeMap<String, usize> = BTreeMap::new();
        for row in fleet.list::<DeliveryRow>("deliveries").await {
            let unknown = row.unknown();
            let times = came.remove(&row.id).unwrap_or_default();
            assert!(times >= 1 && times <= 1 + unknown, "delivery {} came {times} times, {unknown} unknown attempts", row.id);
            assert_eq!(row.state, "delivered", "{}", row.id);
            verdict.unknown += unknown;
            verdict.twice += usize::from(times > 1);
            *events.entry(row.event).or_default() += 1;
        }
        assert!(came.is_empty(), "nobody knows what came as {came:?}");
        for event in acknowledged {
            assert_eq!(events.get(event), Some(&1), "deliveries of {event}");
        }
        verdict
    }
}
