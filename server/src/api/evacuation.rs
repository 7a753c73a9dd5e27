//! What administrators want of hosts.

use axum::extract::State;
use vimana_model::evacuation::{EvacuateHost, EvacuationView};
use vimana_model::host::HostView;
use vimana_model::{HostId, Problem};

use super::extract::{Caller, Id, JsonOrNothing};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// Keep new VMs from a host; for the provider's administrators
///
/// The VMs on it stay. Ends its evacuation, where there is one; VMs on their way
/// go on to their end.
#[utoipa::path(
    post, path = "/hosts/{host_id}/cordon", tag = "host", operation_id = "cordon_host",
    params(("host_id" = HostId, Path)),
    responses(
        (status = 200, description = "Cordoned, now or before", body = HostView),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn cordon(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<HostId>,
) -> ApiResult<axum::Json<HostView>> {
    let engine = app.engine.clone();
    let host = app
        .detached(async move { engine.cordon_host(&cx, id).await })
        .await?;
    Ok(axum::Json(host))
}

/// Let a host take VMs again; for the provider's administrators
///
/// Ends that it is cordoned, drained or in maintenance.
#[utoipa::path(
    post, path = "/hosts/{host_id}/enable", tag = "host", operation_id = "enable_host",
    params(("host_id" = HostId, Path)),
    responses(
        (status = 200, description = "Enabled, now or before", body = HostView),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn enable(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<HostId>,
) -> ApiResult<axum::Json<HostView>> {
    let engine = app.engine.clone();
    let host = app
        .detached(async move { engine.enable_host(&cx, id).await })
        .await?;
    Ok(axum::Json(host))
}

/// Have the VMs of a host moved to others; for the provider's administrators
///
/// Some at once, each to the host that suits it best. When nothing is left on
/// the host, it is in maintenance. Asked again, at most the number of those on
/// their way at once changes; to try anew what could not be moved, cordon the
/// host first.
#[utoipa::path(
    post, path = "/hosts/{host_id}/evacuate", tag = "host", operation_id = "evacuate_host",
    params(("host_id" = HostId, Path)),
    request_body = Option<EvacuateHost>,
    responses(
        (status = 200, description = "Begun, now or before", body = HostView),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Too many at once, or none", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn evacuate(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<HostId>,
    JsonOrNothing(form): JsonOrNothing<EvacuateHost>,
) -> ApiResult<axum::Json<HostView>> {
    let engine = app.engine.clone();
    let host = app
        .detached(async move { engine.evacuate_host(&cx, id, &form).await })
        .await?;
    Ok(axum::Json(host))
}

/// How far the evacuation of a host is; for the provider's staff
#[utoipa::path(
    get, path = "/hosts/{host_id}/evacuation", tag = "host", operation_id = "host_evacuation",
    params(("host_id" = HostId, Path)),
    responses(
        (status = 200, description = "Its VMs: gone, on their way, waiting, and those that cannot go", body = EvacuationView),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not being evacuated", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<HostId>,
) -> ApiResult<axum::Json<EvacuationView>> {
    Ok(axum::Json(app.engine.evacuation(&cx, id).await?))
}
