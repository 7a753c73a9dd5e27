use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::flavor::FlavorView;
#[cfg(feature = "ssr")]
use vimana_model::image::ImageState;
use vimana_model::image::ImageView;
use vimana_model::name::DatastoreName;
use vimana_model::quota::OwnQuotaView;
#[cfg(feature = "ssr")]
use vimana_model::template::CLOUD_CONFIG;
use vimana_model::template::TemplateView;
#[cfg(feature = "ssr")]
use vimana_model::user_data::UserData;

use super::ApiError;
use super::codec::Json;
#[cfg(feature = "ssr")]
use crate::ssr;

/// What a new VM can be made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    pub images: Vec<ImageView>,
    pub flavors: Vec<FlavorView>,
    /// Of their user-data only whether there is any.
    pub templates: Vec<TemplateView>,
    /// Those that a disk can be in; `local` is the first.
    pub datastores: Vec<DatastoreName>,
    /// What whoever asks may have, and has.
    pub quota: OwnQuotaView,
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
    let mut templates = engine.templates(&cx).await.map_err(ssr::refuse)?;
    templates.sort_by_key(|template| (template.name.clone(), template.tenant_id.is_none()));
    templates.dedup_by(|later, first| later.name == first.name);
    for template in &mut templates {
        let data = template.user_data.take();
        template.user_data = data.and_then(|_| UserData::new(CLOUD_CONFIG).ok());
    }
    let datastores = engine.volume_datastores(&cx, None);
    let datastores = datastores.await.map_err(ssr::refuse)?;
    Ok(Catalogue {
        images,
        flavors,
        templates,
        datastores,
        quota: engine.own_quota(&cx).await.map_err(ssr::refuse)?,
    })
}
