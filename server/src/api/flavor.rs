//! Flavors.

use axum::extract::State;
use vimana_model::flavor::FlavorView;

use super::Items;
use super::extract::Caller;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All flavors
#[utoipa::path(
    get, path = "/flavors", tag = "flavor", operation_id = "list_flavors",
    responses((status = 200, description = "Flavors", body = Items<FlavorView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<axum::Json<Items<FlavorView>>> {
    let items = app.engine.flavors(&cx).await?;
    Ok(axum::Json(Items { items }))
}
