//! Templates.

use vimana_model::template::{ChangeTemplate, CreateTemplate, TemplateView};
use vimana_model::{Result, TemplateId};

use crate::Client;
use crate::transport::Items;

impl Client {
    /// The tenant's own and those for all, by name.
    pub async fn templates(&self) -> Result<Vec<TemplateView>> {
        let list: Items<_> = self.get("/api/v1/templates").await?;
        Ok(list.items)
    }

    pub async fn create_template(&self, form: &CreateTemplate) -> Result<TemplateView> {
        self.post_json("/api/v1/templates", form).await
    }

    pub async fn change_template(
        &self,
        id: TemplateId,
        form: &ChangeTemplate,
    ) -> Result<TemplateView> {
        self.patch_json(&of(id), form).await
    }

    pub async fn delete_template(&self, id: TemplateId) -> Result<TemplateView> {
        self.delete(&of(id)).await
    }
}

fn of(id: TemplateId) -> String {
    format!("/api/v1/templates/{id}")
}
