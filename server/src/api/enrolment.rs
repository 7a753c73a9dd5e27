//! Which hosts belong to the installation.

use axum::extract::State;
use axum::http::StatusCode;
use vimana_model::host::{CreateJoinToken, HostView, JoinTokenView};
use vimana_model::{HostId, Problem};

use super::extract::{Id, JsonOrNothing};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// Let a host join; for the provider's administrators
///
/// The token is shown this once. It is good for one host, once, and is given
/// to that host's agent in a file.
#[utoipa::path(
    post, path = "/hosts/join-tokens", tag = "host", operation_id = "create_join_token",
    request_body = Option<CreateJoinToken>,
    responses(
        (status = 201, description = "A token", body = JoinTokenView),
        (status = 422, description = "No such name or life", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create_token(
    State(app): State<App>,
    Once(cx): Once,
    JsonOrNothing(form): JsonOrNothing<CreateJoinToken>,
) -> ApiResult<(StatusCode, axum::Json<JoinTokenView>)> {
    let engine = app.engine.clone();
    let token = app
        .detached(async move { engine.create_join_token(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, axum::Json(token)))
}

/// End what a host's certificate is good for; for the provider's administrators
///
/// Its connections end at once. It comes back only by joining with a new token.
#[utoipa::path(
    post, path = "/hosts/{host_id}/revoke", tag = "host", operation_id = "revoke_host",
    params(("host_id" = HostId, Path)),
    responses(
        (status = 200, description = "Revoked, now or before", body = HostView),
        (status = 404, description = "No such host", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn revoke(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<HostId>,
) -> ApiResult<axum::Json<HostView>> {
    let engine = app.engine.clone();
    let host = app
        .detached(async move { engine.revoke_host(&cx, id).await })
        .await?;
    Ok(axum::Json(host))
}
