//! The cookie session of browsers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tower_sessions::cookie::SameSite;
use tower_sessions::cookie::time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use vimana_app::ssr::USER_ID_KEY;
use vimana_engine::{Engine, SESSION_LIFE};
use vimana_model::{Error, Result, UserId};

use crate::limits;
use crate::session_store::Sessions;
use crate::state::App;

/// When the session was last written, in seconds since 1970.
const TOUCHED_AT: &str = "touched_at";

/// Lax, not Strict: a link in a mail must lead to a page, not to a second
/// sign-in. Changes are held off by the check of the origin.
pub fn layer(engine: Engine, tls: bool) -> SessionManagerLayer<Sessions> {
    // Browsers take a `__Host-` cookie only from the host itself, over TLS.
    let name = if tls {
        "__Host-vimana_session"
    } else {
        "vimana_session"
    };
    let life = Duration::try_from(SESSION_LIFE).unwrap_or(Duration::HOUR);
    SessionManagerLayer::new(Sessions(engine))
        .with_name(name)
        .with_path("/")
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_secure(tls)
        .with_expiry(Expiry::OnInactivity(life))
}

/// Puts off the end of a session that is in use; now and then, for a session
/// that would be written with every request would be written all the time.
pub async fn touch(
    State(app): State<App>,
    session: Session,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let now = app.engine.world().now().as_ms().div_euclid(1000);
    if let Err(error) = put_off(&session, now).await {
        tracing::warn!(%error, "a session's use cannot be recorded");
    }
    response
}

/// `now` in seconds since 1970.
async fn put_off(session: &Session, now: i64) -> Result<(), tower_sessions::session::Error> {
    // A session that was not there, or that has just ended, stays so.
    if session.get_value(USER_ID_KEY).await?.is_none() {
        return Ok(());
    }
    let every = limits::SESSION_TOUCH_EVERY.as_secs();
    match session.get::<i64>(TOUCHED_AT).await? {
        // Either way: a clock that was set back would not touch it for long.
        Some(at) if now.abs_diff(at) < every => Ok(()),
        Some(_) | None => session.insert(TOUCHED_AT, now).await,
    }
}

/// Who is signed in by cookie.
pub async fn user_of(session: &Session) -> Result<Option<UserId>> {
    session.get(USER_ID_KEY).await.map_err(Error::internal)
}
