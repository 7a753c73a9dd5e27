//! Limits of tenants and users, and what is used of them.

use axum::Json as Answer;
use axum::extract::State;
use vimana_model::name::UserName;
use vimana_model::quota::{OwnQuotaView, QuotaView, Scope, SetQuota, TenantQuotaView};
use vimana_model::{Problem, TenantId};

use super::Items;
use super::extract::{Caller, Id, Ids, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// What you may have in your tenant, and have
#[utoipa::path(
    get, path = "/quota", tag = "quota", operation_id = "show_own_quota",
    responses(
        (status = 200, description = "The tenant's limits and your own, with what is used", body = OwnQuotaView),
        Refusals,
    ),
)]
pub async fn show_own(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<OwnQuotaView>> {
    Ok(Answer(app.engine.own_quota(&cx).await?))
}

/// Every tenant with its limits and usage of VMs; for staff
#[utoipa::path(
    get, path = "/quota/tenants", tag = "quota", operation_id = "list_tenant_quotas",
    responses((status = 200, description = "The tenants, by name", body = Items<TenantQuotaView>), Refusals),
)]
pub async fn list_tenants(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<TenantQuotaView>>> {
    let items = app.engine.tenant_quotas(&cx).await?;
    Ok(Answer(Items { items }))
}

async fn set(
    app: App,
    Once(cx): Once,
    scope: Scope,
    form: SetQuota,
) -> ApiResult<Answer<QuotaView>> {
    let engine = app.engine.clone();
    let set = app.detached(async move { engine.set_quota(&cx, &scope, &form).await });
    Ok(Answer(set.await?))
}

/// The limits of every tenant that has none of its own; for staff
#[utoipa::path(
    get, path = "/quota/defaults", tag = "quota", operation_id = "show_default_quota",
    responses((status = 200, description = "The limits", body = QuotaView), Refusals),
)]
pub async fn show_defaults(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<QuotaView>> {
    Ok(Answer(app.engine.quota(&cx, &Scope::AllTenants).await?))
}

/// Set the limits of every tenant that has none of its own; for administrators
#[utoipa::path(
    put, path = "/quota/defaults", tag = "quota", operation_id = "set_default_quota",
    request_body = SetQuota,
    responses(
        (status = 200, description = "The limits, as they are now", body = QuotaView),
        (status = 422, description = "Limits at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_defaults(
    State(app): State<App>,
    once: Once,
    Json(form): Json<SetQuota>,
) -> ApiResult<Answer<QuotaView>> {
    set(app, once, Scope::AllTenants, form).await
}

/// A tenant's limits, with what is used
#[utoipa::path(
    get, path = "/tenants/{tenant_id}/quota", tag = "quota", operation_id = "show_tenant_quota",
    params(("tenant_id" = TenantId, Path)),
    responses(
        (status = 200, description = "Limits and usage", body = QuotaView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show_tenant(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<TenantId>,
) -> ApiResult<Answer<QuotaView>> {
    Ok(Answer(app.engine.quota(&cx, &Scope::Tenant(id)).await?))
}

/// Give a tenant limits of its own; for administrators
///
/// They take the place of those it had. What is left out is inherited from the
/// defaults; `"unlimited"` is no limit, whatever the defaults say. What is in use
/// already stays, also where it is more.
#[utoipa::path(
    put, path = "/tenants/{tenant_id}/quota", tag = "quota", operation_id = "set_tenant_quota",
    params(("tenant_id" = TenantId, Path)),
    request_body = SetQuota,
    responses(
        (status = 200, description = "Limits and usage, as they are now", body = QuotaView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Limits at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_tenant(
    State(app): State<App>,
    once: Once,
    Id(id): Id<TenantId>,
    Json(form): Json<SetQuota>,
) -> ApiResult<Answer<QuotaView>> {
    set(app, once, Scope::Tenant(id), form).await
}

/// The limits of every user of a tenant who has none of their own
#[utoipa::path(
    get, path = "/tenants/{tenant_id}/quota/users", tag = "quota", operation_id = "show_default_user_quota",
    params(("tenant_id" = TenantId, Path)),
    responses(
        (status = 200, description = "The limits", body = QuotaView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show_user_defaults(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<TenantId>,
) -> ApiResult<Answer<QuotaView>> {
    Ok(Answer(app.engine.quota(&cx, &Scope::AllUsers(id)).await?))
}

/// Set the limits of every user of a tenant who has none of their own; for its managers
#[utoipa::path(
    put, path = "/tenants/{tenant_id}/quota/users", tag = "quota", operation_id = "set_default_user_quota",
    params(("tenant_id" = TenantId, Path)),
    request_body = SetQuota,
    responses(
        (status = 200, description = "The limits, as they are now", body = QuotaView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Limits at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_user_defaults(
    State(app): State<App>,
    once: Once,
    Id(id): Id<TenantId>,
    Json(form): Json<SetQuota>,
) -> ApiResult<Answer<QuotaView>> {
    set(app, once, Scope::AllUsers(id), form).await
}

/// The limits of a user within a tenant, with what is used
#[utoipa::path(
    get, path = "/tenants/{tenant_id}/users/{user_name}/quota", tag = "quota", operation_id = "show_user_quota",
    params(("tenant_id" = TenantId, Path), ("user_name" = UserName, Path)),
    responses(
        (status = 200, description = "Limits and usage", body = QuotaView),
        (status = 404, description = "No such tenant, or no such user of it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show_user(
    State(app): State<App>,
    Caller(cx): Caller,
    Ids(id, user): Ids<TenantId, UserName>,
) -> ApiResult<Answer<QuotaView>> {
    Ok(Answer(app.engine.quota(&cx, &Scope::User(id, user)).await?))
}

/// Give a user limits of their own within a tenant; for its managers
#[utoipa::path(
    put, path = "/tenants/{tenant_id}/users/{user_name}/quota", tag = "quota", operation_id = "set_user_quota",
    params(("tenant_id" = TenantId, Path), ("user_name" = UserName, Path)),
    request_body = SetQuota,
    responses(
        (status = 200, description = "Limits and usage, as they are now", body = QuotaView),
        (status = 404, description = "No such tenant, or no such user of it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Limits at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_user(
    State(app): State<App>,
    once: Once,
    Ids(id, user): Ids<TenantId, UserName>,
    Json(form): Json<SetQuota>,
) -> ApiResult<Answer<QuotaView>> {
    set(app, once, Scope::User(id, user), form).await
}
