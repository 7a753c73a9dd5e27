//! The durable machines people own.

mod ingredients;

use std::collections::HashMap;

use vimana_authz::Permission;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::name::UserName;
use vimana_model::operation::{Object, OperationKind, Situation};
use vimana_model::pending::PendingView;
use vimana_model::state::VmState;
use vimana_model::unit::MiB;
use vimana_model::vm::{AcceptedView, CreateVm, VmRequest, VmView};
use vimana_model::{Error, OperationId, RequestId, Result, TenantId, UserId, VmId};
use vimana_store::event::NewEvent;
use vimana_store::operation::OperationRecord;
use vimana_store::vm::{Counts, VmFilter, VmRecord};
use vimana_store::{TxError, WriteTx, event, operation, vm, write_tx};

use crate::Engine;
use crate::authorize::{Authorized, authorized, current, permit};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::limits::{MAX_LISTED_VMS, MAX_TIMELINE, MAX_VIEW_READS};
use crate::name;
use crate::operation::{begin_step, begun};
use crate::quota;
use crate::volume::is_known;
use ingredients::{Ingredients, ingredients};

/// Which VMs to list.
#[derive(Clone, Debug, Default)]
pub struct VmQuery {
    /// Exactly this name.
    pub name: Option<String>,
    /// Any of these states; empty for all.
    pub states: Vec<VmState>,
    /// At most so many, and never more than the limit; 0 for the limit.
    pub limit: u32,
}

/// Who a new VM belongs to.
pub(crate) struct Owner {
    pub tenant_id: TenantId,
    pub id: UserId,
    pub name: UserName,
}

impl Engine {
    /// Asks for a VM; a scheduler and an agent do the rest.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use or
    /// a tenant whose requests wait for a decision, `Forbidden`.
    pub async fn create_vm(&self, cx: &OpContext, form: &CreateVm) -> Result<AcceptedView> {
        let wanted = form.check()?;
        let tenant_id = cx.subject.tenant_id;
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            permit(cx, Permission::CreateVm, Some(tenant_id))?;
            crate::request::refuse_direct(tx, tenant_id).await?;
            let owner = Owner {
                tenant_id,
                id: cx.subject.user_id,
                name: cx.subject.user_name.clone(),
            };
            let actor = Actor::User(cx.subject.user_name.clone());
            let (vm, operation) = self.insert_vm(tx, actor, owner, &wanted, None).await?;
            let answer = self.accepted(vm, operation);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        Ok(answer)
    }

    /// Records a VM and its creation.
    pub(crate) async fn insert_vm(
        &self,
        tx: &WriteTx,
        actor: Actor,
        owner: Owner,
        wanted: &VmRequest,
        request_id: Option<RequestId>,
    ) -> Result<(VmRecord, OperationRecord), TxError> {
        is_known(tx, &wanted.datastore).await?;
        let found = ingredients(tx, owner.tenant_id, wanted).await?;
        let (vm, operation) = self.new_vm(owner, wanted, found, request_id);
        vm::insert(tx, &vm)
            .await
            .map_err(|error| name::in_use(error, "a VM", wanted.name.as_str()))?;
        operation::insert(tx, &operation).await?;
        let growth = quota::of_new(vm.counts);
        let warnings = quota::admit(tx, vm.tenant_id, &vm.owner_name, &growth).await?;
        let mut events = vec![EventKind::Requested {
            operation: OperationKind::Create,
        }];
        if wanted.hold {
            events.push(EventKind::Note {
                text: "Held until released".to_owned(),
            });
        }
        let warnings = warnings.into_iter();
        events.extend(warnings.map(|text| EventKind::Note { text }));
        let events: Vec<NewEvent> = events
            .into_iter()
            .map(|event| NewEvent {
                at: vm.created_at,
                actor: actor.clone(),
                tenant_id: Some(vm.tenant_id),
                vm_id: Some(vm.id),
                host_id: None,
                request_id: None,
                image_id: None,
                volume_id: None,
                event,
            })
            .collect();
        event::append(tx, &events).await?;
        Ok((vm, operation))
    }

    fn new_vm(
        &self,
        owner: Owner,
        wanted: &VmRequest,
        found: Ingredients,
        request_id: Option<RequestId>,
    ) -> (VmRecord, OperationRecord) {
        let Ingredients {
            image,
            flavor,
            user_data,
        } = found;
        let now = self.world().now();
        let id = new_id!(self.world(), VmId);
        let operation_id = new_id!(self.world(), OperationId);
        let kind = OperationKind::Create;
        let steps = kind.steps(Situation {
            on_host: false,
            in_datastore: false,
            runs: false,
            force: false,
            post_copy: false,
        });
        let mut operation = begun(
            operation_id,
            Object::Vm(id),
            kind,
            steps,
            owner.name.as_str(),
            now,
        );
        if let Some(place) = operation.steps.first_mut() {
            begin_step(place, now);
        }
        let mut vm = VmRecord {
            id,
            tenant_id: owner.tenant_id,
            owner_id: owner.id,
            owner_name: owner.name,
            name: wanted.name.clone(),
            state: if wanted.hold {
                VmState::Hold
            } else {
                VmState::Pending
            },
            state_since: now,
            failure: None,
            flavor_name: flavor.name,
            resources: flavor.resources,
            datastore: wanted.datastore.clone(),
            image_id: image.id,
            image_name: image.name,
            ssh_key: wanted.ssh_key.clone(),
            user_data,
            host: None,
            run_epoch: 0,
            generation: 1,
            operation_id: Some(operation_id),
            explanation: None,
            explained_at: None,
            saved: None,
            moving: None,
            kept: MiB(0),
            snapshot_id: None,
            request_id,
            counts: Counts::default(),
            created_at: now,
        };
        vm.counts = quota::counts(&vm, Some(&operation));
        (vm, operation)
    }

    /// The caller's VMs, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn vms(&self, cx: &OpContext, query: &VmQuery) -> Result<Vec<VmView>> {
        permit(cx, Permission::ViewVm, Some(cx.subject.tenant_id))?;
        let limit = match query.limit {
            0 => MAX_LISTED_VMS,
            limit => limit.min(MAX_LISTED_VMS),
        };
        let filter = VmFilter {
            tenant: Some(cx.subject.tenant_id),
            name: query.name.clone(),
            states: query.states.clone(),
            limit,
        };
        let found = vm::list(&self.store().read(), &filter).await?;
        self.vm_views(found).await
    }

    /// One VM.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn vm(&self, cx: &OpContext, id: VmId) -> Result<VmView> {
        let found = self.viewable_vm(cx, id).await?.into_inner();
        self.vm_view(found).await
    }

    /// What happened to a VM, oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn vm_timeline(&self, cx: &OpContext, id: VmId) -> Result<Vec<EventView>> {
        self.viewable_vm(cx, id).await?;
        let mut timeline = event::for_vm(&self.store().read(), id, MAX_TIMELINE).await?;
        // Of a long wait, the last reason is enough.
        timeline.dedup_by(|later, earlier| {
            let repeated = is_not_placed(later) && is_not_placed(earlier);
            if repeated {
                std::mem::swap(later, earlier);
            }
            repeated
        });
        Ok(timeline)
    }

    pub(crate) async fn viewable_vm(
        &self,
        cx: &OpContext,
        id: VmId,
    ) -> Result<Authorized<VmRecord>> {
        let found = vm::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewVm, format!("vm `{id}`"), found)
    }

    pub(crate) fn accepted(&self, vm: VmRecord, operation: OperationRecord) -> AcceptedView {
        AcceptedView {
            operation: self.operation_view(operation.clone()),
            vm: self.join_view(vm, Some(operation)),
        }
    }

    async fn vm_view(&self, record: VmRecord) -> Result<VmView> {
        let views = self.vm_views(vec![record]).await?;
        views
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("a view went missing"))
    }

    /// The views of many VMs, in the same order, with a few queries for all.
    ///
    /// A VM and its operation are read one after the other; what changed in
    /// between is read anew, so that no operation is over before its VM shows
    /// what came of it.
    pub(crate) async fn vm_views(&self, mut records: Vec<VmRecord>) -> Result<Vec<VmView>> {
        let mut operations = self.operations_of(&records).await?;
        for _ in 0..MAX_VIEW_READS {
            let ids: Vec<VmId> = records.iter().map(|vm| vm.id).collect();
            let now = vm::find_many(&self.store().read(), &ids).await?;
            let mut now: HashMap<VmId, VmRecord> = now.into_iter().map(|vm| (vm.id, vm)).collect();
            let mut changed = false;
            for record in &mut records {
                if let Some(vm) = now.remove(&record.id)
                    && vm.generation != record.generation
                {
                    *record = vm;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
            operations = self.operations_of(&records).await?;
        }
        Ok(records
            .into_iter()
            .map(|vm| {
                let operation = vm.operation_id.and_then(|id| operations.remove(&id));
                self.join_view(vm, operation)
            })
            .collect())
    }

    /// The latest operation of each VM.
    pub(crate) async fn operations_of(
        &self,
        records: &[VmRecord],
    ) -> Result<HashMap<OperationId, OperationRecord>> {
        let ids: Vec<_> = records.iter().filter_map(|vm| vm.operation_id).collect();
        let found = operation::find_many(&self.store().read(), &ids).await?;
        Ok(found
            .into_iter()
            .map(|operation| (operation.id, operation))
            .collect())
    }

    pub(crate) fn join_view(&self, record: VmRecord, operation: Option<OperationRecord>) -> VmView {
        let pending = (record.state == VmState::Pending).then(|| self.pending_view(&record));
        let VmRecord {
            id,
            tenant_id,
            owner_id: _,
            owner_name,
            name,
            state,
            state_since,
            failure,
            flavor_name,
            resources,
            datastore,
            moving,
            image_id,
            image_name,
            ssh_key,
            user_data,
            host,
            run_epoch,
            generation,
            operation_id: _,
            explanation: _,
            explained_at: _,
            saved: _,
            kept: _,
            snapshot_id: _,
            request_id,
            counts: _,
            created_at,
        } = record;
        VmView {
            id,
            name,
            tenant_id,
            owner: owner_name.to_string(),
            state,
            state_since,
            failure,
            pending,
            flavor: flavor_name,
            image: image_name,
            image_id,
            resources,
            datastore,
            moving_to: moving.map(|moving| moving.to),
            host,
            request_id,
            run_epoch,
            generation,
            ssh_key,
            has_user_data: user_data.is_some(),
            operation: operation.map(|operation| self.operation_view(operation)),
            created_at,
        }
    }

    fn pending_view(&self, record: &VmRecord) -> PendingView {
        let message = match &record.explanation {
            _ if self.inner.schedulers.count() == 0 => {
                "no scheduler is connected; the request waits for one".to_owned()
            }
            Some(explanation) => vimana_placement::summary(explanation),
            None => "the scheduler is about to look for a host".to_owned(),
        };
        PendingView {
            message,
            explanation: record.explanation.clone(),
            explained_at: record.explained_at,
        }
    }
}

const fn is_not_placed(entry: &EventView) -> bool {
    matches!(entry.event, EventKind::NotPlaced { .. })
}
