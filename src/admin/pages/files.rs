//! Files of tasks, as the archive has them: looked at where that is safe, else saved.
//!
//! What must hold: third parties made these files. Nothing in them runs: only pictures of dots, plain text and PDF are shown, each as the
//! type that its name has and no other, in a sandbox of its own where the browser can show it in one; what may hold a script, SVG and HTML
//! among it, is only ever saved or shown as text.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::layout::{cell, path};
use super::{Shown, absent};
use crate::admin::api::{Admin, Refused};
use crate::archive::{attachment, type_of};

/// How a file is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Picture,
    Text,
    Pdf,
    /// It is not: it is saved.
    Not,
}

/// By its name alone: what is in it is not believed.
fn look(name: &str) -> Look {
    match type_of(name).as_deref() {
        Some("image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif") => Look::Picture,
        Some("application/pdf") => Look::Pdf,
        Some(kind) if kind.starts_with("text/") && kind != "text/html" => Look::Text,
        Some(
            "application/json" | "application/x-yaml" | "application/toml" | "image/svg+xml" | "text/html" | "application/xml",
        ) => Look::Text,
        _ => Look::Not,
    }
}

/// Where a file of a task is shown.
pub(super) fn link(source: &str, task_id: &str, sha256: &str, name: &str) -> String {
    super::layout::link(&path(&["files", source, task_id, sha256]), [("name", Some(name))])
}

/// A look at it, on the page of its task.
pub(super) fn preview(name: &str, link: &str) -> Markup {
    let name = cell(name);
    html! {
        @match look(name.as_str()) {
            Look::Picture => figure .preview { a href=(link) { img src=(link) alt={ "The file " (name) } loading="lazy"; } figcaption { (name) } },
            Look::Text => details .preview { summary { "Look into " (name) } iframe src=(link) title={ "The file " (name) } sandbox loading="lazy" {} },
            Look::Pdf => details .preview { summary { "Look into " (name) } iframe src=(link) title={ "The file " (name) } loading="lazy" {} },
            Look::Not => {},
        }
    }
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path((source, task_id, sha256)): Path<(String, String, String)>,
) -> Shown {
    let task = admin.store.task(&source, &task_id).await?.ok_or_else(|| absent("task"))?;
    let file = task.archive.iter().find(|file| file.sha256.as_deref() == Some(&sha256)).ok_or_else(|| absent("file"))?;
    let archive = admin.actions.archive().ok_or_else(|| absent("archive"))?;
    let content = archive.read(&sha256, None).await.map_err(|error| match error {
        crate::archive::Error::Missing | crate::archive::Error::Off => Refused::absent("file"),
        error @ crate::archive::Error::Unusable { .. } => {
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "archive_unavailable", error.to_string())
        }
    })?;
    let kind = type_of(&file.name).unwrap_or_default();
    let (kind, policy) = match look(&file.name) {
        Look::Picture => (kind.as_str(), "sandbox; default-src 'none'; frame-ancestors 'none'"),
        Look::Text => ("text/plain; charset=utf-8", "sandbox; default-src 'none'; frame-ancestors 'self'"),
        // Browsers show none in a sandbox.
        Look::Pdf => {
            ("application/pdf", "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'self'")
        }
        Look::Not => ("application/octet-stream", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    };
    let named = attachment(&file.name);
    let disposition = if look(&file.name) == Look::Not { named } else { named.replacen("attachment", "inline", 1) };
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CONTENT_DISPOSITION, &disposition),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let response: Response = (headers, Body::from_stream(content.bytes)).into_response();
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_script_is_never_shown_as_what_it_is() {
        for (name, looks) in [
            ("a.png", Look::Picture),
            ("a.JPG", Look::Picture),
            ("a.pdf", Look::Pdf),
            ("a.md", Look::Text),
            ("a.csv", Look::Text),
            ("a.svg", Look::Text),
            ("a.html", Look::Text),
            ("a.xhtml", Look::Not),
            ("a.exe", Look::Not),
            ("png", Look::Not),
            ("a.svg.zip", Look::Not),
        ] {
            assert_eq!(look(name), looks, "{name}");
        }
    }
}
