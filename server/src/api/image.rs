//! Images.

use axum::extract::State;
use vimana_model::image::ImageView;

use super::Items;
use super::extract::Caller;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All images
#[utoipa::path(
    get, path = "/images", tag = "image", operation_id = "list_images",
    responses((status = 200, description = "Images", body = Items<ImageView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<axum::Json<Items<ImageView>>> {
    let items = app.engine.images(&cx).await?;
    Ok(axum::Json(Items { items }))
}
