//! Tenants, and who belongs to them.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::tenant::{CreateTenant, TenantView, UpdateTenant, UserView};
use vimana_model::{Problem, TenantId};

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All tenants; for staff
#[utoipa::path(
    get, path = "/tenants", tag = "tenant", operation_id = "list_tenants",
    responses((status = 200, description = "Tenants", body = Items<TenantView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<TenantView>>> {
    let items = app.engine.tenants(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Make a tenant; for administrators
#[utoipa::path(
    post, path = "/tenants", tag = "tenant", operation_id = "create_tenant",
    request_body = CreateTenant,
    responses(
        (status = 201, description = "Made", body = TenantView),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    Once(cx): Once,
    Json(form): Json<CreateTenant>,
) -> ApiResult<(StatusCode, Answer<TenantView>)> {
    let engine = app.engine.clone();
    let tenant = app
        .detached(async move { engine.create_tenant(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(tenant)))
}

/// Your own tenant; any, for staff
#[utoipa::path(
    get, path = "/tenants/{tenant_id}", tag = "tenant", operation_id = "show_tenant",
    params(("tenant_id" = TenantId, Path)),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<TenantId>,
) -> ApiResult<Answer<TenantView>> {
    Ok(Answer(app.engine.tenant(&cx, id).await?))
}

/// Who belongs to a tenant
#[utoipa::path(
    get, path = "/tenants/{tenant_id}/users", tag = "tenant", operation_id = "list_members",
    params(("tenant_id" = TenantId, Path)),
    responses(
        (status = 200, description = "Its users, by name", body = Items<UserView>),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn members(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<TenantId>,
) -> ApiResult<Answer<Items<UserView>>> {
    let items = app.engine.members(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// Say which life-cycle a tenant's VMs have
#[utoipa::path(
    patch, path = "/tenants/{tenant_id}", tag = "tenant", operation_id = "update_tenant",
    params(("tenant_id" = TenantId, Path)),
    request_body = UpdateTenant,
    responses(
        (status = 200, description = "The tenant, as it is now", body = TenantView),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn update(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<TenantId>,
    Json(form): Json<UpdateTenant>,
) -> ApiResult<Answer<TenantView>> {
    let engine = app.engine.clone();
    let tenant = app
        .detached(async move { engine.update_tenant(&cx, id, &form).await })
        .await?;
    Ok(Answer(tenant))
}
