//! Templates.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::template::{ChangeTemplate, CreateTemplate, TemplateView};
use vimana_model::{Problem, TemplateId};

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// The templates that VMs can be made from: the tenant's own, and those for all
#[utoipa::path(
    get, path = "/templates", tag = "template", operation_id = "list_templates",
    responses((status = 200, description = "Templates", body = Items<TemplateView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<TemplateView>>> {
    let items = app.engine.templates(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Make a template
///
/// Its user-data is a cloud-config in which a mapping `{input: NAME}` stands
/// for the value of an input; every input has such a place. For managers.
#[utoipa::path(
    post, path = "/templates", tag = "template", operation_id = "create_template",
    request_body = CreateTemplate,
    responses(
        (status = 201, description = "Made", body = TemplateView),
        (status = 409, description = "The name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    Once(cx): Once,
    Json(form): Json<CreateTemplate>,
) -> ApiResult<(StatusCode, Answer<TemplateView>)> {
    let engine = app.engine.clone();
    let template = app
        .detached(async move { engine.create_template(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(template)))
}

/// One template
#[utoipa::path(
    get, path = "/templates/{template_id}", tag = "template", operation_id = "show_template",
    params(("template_id" = TemplateId, Path)),
    responses(
        (status = 200, description = "The template", body = TemplateView),
        (status = 404, description = "No such template", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<TemplateId>,
) -> ApiResult<Answer<TemplateView>> {
    Ok(Answer(app.engine.template(&cx, id).await?))
}

/// Change a template; VMs that were made from it keep what they have
///
/// With a `generation` it is refused where the template has changed since.
#[utoipa::path(
    patch, path = "/templates/{template_id}", tag = "template", operation_id = "change_template",
    params(("template_id" = TemplateId, Path)),
    request_body = ChangeTemplate,
    responses(
        (status = 200, description = "Changed", body = TemplateView),
        (status = 404, description = "No such template", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The template has changed since", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn change(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<TemplateId>,
    Json(form): Json<ChangeTemplate>,
) -> ApiResult<Answer<TemplateView>> {
    let engine = app.engine.clone();
    let template = app
        .detached(async move { engine.change_template(&cx, id, &form).await })
        .await?;
    Ok(Answer(template))
}

/// Delete a template; VMs that were made from it go on
#[utoipa::path(
    delete, path = "/templates/{template_id}", tag = "template", operation_id = "delete_template",
    params(("template_id" = TemplateId, Path)),
    responses(
        (status = 200, description = "Deleted", body = TemplateView),
        (status = 404, description = "No such template", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<TemplateId>,
) -> ApiResult<Answer<TemplateView>> {
    let engine = app.engine.clone();
    let template = app
        .detached(async move { engine.delete_template(&cx, id).await })
        .await?;
    Ok(Answer(template))
}
