//! The manual life-cycle: requests, decisions, releases.

use vimana_authz::{Decision, Permission, decide};
use vimana_model::action::VmAction;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::operation::OperationKind;
use vimana_model::request::{
    CreateRequest, Remark, RequestAction, RequestDecision, RequestState, RequestView, RequestedVm,
    Side, check_remark,
};
use vimana_model::state::VmState;
use vimana_model::tenant::TenantKind;
use vimana_model::vm::CreateVm;
use vimana_model::{Error, ErrorKind, FieldError, RequestId, Result, TenantId, Timestamp, VmId};
use vimana_store::event::NewEvent;
use vimana_store::request::{RequestFilter, RequestRecord};
use vimana_store::vm::VmRecord;
use vimana_store::{Conn, TxError, WriteTx, event, request, tenant, user, vm, write_tx};

use crate::Engine;
use crate::action::remove;
use crate::authorize::{Authorized, Owned, authorized, current, permit};
use crate::change::{Change, Changed};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::limits::{MAX_LISTED_REQUESTS, MAX_REMARKS, MAX_TIMELINE};
use crate::template;
use crate::vm::Owner;

/// Which requests to list.
#[derive(Clone, Debug, Default)]
pub struct RequestQuery {
    /// Any of these states; empty for all.
    pub states: Vec<RequestState>,
    /// Only the caller's own.
    pub mine: bool,
    /// At most so many, and never more than the limit; 0 for the limit.
    pub limit: u32,
}

impl Owned for RequestRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.tenant_id)
    }
}

impl Engine {
    /// Asks for a VM in a tenant whose requests wait for a decision.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` in an automatic
    /// tenant, `Forbidden`.
    pub async fn create_request(
        &self,
        cx: &OpContext,
        form: &CreateRequest,
    ) -> Result<RequestView> {
        let (_, purpose) = form.check()?;
        let tenant_id = cx.subject.tenant_id;
        let now = self.world().now();
        let view = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            permit(cx, Permission::CreateRequest, Some(tenant_id))?;
            let kind = tenant::find(tx, tenant_id).await?.map(|tenant| tenant.kind);
            if kind != Some(TenantKind::Manual) {
                let message = "nobody needs to decide here: ask for the VM itself";
                return Err(Error::conflict(message).into());
            }
            let mut terms = form.terms.clone();
            template::settle(tx, tenant_id, &mut terms, None).await?;
            let record = RequestRecord {
                id: new_id!(self.world(), RequestId),
                tenant_id,
                requester_id: cx.subject.user_id,
                requester_name: cx.subject.user_name.clone(),
                state: RequestState::Request,
                state_since: now,
                terms,
                vm_id: None,
                remarks: vec![Remark {
                    at: now,
                    by: cx.subject.user_name.clone(),
                    action: None,
                    text: purpose.clone(),
                    changes: Vec::new(),
                }],
                generation: 1,
                created_at: now,
            };
            request::insert(tx, &record).await?;
            let by = Actor::User(cx.subject.user_name.clone());
            let fact = fact(&record, now, by, EventKind::Request { action: None });
            event::append(tx, &[fact]).await?;
            let view = view(record, None);
            remember(tx, cx, now, &view).await?;
            Ok(view)
        })?;
        self.inner.hub.wake();
        Ok(view)
    }

    /// Requests, newest first: a manager's are all of the tenant's, anyone
    /// else's the own ones.
    ///
    /// # Errors
    /// The database fails.
    pub async fn requests(&self, cx: &OpContext, query: &RequestQuery) -> Result<Vec<RequestView>> {
        let tenant = cx.subject.tenant_id;
        let all = decide(&cx.subject, Permission::ViewRequests, Some(tenant)) == Decision::Allowed;
        let limit = match query.limit {
            0 => MAX_LISTED_REQUESTS,
            limit => limit.min(MAX_LISTED_REQUESTS),
        };
        let filter = RequestFilter {
            tenant: Some(tenant),
            requester: (query.mine || !all).then_some(cx.subject.user_id),
            states: query.states.clone(),
            limit,
        };
        let found = request::list(&self.store().read(), &filter).await?;
        self.request_views(found).await
    }

    /// One request.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn request(&self, cx: &OpContext, id: RequestId) -> Result<RequestView> {
        let found = request::find(&self.store().read(), id).await?;
        let found = viewable(cx, id, found)?.into_inner();
        let views = self.request_views(vec![found]).await?;
        let view = views.into_iter().next();
        view.ok_or_else(|| Error::internal("a view went missing"))
    }

    /// What happened to a request, oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn request_timeline(&self, cx: &OpContext, id: RequestId) -> Result<Vec<EventView>> {
        let read = self.store().read();
        viewable(cx, id, request::find(&read, id).await?)?;
        Ok(event::for_request(&read, id, MAX_TIMELINE).await?)
    }

    /// Does `action` with a request.
    ///
    /// # Errors
    /// `Conflict` with the table's sentence, `Stale` where it changed since,
    /// `Invalid` naming each field at fault, `NotFound`, `Forbidden`.
    pub async fn act_on_request(
        &self,
        cx: &OpContext,
        id: RequestId,
        action: RequestAction,
        form: &RequestDecision,
    ) -> Result<RequestView> {
        let said = remark_of(action, form)?;
        if let Some(terms) = &form.terms {
            terms.check()?;
        }
        let now = self.world().now();
        let (view, changed) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let found = request::lock(tx, id).await?;
            let mut record = actionable(cx, id, action, found)?.into_inner();
            judge(&record, action, form)?;
            let mut changes = Vec::new();
            if let Some(mut terms) = form.terms.clone() {
                let (tenant, before) = (record.tenant_id, Some(&record.terms));
                template::settle(tx, tenant, &mut terms, before).await?;
                changes = differences(&record.terms, &terms);
                record.terms = terms;
            }
            if record.remarks.len() >= MAX_REMARKS {
                let message = format!("a request takes at most {MAX_REMARKS} remarks");
                return Err(Error::conflict(message).into());
            }
            record.remarks.push(Remark {
                at: now,
                by: cx.subject.user_name.clone(),
                action: Some(action),
                text: said.clone(),
                changes,
            });
            let changed = self.carry_out(tx, cx, &mut record, action, now).await?;
            request::update(tx, &mut record).await?;
            let by = Actor::User(cx.subject.user_name.clone());
            let event = EventKind::Request {
                action: Some(action),
            };
            event::append(tx, &[fact(&record, now, by, event)]).await?;
            let vm = match record.vm_id {
                Some(id) => vm::find(tx, id).await?,
                None => None,
            };
            let view = view(record, vm.as_ref());
            remember(tx, cx, now, &view).await?;
            Ok((view, changed))
        })?;
        self.inner.hub.wake();
        if let Some((vm, operation)) = changed {
            self.dispatch(&vm, operation.as_ref()).await;
        }
        Ok(view)
    }

    /// What an action does beside being recorded.
    async fn carry_out(
        &self,
        tx: &WriteTx,
        cx: &OpContext,
        record: &mut RequestRecord,
        action: RequestAction,
        now: Timestamp,
    ) -> Result<Option<Changed>, TxError> {
        let mut changed = None;
        let to = match action {
            RequestAction::Approve => {
                changed = Some(self.provision(tx, cx, record).await?);
                RequestState::Provision
            }
            RequestAction::Reject => RequestState::Rejected,
            RequestAction::AskBack => RequestState::Returned,
            RequestAction::Answer => RequestState::Request,
            RequestAction::Withdraw => RequestState::Withdrawn,
            RequestAction::AskRelease => RequestState::Release,
            RequestAction::Keep => {
                self.refuse_if_going(tx, record).await?;
                RequestState::Operation
            }
            RequestAction::ConfirmRelease => {
                changed = self.release(tx, cx, record).await?;
                // Released when nothing of the VM is left, which may be now:
                // then the VM's own change has recorded it.
                let after = request::find(tx, record.id).await?;
                record.generation = after.as_ref().map_or(record.generation, |r| r.generation);
                match (&changed, after.map(|record| record.state)) {
                    (Some(_), Some(RequestState::Released)) | (None, _) => RequestState::Released,
                    (Some(_), _) => RequestState::Release,
                }
            }
        };
        if record.state != to {
            record.state = to;
            record.state_since = now;
        }
        // A password has no business here any more.
        if !matches!(to, RequestState::Request | RequestState::Returned) {
            record.terms = record.terms.clone().without_secrets();
        }
        Ok(changed)
    }

    /// A release that was confirmed cannot be called back.
    async fn refuse_if_going(&self, tx: &WriteTx, record: &RequestRecord) -> Result<(), TxError> {
        let Some(id) = record.vm_id else {
            return Ok(());
        };
        let Some(change) = Change::lock(tx, self.world(), Actor::System, id).await? else {
            return Ok(());
        };
        let goes = change.operation.as_ref().is_some_and(|operation| {
            matches!(
                operation.kind,
                OperationKind::Delete | OperationKind::Shutdown
            )
        });
        if goes || change.vm.state == VmState::Done {
            let vm = &change.vm.name;
            let refusal = format!("`{vm}` is already being given back");
            return Err(Error::conflict(refusal).into());
        }
        Ok(())
    }

    async fn provision(
        &self,
        tx: &WriteTx,
        cx: &OpContext,
        record: &mut RequestRecord,
    ) -> Result<Changed, TxError> {
        let wanted = record.terms.check()?;
        let owner = Owner {
            tenant_id: record.tenant_id,
            id: record.requester_id,
            name: record.requester_name.clone(),
        };
        let exists = user::find(tx, record.requester_id).await?.is_some();
        if !exists {
            return Err(Error::conflict("the requester has no account any more").into());
        }
        let by = Actor::User(cx.subject.user_name.clone());
        let made = self.insert_vm(tx, by, owner, &wanted, Some(record.id));
        let (vm, operation) = made.await?;
        record.vm_id = Some(vm.id);
        Ok((vm, Some(operation)))
    }

    /// The VM goes; `None` if it has gone already.
    async fn release(
        &self,
        tx: &WriteTx,
        cx: &OpContext,
        record: &RequestRecord,
    ) -> Result<Option<Changed>, TxError> {
        let Some(id) = record.vm_id else {
            return Ok(None);
        };
        let by = Actor::User(cx.subject.user_name.clone());
        let Some(mut change) = Change::lock(tx, self.world(), by, id).await? else {
            return Ok(None);
        };
        let name = cx.subject.user_name.as_str();
        let in_flight = change.operation.as_ref().map(|operation| operation.kind);
        match (change.vm.state, in_flight) {
            (VmState::Done, _) => return Ok(None),
            // On its way out already.
            (_, Some(OperationKind::Delete | OperationKind::Shutdown)) => {}
            (VmState::Running, None) => {
                let kind = OperationKind::Shutdown;
                let steps = kind.steps(change.situation(false));
                let steps = change.with_peer(steps).await?;
                change.begin(kind, &steps, name).await?;
            }
            (VmState::Migrate, _) => {
                let (sentence, vm) = ("is moving; wait until it has arrived", &change.vm.name);
                return Err(Error::conflict(format!("`{vm}` {sentence}")).into());
            }
            _ => remove(&mut change, name).await?,
        }
        change.save().await.map(Some)
    }

    /// The views of many requests, in the same order.
    pub(crate) async fn request_views(
        &self,
        records: Vec<RequestRecord>,
    ) -> Result<Vec<RequestView>> {
        let ids: Vec<VmId> = records.iter().filter_map(|record| record.vm_id).collect();
        let vms = vm::find_many(&self.store().read(), &ids).await?;
        let vms: std::collections::HashMap<VmId, VmRecord> =
            vms.into_iter().map(|vm| (vm.id, vm)).collect();
        Ok(records
            .into_iter()
            .map(|record| {
                let vm = record.vm_id.and_then(|id| vms.get(&id));
                view(record, vm)
            })
            .collect())
    }
}

/// The state of a request follows its VM; the facts of it.
pub async fn follow(tx: &WriteTx, vm: &VmRecord, now: Timestamp) -> Result<Vec<NewEvent>, TxError> {
    let Some(id) = vm.request_id else {
        return Ok(Vec::new());
    };
    let (runs, over) = (vm.state == VmState::Running, vm.state == VmState::Done);
    if !runs && !over {
        return Ok(Vec::new());
    }
    let Some(mut record) = request::lock(tx, id).await? else {
        return Ok(Vec::new());
    };
    let to = if runs && record.state == RequestState::Provision {
        RequestState::Operation
    } else if over && !record.state.is_final() {
        RequestState::Released
    } else {
        return Ok(Vec::new());
    };
    record.state = to;
    record.state_since = now;
    request::update(tx, &mut record).await?;
    let event = EventKind::RequestMoved { to };
    Ok(vec![fact(&record, now, Actor::System, event)])
}

/// In a manual tenant a VM is asked for by a request.
pub async fn refuse_direct(conn: &impl Conn, id: TenantId) -> Result<(), TxError> {
    let tenant = tenant::find(conn, id).await?;
    match tenant {
        Some(tenant) if tenant.kind == TenantKind::Manual => {
            let message = format!(
                "tenant `{}` decides about every machine: file a request instead",
                tenant.name
            );
            Err(Error::conflict(message).into())
        }
        _ => Ok(()),
    }
}

/// A VM that was requested is given back by a release, not by its user alone.
pub fn refuse_release(cx: &OpContext, change: &Change<'_>, action: VmAction) -> Result<()> {
    let ends = matches!(action, VmAction::Shutdown | VmAction::Delete);
    if !ends || change.vm.request_id.is_none() {
        return Ok(());
    }
    let decides = decide(
        &cx.subject,
        Permission::DecideRequest,
        Some(change.vm.tenant_id),
    );
    if decides == Decision::Allowed {
        return Ok(());
    }
    let message = format!(
        "`{}` was requested; ask for its release instead",
        change.vm.name
    );
    Err(Error::conflict(message))
}

fn viewable(
    cx: &OpContext,
    id: RequestId,
    found: Option<RequestRecord>,
) -> Result<Authorized<RequestRecord>> {
    let what = format!("request `{id}`");
    let own = found
        .as_ref()
        .is_some_and(|record| record.requester_id == cx.subject.user_id);
    // What is another member's looks as if it did not exist.
    let permission = if own {
        Permission::ViewVm
    } else {
        Permission::ViewRequests
    };
    match authorized(cx, permission, &what, found) {
        Err(error) if error.kind == ErrorKind::Forbidden => Err(Error::not_found(what)),
        other => other,
    }
}

fn actionable(
    cx: &OpContext,
    id: RequestId,
    action: RequestAction,
    found: Option<RequestRecord>,
) -> Result<Authorized<RequestRecord>> {
    let record = viewable(cx, id, found)?.into_inner();
    let own = record.requester_id == cx.subject.user_id;
    let permission = match action.side() {
        Side::Manager => Permission::DecideRequest,
        Side::Requester | Side::Either if own => Permission::CreateRequest,
        Side::Either => Permission::DecideRequest,
        Side::Requester => {
            let message = format!("only {} can do this", record.requester_name);
            return Err(Error::new(ErrorKind::Forbidden, message));
        }
    };
    authorized(cx, permission, format!("request `{id}`"), Some(record))
}

fn judge(record: &RequestRecord, action: RequestAction, form: &RequestDecision) -> Result<()> {
    if form
        .generation
        .is_some_and(|seen| seen != record.generation)
    {
        let message = "the request has changed since you looked at it";
        return Err(Error::new(ErrorKind::Stale, message));
    }
    action
        .judge(record.state)
        .map_err(|refusal| Error::conflict(format!("the request {refusal}")))?;
    let takes_terms = matches!(action, RequestAction::Approve | RequestAction::Answer);
    if form.terms.is_some() && !takes_terms {
        return Err(FieldError::new("terms", format!("{action} takes no other terms")).into());
    }
    Ok(())
}

fn remark_of(action: RequestAction, form: &RequestDecision) -> Result<String> {
    match form.remark.as_deref().map(str::trim) {
        None | Some("") if !action.needs_remark() => Ok(String::new()),
        text => Ok(check_remark("remark", text.unwrap_or_default())?),
    }
}

/// What is other in `to`, for people.
fn differences(from: &CreateVm, to: &CreateVm) -> Vec<String> {
    let mut changes = Vec::new();
    let template = |terms: &CreateVm| terms.template.clone().unwrap_or_else(|| "none".to_owned());
    for (field, was, is) in [
        ("name", &from.name, &to.name),
        ("template", &template(from), &template(to)),
        ("image", &from.image, &to.image),
        ("flavor", &from.flavor, &to.flavor),
    ] {
        if was != is {
            changes.push(format!("{field} {is} instead of {was}"));
        }
    }
    let mut inputs: Vec<&String> = from.inputs.keys().chain(to.inputs.keys()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs.retain(|name| from.inputs.get(*name) != to.inputs.get(*name));
    for name in inputs {
        changes.push(format!("another input {name}"));
    }
    if from.ssh_key != to.ssh_key {
        changes.push("another SSH key".to_owned());
    }
    if from.user_data != to.user_data {
        changes.push("other user-data".to_owned());
    }
    if from.hold != to.hold {
        let text = if to.hold {
            "held until released"
        } else {
            "not held"
        };
        changes.push(text.to_owned());
    }
    changes
}

fn fact(record: &RequestRecord, at: Timestamp, actor: Actor, event: EventKind) -> NewEvent {
    NewEvent {
        at,
        actor,
        tenant_id: Some(record.tenant_id),
        vm_id: None,
        host_id: None,
        request_id: Some(record.id),
        image_id: None,
        volume_id: None,
        event,
    }
}

fn view(record: RequestRecord, vm: Option<&VmRecord>) -> RequestView {
    let RequestRecord {
        id,
        tenant_id,
        requester_id: _,
        requester_name,
        state,
        state_since,
        terms,
        vm_id: _,
        remarks,
        generation,
        created_at,
    } = record;
    RequestView {
        id,
        tenant_id,
        requester: requester_name,
        state,
        state_since,
        terms: terms.without_secrets(),
        vm: vm.map(|vm| RequestedVm {
            id: vm.id,
            state: vm.state,
        }),
        remarks,
        generation,
        created_at,
    }
}
