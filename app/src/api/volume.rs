use leptos::prelude::*;
use vimana_model::VolumeId;
use vimana_model::name::DatastoreName;
use vimana_model::volume::{
    AttachVolume, CloneVolume, CreateVolume, GrowVolume, MoveVolume, VolumeView,
};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// The tenant's volumes, by name.
#[server(prefix = "/portal/api", endpoint = "volumes", input = Json, output = Json)]
pub async fn volumes() -> Result<Vec<VolumeView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .volumes(&cx)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateVolumeCall, prefix = "/portal/api", endpoint = "create-volume", input = Json, output = Json)]
pub async fn create_volume(form: CreateVolume, key: Key) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("create-volume", &form, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_volume(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = DeleteVolumeCall, prefix = "/portal/api", endpoint = "delete-volume", input = Json, output = Json)]
pub async fn delete_volume(id: VolumeId, key: Key) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("delete-volume", &id, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .delete_volume(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Gives it to a VM, or begins to.
#[server(name = AttachVolumeCall, prefix = "/portal/api", endpoint = "attach-volume", input = Json, output = Json)]
pub async fn attach_volume(
    id: VolumeId,
    form: AttachVolume,
    key: Key,
) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("attach-volume", &(id, &form), key)
        .await
        .map_err(ssr::refuse)?;
    let accepted = ssr::engine()
        .map_err(ssr::refuse)?
        .attach_volume(&cx, id, form)
        .await
        .map_err(ssr::refuse)?;
    Ok(accepted.volume)
}

/// Makes it larger, or begins to.
#[server(name = GrowVolumeCall, prefix = "/portal/api", endpoint = "grow-volume", input = Json, output = Json)]
pub async fn grow_volume(id: VolumeId, form: GrowVolume, key: Key) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("grow-volume", &(id, form), key)
        .await
        .map_err(ssr::refuse)?;
    let accepted = ssr::engine()
        .map_err(ssr::refuse)?
        .grow_volume(&cx, id, form)
        .await
        .map_err(ssr::refuse)?;
    Ok(accepted.volume)
}

/// Brings it to another datastore of its host, or begins to.
#[server(name = MoveVolumeCall, prefix = "/portal/api", endpoint = "move-volume", input = Json, output = Json)]
pub async fn move_volume(id: VolumeId, form: MoveVolume, key: Key) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("move-volume", &(id, &form), key)
        .await
        .map_err(ssr::refuse)?;
    let accepted = ssr::engine()
        .map_err(ssr::refuse)?
        .move_volume(&cx, id, &form)
        .await
        .map_err(ssr::refuse)?;
    Ok(accepted.volume)
}

/// The datastores that it can be in, or that a new one can.
#[server(name = VolumeDatastoresCall, prefix = "/portal/api", endpoint = "volume-datastores", input = Json, output = Json)]
pub async fn volume_datastores(id: Option<VolumeId>) -> Result<Vec<DatastoreName>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .volume_datastores(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Makes another one of what is on it.
#[server(name = CloneVolumeCall, prefix = "/portal/api", endpoint = "clone-volume", input = Json, output = Json)]
pub async fn clone_volume(
    id: VolumeId,
    form: CloneVolume,
    key: Key,
) -> Result<VolumeView, ApiError> {
    let cx = ssr::caller_once("clone-volume", &(id, &form), key)
        .await
        .map_err(ssr::refuse)?;
    let accepted = ssr::engine()
        .map_err(ssr::refuse)?
        .clone_volume(&cx, id, &form)
        .await
        .map_err(ssr::refuse)?;
    Ok(accepted.volume)
}
