//! Flavors.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::Problem;
use vimana_model::flavor::{ChangeFlavor, CreateFlavor, FlavorView};
use vimana_model::name::FlavorName;

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All flavors
#[utoipa::path(
    get, path = "/flavors", tag = "flavor", operation_id = "list_flavors",
    responses((status = 200, description = "Flavors", body = Items<FlavorView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<FlavorView>>> {
    let items = app.engine.flavors(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Make a flavor; for administrators
#[utoipa::path(
    post, path = "/flavors", tag = "flavor", operation_id = "create_flavor",
    request_body = CreateFlavor,
    responses(
        (status = 201, description = "Made", body = FlavorView),
        (status = 409, description = "The name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    Once(cx): Once,
    Json(form): Json<CreateFlavor>,
) -> ApiResult<(StatusCode, Answer<FlavorView>)> {
    let engine = app.engine.clone();
    let flavor = app
        .detached(async move { engine.create_flavor(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(flavor)))
}

/// Give a flavor another size; VMs that were made from it keep theirs
#[utoipa::path(
    patch, path = "/flavors/{name}", tag = "flavor", operation_id = "change_flavor",
    params(("name" = FlavorName, Path)),
    request_body = ChangeFlavor,
    responses(
        (status = 200, description = "Changed", body = FlavorView),
        (status = 404, description = "No such flavor", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn change(
    State(app): State<App>,
    Once(cx): Once,
    Id(name): Id<FlavorName>,
    Json(form): Json<ChangeFlavor>,
) -> ApiResult<Answer<FlavorView>> {
    let engine = app.engine.clone();
    let flavor = app
        .detached(async move { engine.change_flavor(&cx, &name, &form).await })
        .await?;
    Ok(Answer(flavor))
}

/// Retire a flavor; VMs that were made from it keep its name and their size
#[utoipa::path(
    delete, path = "/flavors/{name}", tag = "flavor", operation_id = "retire_flavor",
    params(("name" = FlavorName, Path)),
    responses(
        (status = 200, description = "Retired", body = FlavorView),
        (status = 404, description = "No such flavor", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(
    State(app): State<App>,
    Once(cx): Once,
    Id(name): Id<FlavorName>,
) -> ApiResult<Answer<FlavorView>> {
    let engine = app.engine.clone();
    let flavor = app
        .detached(async move { engine.retire_flavor(&cx, &name).await })
        .await?;
    Ok(Answer(flavor))
}
