//! Agents and schedulers: they dial in and prove themselves with a secret.

mod agent;
pub mod console;
mod image;
mod scheduler;
mod session;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::routing::{any, get};
use vimana_model::{Error, ErrorKind};

use crate::api::problem::ApiError;
use crate::api::{authorization_token, unknown};
use crate::secret::Secret;
use crate::state::App;

pub fn router() -> Router<App> {
    Router::new()
        .route("/agent/v1/session", get(agent::session))
        .route("/agent/v1/console/{console_id}", get(console::join))
        .route("/agent/v1/images/{image_id}", get(image::download))
        .route("/agent/{*rest}", any(unknown))
        .route("/scheduler/v1/session", get(scheduler::session))
        .route("/scheduler/{*rest}", any(unknown))
}

/// Proof that an agent asks.
pub struct AgentCaller;

/// Proof that a scheduler asks.
pub struct SchedulerCaller;

impl FromRequestParts<App> for AgentCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        prove(parts, &app.secrets.agent, "agents").map(|()| Self)
    }
}

impl FromRequestParts<App> for SchedulerCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        prove(parts, &app.secrets.scheduler, "schedulers").map(|()| Self)
    }
}

fn prove(parts: &Parts, secret: &Secret, who: &str) -> Result<(), ApiError> {
    match authorization_token(&parts.headers)? {
        Some(given) if secret.matches(given) => Ok(()),
        Some(_) | None => Err(ApiError(Error::new(
            ErrorKind::Unauthenticated,
            format!("this is not the {who}' secret"),
        ))),
    }
}
