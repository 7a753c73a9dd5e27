use leptos::prelude::*;

use vimana_model::OperationId;
use vimana_model::operation::OperationView;

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

#[server(name = CancelCall, prefix = "/portal/api", endpoint = "cancel-operation", input = Json, output = Json)]
pub async fn cancel_operation(id: OperationId, key: Key) -> Result<OperationView, ApiError> {
    let cx = ssr::caller_once("cancel-operation", &id, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .cancel_operation(&cx, id)
        .await
        .map_err(ssr::refuse)
}
