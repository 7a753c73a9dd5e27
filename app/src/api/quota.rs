use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use vimana_model::TenantId;
use vimana_model::quota::{OwnQuotaView, QuotaLine, QuotaView, Scope, SetQuota, TenantQuotaView};
use vimana_model::tenant::{CreateTenant, TenantView, UserView};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// What the page about one's own limits shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaPageData {
    pub own: OwnQuotaView,
    /// The limits of every user of the tenant who has none of their own.
    pub all_users: Vec<QuotaLine>,
}

/// What the page about all tenants shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantsData {
    pub tenants: Vec<TenantQuotaView>,
    /// The limits of every tenant that has none of its own.
    pub defaults: Vec<QuotaLine>,
}

/// What the page about one tenant shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantData {
    pub tenant: TenantView,
    pub lines: Vec<QuotaLine>,
    pub all_users: Vec<QuotaLine>,
    /// By name.
    pub members: Vec<UserView>,
}

#[server(prefix = "/portal/api", endpoint = "own-quota", input = Json, output = Json)]
pub async fn own_quota() -> Result<QuotaPageData, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let own = engine.own_quota(&cx).await.map_err(ssr::refuse)?;
    let users = Scope::AllUsers(cx.subject.tenant_id);
    let all_users = engine.quota(&cx, &users).await.map_err(ssr::refuse)?;
    Ok(QuotaPageData {
        own,
        all_users: all_users.lines,
    })
}

#[server(prefix = "/portal/api", endpoint = "tenants", input = Json, output = Json)]
pub async fn tenants() -> Result<TenantsData, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let tenants = engine.tenant_quotas(&cx).await.map_err(ssr::refuse)?;
    let defaults = engine.quota(&cx, &Scope::AllTenants).await;
    Ok(TenantsData {
        tenants,
        defaults: defaults.map_err(ssr::refuse)?.lines,
    })
}

#[server(prefix = "/portal/api", endpoint = "tenant", input = Json, output = Json)]
pub async fn tenant(id: TenantId) -> Result<TenantData, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let tenant = engine.tenant(&cx, id).await.map_err(ssr::refuse)?;
    let quota = engine.quota(&cx, &Scope::Tenant(id)).await;
    let all_users = engine.quota(&cx, &Scope::AllUsers(id)).await;
    let members = engine.members(&cx, id).await.map_err(ssr::refuse)?;
    Ok(TenantData {
        tenant,
        lines: quota.map_err(ssr::refuse)?.lines,
        all_users: all_users.map_err(ssr::refuse)?.lines,
        members,
    })
}

#[server(name = SetQuotaCall, prefix = "/portal/api", endpoint = "set-quota", input = Json, output = Json)]
pub async fn set_quota(scope: Scope, form: SetQuota, key: Key) -> Result<QuotaView, ApiError> {
    let cx = ssr::caller_once("set-quota", &(&scope, &form), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .set_quota(&cx, &scope, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateTenantCall, prefix = "/portal/api", endpoint = "create-tenant", input = Json, output = Json)]
pub async fn create_tenant(form: CreateTenant, key: Key) -> Result<TenantView, ApiError> {
    let cx = ssr::caller_once("create-tenant", &form, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_tenant(&cx, &form)
        .await
        .map_err(ssr::refuse)
}
