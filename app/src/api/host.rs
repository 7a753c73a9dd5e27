use leptos::prelude::*;

use vimana_model::host::HostView;

use super::ApiError;
use super::codec::Json;
#[cfg(feature = "ssr")]
use crate::ssr;

#[server(prefix = "/portal/api", endpoint = "hosts", input = Json, output = Json)]
pub async fn hosts() -> Result<Vec<HostView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .hosts(&cx)
        .await
        .map_err(ssr::refuse)
}
