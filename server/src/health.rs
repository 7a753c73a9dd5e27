//! For load balancers and supervisors.

use axum::extract::State;

use crate::api::problem::ApiResult;
use crate::state::App;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can do its work: the database answers.
pub async fn readyz(State(app): State<App>) -> ApiResult<&'static str> {
    app.engine.ready().await?;
    Ok("ready\n")
}
