//! Hosts.

use axum::extract::State;
use vimana_model::host::HostView;

use super::Items;
use super::extract::Caller;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All hosts; for the provider's staff
#[utoipa::path(
    get, path = "/hosts", tag = "host", operation_id = "list_hosts",
    responses((status = 200, description = "Hosts", body = Items<HostView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<axum::Json<Items<HostView>>> {
    let items = app.engine.hosts(&cx).await?;
    Ok(axum::Json(Items { items }))
}
