//! Public URLs for a while: what `taskhook tunnel` says of the tunnel that it follows.
//!
//! What must hold: a URL is set with PUT and JSON, which no page of another site can make a browser send; and by whoever has the token,
//! as all else here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::api::{Admin, Refused};
use super::extract::{Body, Path};
use crate::clock::rfc3339;
use crate::public_url::{Error, Lease};
use crate::store::view::Listed;

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(lend, take_back))
}

/// What `PUT …/public_urls/{id}` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LendPublicUrl)]
struct Wish {
    /// The URL: https with a host, or loopback.
    url: String,
}

/// A public URL that webhooks are accepted for.
#[derive(Debug, Serialize, ToSchema)]
struct PublicUrl {
    /// The id of its lease; `null` for one of the configuration.
    id: Option<Uuid>,
    /// The URL.
    url: String,
    /// When its lease ends.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl PublicUrl {
    fn lent(id: Uuid, lease: &Lease) -> Self {
        Self { id: Some(id), url: lease.url.clone(), expires_at: Some(rfc3339(lease.expires_at)) }
    }
}

/// What names a lease.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct LeaseId {
    /// A UUID of your choice.
    #[param(format = Uuid)]
    id: String,
}

impl LeaseId {
    fn read(&self) -> Result<Uuid, Refused> {
        let title = "the id of a lease is a UUID of your choice";
        Uuid::try_parse(&self.id).map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "id_invalid", title))
    }
}

/// List the public URLs that webhooks are accepted for
#[utoipa::path(
    get,
    path = "/api/v1/public_urls",
    operation_id = "list_public_urls",
    responses((status = OK, body = Listed<PublicUrl>))
)]
async fn list(State(admin): State<Arc<Admin>>) -> Json<Listed<PublicUrl>> {
    let configured = admin.public_urls.configured().iter().map(|url| PublicUrl { id: None, url: url.clone(), expires_at: None });
    let lent = admin.public_urls.lent();
    let lent = lent.iter().map(|(id, lease)| PublicUrl::lent(*id, lease));
    Json(Listed::whole(configured.chain(lent).collect()))
}

/// Accept webhooks for one more public URL, for 45 seconds
#[utoipa::path(
    put,
    path = "/api/v1/public_urls/{id}",
    operation_id = "lend_public_url",
    params(LeaseId),
    request_body = Wish,
    responses((status = OK, body = PublicUrl))
)]
async fn lend(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<LeaseId>,
    Body(wish): Body<Wish>,
) -> Result<Json<PublicUrl>, Refused> {
    let id = id.read()?;
    let lease = admin.public_urls.lend(id, &wish.url).map_err(|error| match &error {
        Error::Unfit(_) => Refused::new(StatusCode::BAD_REQUEST, "url_invalid", error.to_string()),
        Error::Full => Refused::new(StatusCode::CONFLICT, "too_many", error.to_string()),
    })?;
    Ok(Json(PublicUrl::lent(id, &lease)))
}

/// A public URL that is not lent any more.
#[derive(Debug, Serialize, ToSchema)]
struct TakenBack {
    /// The id of its lease.
    id: Uuid,
    /// Whether it was lent until now.
    was_lent: bool,
}

/// End the lease of a public URL
#[utoipa::path(
    delete,
    path = "/api/v1/public_urls/{id}",
    operation_id = "take_public_url_back",
    params(LeaseId),
    responses((status = OK, body = TakenBack))
)]
async fn take_back(State(admin): State<Arc<Admin>>, Path(id): Path<LeaseId>) -> Result<Json<TakenBack>, Refused> {
    let id = id.read()?;
    Ok(Json(TakenBack { id, was_lent: admin.public_urls.take_back(id) }))
}
