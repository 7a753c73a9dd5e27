//! Snapshots of VMs.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::snapshot::{SnapshotView, TakeSnapshot};
use vimana_model::vm::AcceptedView;
use vimana_model::{Problem, SnapshotId, VmId};

use super::Items;
use super::extract::{Caller, Id, Ids, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use super::vm::action::act;
use crate::state::App;

/// The snapshots of a VM, oldest first
#[utoipa::path(
    get, path = "/vms/{vm_id}/snapshots", tag = "snapshot", operation_id = "list_snapshots",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Snapshots", body = Items<SnapshotView>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<SnapshotView>>> {
    let items = app.engine.vm_snapshots(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Keep a VM's disks, and its memory where asked for, as they are
#[utoipa::path(
    post, path = "/vms/{vm_id}/snapshots", tag = "snapshot", operation_id = "take_snapshot",
    params(("vm_id" = VmId, Path)),
    request_body = TakeSnapshot,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state, no room, or the name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The name is not acceptable", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn take(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
    Json(form): Json<TakeSnapshot>,
) -> ApiResult<Response> {
    let args = ActionArgs::TakeSnapshot(form);
    act(app, cx, id, VmAction::Snapshot, args).await
}

/// Go back to a snapshot; what came after it is lost
///
/// A running VM goes on from the snapshot's memory; one that is off starts
/// from its disks.
#[utoipa::path(
    post, path = "/vms/{vm_id}/snapshots/{snapshot_id}/revert", tag = "snapshot",
    operation_id = "revert_to_snapshot",
    params(("vm_id" = VmId, Path), ("snapshot_id" = SnapshotId, Path)),
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM or snapshot", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn revert(
    State(app): State<App>,
    Once(cx): Once,
    Ids(vm, snapshot): Ids<VmId, SnapshotId>,
) -> ApiResult<Response> {
    let args = ActionArgs::Snapshot(snapshot);
    act(app, cx, vm, VmAction::Revert, args).await
}

/// Let go of a snapshot; the VM stays as it is
#[utoipa::path(
    delete, path = "/vms/{vm_id}/snapshots/{snapshot_id}", tag = "snapshot",
    operation_id = "delete_snapshot",
    params(("vm_id" = VmId, Path), ("snapshot_id" = SnapshotId, Path)),
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM or snapshot", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(
    State(app): State<App>,
    Once(cx): Once,
    Ids(vm, snapshot): Ids<VmId, SnapshotId>,
) -> ApiResult<Response> {
    let args = ActionArgs::Snapshot(snapshot);
    act(app, cx, vm, VmAction::RemoveSnapshot, args).await
}
