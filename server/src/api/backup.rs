//! Backups of VMs, and what is made again and again.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::backup::{AcceptedRestore, BackupView, RestoreBackup, TakeBackup};
use vimana_model::datastore::DatastoreView;
use vimana_model::schedule::{ScheduleKind, ScheduleView, SetSchedule};
use vimana_model::vm::AcceptedView;
use vimana_model::{BackupId, Problem, VmId};

use super::Items;
use super::extract::{Caller, Id, Ids, Json, JsonOrNothing};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use super::vm::action::act;
use crate::state::App;

/// The tenant's backups, newest first
///
/// Also those of VMs that are done.
#[utoipa::path(
    get, path = "/backups", tag = "backup", operation_id = "list_backups",
    responses((status = 200, description = "Backups", body = Items<BackupView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<BackupView>>> {
    let items = app.engine.backups(&cx).await?;
    Ok(Answer(Items { items }))
}

/// The backups of a VM, newest first
#[utoipa::path(
    get, path = "/vms/{vm_id}/backups", tag = "backup", operation_id = "list_vm_backups",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Backups", body = Items<BackupView>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn of_vm(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<BackupView>>> {
    let items = app.engine.vm_backups(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Copy a VM's disks to a datastore, as they are at one instant
///
/// Only what has changed since the last backup, where that is known.
#[utoipa::path(
    post, path = "/vms/{vm_id}/backups", tag = "backup", operation_id = "back_up_vm",
    params(("vm_id" = VmId, Path)),
    request_body = TakeBackup,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state, no room, or the name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn take(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
    JsonOrNothing(form): JsonOrNothing<TakeBackup>,
) -> ApiResult<Response> {
    act(app, cx, id, VmAction::Backup, ActionArgs::Backup(form)).await
}

/// One backup
#[utoipa::path(
    get, path = "/backups/{backup_id}", tag = "backup", operation_id = "show_backup",
    params(("backup_id" = BackupId, Path)),
    responses(
        (status = 200, description = "The backup", body = BackupView),
        (status = 404, description = "No such backup", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<BackupId>,
) -> ApiResult<Answer<BackupView>> {
    Ok(Answer(app.engine.backup(&cx, id).await?))
}

/// Delete a backup
#[utoipa::path(
    delete, path = "/backups/{backup_id}", tag = "backup", operation_id = "delete_backup",
    params(("backup_id" = BackupId, Path)),
    responses(
        (status = 200, description = "Deleted", body = BackupView),
        (status = 404, description = "No such backup", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is being made, or another one needs it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<BackupId>,
) -> ApiResult<Answer<BackupView>> {
    let engine = app.engine.clone();
    let deleted = app
        .detached(async move { engine.delete_backup(&cx, id).await })
        .await?;
    Ok(Answer(deleted))
}

/// Make a new VM from a backup's root disk, and volumes of its others
///
/// By way of an image, whose import is the operation of the answer; the VM is
/// there when that is through. The volumes are free; each can be attached once
/// its content has been read.
#[utoipa::path(
    post, path = "/backups/{backup_id}/restore", tag = "backup", operation_id = "restore_backup",
    params(("backup_id" = BackupId, Path)),
    request_body = RestoreBackup,
    responses(
        (status = 202, description = "Accepted", body = AcceptedRestore),
        (status = 404, description = "No such backup", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Nothing can be made from it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn restore(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<BackupId>,
    Json(form): Json<RestoreBackup>,
) -> ApiResult<(StatusCode, Answer<AcceptedRestore>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.restore_backup(&cx, id, &form).await })
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(accepted)))
}

/// What is made of a VM again and again
#[utoipa::path(
    get, path = "/vms/{vm_id}/schedules", tag = "backup", operation_id = "list_schedules",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Schedules", body = Items<ScheduleView>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn schedules(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<ScheduleView>>> {
    let items = app.engine.schedules(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Set a schedule, in place of the VM's one of that kind
#[utoipa::path(
    put, path = "/vms/{vm_id}/schedules/{kind}", tag = "backup", operation_id = "set_schedule",
    params(("vm_id" = VmId, Path), ("kind" = ScheduleKind, Path)),
    request_body = SetSchedule,
    responses(
        (status = 200, description = "Set", body = ScheduleView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The VM is done", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_schedule(
    State(app): State<App>,
    Once(cx): Once,
    Ids(id, kind): Ids<VmId, ScheduleKind>,
    Json(form): Json<SetSchedule>,
) -> ApiResult<Answer<ScheduleView>> {
    let engine = app.engine.clone();
    let set = app
        .detached(async move { engine.set_schedule(&cx, id, kind, &form).await })
        .await?;
    Ok(Answer(set))
}

/// End a schedule; what it made stays
#[utoipa::path(
    delete, path = "/vms/{vm_id}/schedules/{kind}", tag = "backup", operation_id = "remove_schedule",
    params(("vm_id" = VmId, Path), ("kind" = ScheduleKind, Path)),
    responses(
        (status = 204, description = "Ended"),
        (status = 404, description = "No such VM or schedule", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn remove_schedule(
    State(app): State<App>,
    Once(cx): Once,
    Ids(id, kind): Ids<VmId, ScheduleKind>,
) -> ApiResult<StatusCode> {
    let engine = app.engine.clone();
    app.detached(async move { engine.remove_schedule(&cx, id, kind).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where images, stopped VMs and backups are kept
///
/// With what each holds of the tenant; for the provider's staff also how much
/// room there is, and what it holds of every tenant.
#[utoipa::path(
    get, path = "/datastores", tag = "backup", operation_id = "list_datastores",
    responses((status = 200, description = "Datastores", body = Items<DatastoreView>), Refusals),
)]
pub async fn datastores(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<DatastoreView>>> {
    let items = app.engine.datastores(&cx).await?;
    Ok(Answer(Items { items }))
}
