//! What people do with a VM: one route per action.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use vimana_engine::{Acted, ActionArgs, OpContext};
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationTarget, StorageTarget};
use vimana_model::vm::{AcceptedView, PowerOffVm, ResizeVm, VmView};
use vimana_model::{Problem, VmId};

use crate::api::Items;
use crate::api::extract::{Caller, Id, Json, JsonOrNothing};
use crate::api::once::Once;
use crate::api::problem::{ApiResult, Refusals};
use crate::state::App;

/// A route for an action that takes nothing but the VM.
macro_rules! route {
    (
        $(#[$doc:meta])*
        $name:ident = $method:ident $path:tt, $id:tt, $action:ident, $status:tt $view:ident
    ) => {
        $(#[$doc])*
        #[utoipa::path(
            $method, path = $path, tag = "vm", operation_id = $id,
            params(("vm_id" = VmId, Path)),
            responses(
                (status = $status, description = "Accepted", body = $view),
                (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
                Refusals,
            ),
        )]
        pub async fn $name(
            State(app): State<App>,
            Once(cx): Once,
            Id(id): Id<VmId>,
        ) -> ApiResult<Response> {
            act(app, cx, id, VmAction::$action, ActionArgs::None).await
        }
    };
}

route! {
    /// Keep a pending VM from being placed
    hold = post "/vms/{vm_id}/hold", "hold_vm", Hold, 200 VmView
}
route! {
    /// Let a held VM be placed
    release = post "/vms/{vm_id}/release", "release_vm", Release, 200 VmView
}
route! {
    /// Save the memory on the host; vCPUs and memory are given back
    suspend = post "/vms/{vm_id}/suspend", "suspend_vm", Suspend, 202 AcceptedView
}
route! {
    /// Save memory and disk to the datastore; the host is given back
    stop = post "/vms/{vm_id}/stop", "stop_vm", Stop, 202 AcceptedView
}
route! {
    /// Let a suspended or stopped VM run on from where it was
    resume = post "/vms/{vm_id}/resume", "resume_vm", Resume, 202 AcceptedView
}
route! {
    /// Switch a powered-off VM on
    start = post "/vms/{vm_id}/start", "start_vm", Start, 202 AcceptedView
}
route! {
    /// Ask the guest to restart
    reboot = post "/vms/{vm_id}/reboot", "reboot_vm", Reboot, 202 AcceptedView
}
route! {
    /// Restart at once, as by the reset button
    reset = post "/vms/{vm_id}/reset", "reset_vm", Reset, 202 AcceptedView
}
route! {
    /// Try again what failed
    retry = post "/vms/{vm_id}/retry", "retry_vm", Retry, 202 AcceptedView
}
route! {
    /// Ask the guest to switch itself off, then give everything back
    shutdown = post "/vms/{vm_id}/shutdown", "shutdown_vm", Shutdown, 202 AcceptedView
}
route! {
    /// Stop at once and give everything back
    delete = delete "/vms/{vm_id}", "delete_vm", Delete, 202 AcceptedView
}

/// Switch the guest off; its disk stays
///
/// The guest is asked to, and after a grace time made to; with `force` at
/// once.
#[utoipa::path(
    post, path = "/vms/{vm_id}/poweroff", tag = "vm", operation_id = "power_off_vm",
    params(("vm_id" = VmId, Path)),
    request_body = Option<PowerOffVm>,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn power_off(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
    JsonOrNothing(form): JsonOrNothing<PowerOffVm>,
) -> ApiResult<Response> {
    act(app, cx, id, VmAction::PowerOff, ActionArgs::PowerOff(form)).await
}

/// Change vCPUs, memory and disk
///
/// To a flavor, or to amounts; what is left out stays as it is. A running VM
/// is only resized where its host can do that.
#[utoipa::path(
    post, path = "/vms/{vm_id}/resize", tag = "vm", operation_id = "resize_vm",
    params(("vm_id" = VmId, Path)),
    request_body = ResizeVm,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state, or no room", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn resize(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
    Json(form): Json<ResizeVm>,
) -> ApiResult<Response> {
    act(app, cx, id, VmAction::Resize, ActionArgs::Resize(form)).await
}

/// Bring a VM to another host
///
/// It runs on meanwhile, but for a moment at the end. For administrators: which
/// host a VM is on is the provider's.
#[utoipa::path(
    post, path = "/vms/{vm_id}/migrate", tag = "vm", operation_id = "migrate_vm",
    params(("vm_id" = VmId, Path)),
    request_body = MigrateVm,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state, or it cannot go there", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn migrate(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
    Json(form): Json<MigrateVm>,
) -> ApiResult<Response> {
    act(app, cx, id, VmAction::Migrate, ActionArgs::Migrate(form)).await
}

/// The hosts that a VM may go to
///
/// Those that suit best first; then those that it cannot go to, each with the
/// reason. For administrators.
#[utoipa::path(
    get, path = "/vms/{vm_id}/migration-targets", tag = "vm", operation_id = "migration_targets",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Hosts", body = Items<MigrationTarget>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is on no host", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn migration_targets(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<MigrationTarget>>> {
    let items = app.engine.migration_targets(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// The datastores of its host that the disks of a VM may go to
///
/// And those that they cannot go to, each with the reason. For administrators.
#[utoipa::path(
    get, path = "/vms/{vm_id}/storage-targets", tag = "vm", operation_id = "storage_targets",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Datastores", body = Items<StorageTarget>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn storage_targets(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<StorageTarget>>> {
    let items = app.engine.storage_targets(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Does it; an accepted operation is 202.
pub async fn act(
    app: App,
    cx: OpContext,
    id: VmId,
    action: VmAction,
    args: ActionArgs,
) -> ApiResult<Response> {
    let engine = app.engine.clone();
    let acted = app
        .detached(async move { engine.act_on_vm(&cx, id, action, args).await })
        .await?;
    Ok(match acted {
        Acted::Vm(vm) => Answer(*vm).into_response(),
        Acted::Accepted(accepted) => (StatusCode::ACCEPTED, Answer(*accepted)).into_response(),
    })
}
