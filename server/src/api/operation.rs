//! Operations.

use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::operation::OperationView;
use vimana_model::{OperationId, Problem};

use super::extract::{Caller, Id};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// One operation
#[utoipa::path(
    get, path = "/operations/{operation_id}", tag = "operation", operation_id = "show_operation",
    params(("operation_id" = OperationId, Path)),
    responses(
        (status = 200, description = "The operation", body = OperationView),
        (status = 404, description = "No such operation", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<OperationId>,
) -> ApiResult<axum::Json<OperationView>> {
    Ok(axum::Json(app.engine.operation(&cx, id).await?))
}

/// Have what it did taken back
///
/// Possible as long as its step under way can be taken back; the answer is
/// the operation while, or after, that is done.
#[utoipa::path(
    post, path = "/operations/{operation_id}/cancel", tag = "operation",
    operation_id = "cancel_operation",
    params(("operation_id" = OperationId, Path)),
    responses(
        (status = 202, description = "Accepted", body = OperationView),
        (status = 404, description = "No such operation", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Past that point", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn cancel(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<OperationId>,
) -> ApiResult<(StatusCode, axum::Json<OperationView>)> {
    let engine = app.engine.clone();
    let operation = app
        .detached(async move { engine.cancel_operation(&cx, id).await })
        .await?;
    Ok((StatusCode::ACCEPTED, axum::Json(operation)))
}
