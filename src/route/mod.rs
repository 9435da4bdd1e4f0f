//! Routes: which destinations an event goes to.
//!
//! What must hold: a route that could never do what it says is an error at start, all of them at once; a `when` that fails on an
//! event is an [`Error`], never "no match", since the result of a paid task would be lost in silence. An event goes to each
//! destination at most once, on account of the first route that says so.
//!
//! Without any route, everything goes to the destination [`LOG`] except what we do not know (`type` = `unknown`), which goes only
//! where a route says `unknown = true`.

mod envelope;
mod sample;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use self::envelope::{Envelope, Event};
pub use self::sample::SAMPLES;
use crate::event;
use crate::setting::List;
use crate::template::{self, Context, Expression};

/// The destination that always exists, and that gets everything where no route is configured.
pub const LOG: &str = "log";
/// What stands for the route's name where no route is configured.
pub const DEFAULT: &str = "default";

/// One of `[[routes]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name, in logs and on deliveries; without one it goes by its number, from 1: `#1`.
    #[serde(default)]
    pub name: Option<String>,
    /// An expression over the envelope; without one it takes everything.
    #[serde(default)]
    pub when: Option<String>,
    /// The destinations that a match goes to.
    pub to: List<String>,
    /// Whether events of a type that we do not know match, too.
    #[serde(default)]
    pub unknown: bool,
    /// Whether a match waits until the files are saved (or given up on).
    #[serde(default = "yes")]
    pub wait_for_files: bool,
}

fn yes() -> bool {
    true
}

/// What is wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its `when` is no expression over the envelope.
    #[error("route `{route}`: `when`: {problem}")]
    When {
        /// The route.
        route: String,
        /// What is wrong, and where.
        problem: template::Problem,
    },
    /// Its `to` is empty.
    #[error("route `{0}`: `to` names no destination, so that nothing would ever come of a match")]
    NoDestination(String),
    /// Its `to` names a destination that is not configured.
    #[error("route `{route}`: there is no destination `{destination}`; {hint}")]
    UnknownDestination {
        /// The route.
        route: String,
        /// The name that was not found.
        destination: String,
        /// The names that are there.
        hint: String,
    },
    /// Two routes have one name.
    #[error("route `{0}`: another route has this name, too")]
    DuplicateName(String),
    /// A name that says nothing, or that is the number of a route.
    #[error("route `{route}`: the name `{name}` is not allowed: leave it out, or write a word")]
    BadName {
        /// The route, by its number.
        route: String,
        /// The name.
        name: String,
    },
    /// Its `when` has no value for an event.
    #[error("route `{route}`: `when` fails on this event: {reason}")]
    Failed {
        /// The route.
        route: String,
        /// Why.
        reason: template::Error,
    },
}

/// One destination that an event goes to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first matching route that names the destination.
    pub route: String,
    /// The destination.
    pub destination: String,
    /// Whether that route waits until the files are saved.
    pub wait_for_files: bool,
}

/// All routes, checked.
#[derive(Debug)]
pub struct Routes(Vec<Route>);

#[derive(Debug)]
struct Route {
    name: String,
    when: Option<Expression>,
    to: Vec<String>,
    unknown: bool,
    wait_for_files: bool,
}

impl Routes {
    /// Checks and compiles `routes`; `destinations` are the names of all that are configured.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the routes.
    pub fn compile(routes: &[Config], destinations: &[String]) -> Result<Self, Vec<Error>> {
        if routes.is_empty() {
            let log =
                Route { name: DEFAULT.to_owned(), when: None, to: vec![LOG.to_owned()], unknown: false, wait_for_files: true };
            return Ok(Self(vec![log]));
        }
        let (mut compiled, mut errors, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        for (number, config) in routes.iter().enumerate() {
            let number = format!("#{}", number + 1);
            let name = config.name.clone().unwrap_or_else(|| number.clone());
            if let Some(own) = &config.name {
                if own.trim().is_empty() || own.starts_with('#') || own.chars().any(char::is_control) {
                    errors.push(Error::BadName { route: number.clone(), name: own.escape_debug().to_string() });
                } else if !names.insert(own.as_str()) {
                    errors.push(Error::DuplicateName(name.clone()));
                }
            }
            if config.to.is_empty() {
                errors.push(Error::NoDestination(name.clone()));
            }
            errors.extend(config.to.iter().filter(|to| !destinations.contains(to)).map(|to| Error::UnknownDestination {
                route: name.clone(),
                destination: to.clone(),
                hint: known(to, destinations),
            }));
            let when = config.when.as_deref().map(|when| Expression::condition(when, Envelope::schema())).transpose();
            match when {
                Ok(when) => {
                    let (to, unknown, wait_for_files) = (config.to.0.clone(), config.unknown, config.wait_for_files);
                    compiled.push(Route { name, when, to, unknown, wait_for_files });
                }
                Err(problems) => {
                    errors.extend(problems.into_iter().map(|problem| Error::When { route: name.clone(), problem }));
                }
            }
        }
        if errors.is_empty() { Ok(Self(compiled)) } else { Err(errors) }
    }

    /// Whether any route takes events of a type that we do not know.
    #[must_use]
    pub fn takes_unknown(&self) -> bool {
        self.0.iter().any(|route| route.unknown)
    }

    /// Where `envelope` goes, in the order of the routes; empty if no route matches. What taskhook noticed of a destination never goes
    /// there.
    ///
    /// # Errors
    /// [`Error::Failed`] if a `when` has no value for this event. Then it goes nowhere, and must be kept as a dead letter.
    pub fn select(&self, envelope: &Envelope) -> Result<Vec<Target>, Error> {
        let (mut context, mut targets) = (None, Vec::<Target>::new());
        for route in &self.0 {
            if !route.takes(envelope, &mut context)? {
                continue;
            }
            for destination in route.to.iter().filter(|to| envelope.in_trouble() != Some(to.as_str())) {
                if !targets.iter().any(|target| target.destination == *destination) {
                    let (route, wait_for_files) = (route.name.clone(), route.wait_for_files);
                    targets.push(Target { route, destination: destination.clone(), wait_for_files });
                }
            }
        }
        Ok(targets)
    }

    /// Whether `envelope` waits for its files: not if it goes to routes alone that do not. One that goes nowhere so far waits, since
    /// a `when` may ask what became of the files; one whose `when` fails does not.
    #[must_use]
    pub fn wait_for_files(&self, envelope: &Envelope) -> bool {
        self.select(envelope).is_ok_and(|targets| targets.is_empty() || targets.iter().any(|target| target.wait_for_files))
    }

    /// What each route makes of `envelope`, for whoever wants to know why.
    #[must_use]
    pub fn explain(&self, envelope: &Envelope) -> Vec<Tried> {
        let mut context = None;
        let tried = |route: &Route| {
            let to = route.to.iter().filter(|to| envelope.in_trouble() != Some(to.as_str())).cloned().collect();
            Tried { route: route.name.clone(), takes: route.takes(envelope, &mut context), to }
        };
        self.0.iter().map(tried).collect()
    }
}

impl Route {
    /// Whether it takes `envelope`. A payload may be megabytes: `context` is made only if somebody asks, and once.
    fn takes(&self, envelope: &Envelope, context: &mut Option<Context>) -> Result<bool, Error> {
        if envelope.kind == event::UNKNOWN && !self.unknown {
            return Ok(false);
        }
        let Some(when) = &self.when else { return Ok(true) };
        let context = context.get_or_insert_with(|| Context::of(envelope));
        when.holds(context).map_err(|reason| Error::Failed { route: self.name.clone(), reason })
    }
}

/// What one route makes of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The route.
    pub route: String,
    /// Whether it takes the envelope; or why that cannot be told.
    pub takes: Result<bool, Error>,
    /// Where it leads.
    pub to: Vec<String>,
}

fn known(written: &str, destinations: &[String]) -> String {
    let names = || destinations.iter().map(String::as_str);
    match template::nearest(written, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn routes(routes: serde_json::Value) -> Result<Routes, Vec<Error>> {
        let configs: Vec<Config> = serde_json::from_value(routes).unwrap();
        Routes::compile(&configs, &["crm".to_owned(), "team".to_owned(), "log".to_owned()])
    }

    fn select(routes: &Routes, envelope: &Envelope) -> Vec<String> {
        let targets = routes.select(envelope).unwrap();
        targets.into_iter().map(|target| format!("{} -> {}", target.route, target.destination)).collect()
    }

    fn unknown() -> Envelope {
        Envelope { kind: event::UNKNOWN.to_owned(), ..Envelope::sample() }
    }

    #[test]
    fn without_routes_everything_but_the_unknown_goes_to_the_log() {
        let routes = routes(json!([])).unwrap();
        assert_eq!(select(&routes, &Envelope::sample()), ["default -> log"]);
        assert_eq!(select(&routes, &unknown()), [""; 0]);
        assert!(!routes.takes_unknown());
    }

    #[test]
    fn each_destination_gets_an_event_once_by_the_first_route_that_matches() {
        let routes = routes(json!([
            {"name": "failures", "when": "event.type == 'task_failed'", "to": ["log"]},
            {"name": "results", "when": "event.stop_reason == 'finish'", "to": ["team", "crm", "team"]},
            {"to": "crm, log"},
        ]))
        .unwrap();
        assert_eq!(select(&routes, &Envelope::sample()), ["results -> team", "results -> crm", "#3 -> log"]);
    }

    #[test]
    fn the_unknown_goes_only_where_a_route_takes_it() {
        let routes = routes(json!([{"to": "crm"}, {"to": "log", "unknown": true}])).unwrap();
        assert!(routes.takes_unknown());
        assert_eq!(select(&routes, &unknown()), ["#2 -> log"]);
        assert_eq!(select(&routes, &Envelope::sample()), ["#1 -> crm", "#2 -> log"]);
    }

    #[test]
    fn an_event_waits_for_files_unless_every_route_that_takes_it_does_not() {
        let waits = |configs| routes(configs).unwrap().wait_for_files(&Envelope::sample());
        assert!(waits(json!([])));
        assert!(!waits(json!([{"to": "crm", "wait_for_files": false}])));
        assert!(!waits(json!([{"to": "crm", "wait_for_files": false}, {"to": "log", "when": "event.type == 'x'"}])));
        assert!(waits(json!([{"to": "crm", "wait_for_files": false}, {"to": "log"}])));
        assert!(waits(json!([{"to": "crm", "wait_for_files": false, "when": "event.type == 'x'"}])));
        let odd = routes(json!([{"to": "crm", "when": "'x' in event.payload.task_detail.message"}])).unwrap();
        let mut envelope = Envelope::sample();
        envelope.event.payload = json!({"task_detail": {"message": 7}});
        assert!(!odd.wait_for_files(&envelope));
    }

    #[test]
    fn a_when_that_fails_is_an_error_and_not_a_no() {
        let routes = routes(json!([
            {"to": "log"},
            {"name": "odd", "when": "'x' in event.payload.task_detail.message", "to": "crm"},
        ]))
        .unwrap();
        let mut envelope = Envelope::sample();
        assert_eq!(select(&routes, &envelope), ["#1 -> log"]);
        envelope.event.payload = json!({"task_detail": {"message": 7}});
        insta::assert_snapshot!(routes.select(&envelope).unwrap_err(), @"route `odd`: `when` fails on this event: invalid operation: cannot perform a containment check on this value");
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let errors = routes(json!([
            {"name": "results", "when": "event.tpye == 'x' and stop_reason", "to": ["tema", "zebra"]},
            {"when": "event.type = 'x'", "to": []},
            {"name": "results", "to": "crm"},
            {"name": " ", "to": "crm"},
            {"name": "late", "when": "\n  'urgent' in event.title\n  or event.stop_reason == 'a' or 'b'", "to": "crm"},
        ]))
        .unwrap_err();
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        route `results`: there is no destination `tema`; did you mean `team`?
        route `results`: there is no destination `zebra`; there are `crm`, `team`, `log`
        route `results`: `when`: line 1, column 7: `event.tpye` is not known; did you mean `event.type`?
        route `results`: `when`: line 1, column 23: `stop_reason` is not known; did you mean `event.stop_reason`?
        route `#2`: `to` names no destination, so that nothing would ever come of a match
        route `#2`: `when`: line 1, column 12: unexpected input after expression; to compare, write `==`
        route `results`: another route has this name, too
        route `#4`: the name ` ` is not allowed: leave it out, or write a word
        route `late`: `when`: line 1, column 1: fails where a value is null; give it another value, such as `(event.title or "")`: invalid operation: cannot perform a containment check on this value
        "#);
    }

    #[test]
    fn a_route_takes_everything_known_and_waits_for_files_unless_it_says_otherwise() {
        let config: Config = serde_json::from_value(json!({"to": "crm"})).unwrap();
        assert!(config.wait_for_files && !config.unknown && config.when.is_none());
        assert!(serde_json::from_value::<Config>(json!({"to": "crm", "whne": "x"})).is_err());
    }
}
