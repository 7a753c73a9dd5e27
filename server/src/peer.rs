//! Agents and schedulers. Schedulers dial in where people do, and prove
//! themselves with a secret; agents have a listener of their own, and prove
//! themselves with their hosts' certificates.

mod agent;
mod backup;
pub mod console;
mod enrolment;
mod image;
mod saved;
mod scheduler;
mod session;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::middleware::from_fn;
use axum::routing::{any, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use vimana_engine::HostProof;
use vimana_model::{Error, ErrorKind};
use vimana_protocol::enrolment::{JOIN_PATH, RENEW_PATH};

use crate::api::problem::ApiError;
use crate::api::{authorization_token, unknown};
use crate::guard::{body, finish};
use crate::serve::ShownCertificate;
use crate::socket::Close;
use crate::state::App;

/// What schedulers find on the main listener; agents find nothing there.
pub fn schedulers() -> Router<App> {
    Router::new()
        .route("/scheduler/v1/session", get(scheduler::session))
        .route("/scheduler/{*rest}", any(unknown))
        .route("/agent/{*rest}", any(unknown))
}

/// Everything on the agents' listener. Joining alone needs no certificate.
pub fn agents(app: App) -> Router {
    let enrolment = Router::new()
        .route(JOIN_PATH, post(enrolment::join))
        .route(RENEW_PATH, post(enrolment::renew))
        .layer(from_fn(body::read_whole));
    Router::new()
        .route("/agent/v1/session", get(agent::session))
        .route("/agent/v1/console/{console_id}", get(console::join))
        .route("/agent/v1/images/{image_id}", get(image::download))
        .route(
            "/agent/v1/images/{image_id}/{operation_id}",
            put(image::receive),
        )
        .route(
            "/agent/v1/saved/{vm_id}/{run_epoch}/{part}",
            get(saved::download).put(saved::upload),
        )
        .route(
            "/agent/v1/saved/{vm_id}/{run_epoch}/{part}/received",
            get(saved::received),
        )
        .route("/agent/v1/backups/{backup_id}/{disk}", put(backup::upload))
        .merge(enrolment)
        .fallback(unknown)
        .with_state(app)
        .layer(CatchPanicLayer::custom(finish::panicked))
        .layer(from_fn(finish::finish))
}

/// The host whose agent asks.
pub struct AgentCaller(pub HostProof);

/// Proof that a scheduler asks.
pub struct SchedulerCaller;

impl FromRequestParts<App> for AgentCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let shown = ShownCertificate::from_request_parts(parts, app).await?;
        Ok(Self(app.engine.authenticate_host(&shown.0).await?))
    }
}

impl FromRequestParts<App> for SchedulerCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match authorization_token(&parts.headers)? {
            Some(given) if app.scheduler_secret.matches(given) => Ok(Self),
            Some(_) | None => Err(ApiError(Error::new(
                ErrorKind::Unauthenticated,
                "this is not the schedulers' secret",
            ))),
        }
    }
}

/// How every connection of a host that was revoked ends.
fn revoked() -> Close {
    Close::refused("the host's certificate was revoked")
}
