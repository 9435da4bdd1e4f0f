//! The life of a task: turn by turn, step by step, as its [`Plan`] says, or as somebody answers or stops it.

use serde_json::{Value, json};

use super::super::core::Model as _;
use super::File;
use super::deliver::Event;
use super::script::{End, Plan, Turn};
use super::state::{MAX_ENTRIES, NewTask, State, Status, Step, Waiting};
use crate::clock;
use crate::event::{TASK_CREATED, TASK_PROGRESS, TASK_STOPPED};

/// Kinds of waiting that are answered with a message, not by confirming.
const ASKING: [&str; 2] = ["messageAskUser", "cascadeAskUser"];

impl State {
    /// Notes what the user said, and begins the next turn.
    pub(super) fn start_turn(&mut self, number: u64, said: &str) {
        self.note(number, "user_message", json!({"content": said, "message_type": "text", "attachments": []}));
        let Some(task) = self.task(number) else { return };
        let turn = task.turns.pop_front().unwrap_or_else(|| Turn::finish(format!("Done: {said}")));
        self.run(number, turn);
    }

    fn run(&mut self, number: u64, turn: Turn) {
        let Some(task) = self.task(number) else { return };
        task.waiting = None;
        task.pace = turn.pace;
        task.steps.extend(turn.progress.into_iter().map(Step::Progress));
        task.steps.push_back(Step::End(Box::new(turn.end), turn.credits));
        self.set_status(number, Status::Running, None);
        self.board.schedule(number, Some(clock::after(self.clock.now(), turn.pace)));
    }

    fn set_status(&mut self, number: u64, status: Status, detail: Option<Value>) {
        let Some(task) = self.task(number) else { return };
        task.status = status;
        let mut update = json!({"agent_status": status.v2(), "brief": "", "description": ""});
        if let Some(detail) = detail {
            update["status_detail"] = detail;
        }
        self.note(number, "status_update", update);
    }

    /// Does a task's next step; the event that tells of it, if one does. `None` as well if there is no step left.
    pub(super) fn live(&mut self, number: u64) -> Option<Event> {
        let now = self.clock.now();
        let task = self.task(number)?;
        let step = task.steps.pop_front();
        let next = (!task.steps.is_empty()).then(|| clock::after(now, task.pace));
        self.board.schedule(number, next);
        match step? {
            Step::Announce => {
                let detail = self.detail(number)?;
                self.event(number, TASK_CREATED, json!({"task_detail": detail}))
            }
            Step::Progress(step) => {
                self.note(number, "plan_update", json!({"steps": [{"status": "doing", "title": step}]}));
                let message = json!({"content": step, "attachments": [], "delivery_kind": "progress"});
                self.note(number, "assistant_message", message);
                let id = self.tasks.get(&number)?.id.clone();
                let detail = json!({"task_id": id, "progress_type": "plan_update", "message": step});
                self.event(number, TASK_PROGRESS, json!({"progress_detail": detail}))
            }
            Step::End(end, credits) => {
                let task = self.task(number)?;
                task.credits += credits;
                self.end(number, *end)
            }
        }
    }

    fn end(&mut self, number: u64, end: End) -> Option<Event> {
        let mut detail = self.detail(number)?;
        match end {
            End::Finish { message, files, structured_output } => {
                let (shown, announced) = self.hand_out(number, &files);
                let result = json!({"content": message, "attachments": shown, "delivery_kind": "result"});
                self.note(number, "assistant_message", result);
                self.set_status(number, Status::Stopped, None);
                detail["message"] = message.into();
                detail["attachments"] = announced;
                detail["stop_reason"] = "finish".into();
                if let Some(value) = structured_output {
                    // It comes after the status that it belongs to.
                    let output = json!({"success": true, "value": value, "error": null});
                    self.note(number, "structured_output_result", output.clone());
                    detail["structured_output"] = output;
                }
            }
            End::Ask { question, options } => {
                let mut message = json!({"content": question, "attachments": []});
                if !options.is_empty() {
                    let expectation = json!({"options": options, "selection_mode": "single", "response_method": "send_message"});
                    message["question_expectation"] = expectation.clone();
                    detail["question_expectation"] = expectation;
                }
                let event_id = self.note(number, "assistant_message", message);
                self.wait_for(number, event_id, ASKING[0], &question, None);
                detail["message"] = question.into();
                detail["attachments"] = json!([]);
                detail["stop_reason"] = "ask".into();
            }
            End::Confirm { action, description, input_schema } => {
                self.note(number, "assistant_message", json!({"content": description, "attachments": []}));
                let tool = json!({"tool": action, "status": "pending_confirmation", "brief": description, "description": ""});
                let event_id = self.note(number, "tool_used", tool);
                self.wait_for(number, event_id, &action, &description, Some(input_schema));
                detail["message"] = description.into();
                detail["attachments"] = json!([]);
                detail["stop_reason"] = "ask".into();
            }
            End::Fail { error } => {
                self.note(number, "error_message", json!({"error_type": "internal", "content": error}));
                self.set_status(number, Status::Error, None);
                self.task(number)?.error = Some(error);
                return None;
            }
            End::UserStop => {
                self.stop(number);
                return None;
            }
            End::Never => return None,
        }
        self.event(number, TASK_STOPPED, json!({"task_detail": detail}))
    }

    fn wait_for(&mut self, number: u64, event_id: String, kind: &str, description: &str, schema: Option<Value>) {
        let mut detail = json!({
            "waiting_for_event_id": event_id,
            "waiting_for_event_type": kind,
            "waiting_description": description,
        });
        if let Some(schema) = schema {
            detail["confirm_input_schema"] = schema;
        }
        self.set_status(number, Status::Waiting, Some(detail));
        if let Some(task) = self.task(number) {
            task.waiting = Some(Waiting { event_id, kind: kind.to_owned() });
        }
    }

    /// Keeps files: as `listMessages` shows them, and as the webhook names them.
    fn hand_out(&mut self, number: u64, files: &[File]) -> (Value, Value) {
        let (mut shown, mut announced) = (Vec::new(), Vec::new());
        for file in files {
            let url = file.link.clone().unwrap_or_else(|| self.keep_file(number, file));
            let kind = if file.content_type.starts_with("image/") { "image" } else { "file" };
            shown.push(json!({"type": kind, "filename": file.name, "url": url, "content_type": file.content_type}));
            announced.push(json!({"file_name": file.name, "url": url, "size_bytes": file.bytes.len()}));
        }
        (shown.into(), announced.into())
    }

    /// Takes a message of the user: a task that rests goes on; one that runs only notes it. False if the task is too long.
    pub(super) fn say(&mut self, number: u64, text: &str) -> bool {
        let Some(task) = self.task(number) else { return false };
        if task.entries.len() >= MAX_ENTRIES {
            return false;
        }
        if task.status == Status::Running {
            self.note(number, "user_message", json!({"content": text, "message_type": "text", "attachments": []}));
        } else {
            self.start_turn(number, text);
        }
        true
    }

    /// Takes a confirmation: whether it was one, or `None` if the task does not wait for this.
    pub(super) fn confirm(&mut self, number: u64, event_id: &str, input: &Value) -> Option<bool> {
        let task = self.task(number)?;
        let waiting = task.waiting.clone()?;
        if waiting.event_id != event_id || ASKING.contains(&waiting.kind.as_str()) {
            return None;
        }
        let accepted = input["accept"] != Value::Bool(false);
        // A refusal changes nothing, but for this one kind, where it is an answer.
        if accepted || waiting.kind == "webdevRequestSecrets" {
            let turn = task.turns.pop_front().unwrap_or_else(|| Turn::finish("Confirmed: done."));
            self.run(number, turn);
        }
        Some(accepted)
    }

    /// Stops a task as a person would; no event tells of it.
    pub(super) fn stop(&mut self, number: u64) {
        let Some(task) = self.task(number) else { return };
        if !matches!(task.status, Status::Running | Status::Waiting) {
            return;
        }
        // Its creation is announced all the same.
        task.steps.retain(|step| matches!(step, Step::Announce));
        task.waiting = None;
        if task.steps.is_empty() {
            self.board.schedule(number, None);
        }
        self.note(number, "user_stop", json!({}));
        self.set_status(number, Status::Stopped, None);
    }

    /// The `task_detail` that every event of it has.
    fn detail(&self, number: u64) -> Option<Value> {
        let task = self.tasks.get(&number)?;
        Some(json!({"task_id": task.id, "task_title": task.title, "task_url": task.url()}))
    }

    /// An event with an id of the observed form `{type}_{task}_{seconds}`.
    fn event(&mut self, number: u64, kind: &'static str, mut body: Value) -> Option<Event> {
        let (now, same_second) = (self.now().as_second(), self.faults.same_second);
        let task = self.task(number)?;
        let second = if let Some((_, second)) = task.seconds.iter_mut().find(|(known, _)| *known == kind) {
            *second = if same_second { *second } else { now.max(*second + 1) };
            *second
        } else {
            task.seconds.push((kind, now));
            now
        };
        body["event_id"] = format!("{kind}_{}_{second}", task.id).into();
        body["event_type"] = kind.into();
        Some(Event { account: task.account, task_id: task.id.clone(), body })
    }

    /// A genuine event of a task that belongs to nobody here.
    pub(super) fn foreign_event(&mut self) -> Option<Event> {
        let stranger = self.stranger();
        let new = NewTask {
            prompt: "Somebody else's question".to_owned(),
            title: None,
            profile: "manus-1.6".to_owned(),
            plan: Plan::finish("Somebody else's answer"),
        };
        let number = self.create(stranger, new);
        self.live(number);
        let event = self.live(number);
        self.board.schedule(number, None);
        event
    }
}
