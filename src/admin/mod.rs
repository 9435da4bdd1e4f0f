//! The admin listener: what is kept and what becomes of it, for people (the dashboard) and programs (the JSON API).
//!
//! What must hold: nothing here is on the path of an event, and nothing here answers without the token where one is set, but for
//! the page to sign in at, and `/healthz` and `/readyz`, which are merged in outside of this router.

#![expect(unused_qualifications, reason = "what a macro of utoipa makes of `params`")]

mod act;
mod answer;
mod api;
mod auth;
mod credits;
mod deliveries;
mod events;
mod extract;
mod idempotency;
mod list;
mod live;
mod openapi;
mod pages;
mod public_url;
mod rejections;
mod series;
mod stats;
mod task;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::api::{Admin, Refused};
pub use self::auth::Door;
pub use self::idempotency::Acts;
pub use self::live::Live;
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
    /// Another token, for who may see everything and change nothing.
    pub read_token: Option<Secret>,
}

/// The keys of [`Config`] that have a `_file` twin which must be there; for `token`, see [`Config::token_file`].
pub const SECRETS: &[&str] = &["read_token"];
