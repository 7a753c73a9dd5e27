//! Images.

use vimana_model::Result;
use vimana_model::image::ImageView;

use crate::Client;
use crate::transport::Items;

impl Client {
    pub async fn images(&self) -> Result<Vec<ImageView>> {
        let list: Items<_> = self.get("/api/v1/images").await?;
        Ok(list.items)
    }
}
