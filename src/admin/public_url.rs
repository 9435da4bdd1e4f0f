//! Public URLs for a while: what `taskhook tunnel` says of the tunnel that it follows.
//!
//! What must hold: a URL is set with PUT and JSON, which no page of another site can make a browser send; and by whoever has the token,
//! as all else here.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Admin, Refused};
use crate::clock::rfc3339;
use crate::public_url::{Error, Lease};

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/api/v1/public_urls", get(list)).route("/api/v1/public_urls/{id}", put(lend).delete(take_back))
}

/// What `PUT …/public_urls/{id}` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    url: String,
}

/// A lease as it is shown.
fn view(id: Uuid, lease: &Lease) -> Value {
    json!({"id": id, "url": lease.url, "expires_at": rfc3339(lease.expires_at)})
}

fn lease_id(id: &str) -> Result<Uuid, Refused> {
    Uuid::try_parse(id)
        .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "id_invalid", "the id of a lease is a UUID of your choice"))
}

async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let configured = admin.public_urls.configured().iter().map(|url| json!({"id": null, "url": url, "expires_at": null}));
    let lent = admin.public_urls.lent();
    let lent = lent.iter().map(|(id, lease)| view(*id, lease));
    Json(json!({"data": configured.chain(lent).collect::<Vec<_>>(), "next_cursor": null}))
}

async fn lend(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<Json<Value>, Refused> {
    let Json(wish) = body.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "body_invalid", error.body_text()))?;
    let id = lease_id(&id)?;
    let lease = admin.public_urls.lend(id, &wish.url).map_err(|error| match &error {
        Error::Unfit(_) => Refused::new(StatusCode::BAD_REQUEST, "url_invalid", error.to_string()),
        Error::Full => Refused::new(StatusCode::CONFLICT, "too_many", error.to_string()),
    })?;
    Ok(Json(view(id, &lease)))
}

async fn take_back(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let id = lease_id(&id)?;
    Ok(Json(json!({"id": id, "was_lent": admin.public_urls.take_back(id)})))
}
