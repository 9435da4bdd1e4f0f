//! What the sections of all kinds have in common: how long, how many at once, how often, how patiently.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OnUnknown;
use crate::route::Envelope;
use crate::template::{Escape, Template};

/// Declares the section of a kind: the keys of its own, then those that every kind has, with the kind's defaults (seconds, places,
/// deliveries a minute).
macro_rules! section {
    (
        $(#[$about:meta])*
        pub struct Config { $($(#[$key_about:meta])* pub $key:ident: $type:ty,)* }
        defaults: timeout = $timeout:literal, concurrency = $concurrency:literal, rate = $rate:expr
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            $($(#[$key_about])* pub $key: $type,)*
            /// How long one attempt may take.
            #[serde(default = "default_timeout", with = "humantime_serde")]
            pub timeout: std::time::Duration,
            /// How many deliveries may be on their way at once.
            #[serde(default = "default_concurrency")]
            pub concurrency: u32,
            /// The most deliveries a minute.
            #[serde(default = "default_rate")]
            pub rate: Option<u32>,
            /// The waits between attempts, instead of the common ones.
            #[serde(default)]
            pub ladder: Option<$crate::setting::List<$crate::destination::section::Wait>>,
            /// What becomes of a delivery whose answer was lost.
            #[serde(default)]
            pub on_unknown: $crate::destination::OnUnknown,
        }

        fn default_timeout() -> std::time::Duration {
            std::time::Duration::from_secs($timeout)
        }

        fn default_concurrency() -> u32 {
            $concurrency
        }

        const DEFAULT_RATE: Option<u32> = $rate;

        fn default_rate() -> Option<u32> {
            DEFAULT_RATE
        }

        impl Config {
            /// How the destination is to be asked.
            pub(super) fn terms(&self) -> $crate::destination::section::Terms {
                $crate::destination::section::Terms {
                    timeout: self.timeout,
                    concurrency: usize::try_from(self.concurrency).unwrap_or(usize::MAX),
                    rate: self.rate,
                    ladder: self.ladder.as_ref().map(|ladder| ladder.iter().map(|wait| wait.0).collect()),
                    on_unknown: self.on_unknown,
                }
            }
        }
    };
}
pub(super) use section;

/// One wait of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wait(#[serde(with = "humantime_serde")] pub Duration);

/// How a destination is asked, whatever its kind.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) rate: Option<u32>,
    pub(super) ladder: Option<Vec<Duration>>,
    pub(super) on_unknown: OnUnknown,
}

impl Terms {
    /// What is wrong with them, each in a line that begins with its key.
    pub(super) fn check(&self) -> Vec<String> {
        let wrong = [
            (self.concurrency == 0, "`concurrency` must be at least 1"),
            (self.rate == Some(0), "`rate` must be at least 1 a minute; leave it out for no limit"),
            (self.timeout.is_zero(), "`timeout` must be longer than 0 s"),
        ];
        wrong.into_iter().filter(|(wrong, _)| *wrong).map(|(_, problem)| problem.to_owned()).collect()
    }
}

/// Compiles the text at `key`, if there is one.
///
/// # Errors
/// Everything that is wrong with it, each in a line that begins with the key.
pub(super) fn compile(key: &str, text: Option<&str>, escape: Escape) -> Result<Option<Template>, String> {
    let lines = |problems: Vec<crate::template::Problem>| {
        problems.iter().map(|problem| format!("`{key}`: {problem}")).collect::<Vec<_>>().join("\n")
    };
    text.map(|text| Template::compile(text, escape, Envelope::schema()).map_err(lines)).transpose()
}
