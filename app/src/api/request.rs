use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::RequestId;
use vimana_model::event::EventView;
use vimana_model::request::{
    CreateRequest, RequestAction, RequestDecision, RequestState, RequestView,
};

#[cfg(feature = "ssr")]
use vimana_model::vm::CreateVm;

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// Which requests a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestShow {
    /// Those that are not over.
    #[default]
    Open,
    All,
    In(RequestState),
}

impl RequestShow {
    /// Reads the query parameter; what is no such word means the default.
    #[must_use]
    pub fn from_query(text: Option<&str>) -> Self {
        match text {
            Some("all") => Self::All,
            Some(text) => text.parse().map_or(Self::Open, Self::In),
            None => Self::Open,
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::All => "all",
            Self::In(state) => state.slug(),
        }
    }

    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::All => "All",
            Self::In(state) => state.name(),
        }
    }

    /// Every choice, in the order of a request's life.
    #[must_use]
    pub fn choices() -> Vec<Self> {
        let mut choices = vec![Self::Open];
        choices.extend(RequestState::ALL.map(Self::In));
        choices.push(Self::All);
        choices
    }

    #[must_use]
    pub fn takes(self, state: RequestState) -> bool {
        match self {
            Self::Open => !state.is_final(),
            Self::All => true,
            Self::In(wanted) => state == wanted,
        }
    }

    #[cfg(feature = "ssr")]
    fn states(self) -> Vec<RequestState> {
        match self {
            Self::All => Vec::new(),
            Self::Open | Self::In(_) => RequestState::ALL
                .into_iter()
                .filter(|state| self.takes(*state))
                .collect(),
        }
    }
}

/// The whole tenant's for who decides, else the caller's own: the engine knows.
#[cfg(feature = "ssr")]
fn query(states: Vec<RequestState>) -> vimana_engine::RequestQuery {
    vimana_engine::RequestQuery {
        states,
        mine: false,
        limit: super::MAX_LISTED_REQUESTS,
    }
}

/// Those that wait for the caller.
#[cfg(feature = "ssr")]
pub async fn waiting(
    engine: &vimana_engine::Engine,
    cx: &vimana_engine::OpContext,
    me: &vimana_model::session::MeView,
) -> vimana_model::Result<Vec<RequestId>> {
    let caller = crate::session::Caller::new(me.clone());
    if !caller.has_requests() {
        return Ok(Vec::new());
    }
    let states = vec![
        RequestState::Request,
        RequestState::Returned,
        RequestState::Release,
    ];
    let requests = engine.requests(cx, &query(states)).await?;
    Ok(requests
        .iter()
        .filter(|request| caller.waits_for(request))
        .map(|request| request.id)
        .collect())
}

/// Newest first.
#[server(prefix = "/portal/api", endpoint = "requests", input = Json, output = Json)]
pub async fn requests(show: RequestShow) -> Result<Vec<RequestView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .requests(&cx, &query(show.states()))
        .await
        .map_err(ssr::refuse)
}

#[server(prefix = "/portal/api", endpoint = "request", input = Json, output = Json)]
pub async fn request(id: RequestId) -> Result<RequestView, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .request(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// What happened to it, oldest first.
#[server(prefix = "/portal/api", endpoint = "request-timeline", input = Json, output = Json)]
pub async fn request_timeline(id: RequestId) -> Result<Vec<EventView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .request_timeline(&cx, id)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateRequestCall, prefix = "/portal/api", endpoint = "create-request", input = Json, output = Json)]
pub async fn create_request(form: CreateRequest, key: Key) -> Result<RequestView, ApiError> {
    let asked = (form.terms.clone().without_values(), &form.purpose);
    let cx = ssr::caller_once("create-request", &asked, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_request(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = ActOnRequestCall, prefix = "/portal/api", endpoint = "act-on-request", input = Json, output = Json)]
pub async fn act_on_request(
    id: RequestId,
    action: RequestAction,
    decision: RequestDecision,
    key: Key,
) -> Result<RequestView, ApiError> {
    let asked = RequestDecision {
        terms: decision.terms.clone().map(CreateVm::without_values),
        ..decision.clone()
    };
    let cx = ssr::caller_once("act-on-request", &(id, action, &asked), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .act_on_request(&cx, id, action, &decision)
        .await
        .map_err(ssr::refuse)
}
