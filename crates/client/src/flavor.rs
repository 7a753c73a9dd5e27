//! Flavors.

use vimana_model::Result;
use vimana_model::flavor::{ChangeFlavor, CreateFlavor, FlavorView};
use vimana_model::name::FlavorName;

use crate::Client;
use crate::transport::Items;

impl Client {
    /// The smallest first.
    pub async fn flavors(&self) -> Result<Vec<FlavorView>> {
        let list: Items<_> = self.get("/api/v1/flavors").await?;
        Ok(list.items)
    }

    pub async fn create_flavor(&self, form: &CreateFlavor) -> Result<FlavorView> {
        self.post_json("/api/v1/flavors", form).await
    }

    pub async fn change_flavor(
        &self,
        name: &FlavorName,
        form: &ChangeFlavor,
    ) -> Result<FlavorView> {
        self.patch_json(&of(name), form).await
    }

    pub async fn retire_flavor(&self, name: &FlavorName) -> Result<FlavorView> {
        self.delete(&of(name)).await
    }
}

/// A name has nothing in it that an address takes for something else.
fn of(name: &FlavorName) -> String {
    format!("/api/v1/flavors/{name}")
}
