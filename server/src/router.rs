//! What is where, and what every request passes on its way.

use std::path::Path;

use any_spawner::Executor;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use vimana_app::ssr::Portal;

use crate::guard::{body, finish, origin, session};
use crate::state::App;
use crate::{api, health, peer, site};

/// The whole application. `site` is the built portal, if there is one.
pub fn router(app: App, site: Option<&Path>) -> anyhow::Result<Router> {
    let mut people = api::router().with_state(app.clone());
    if let Some(site) = site {
        // Pages render on the server's own runtime; fails only where that is
        // settled already.
        let _settled = Executor::init_tokio();
        let portal = Portal {
            engine: app.engine.clone(),
            assets: site::assets(site)?,
        };
        people = people.merge(vimana_app::ssr::router(portal));
    }
    // The last layer is the first to see a request.
    let people = people
        .layer(from_fn(body::read_whole))
        .merge(api::streamed_router().with_state(app.clone()))
        .layer(from_fn_with_state(app.clone(), session::touch))
        .layer(session::layer(app.engine.clone(), app.tls));
    let mut all = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(peer::schedulers())
        .with_state(app.clone());
    if let Some(site) = site {
        all = all.nest("/assets", site::router(site));
    }
    let router = all
        .merge(people)
        .layer(from_fn_with_state(app, origin::guard))
        .layer(CatchPanicLayer::custom(finish::panicked))
        .layer(from_fn(finish::finish));
    Ok(router)
}
