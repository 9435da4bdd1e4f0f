//! What is read from a request: its path, its query, its body.
//!
//! What must hold: what cannot be read is told as every other refusal is.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::api::Refused;

/// What stands in the path.
pub(super) struct Path<T>(pub(super) T);

/// What stands behind the `?`.
pub(super) struct Query<T>(pub(super) T);

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

/// A body that cannot be what it should be.
pub(super) fn bad_body(title: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "body_invalid", title)
}

/// A body that is larger than its route takes.
pub(super) fn too_large() -> Refused {
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than what is taken here")
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let refuse = |error: PathRejection| Refused::new(StatusCode::BAD_REQUEST, "path_invalid", error.body_text());
        let extract::Path(path) = extract::Path::from_request_parts(parts, state).await.map_err(refuse)?;
        Ok(Self(path))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let refuse = |error: QueryRejection| super::list::bad(error.body_text());
        let extract::Query(query) = extract::Query::from_request_parts(parts, state).await.map_err(refuse)?;
        Ok(Self(query))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let refuse = |error: JsonRejection| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => bad_body(error.body_text()),
        };
        let axum::Json(body) = axum::Json::from_request(request, state).await.map_err(refuse)?;
        Ok(Self(body))
    }
}
