use leptos::prelude::*;
use vimana_model::TemplateId;
use vimana_model::template::{ChangeTemplate, CreateTemplate, TemplateView};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// The tenant's own and those for all, by name.
#[server(prefix = "/portal/api", endpoint = "templates", input = Json, output = Json)]
pub async fn templates() -> Result<Vec<TemplateView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .templates(&cx)
        .await
        .map_err(ssr::refuse)
}

#[server(prefix = "/portal/api", endpoint = "template", input = Json, output = Json)]
pub async fn template(id: TemplateId) -> Result<TemplateView, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .template(&cx, id)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateTemplateCall, prefix = "/portal/api", endpoint = "create-template", input = Json, output = Json)]
pub async fn create_template(form: CreateTemplate, key: Key) -> Result<TemplateView, ApiError> {
    let cx = ssr::caller_once("create-template", &form, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_template(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = ChangeTemplateCall, prefix = "/portal/api", endpoint = "change-template", input = Json, output = Json)]
pub async fn change_template(
    id: TemplateId,
    form: ChangeTemplate,
    key: Key,
) -> Result<TemplateView, ApiError> {
    let cx = ssr::caller_once("change-template", &(id, &form), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .change_template(&cx, id, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = DeleteTemplateCall, prefix = "/portal/api", endpoint = "delete-template", input = Json, output = Json)]
pub async fn delete_template(id: TemplateId, key: Key) -> Result<TemplateView, ApiError> {
    let cx = ssr::caller_once("delete-template", &id, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .delete_template(&cx, id)
        .await
        .map_err(ssr::refuse)
}
