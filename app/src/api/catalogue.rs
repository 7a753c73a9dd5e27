use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::flavor::FlavorView;
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
    let images = engine.images(&cx).await.map_err(ssr::refuse)?;
    let flavors = engine.flavors(&cx).await.map_err(ssr::refuse)?;
    Ok(Catalogue { images, flavors })
}
