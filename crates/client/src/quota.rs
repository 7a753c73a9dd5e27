//! Limits of tenants and users, and what is used of them.

use vimana_model::Result;
use vimana_model::quota::{OwnQuotaView, QuotaView, Scope, SetQuota};

use crate::Client;

fn path(scope: &Scope) -> String {
    match scope {
        Scope::AllTenants => "/api/v1/quota/defaults".to_owned(),
        Scope::Tenant(id) => format!("/api/v1/tenants/{id}/quota"),
        Scope::AllUsers(id) => format!("/api/v1/tenants/{id}/quota/users"),
        Scope::User(id, user) => format!("/api/v1/tenants/{id}/users/{user}/quota"),
    }
}

impl Client {
    /// What the caller may have, and has.
    pub async fn own_quota(&self) -> Result<OwnQuotaView> {
        self.get("/api/v1/quota").await
    }

    pub async fn quota(&self, scope: &Scope) -> Result<QuotaView> {
        self.get(&path(scope)).await
    }

    /// These take the place of all limits that the scope has of its own.
    pub async fn set_quota(&self, scope: &Scope, form: &SetQuota) -> Result<QuotaView> {
        self.put_json(&path(scope), form).await
    }
}
