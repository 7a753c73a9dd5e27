//! Tenants and their users.

use vimana_model::tenant::{CreateTenant, CreateUser, TenantView, UpdateTenant, UserView};
use vimana_model::{Result, TenantId};

use crate::Client;
use crate::transport::Items;

impl Client {
    pub async fn tenants(&self) -> Result<Vec<TenantView>> {
        let list: Items<_> = self.get("/api/v1/tenants").await?;
        Ok(list.items)
    }

    pub async fn create_tenant(&self, form: &CreateTenant) -> Result<TenantView> {
        self.post_json("/api/v1/tenants", form).await
    }

    pub async fn update_tenant(&self, id: TenantId, form: &UpdateTenant) -> Result<TenantView> {
        self.patch_json(&format!("/api/v1/tenants/{id}"), form)
            .await
    }

    pub async fn users(&self) -> Result<Vec<UserView>> {
        let list: Items<_> = self.get("/api/v1/users").await?;
        Ok(list.items)
    }

    pub async fn create_user(&self, form: &CreateUser) -> Result<UserView> {
        self.post_json("/api/v1/users", form).await
    }
}
