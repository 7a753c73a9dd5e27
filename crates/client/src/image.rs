//! Images.

use vimana_model::event::EventView;
use vimana_model::image::{AcceptedImage, ImageAction, ImageView, ImportImage};
use vimana_model::{ImageId, Result};

use crate::Client;
use crate::transport::Items;

impl Client {
    /// The tenant's own, and those for all.
    pub async fn images(&self) -> Result<Vec<ImageView>> {
        let list: Items<_> = self.get("/api/v1/images").await?;
        Ok(list.items)
    }

    pub async fn image(&self, id: ImageId) -> Result<ImageView> {
        self.get(&format!("/api/v1/images/{id}")).await
    }

    pub async fn import_image(&self, form: &ImportImage) -> Result<AcceptedImage> {
        self.post_json("/api/v1/images", form).await
    }

    pub async fn act_on_image(&self, id: ImageId, action: ImageAction) -> Result<ImageView> {
        let path = format!("/api/v1/images/{id}");
        match action {
            ImageAction::Delete => self.delete(&path).await,
            ImageAction::Restore | ImageAction::Purge | ImageAction::Retry => {
                self.post(&format!("{path}/{}", action.name())).await
            }
        }
    }

    /// Oldest first.
    pub async fn image_timeline(&self, id: ImageId) -> Result<Vec<EventView>> {
        let path = format!("/api/v1/images/{id}/timeline");
        let list: Items<_> = self.get(&path).await?;
        Ok(list.items)
    }
}
