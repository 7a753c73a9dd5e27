use leptos::prelude::*;
use vimana_model::flavor::{ChangeFlavor, CreateFlavor, FlavorView};
use vimana_model::name::FlavorName;

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// The smallest first.
#[server(prefix = "/portal/api", endpoint = "flavors", input = Json, output = Json)]
pub async fn flavors() -> Result<Vec<FlavorView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .flavors(&cx)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateFlavorCall, prefix = "/portal/api", endpoint = "create-flavor", input = Json, output = Json)]
pub async fn create_flavor(form: CreateFlavor, key: Key) -> Result<FlavorView, ApiError> {
    let cx = ssr::caller_once("create-flavor", &form, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_flavor(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = ChangeFlavorCall, prefix = "/portal/api", endpoint = "change-flavor", input = Json, output = Json)]
pub async fn change_flavor(
    name: FlavorName,
    form: ChangeFlavor,
    key: Key,
) -> Result<FlavorView, ApiError> {
    let cx = ssr::caller_once("change-flavor", &(&name, form), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .change_flavor(&cx, &name, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = RetireFlavorCall, prefix = "/portal/api", endpoint = "retire-flavor", input = Json, output = Json)]
pub async fn retire_flavor(name: FlavorName, key: Key) -> Result<FlavorView, ApiError> {
    let cx = ssr::caller_once("retire-flavor", &name, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .retire_flavor(&cx, &name)
        .await
        .map_err(ssr::refuse)
}
