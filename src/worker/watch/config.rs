//! `[watch]`: what is watched for, and for how long each may last.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use crate::provider::Switch;

/// `[watch]`
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long a task at work may be silent.
    pub task_silent: Limit,
    /// How long a task may wait for an answer.
    pub task_waiting: Limit,
    /// How long a delivery may wait.
    pub not_delivered: Limit,
    /// Whether dead letters are told of.
    pub dead_letter: Switch,
    /// Whether it is told that no webhooks come of what happens.
    pub source_silent: Switch,
    /// Whether it is told how much of `credits_per_day` is spent.
    pub budget: Switch,
}

/// How long something may last; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(duration) => humantime_serde::serialize(&duration, to),
            None => to.serialize_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let duration = humantime_serde::re::humantime::parse_duration(&text);
        duration
            .map(|duration| Self(Some(duration)))
            .map_err(|_| D::Error::custom("must be a duration such as \"1h\", or \"off\""))
    }
}

/// The shortest limit: it is looked once a minute.
const LEAST: Duration = Duration::from_mins(1);

impl Config {
    /// Checks what the types do not: all that is wrong, each the key in `[watch]` and the reason.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        [("task_silent", self.task_silent), ("task_waiting", self.task_waiting), ("not_delivered", self.not_delivered)]
            .into_iter()
            .filter(|(_, limit)| limit.0.is_some_and(|limit| limit < LEAST))
            .map(|(key, _)| (key, "must be at least 1 minute (\"1m\"), or \"off\"".to_owned()))
            .collect()
    }
}
