//! Machines a host holds that are not recorded there.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::host::OrphanView;
use vimana_model::{HostId, Problem, VmId};

use super::Items;
use super::extract::{Caller, Id, Ids};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// The machines a host holds that are not recorded there; for the provider's staff
#[utoipa::path(
    get, path = "/hosts/{host_id}/orphans", tag = "host", operation_id = "list_orphans",
    params(("host_id" = HostId, Path)),
    responses((status = 200, description = "Orphans", body = Items<OrphanView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<HostId>,
) -> ApiResult<Answer<Items<OrphanView>>> {
    let items = app.engine.host_orphans(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Have such a machine removed, with everything it holds there
///
/// It is gone from the list as soon as the host has removed it.
#[utoipa::path(
    post, path = "/hosts/{host_id}/orphans/{vm_id}/discard", tag = "host",
    operation_id = "discard_orphan",
    params(("host_id" = HostId, Path), ("vm_id" = VmId, Path)),
    responses(
        (status = 202, description = "Accepted", body = OrphanView),
        (status = 404, description = "No such orphan", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn discard(
    State(app): State<App>,
    Once(cx): Once,
    Ids(host, machine): Ids<HostId, VmId>,
) -> ApiResult<(StatusCode, Answer<OrphanView>)> {
    let engine = app.engine.clone();
    let orphan = app
        .detached(async move { engine.discard_orphan(&cx, host, machine).await })
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(orphan)))
}
