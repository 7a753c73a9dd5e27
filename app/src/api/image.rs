use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::ImageId;
use vimana_model::event::EventView;
use vimana_model::image::{
    AcceptedImage, ImageAction, ImageState, ImageView, ImportImage, RefreshImage,
};
use vimana_model::operation::OperationView;

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// Which images a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageShow {
    /// What VMs are made from, or will be.
    #[default]
    Catalogue,
    Trash,
}

impl ImageShow {
    pub const ALL: [Self; 2] = [Self::Catalogue, Self::Trash];

    /// Reads the query parameter; what is no such word means the default.
    #[must_use]
    pub fn from_query(text: Option<&str>) -> Self {
        match text {
            Some("trash") => Self::Trash,
            Some(_) | None => Self::Catalogue,
        }
    }

    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Catalogue => "Catalogue",
            Self::Trash => "Trash",
        }
    }

    #[must_use]
    pub const fn takes(self, state: ImageState) -> bool {
        match state {
            ImageState::Importing | ImageState::Ready | ImageState::Failed => {
                matches!(self, Self::Catalogue)
            }
            ImageState::Trashed => matches!(self, Self::Trash),
            ImageState::Removed => false,
        }
    }
}

/// All that the caller may use, and what lies in the trash; by name.
#[server(prefix = "/portal/api", endpoint = "images", input = Json, output = Json)]
pub async fn images() -> Result<Vec<ImageView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .images(&cx)
        .await
        .map_err(ssr::refuse)
}

#[server(prefix = "/portal/api", endpoint = "image", input = Json, output = Json)]
pub async fn image(id: ImageId) -> Result<ImageView, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .image(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// What happened to it, oldest first.
#[server(prefix = "/portal/api", endpoint = "image-timeline", input = Json, output = Json)]
pub async fn image_timeline(id: ImageId) -> Result<Vec<EventView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .image_timeline(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Its imports, newest first.
#[server(prefix = "/portal/api", endpoint = "image-operations", input = Json, output = Json)]
pub async fn image_operations(id: ImageId) -> Result<Vec<OperationView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .image_operations(&cx, id)
        .await
        .map_err(ssr::refuse)
}

#[server(name = ImportImageCall, prefix = "/portal/api", endpoint = "import-image", input = Json, output = Json)]
pub async fn import_image(form: ImportImage, key: Key) -> Result<AcceptedImage, ApiError> {
    // A URL may have a password in it, of which not even a hash is kept.
    let told = ImportImage {
        url: None,
        ..form.clone()
    };
    let cx = ssr::caller_once("import-image", &told, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .import_image(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

/// Has it refreshed that often from now on, or no more.
#[server(name = SetImageRefreshCall, prefix = "/portal/api", endpoint = "set-image-refresh", input = Json, output = Json)]
pub async fn set_image_refresh(
    id: ImageId,
    form: Option<RefreshImage>,
    key: Key,
) -> Result<ImageView, ApiError> {
    // A URL may have a password in it, of which not even a hash is kept.
    let told = form.as_ref().map(|form| form.every_seconds);
    let cx = ssr::caller_once("set-image-refresh", &(id, told), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .set_image_refresh(&cx, id, form.as_ref())
        .await
        .map_err(ssr::refuse)
}

/// Has its source asked at once.
#[server(name = RefreshImageCall, prefix = "/portal/api", endpoint = "refresh-image", input = Json, output = Json)]
pub async fn refresh_image(id: ImageId, key: Key) -> Result<ImageView, ApiError> {
    let cx = ssr::caller_once("refresh-image", &id, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .refresh_image(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Does it, or begins to; answers how the image is then.
#[server(name = ActOnImageCall, prefix = "/portal/api", endpoint = "act-on-image", input = Json, output = Json)]
pub async fn act_on_image(
    id: ImageId,
    action: ImageAction,
    key: Key,
) -> Result<ImageView, ApiError> {
    let cx = ssr::caller_once("act-on-image", &(id, action), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .act_on_image(&cx, id, action)
        .await
        .map_err(ssr::refuse)
}
