//! What the server provides and what it gets.
//!
//! ```ignore
//! let assets = SiteAssets::from_manifest(&read_to_string(site.join("manifest.json"))?)?;
//! let portal = vimana_app::ssr::router(Portal { engine, assets });
//! Router::new()
//!     .nest("/api/v1", rest)                 // its own 404 as problem+json
//!     .nest_service("/assets", immutable(ServeDir::new(site.join("assets"))
//!         .precompressed_br().precompressed_gzip()))
//!     .merge(portal)                         // pages are its fallback
//!     .layer(SessionManagerLayer::new(store))
//!     .layer(origin_guard)                   // Origin / Sec-Fetch-Site on every POST
//! ```
//!
//! - A `tower_sessions` layer around the router; this crate keeps the signed-in
//!   user's id in it under [`USER_ID_KEY`] (a `UserId`, so its text form).
//!   SSE and WebSocket handlers find the caller by the same key.
//! - `axum::extract::ConnectInfo<SocketAddr>` (serve with
//!   `into_make_service_with_connect_info`), for the sign-in rate limit.
//! - Server functions live under [`API_PREFIX`], JSON both ways, `POST` alone;
//!   an error's body is a `Problem`, with its status.
//! - Every page carries its own `Content-Security-Policy` with a nonce; the
//!   server sets one only where none is set yet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use leptos::prelude::{provide_context, use_context};
use leptos_axum::ResponseOptions;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tower_sessions::Session;
use vimana_engine::{Engine, IdempotencyKey, OpContext};
use vimana_model::{Error, ErrorKind, Result, UserId};

use crate::api::{ApiError, Key};
use crate::{SiteAssets, shell};

/// Session key of the signed-in user's id.
pub const USER_ID_KEY: &str = "user_id";

/// Where the portal's server functions are; not a public interface.
pub const API_PREFIX: &str = "/portal/api";

/// Everything the portal takes from the server.
#[derive(Clone)]
pub struct Portal {
    pub engine: Engine,
    pub assets: SiteAssets,
}

/// Where the event stream stood when the request came: before anything was
/// read for it, so that a stream that begins here misses nothing.
#[derive(Clone, Copy)]
pub struct StreamStart(pub u64);

/// The portal's server functions, and as fallback every page.
pub fn router(portal: Portal) -> Router {
    let provide = move || {
        provide_context(StreamStart(portal.engine.last_seq()));
        provide_context(portal.engine.clone());
        provide_context(portal.assets.clone());
    };
    let functions = provide.clone();
    let pages = leptos_axum::render_app_async_with_context(provide, shell);
    Router::new()
        .route(
            &format!("{API_PREFIX}/{{*function}}"),
            post(move |request: Request| {
                leptos_axum::handle_server_fns_with_context(functions.clone(), request)
            }),
        )
        .fallback(move |request: Request| page(pages.clone(), request))
}

async fn page<F>(render: impl Fn(Request) -> F, request: Request) -> Response
where
    F: Future<Output = Response>,
{
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        render(request).await
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
}

/// The engine, from the context of a page or a server function.
///
/// # Errors
/// A fault of ours when it was not provided.
pub fn engine() -> Result<Engine> {
    use_context::<Engine>().ok_or_else(|| Error::internal("no engine in the context"))
}

/// The session of the request.
///
/// # Errors
/// A fault of ours when the session layer is missing.
pub fn session() -> Result<Session> {
    use_context::<Parts>()
        .and_then(|parts| parts.extensions.get::<Session>().cloned())
        .ok_or_else(|| Error::internal("no session in the request"))
}

/// The signed-in user's id, if anybody is signed in.
///
/// # Errors
/// When the session cannot be read.
pub async fn signed_in() -> Result<Option<UserId>> {
    session()?
        .get::<UserId>(USER_ID_KEY)
        .await
        .map_err(Error::internal)
}

/// Who asks.
///
/// # Errors
/// [`ErrorKind::Unauthenticated`] when nobody is signed in.
pub async fn caller() -> Result<OpContext> {
    let user = signed_in().await?;
    let user = user.ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "sign in first"))?;
    let subject = engine()?.subject_of_user(user).await?;
    Ok(OpContext::new(subject))
}

/// Who asks for a change that is to have one effect, however often it comes
/// under `key`. `asked` is all that was asked of `function`.
///
/// # Errors
/// Those of [`caller`]; [`ErrorKind::Malformed`] for a key that is none.
pub async fn caller_once(function: &str, asked: &impl Serialize, key: Key) -> Result<OpContext> {
    let cx = caller().await?;
    let Key(key) = key;
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new(ErrorKind::Malformed, "the key is none"));
    }
    // Hashed: a form may hold secrets.
    let mut hash = Sha256::new();
    hash.update(function);
    hash.update(serde_json::to_vec(asked).map_err(Error::internal)?);
    let fingerprint = format!("{:x}", hash.finalize());
    Ok(cx.with_idempotency(IdempotencyKey { key, fingerprint }))
}

/// Longest key of one press or one form.
const MAX_KEY_BYTES: usize = 64;

/// The address the request came from.
#[must_use]
pub fn peer() -> IpAddr {
    use_context::<Parts>()
        .and_then(|parts| parts.extensions.get::<ConnectInfo<SocketAddr>>().cloned())
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| {
            address.ip()
        })
}

/// Gives the response its status and the log its line.
pub fn refuse(error: Error) -> ApiError {
    let status = error.kind.http_status();
    if status >= 500 {
        let source = error
            .source
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(kind = ?error.kind, source, "portal: {error}");
    }
    // Whoever asks for a page is led to the sign-in page instead.
    let page = use_context::<Parts>().is_some_and(|parts| parts.method == Method::GET);
    if !(page && error.kind == ErrorKind::Unauthenticated) {
        set_status(status);
    }
    ApiError(error.problem())
}

/// Sets the status of the response that is being made.
pub fn set_status(status: u16) {
    if let (Some(response), Ok(status)) = (
        use_context::<ResponseOptions>(),
        StatusCode::from_u16(status),
    ) {
        response.set_status(status);
    }
}

/// Answers with a redirect to a path of this site.
pub fn redirect(path: &str) {
    if let (Some(response), Ok(path)) = (
        use_context::<ResponseOptions>(),
        HeaderValue::from_str(path),
    ) {
        response.insert_header(header::LOCATION, path);
        response.set_status(StatusCode::SEE_OTHER);
    }
}
