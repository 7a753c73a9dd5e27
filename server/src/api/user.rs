//! Users.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::Problem;
use vimana_model::tenant::{CreateUser, UserView};

use super::Items;
use super::extract::{Caller, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// All users; for staff
#[utoipa::path(
    get, path = "/users", tag = "user", operation_id = "list_users",
    responses((status = 200, description = "Users", body = Items<UserView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<UserView>>> {
    let items = app.engine.users(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Make a user, member of one tenant; for administrators
///
/// Under an idempotency key, the password does not count as part of what is
/// asked.
#[utoipa::path(
    post, path = "/users", tag = "user", operation_id = "create_user",
    request_body = CreateUser,
    responses(
        (status = 201, description = "Made", body = UserView),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    once: Once,
    Json(form): Json<CreateUser>,
) -> ApiResult<(StatusCode, Answer<UserView>)> {
    let shown = CreateUser {
        password: String::new(),
        ..form.clone()
    };
    let cx = once.without_secret("/api/v1/users", &shown)?;
    let engine = app.engine.clone();
    let user = app
        .detached(async move { engine.create_user(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(user)))
}
