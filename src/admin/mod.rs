//! The admin listener: what is kept and what becomes of it, for people and programs.
//!
//! What must hold: nothing here is on the path of an event, and nothing here answers without the token where one is set, but for
//! `/healthz` and `/readyz`, which are merged in outside of this router.

mod act;
mod api;
mod credits;
mod public_url;
mod task;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::api::{Admin, Refused};
pub use self::token::TokenError;
use crate::setting::Secret;

/// `[admin]`: a listener of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its address.
    pub listen: SocketAddr,
    /// What callers must send as `Authorization: Bearer …`; required when `listen` is not loopback.
    pub token: Option<Secret>,
    /// A file that holds it. Unlike other such files it is made, with a random token, at the first start.
    pub token_file: Option<PathBuf>,
}

/// The keys of [`Config`] that have a `_file` twin which must be there: none, see [`Config::token_file`].
pub const SECRETS: &[&str] = &[];
