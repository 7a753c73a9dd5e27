use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::RequestId;
use vimana_model::session::MeView;
#[cfg(feature = "ssr")]
use vimana_model::session::SignIn;

use super::codec::Json;
use super::{ApiError, ApiResult};
#[cfg(feature = "ssr")]
use crate::ssr;

/// Who is signed in, and where the event stream stood when the page was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    pub me: MeView,
    /// Older than anything the page shows, so that a stream that begins here
    /// misses nothing.
    pub seq: u64,
    /// Requests that wait for whoever is signed in.
    pub waiting: Vec<RequestId>,
}

/// A password on its way; never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// Who is signed in; `None` is nobody.
#[server(prefix = "/portal/api", endpoint = "session", input = Json, output = Json)]
pub async fn current_session() -> Result<Option<SessionView>, ApiError> {
    session_view().await.map_err(ssr::refuse)
}

#[cfg(feature = "ssr")]
async fn session_view() -> vimana_model::Result<Option<SessionView>> {
    if ssr::signed_in().await?.is_none() {
        return Ok(None);
    }
    let engine = ssr::engine()?;
    let cx = match ssr::caller().await {
        Ok(cx) => cx,
        // The account is gone; the cookie outlived it.
        Err(error) if error.kind == vimana_model::ErrorKind::Unauthenticated => return Ok(None),
        Err(error) => return Err(error),
    };
    let seq = use_context::<ssr::StreamStart>().map_or_else(|| engine.last_seq(), |start| start.0);
    let me = engine.me(&cx).await?;
    let waiting = super::request::waiting(&engine, &cx, &me).await?;
    Ok(Some(SessionView { me, seq, waiting }))
}

#[server(name = SignInCall, prefix = "/portal/api", endpoint = "sign-in", input = Json, output = Json)]
pub async fn sign_in(
    user_name: String,
    password: Password,
) -> Result<Option<SessionView>, ApiError> {
    begin_session(&SignIn {
        user_name,
        password: password.0,
    })
    .await
    .map_err(ssr::refuse)?;
    session_view().await.map_err(ssr::refuse)
}

/// The session's id changes at sign-in, so that one planted before is worth
/// nothing.
#[cfg(feature = "ssr")]
async fn begin_session(form: &SignIn) -> vimana_model::Result<()> {
    use vimana_model::Error;

    let subject = ssr::engine()?.sign_in(form, ssr::peer()).await?;
    let session = ssr::session()?;
    session.cycle_id().await.map_err(Error::internal)?;
    session
        .insert(ssr::USER_ID_KEY, subject.user_id)
        .await
        .map_err(Error::internal)
}

#[server(prefix = "/portal/api", endpoint = "sign-out", input = Json, output = Json)]
pub async fn sign_out() -> ApiResult<()> {
    let session = ssr::session().map_err(ssr::refuse)?;
    session
        .flush()
        .await
        .map_err(|error| ssr::refuse(vimana_model::Error::internal(error)))
}
