//! Hosts.

use axum::extract::State;
use vimana_model::event::EventView;
use vimana_model::host::HostView;
use vimana_model::{HostId, Problem};

use super::Items;
use super::extract::{Caller, Id};
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

/// What happened to a host, oldest first; for the provider's staff
#[utoipa::path(
    get, path = "/hosts/{host_id}/events", tag = "host", operation_id = "host_events",
    params(("host_id" = HostId, Path)),
    responses(
        (status = 200, description = "Events", body = Items<EventView>),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn events(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<HostId>,
) -> ApiResult<axum::Json<Items<EventView>>> {
    let items = app.engine.host_timeline(&cx, id).await?;
    Ok(axum::Json(Items { items }))
}
