//! WebRun's webhook requests: no signature, no id, no time; the `Authorization` value of the caller's choice.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::board::Outgoing;
use super::super::fault::{Passed, pass};
use super::Delivery;
use super::script::Output;
use super::state::{State, Task};
use crate::clock;

/// The only type that is documented.
const TASK_COMPLETED: &str = "task_completed";

/// The `webhook` object of a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// A label.
    pub name: String,
    /// Where to send.
    pub url: String,
    /// The whole value of the `Authorization` header, scheme included.
    #[serde(default)]
    pub auth: Option<String>,
    /// What to send.
    #[serde(rename = "submittedData")]
    pub submitted_data: Shape,
}

/// What a webhook's body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The agent's answer and nothing else.
    AiResponse,
    /// The answer, ids, and usage.
    FullResponse,
    /// Ids only.
    JustPing,
}

/// A webhook that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) task_id: String,
    pub(super) webhook: Webhook,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

impl Event {
    /// What tells that `task` of `session` is done.
    pub(super) fn of(session: &str, task: &Task, webhook: Webhook) -> Self {
        let completed_at = task.completed_at.map(clock::rfc3339);
        let json = |value: Value| ("application/json", Bytes::from(value.to_string()));
        let (content_type, body) = match (webhook.submitted_data, task.plan.output) {
            (Shape::AiResponse, Output::Json) => ("application/json", Bytes::from(task.message.clone())),
            (Shape::AiResponse, Output::Text) => ("text/plain; charset=utf-8", Bytes::from(task.message.clone())),
            (Shape::AiResponse, Output::Csv) => ("text/csv; charset=utf-8", Bytes::from(task.message.clone())),
            (Shape::FullResponse, _) => {
                let usage = &task.usage;
                json(json!({
                    "type": TASK_COMPLETED,
                    "sessionId": session,
                    "taskId": task.id,
                    "data": {
                        "message": task.message,
                        "prompt_tokens": usage.input_tokens,
                        "completion_tokens": usage.output_tokens,
                        "total_tokens": usage.input_tokens + usage.output_tokens,
                        "completion_time": usage.seconds,
                    },
                    "usage": {
                        "inputTokens": usage.input_tokens,
                        "outputTokens": usage.output_tokens,
                        "computeTime": usage.seconds,
                        "cost": usage.cost,
                    },
                    "completedAt": completed_at,
                }))
            }
            (Shape::JustPing, _) => json(json!({
                "event": TASK_COMPLETED,
                "sessionId": session,
                "taskId": task.id,
                "completedAt": completed_at,
            })),
        };
        Self { task_id: task.id.clone(), webhook, content_type, body }
    }

    /// The record of a try. WebRun's webhooks have no id.
    pub(super) fn delivery(&self, url: &str, attempt: u32) -> Delivery {
        Delivery::new(url, "", TASK_COMPLETED, &self.task_id, attempt)
    }

    fn outgoing(self) -> Outgoing<Self> {
        Outgoing { url: self.webhook.url.clone(), event: self }
    }
}

impl State {
    /// What is to be sent now that `event` happened, after the faults had their say.
    pub(super) fn dispatch(&mut self, event: Event) -> Vec<Outgoing<Event>> {
        let faults = [&mut self.faults.drop, &mut self.faults.reorder, &mut self.faults.duplicate];
        match pass(faults, &mut self.held, event) {
            Passed::Dropped(event) => {
                self.board.deliveries.push(event.delivery(&event.webhook.url, 0));
                Vec::new()
            }
            Passed::Held => Vec::new(),
            Passed::Sent(events) => events.into_iter().map(Event::outgoing).collect(),
        }
    }

    /// What is still held back, to be sent now.
    pub(super) fn let_go(&mut self) -> Vec<Outgoing<Event>> {
        self.held.drain(..).map(Event::outgoing).collect()
    }

    /// Headers and body of a try.
    pub(super) fn render(&mut self, event: &Event) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(event.content_type));
        let auth = if self.faults.no_auth.strikes() {
            None
        } else if self.faults.wrong_auth.strikes() {
            Some("Bearer somebody-elses")
        } else {
            event.webhook.auth.as_deref()
        };
        if let Some(auth) = auth.and_then(|auth| HeaderValue::try_from(auth).ok()) {
            headers.insert(header::AUTHORIZATION, auth);
        }
        (headers, event.body.clone())
    }
}
