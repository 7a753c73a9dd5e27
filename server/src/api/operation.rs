//! Operations.

use axum::extract::State;
use vimana_model::operation::OperationView;
use vimana_model::{OperationId, Problem};

use super::extract::{Caller, Id};
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
