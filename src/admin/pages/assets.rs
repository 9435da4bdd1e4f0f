//! What pages are drawn with: it is part of the program, and nothing comes from elsewhere.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// A file of the dashboard.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
    path: LazyLock<String>,
}

macro_rules! asset {
    ($static:ident, $name:literal, $kind:literal) => {
        #[doc = concat!("`", $name, "`.")]
        pub(super) static $static: Asset = Asset {
            name: $name,
            kind: $kind,
            content: include_str!(concat!("../assets/", $name)),
            path: LazyLock::new(|| path($name, include_str!(concat!("../assets/", $name)))),
        };
    };
}

asset!(STYLE, "style.css", "text/css; charset=utf-8");
asset!(SCRIPT, "live.js", "text/javascript; charset=utf-8");
asset!(ICON, "icon.svg", "image/svg+xml");

/// The path of a file: it names the content, so that a browser may keep it for ever.
fn path(name: &str, content: &str) -> String {
    let digest = digest(&SHA256, content.as_bytes());
    format!("/assets/{}/{name}", &BASE64_URL_SAFE_NO_PAD.encode(digest)[..12])
}

impl Asset {
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// Serves them.
pub(super) async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let asset = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name);
    // Of an older program, a page may ask for what has changed since: it gets that, and does not keep it.
    asset.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |asset| {
            let is_this = asset.path() == format!("/assets/{version}/{name}");
            let keep = if is_this { "public, max-age=31536000, immutable" } else { "no-store" };
            ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, keep)], asset.content).into_response()
        },
    )
}
