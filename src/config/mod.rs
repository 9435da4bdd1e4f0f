//! The configuration: everything a user may set, read once, checked whole before anything starts.
//!
//! What must hold:
//!
//! - Nothing here reads the process: the environment, the working directory and the flags are arguments ([`Inputs`]).
//! - `config/default.toml` is the defaults. It is embedded and loaded as the lowest layer, so it cannot drift from the code.
//! - The layers, each over the one before: built-in, `PORT`, the file, `.env`, the environment, flags. An empty variable is unset.
//! - A key that nothing reads is an error, and so is a value of another type. Every error names the key and the place that set
//!   it, and all that can be found in one go are shown in one go.
//! - Every secret `x` may be set as `x` or as `x_file`, the path of a file that holds it; never as both. (`admin.token_file` alone
//!   is not read here: it is made where it is missing, by who serves.)
//! - No error, and nothing that is printed, holds a secret.
//!
//! Each component declares its own `Config` beside its code; this module collects them and knows the rules that tie them together.

mod check;
mod error;
mod layer;
mod load;
mod nearest;
mod place;
mod read;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

pub use error::{Error, Errors};

use crate::http::guard;
use crate::telemetry::trace;
use crate::worker::WatchConfig;
use crate::{admin, archive, destination, provider, route, server, store, telemetry, upkeep};

/// The embedded defaults, byte for byte.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// What the configuration is read from; whoever calls says where each comes from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The variables of the environment.
    pub env: BTreeMap<String, String>,
    /// The directory whose `.env` counts, and which relative paths start from.
    pub directory: PathBuf,
    /// `--config`; without it, the variable `TASKHOOK_CONFIG` names the file.
    pub file: Option<PathBuf>,
    /// What flags of the command line set.
    pub flags: Vec<Flag>,
}

/// A flag of the command line that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As the user wrote it, such as `--log-level`.
    pub name: &'static str,
    /// The key that it sets, such as `log.level`.
    pub key: &'static str,
    /// The value, as the user wrote it.
    pub value: String,
}

/// The effective configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// `[log]`
    pub log: telemetry::Config,
    /// `[server]`
    pub server: server::Config,
    /// `[admin]`
    pub admin: admin::Config,
    /// `[store]`
    pub store: store::Config,
    /// `[retention]`
    pub retention: upkeep::Config,
    /// `[archive]`
    pub archive: archive::Config,
    /// `[files]`
    pub files: archive::FilesConfig,
    /// `[outbound]`
    pub outbound: guard::Config,
    /// `[watch]`
    pub watch: WatchConfig,
    /// `[trace]`
    pub trace: trace::Config,
    /// `[sources.…]`: never empty.
    pub sources: BTreeMap<String, provider::Config>,
    /// `[destinations.…]`: `log` is always among them.
    pub destinations: BTreeMap<String, destination::Config>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<route::Config>,
    /// The variable `RUST_LOG`, which wins over `[log] level`.
    #[serde(skip)]
    pub rust_log: Option<String>,
}

impl Config {
    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// All that is wrong, as far as it can be told in one go.
    pub fn load(inputs: &Inputs) -> Result<Self, Errors> {
        load::everything(inputs, false)
    }

    /// The same where a tunnel brings the public URL: none has to be set.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with_tunnel(inputs: &Inputs) -> Result<Self, Errors> {
        load::everything(inputs, true)
    }

    /// Reads `[admin]` alone, for commands that only talk to a running taskhook: they need no source.
    ///
    /// # Errors
    /// What is wrong with the layers or with `[admin]`.
    pub fn load_admin(inputs: &Inputs) -> Result<admin::Config, Errors> {
        load::admin(inputs)
    }

    /// Reads `[server]` alone, for commands that only ask whether it answers.
    ///
    /// # Errors
    /// What is wrong with the layers or with `[server]`.
    pub fn load_server(inputs: &Inputs) -> Result<server::Config, Errors> {
        load::server(inputs)
    }

    /// Reads `[store]` alone, for commands that look at its file: they need no source.
    ///
    /// # Errors
    /// What is wrong with the layers or with `[store]`.
    pub fn load_store(inputs: &Inputs) -> Result<store::Config, Errors> {
        load::store(inputs)
    }

    /// Reads `[archive]` alone, for commands that ask what lies in it.
    ///
    /// # Errors
    /// What is wrong with the layers or with `[archive]`.
    pub fn load_archive(inputs: &Inputs) -> Result<archive::Config, Errors> {
        load::archive(inputs)
    }

    /// The configuration as TOML, secrets as `[redacted]`: what it prints loads again once the secrets are put back.
    ///
    /// # Panics
    /// Never: every section is made of tables, lists, text, numbers and booleans.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the sections hold nothing that TOML cannot say")
    }
}
