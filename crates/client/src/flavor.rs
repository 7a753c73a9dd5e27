//! Flavors.

use vimana_model::Result;
use vimana_model::flavor::FlavorView;

use crate::Client;
use crate::transport::Items;

impl Client {
    pub async fn flavors(&self) -> Result<Vec<FlavorView>> {
        let list: Items<_> = self.get("/api/v1/flavors").await?;
        Ok(list.items)
    }
}
