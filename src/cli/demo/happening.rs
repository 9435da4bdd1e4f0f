//! What happens at the simulator, as a line of the story; and how to make more of it happen.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::news::{Actor, Line, Tone};
use super::stage::{AUTHORIZATION, Cast, OUR_KEY, Stage};
use crate::simulator::{Call, Delivery};

/// A command that makes a task.
pub(super) fn create(stage: &Stage) -> String {
    let (base_url, webhook) = (stage.cast.base_url(), &stage.webhook);
    let key = OUR_KEY;
    match &stage.cast {
        Cast::Manus(_) => {
            let json = r#"-H 'content-type: application/json' -d '{"prompt":"write a file"}'"#;
            format!("curl {json} http://{}/api/v1/tasks", stage.admin)
        }
        Cast::MagicHour(_) => {
            let json = r#"'{"name":"Mine","style":{"prompt":"several cats"}}'"#;
            format!("curl -H 'authorization: Bearer {key}' -d {json} {base_url}/v1/ai-image-generator")
        }
        Cast::WebRun(_) => {
            let auth = AUTHORIZATION;
            let webhook = format!(r#"{{"name":"taskhook","url":"{webhook}","auth":"{auth}","submittedData":"full_response"}}"#);
            let json = format!(r#"'{{"taskDetails":"a file","webhook":{webhook}}}'"#);
            format!("curl -H 'authorization: Bearer {key}' -d {json} {base_url}/start/run-task")
        }
    }
}

/// A webhook request of the simulator.
pub(super) fn sent(sender: &'static str, delivery: &Delivery, now: Timestamp) -> Line {
    let took = Duration::try_from_secs_f64(delivery.took_ms / 1e3).unwrap_or_default();
    let at = now.checked_sub(took).unwrap_or(now);
    let answer: Value = serde_json::from_str(&delivery.answer).unwrap_or_default();
    let took = format!("({:.1} ms)", delivery.took_ms);
    let ping = delivery.task_id == "test_task_id";
    let (tone, outcome) = match (delivery.status, answer["status"].as_str()) {
        (Some(200), Some("accepted")) if ping => (Tone::Plain, format!("200: kept as a test {took}")),
        (Some(200), Some("duplicate")) => (Tone::Plain, format!("200: known already, done once {took}")),
        (Some(200), _) => (Tone::Plain, format!("200: kept {took}")),
        (Some(status), _) => (Tone::Bad, format!("{status} {}", answer["code"].as_str().unwrap_or_default())),
        (None, _) => (Tone::Bad, delivery.error.clone().unwrap_or_else(|| "not sent".to_owned())),
    };
    if ping {
        return Line::new(at, Actor::Sender(sender), "ping", "tries the webhook", tone, outcome);
    }
    Line::of_task(at, Actor::Sender(sender), &delivery.event_type, &delivery.task_id, tone, outcome)
}

/// An API call of taskhook, if it is worth a line. No path is shown: it may name a session.
pub(super) fn called(sender: &str, call: &Call, now: Timestamp) -> Option<Line> {
    let asked = url::form_urlencoded::parse(call.query.as_bytes()).find(|(name, _)| name == "task_id").map(|(_, id)| id);
    let last = call.path.rsplit('/').next().unwrap_or_default();
    let task_id = asked.as_deref().unwrap_or(last);
    let first_page = !call.query.contains("cursor=");
    let fetches = call.method == "GET" && (call.path.contains("-projects/") || call.path.starts_with("/task/"));
    let (what, tone, outcome) = match (call.path.as_str(), call.status) {
        ("/v2/task.detail", 404) => ("prove", Tone::Plain, "404: our key does not see this task".to_owned()),
        ("/v2/task.listMessages", 200) if first_page => {
            ("fetch", Tone::Plain, "200: the task, its messages, its files".to_owned())
        }
        ("/v2/task.create", 200) => {
            return Some(Line::new(now, Actor::Taskhook, "create", "a task, as you asked", Tone::Plain, "200".to_owned()));
        }
        (path, 200) if fetches => {
            let what = if path.starts_with("/task/") { "200: the task, its files" } else { "200: the job, with fresh links" };
            ("fetch", Tone::Plain, what.to_owned())
        }
        (path, status @ 400..) if path.starts_with("/v2/task.") || fetches => {
            ("call", Tone::Bad, format!("{status}: {sender} refused a call"))
        }
        _ => return None,
    };
    Some(Line::of_task(now, Actor::Taskhook, what, task_id, tone, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_told_at_the_time_it_began() {
        let delivery = Delivery {
            url: String::new(),
            event_id: "e".to_owned(),
            event_type: "task_stopped".to_owned(),
            task_id: "t".to_owned(),
            attempt: 1,
            status: Some(200),
            answer: r#"{"status":"duplicate","id":"x"}"#.to_owned(),
            took_ms: 250.0,
            error: None,
        };
        let line = sent("Manus", &delivery, "2025-11-18T23:05:01.500Z".parse().unwrap());
        assert_eq!(line.at, "2025-11-18T23:05:01.250Z".parse().unwrap());
        assert_eq!(line.outcome, "200: known already, done once (250.0 ms)");
        let refused = Delivery { status: Some(503), answer: r#"{"code":"store_full","status":503}"#.to_owned(), ..delivery };
        let line = sent("Manus", &refused, line.at);
        assert_eq!((line.tone, line.outcome.as_str()), (Tone::Bad, "503 store_full"));
    }
}
