//! Volumes.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::event::EventView;
use vimana_model::name::DatastoreName;
use vimana_model::volume::{
    AcceptedVolume, AttachVolume, ChangeVolume, CloneVolume, CreateVolume, GrowVolume, MoveVolume,
    VolumeView,
};
use vimana_model::{Problem, VolumeId};

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// The tenant's volumes, by name
#[utoipa::path(
    get, path = "/volumes", tag = "volume", operation_id = "list_volumes",
    responses((status = 200, description = "Volumes", body = Items<VolumeView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<VolumeView>>> {
    let items = app.engine.volumes(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Make a volume
///
/// Its bytes come to be on the host of the VM that is given it first.
#[utoipa::path(
    post, path = "/volumes", tag = "volume", operation_id = "create_volume",
    request_body = CreateVolume,
    responses(
        (status = 201, description = "Made", body = VolumeView),
        (status = 409, description = "The name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    Once(cx): Once,
    Json(form): Json<CreateVolume>,
) -> ApiResult<(StatusCode, Answer<VolumeView>)> {
    let engine = app.engine.clone();
    let volume = app
        .detached(async move { engine.create_volume(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(volume)))
}

/// One volume
#[utoipa::path(
    get, path = "/volumes/{volume_id}", tag = "volume", operation_id = "show_volume",
    params(("volume_id" = VolumeId, Path)),
    responses(
        (status = 200, description = "The volume", body = VolumeView),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VolumeId>,
) -> ApiResult<Answer<VolumeView>> {
    Ok(Answer(app.engine.volume(&cx, id).await?))
}

/// What happened to a volume, oldest first
#[utoipa::path(
    get, path = "/volumes/{volume_id}/timeline", tag = "volume", operation_id = "volume_timeline",
    params(("volume_id" = VolumeId, Path)),
    responses(
        (status = 200, description = "Events", body = Items<EventView>),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn timeline(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VolumeId>,
) -> ApiResult<Answer<Items<EventView>>> {
    let items = app.engine.volume_timeline(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Say whether a volume goes with its VM
#[utoipa::path(
    patch, path = "/volumes/{volume_id}", tag = "volume", operation_id = "change_volume",
    params(("volume_id" = VolumeId, Path)),
    request_body = ChangeVolume,
    responses(
        (status = 200, description = "Changed", body = VolumeView),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn change(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
    Json(form): Json<ChangeVolume>,
) -> ApiResult<Answer<VolumeView>> {
    let engine = app.engine.clone();
    let volume = app
        .detached(async move { engine.change_volume(&cx, id, &form).await })
        .await?;
    Ok(Answer(volume))
}

/// Delete a volume with what is on it
#[utoipa::path(
    delete, path = "/volumes/{volume_id}", tag = "volume", operation_id = "delete_volume",
    params(("volume_id" = VolumeId, Path)),
    responses(
        (status = 200, description = "Deleted; its host removes it as soon as it can", body = VolumeView),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A VM has it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
) -> ApiResult<Answer<VolumeView>> {
    let engine = app.engine.clone();
    let volume = app
        .detached(async move { engine.delete_volume(&cx, id).await })
        .await?;
    Ok(Answer(volume))
}

/// Give a volume to a VM, at once where that runs
#[utoipa::path(
    post, path = "/volumes/{volume_id}/attach", tag = "volume", operation_id = "attach_volume",
    params(("volume_id" = VolumeId, Path)),
    request_body = AttachVolume,
    responses(
        (status = 202, description = "Accepted", body = AcceptedVolume),
        (status = 404, description = "No such volume or VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A VM has it, or that VM is not in a state for it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn attach(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
    Json(form): Json<AttachVolume>,
) -> ApiResult<(StatusCode, Answer<AcceptedVolume>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.attach_volume(&cx, id, form).await })
        .await?;
    Ok(accepted_or_done(accepted))
}

/// Take a volume from its VM; it stays
#[utoipa::path(
    post, path = "/volumes/{volume_id}/detach", tag = "volume", operation_id = "detach_volume",
    params(("volume_id" = VolumeId, Path)),
    responses(
        (status = 202, description = "Accepted", body = AcceptedVolume),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No VM has it, or a snapshot holds it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn detach(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
) -> ApiResult<(StatusCode, Answer<AcceptedVolume>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.detach_volume(&cx, id).await })
        .await?;
    Ok(accepted_or_done(accepted))
}

/// Make another volume of what is on one, as it is at one instant
///
/// Attached or not. The new one is there at once and can be attached once its
/// content is, which the operation tells; its bytes come to be on the host of
/// the VM that is given it first.
#[utoipa::path(
    post, path = "/volumes/{volume_id}/clone", tag = "volume", operation_id = "clone_volume",
    params(("volume_id" = VolumeId, Path)),
    request_body = CloneVolume,
    responses(
        (status = 202, description = "Accepted", body = AcceptedVolume),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is in use, or there is nothing on the volume", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a name it can have", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn clone(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
    Json(form): Json<CloneVolume>,
) -> ApiResult<(StatusCode, Answer<AcceptedVolume>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.clone_volume(&cx, id, &form).await })
        .await?;
    Ok(accepted_or_done(accepted))
}

/// Make a volume larger; it never shrinks
///
/// By an operation of the VM that has it, while that runs; without one it is
/// as large when it is next attached.
#[utoipa::path(
    post, path = "/volumes/{volume_id}/grow", tag = "volume", operation_id = "grow_volume",
    params(("volume_id" = VolumeId, Path)),
    request_body = GrowVolume,
    responses(
        (status = 200, description = "Done", body = AcceptedVolume),
        (status = 202, description = "Accepted", body = AcceptedVolume),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state, or no room", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a size it can have", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn grow(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
    Json(form): Json<GrowVolume>,
) -> ApiResult<(StatusCode, Answer<AcceptedVolume>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.grow_volume(&cx, id, form).await })
        .await?;
    Ok(accepted_or_done(accepted))
}

/// The datastores that a volume can be in
///
/// Those of its host, `local` first; of all hosts where it was never attached.
#[utoipa::path(
    get, path = "/volumes/{volume_id}/datastores", tag = "volume", operation_id = "volume_datastores",
    params(("volume_id" = VolumeId, Path)),
    responses(
        (status = 200, description = "Their names", body = Items<DatastoreName>),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn datastores(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VolumeId>,
) -> ApiResult<Answer<Items<DatastoreName>>> {
    let items = app.engine.volume_datastores(&cx, Some(id)).await?;
    Ok(Answer(Items { items }))
}

/// Bring a volume to another datastore of its host
///
/// By an operation of the VM that has it: a guest that runs goes on meanwhile,
/// and so does its writing. One that was never attached is made there when it is.
#[utoipa::path(
    post, path = "/volumes/{volume_id}/move", tag = "volume", operation_id = "move_volume",
    params(("volume_id" = VolumeId, Path)),
    request_body = MoveVolume,
    responses(
        (status = 200, description = "Done", body = AcceptedVolume),
        (status = 202, description = "Accepted", body = AcceptedVolume),
        (status = 404, description = "No such volume", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is there, its host has no such datastore or no room there, no VM has it, or a snapshot holds it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a datastore's name", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn relocate(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VolumeId>,
    Json(form): Json<MoveVolume>,
) -> ApiResult<(StatusCode, Answer<AcceptedVolume>)> {
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.move_volume(&cx, id, &form).await })
        .await?;
    Ok(accepted_or_done(accepted))
}

fn accepted_or_done(accepted: AcceptedVolume) -> (StatusCode, Answer<AcceptedVolume>) {
    let status = match accepted.operation {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    (status, Answer(accepted))
}
