//! Requests of the manual life-cycle.

use std::str::FromStr;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use vimana_engine::RequestQuery;
use vimana_model::event::EventView;
use vimana_model::request::{
    CreateRequest, RequestAction, RequestDecision, RequestState, RequestView,
};
use vimana_model::{Error, FieldError, Problem, RequestId};

use super::Items;
use super::extract::{Caller, Id, Ids, Json, JsonOrNothing, Query};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only these states, separated by commas: `request,returned`
    state: Option<String>,
    /// Only the caller's own
    #[serde(default)]
    mine: bool,
    /// At most so many
    limit: Option<u32>,
}

impl ListParams {
    fn query(self) -> Result<RequestQuery, Error> {
        let Self { state, mine, limit } = self;
        let states = state
            .iter()
            .flat_map(|text| text.split(','))
            .map(|text| {
                text.parse::<RequestState>()
                    .map_err(|error| FieldError::new("state", error).into())
            })
            .collect::<Result<_, Error>>()?;
        Ok(RequestQuery {
            states,
            mine,
            limit: limit.unwrap_or(0),
        })
    }
}

/// List requests, newest first
///
/// A manager's are all of the tenant's, anyone else's the own ones.
#[utoipa::path(
    get, path = "/requests", tag = "request", operation_id = "list_requests",
    params(ListParams),
    responses(
        (status = 200, description = "Requests", body = Items<RequestView>),
        (status = 422, description = "No such state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
    Query(params): Query<ListParams>,
) -> ApiResult<Answer<Items<RequestView>>> {
    let items = app.engine.requests(&cx, &params.query()?).await?;
    Ok(Answer(Items { items }))
}

/// Ask for a VM that a manager decides about
#[utoipa::path(
    post, path = "/requests", tag = "request", operation_id = "create_request",
    request_body = CreateRequest,
    responses(
        (status = 201, description = "Recorded", body = RequestView),
        (status = 409, description = "Nobody decides in this tenant", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    once: Once,
    Json(form): Json<CreateRequest>,
) -> ApiResult<(StatusCode, Answer<RequestView>)> {
    let cx = once.of_terms("/api/v1/requests", Some(&form.terms), |terms| {
        CreateRequest {
            terms,
            ..form.clone()
        }
    })?;
    let engine = app.engine.clone();
    let request = app
        .detached(async move { engine.create_request(&cx, &form).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(request)))
}

/// One request
#[utoipa::path(
    get, path = "/requests/{request_id}", tag = "request", operation_id = "show_request",
    params(("request_id" = RequestId, Path)),
    responses(
        (status = 200, description = "The request", body = RequestView),
        (status = 404, description = "No such request", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<RequestId>,
) -> ApiResult<Answer<RequestView>> {
    Ok(Answer(app.engine.request(&cx, id).await?))
}

/// What happened to a request, oldest first
#[utoipa::path(
    get, path = "/requests/{request_id}/events", tag = "request", operation_id = "request_events",
    params(("request_id" = RequestId, Path)),
    responses(
        (status = 200, description = "Events", body = Items<EventView>),
        (status = 404, description = "No such request", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn events(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<RequestId>,
) -> ApiResult<Answer<Items<EventView>>> {
    let items = app.engine.request_timeline(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// An action as a route names it.
pub struct ActionName(RequestAction);

impl FromStr for ActionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        RequestAction::ALL
            .into_iter()
            .find(|action| action.name() == text)
            .map(Self)
            .ok_or_else(|| {
                let names = RequestAction::ALL.map(RequestAction::name).join(", ");
                format!("no such action: one of {names}")
            })
    }
}

/// Decide about a request, or go on with it
///
/// `action` is one of `approve`, `reject`, `ask-back`, `answer`, `withdraw`,
/// `ask-release`, `confirm-release`, `keep`. A remark must come with
/// `reject`, `ask-back` and `answer`; other terms may come with `approve` and
/// `answer`. With a `generation` it is refused where the request has changed
/// since.
#[utoipa::path(
    post, path = "/requests/{request_id}/{action}", tag = "request",
    operation_id = "act_on_request",
    params(("request_id" = RequestId, Path), ("action" = String, Path)),
    request_body = Option<RequestDecision>,
    responses(
        (status = 200, description = "The request, as it is now", body = RequestView),
        (status = 404, description = "No such request, or no such action", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The request has changed since", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn act(
    State(app): State<App>,
    once: Once,
    Ids(id, ActionName(action)): Ids<RequestId, ActionName>,
    JsonOrNothing(form): JsonOrNothing<RequestDecision>,
) -> ApiResult<Answer<RequestView>> {
    let path = format!("/api/v1/requests/{id}/{action}");
    let cx = once.of_terms(&path, form.terms.as_ref(), |terms| RequestDecision {
        terms: Some(terms),
        ..form.clone()
    })?;
    let engine = app.engine.clone();
    let request = app
        .detached(async move { engine.act_on_request(&cx, id, action, &form).await })
        .await?;
    Ok(Answer(request))
}
