//! Tenants; for administrators.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::tenant::{CreateTenant, TenantView, UpdateTenant};
use vimana_model::{Problem, TenantId};

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All tenants; for administrators
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

/// Make a tenant
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
