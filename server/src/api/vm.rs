//! VMs.

pub mod action;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use vimana_engine::VmQuery;
use vimana_model::event::EventView;
use vimana_model::operation::OperationView;
use vimana_model::session::TicketView;
use vimana_model::vm::{AcceptedView, CreateVm, VmView};
use vimana_model::{Error, FieldError, Problem, VmId, VmState};

use super::Items;
use super::extract::{Caller, Id, Json, Query};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Exactly this name
    name: Option<String>,
    /// Only these states, separated by commas: `running,failed`
    state: Option<String>,
    /// At most so many
    limit: Option<u32>,
}

impl ListParams {
    fn query(self) -> Result<VmQuery, Error> {
        let Self { name, state, limit } = self;
        let states = state
            .iter()
            .flat_map(|text| text.split(','))
            .map(|text| {
                text.parse::<VmState>()
                    .map_err(|error| FieldError::new("state", error).into())
            })
            .collect::<Result<_, Error>>()?;
        Ok(VmQuery {
            name,
            states,
            limit: limit.unwrap_or(0),
        })
    }
}

/// List VMs, newest first
#[utoipa::path(
    get, path = "/vms", tag = "vm", operation_id = "list_vms",
    params(ListParams),
    responses(
        (status = 200, description = "VMs", body = Items<VmView>),
        (status = 422, description = "No such state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
    Query(params): Query<ListParams>,
) -> ApiResult<Answer<Items<VmView>>> {
    let items = app.engine.vms(&cx, &params.query()?).await?;
    Ok(Answer(Items { items }))
}

/// Ask for a VM
#[utoipa::path(
    post, path = "/vms", tag = "vm", operation_id = "create_vm",
    request_body = CreateVm,
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 409, description = "The name is taken, or a manager decides in this tenant", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields at fault, all at once", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn create(
    State(app): State<App>,
    once: Once,
    Json(form): Json<CreateVm>,
) -> ApiResult<(StatusCode, Answer<AcceptedView>)> {
    let cx = once.of_terms("/api/v1/vms", Some(&form), |terms| terms)?;
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.create_vm(&cx, &form).await })
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(accepted)))
}

/// One VM
#[utoipa::path(
    get, path = "/vms/{vm_id}", tag = "vm", operation_id = "show_vm",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "The VM", body = VmView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<VmView>> {
    Ok(Answer(app.engine.vm(&cx, id).await?))
}

/// What happened to a VM, oldest first
#[utoipa::path(
    get, path = "/vms/{vm_id}/timeline", tag = "vm", operation_id = "vm_timeline",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Events", body = Items<EventView>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn timeline(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<EventView>>> {
    let items = app.engine.vm_timeline(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// The operations of a VM, newest first
#[utoipa::path(
    get, path = "/vms/{vm_id}/operations", tag = "vm", operation_id = "vm_operations",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 200, description = "Operations", body = Items<OperationView>),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn operations(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<VmId>,
) -> ApiResult<Answer<Items<OperationView>>> {
    let items = app.engine.vm_operations(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// A ticket that opens the serial console once
///
/// A repeated call makes another ticket: nobody keeps the text of the first.
#[utoipa::path(
    post, path = "/vms/{vm_id}/console", tag = "vm", operation_id = "create_console_ticket",
    params(("vm_id" = VmId, Path)),
    responses(
        (status = 201, description = "The ticket, shown this once", body = TicketView),
        (status = 404, description = "No such VM", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn console_ticket(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<VmId>,
) -> ApiResult<(StatusCode, Answer<TicketView>)> {
    let engine = app.engine.clone();
    let ticket = app
        .detached(async move { engine.console_ticket(&cx, id).await })
        .await?;
    Ok((StatusCode::CREATED, Answer(ticket)))
}
