//! How agents get their certificates.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use vimana_protocol::enrolment::{Certified, JoinRequest, RenewRequest};

use crate::api::Json;
use crate::api::problem::ApiResult;
use crate::serve::ShownCertificate;
use crate::state::App;

pub async fn join(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(form): Json<JoinRequest>,
) -> ApiResult<axum::Json<Certified>> {
    let engine = app.engine.clone();
    let certified = app.detached(async move { engine.join_host(&form, peer.ip()).await });
    Ok(axum::Json(certified.await?))
}

pub async fn renew(
    State(app): State<App>,
    ShownCertificate(shown): ShownCertificate,
    Json(form): Json<RenewRequest>,
) -> ApiResult<axum::Json<Certified>> {
    let engine = app.engine.clone();
    let certified = app.detached(async move { engine.renew_certificate(&shown, &form).await });
    Ok(axum::Json(certified.await?))
}
