//! Signing in and out, and who one is.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use vimana_model::Problem;
use vimana_model::session::{MeView, SignIn, TokenView};

use super::extract::{Caller, CurrentToken, Json};
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// Sign in
///
/// Trades a password for a token, shown this once.
#[utoipa::path(
    post, path = "/tokens", tag = "session", operation_id = "create_token",
    request_body = SignIn,
    responses(
        (status = 201, description = "Signed in", body = TokenView),
        (status = 429, description = "Too many tries", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(()),
)]
pub async fn create(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(form): Json<SignIn>,
) -> ApiResult<(StatusCode, axum::Json<TokenView>)> {
    let engine = app.engine.clone();
    let token = app
        .detached(async move { engine.issue_token(&form, peer.ip()).await })
        .await?;
    Ok((StatusCode::CREATED, axum::Json(token)))
}

/// Sign out
///
/// Makes the token of this very request worthless.
#[utoipa::path(
    delete, path = "/tokens/current", tag = "session", operation_id = "delete_current_token",
    responses((status = 204, description = "Signed out"), Refusals),
    security(("token" = [])),
)]
pub async fn delete_current(
    State(app): State<App>,
    CurrentToken(token): CurrentToken,
    Caller(cx): Caller,
) -> ApiResult<StatusCode> {
    let engine = app.engine.clone();
    app.detached(async move { engine.revoke_token(&cx, &token).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is signed in
#[utoipa::path(
    get, path = "/me", tag = "session", operation_id = "me",
    responses((status = 200, description = "The signed-in user", body = MeView), Refusals),
)]
pub async fn me(State(app): State<App>, Caller(cx): Caller) -> ApiResult<axum::Json<MeView>> {
    Ok(axum::Json(app.engine.me(&cx).await?))
}
