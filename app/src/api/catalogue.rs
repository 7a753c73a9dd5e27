use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::flavor::FlavorView;
#[cfg(feature = "ssr")]
use vimana_model::image::ImageState;
use vimana_model::image::ImageView;

use super::ApiError;
use super::codec::Json;
#[cfg(feature = "ssr")]
use crate::ssr;

/// What a new VM can be made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    pub images: Vec<ImageView>,
    pub flavors: Vec<FlavorView>,
}

#[server(name = CatalogueCall, prefix = "/portal/api", endpoint = "catalogue", input = Json, output = Json)]
pub async fn catalogue() -> Result<Catalogue, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let mut images = engine.images(&cx).await.map_err(ssr::refuse)?;
    images.retain(|image| image.state == ImageState::Ready);
    // One's own stands before the one for all that has the same name.
    images.sort_by_key(|image| (image.name.clone(), image.tenant_id.is_none()));
    images.dedup_by(|later, first| later.name == first.name);
    let flavors = engine.flavors(&cx).await.map_err(ssr::refuse)?;
    Ok(Catalogue { images, flavors })
}
