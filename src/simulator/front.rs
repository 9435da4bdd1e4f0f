//! What every call of a simulator's API goes through: faults before and after, the date, the record. Beside it, the simulator's own
//! pages under `/_simulator`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::core::{Core, Model};
use super::fault::{ApiFault, WrongAnswer, spoil};
use super::record::{Call, Delivery, Happening};
use super::shelf;

/// `api` behind its front, with the files and the simulator's own pages.
pub(super) fn serve<M: Model>(api: Router<Arc<Core<M>>>, core: Arc<Core<M>>) -> Router {
    api.route("/files/{id}/{name}", get(shelf::serve::<M>))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(Arc::clone(&core), pass::<M>))
        .route("/_simulator/faults", get(show_faults::<M>).post(set_faults::<M>))
        .route("/_simulator/requests", get(requests::<M>))
        .route("/_simulator/deliveries", get(deliveries::<M>))
        .with_state(core)
}

async fn requests<M: Model>(Extract(core): Extract<Arc<Core<M>>>) -> Json<Vec<Call>> {
    Json(core.lock().board().calls.to_vec())
}

async fn deliveries<M: Model>(Extract(core): Extract<Arc<Core<M>>>) -> Json<Vec<Delivery>> {
    Json(core.lock().board().deliveries.to_vec())
}

async fn show_faults<M: Model>(Extract(core): Extract<Arc<Core<M>>>) -> Json<M::Faults> {
    Json(core.lock().faults().clone())
}

async fn set_faults<M: Model>(Extract(core): Extract<Arc<Core<M>>>, body: Bytes) -> Response {
    match serde_json::from_slice::<M::Faults>(&body) {
        Ok(faults) => {
            *core.lock().faults() = faults.clone();
            Json(faults).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n\n{}\n", M::FAULTS)).into_response(),
    }
}

async fn pass<M: Model>(Extract(core): Extract<Arc<Core<M>>>, request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (fault, account) = {
        let mut state = core.lock();
        let account = state.caller(request.headers());
        (ApiFault::strike(state.api_faults(), &target), account)
    };
    let mut call =
        Call { method: request.method().to_string(), path: path.to_owned(), query: query.to_owned(), status: 0, account };
    if let Some(slow) = fault.as_ref().map(|fault| fault.slow_ms).filter(|slow| *slow > 0) {
        let wait = core.clock.sleep(Duration::from_millis(slow));
        tokio::select! {
            () = core.stop.cancelled() => {}
            () = wait => {}
        }
    }
    let mut response = match fault.and_then(|fault| fault.answer) {
        Some(WrongAnswer::Refuse { status, retry_after }) => refuse::<M>(status, retry_after.as_deref()),
        Some(WrongAnswer::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(wrong) => spoil(next.run(request).await, &wrong).await,
        None => next.run(request).await,
    };
    let date = core.lock().date();
    if let Some(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&date).ok().and_then(|date| date.try_into().ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    call.status = response.status().as_u16();
    core.lock().board_mut().calls.push(call.clone());
    core.tell(Happening::Called(call));
    // The call may have taken away what was still to be done.
    core.rest.send_replace(());
    response
}

fn refuse<M: Model>(status: u16, retry_after: Option<&str>) -> Response {
    let mut response = M::refuse(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    if let Some(wait) = retry_after.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}
