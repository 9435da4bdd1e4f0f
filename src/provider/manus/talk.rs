//! A conversation of version 2, taken apart: what was said, where the task stands, what it waits for, and the ends of its turns.

use serde_json::{Value, json};

use super::convert::{content, file, items, member, strings, text, time};
use crate::task::{File, Message, Question, QuestionKind, State, Stop};

/// Where a task stands, from the provider's word.
pub(super) fn state(status: Option<&str>) -> State {
    match status {
        Some("running") => State::Running,
        Some("waiting") => State::Waiting,
        Some("stopped") => State::Finished,
        Some("error") => State::Failed,
        _ => State::Unknown,
    }
}

/// What a conversation comes to.
#[derive(Default)]
pub(super) struct Talk {
    pub(super) messages: Vec<Message>,
    pub(super) files: Vec<File>,
    /// The last thing the agent said in this turn.
    said: Option<String>,
    /// Answers to choose from, as last offered in this turn.
    options: Vec<String>,
    /// The newest `status_update` that waits, unless the agent has gone on since.
    waiting: Option<Value>,
    pub(super) status: Option<String>,
    pub(super) structured: Option<Value>,
    pub(super) error: Option<String>,
    /// Whether the last thing that anybody did was to stop the task by hand.
    pub(super) user_stop: bool,
    /// The ends of its turns.
    pub(super) stops: Vec<Stop>,
    /// Whether anything was said or begun since the last of them.
    pub(super) open: bool,
}

impl Talk {
    /// Hears events, the oldest first.
    pub(super) fn of(events: &[Value]) -> Self {
        let mut heard = Self::default();
        for event in events {
            heard.hear(event);
        }
        heard
    }

    fn hear(&mut self, event: &Value) {
        let kind = text(event, &["type"]).unwrap_or_default();
        let payload = event.get(&kind).unwrap_or(&Value::Null);
        match kind.as_str() {
            "user_message" => {
                // A new turn: what was asked and answered before is over.
                (self.said, self.waiting, self.structured, self.error) = (None, None, None, None);
                self.options.clear();
                self.message("user", event, payload);
            }
            "assistant_message" => {
                self.message("assistant", event, payload);
                self.said = Some(content(payload)).filter(|said| !said.is_empty()).or(self.said.take());
                if let Some(expectation) = member(payload, &["question_expectation"]) {
                    self.options = strings(expectation, "options");
                }
            }
            "error_message" => {
                self.user_stop = false;
                self.error = Some(content(payload)).filter(|said| !said.is_empty()).or_else(|| text(payload, &["error_type"]));
            }
            "status_update" => {
                self.status_update(payload);
                self.stop(event, payload);
            }
            "structured_output_result" => {
                let part = |name: &str| payload.get(name).cloned().unwrap_or_default();
                self.structured = Some(json!({"success": part("success"), "value": part("value"), "error": part("error")}));
            }
            "user_stop" => {
                self.user_stop = true;
                // It may be told behind the stop that it made.
                if let Some(stop) = self.stops.last_mut().filter(|stop| !self.open && stop.state == State::Finished) {
                    stop.state = State::Stopped;
                }
            }
            // Steps, plans and what is yet to be invented: kept in the raw answer.
            _ => {}
        }
    }

    /// Notes the end of a turn, if the update is one. What only says again where the task stands is none.
    fn stop(&mut self, event: &Value, payload: &Value) {
        let state = match state(text(payload, &["agent_status"]).as_deref()) {
            State::Running => {
                self.open = true;
                return;
            }
            State::Unknown => return,
            State::Finished if self.user_stop => State::Stopped,
            state => state,
        };
        let again = !self.open && self.stops.last().is_some_and(|stop| stop.state == state);
        if let Some(anchor) = text(event, &["id"]).filter(|_| !again) {
            self.stops.push(Stop { anchor, state, at: time(event, "timestamp"), text: self.said.clone() });
        }
        self.open = false;
    }

    fn message(&mut self, role: &str, event: &Value, payload: &Value) {
        (self.user_stop, self.open) = (false, true);
        let id = text(event, &["id"]);
        let mut positions = Vec::new();
        let parts = items(payload, "content").iter().filter(|part| member(part, &["file_url", "url", "filename"]).is_some());
        for file in items(payload, "attachments").iter().chain(parts).filter_map(|of| file(of, id.as_deref())) {
            positions.push(self.files.len());
            self.files.push(file);
        }
        self.messages.push(Message {
            created_at: time(event, "timestamp"),
            text: content(payload),
            role: role.to_owned(),
            id,
            files: positions,
        });
    }

    fn status_update(&mut self, payload: &Value) {
        self.status = text(payload, &["agent_status"]).or(self.status.take());
        match self.status.as_deref() {
            Some("waiting") => self.waiting = Some(payload.clone()),
            Some("running") => self.waiting = None,
            Some("error") if self.error.is_none() => self.error = text(payload, &["description", "brief"]),
            _ => {}
        }
    }

    /// What the task waits for. A webhook does not tell a question from a confirmation; the newest status does.
    pub(super) fn question(&self) -> Question {
        let nothing = Value::Null;
        let update = self.waiting.as_ref().unwrap_or(&nothing);
        let detail = update.get("status_detail").unwrap_or(&nothing);
        let action = text(detail, &["waiting_for_event_type"]);
        let kind = match action.as_deref() {
            None | Some("messageAskUser" | "cascadeAskUser") => QuestionKind::Message,
            Some(_) => QuestionKind::Action,
        };
        let described = text(detail, &["waiting_description"]).or_else(|| text(update, &["description", "brief"]));
        let said = self.said.clone();
        Question {
            kind,
            // A question is in the agent's own words, a confirmation in the description of what is to be done.
            text: if kind == QuestionKind::Message { said.or(described) } else { described.or(said) },
            options: self.options.clone(),
            action,
            event_id: text(detail, &["waiting_for_event_id"]),
            input_schema: member(detail, &["confirm_input_schema"]).cloned(),
        }
    }
}
