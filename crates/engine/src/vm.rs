//! The durable machines people own.

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::operation::OperationKind;
use vimana_model::pending::PendingView;
use vimana_model::state::VmState;
use vimana_model::vm::{AcceptedView, CreateVm, VmRequest, VmView};
use vimana_model::{Error, ErrorKind, FieldError, Result, VmId};
use vimana_store::event::NewEvent;
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::operation::OperationRecord;
use vimana_store::vm::{VmFilter, VmRecord};
use vimana_store::{StoreError, TxError, event, flavor, image, operation, vm, write_tx};

use crate::Engine;
use crate::authorize::{Authorized, authorized, permit};
use crate::context::{OpContext, new_id};
use crate::limits::{MAX_LISTED_VMS, MAX_TIMELINE};
use crate::operation::{begun, view as operation_view};
use crate::progress::Change;

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

impl Engine {
    /// Asks for a VM; a scheduler and an agent do the rest.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Forbidden`.
    pub async fn create_vm(&self, cx: &OpContext, form: &CreateVm) -> Result<AcceptedView> {
        let request = form.check()?;
        let tenant = cx.subject.tenant_id;
        let (vm, operation) = write_tx!(self.store(), |tx| {
            permit(cx, Permission::CreateVm, Some(tenant))?;
            let (image, flavor) = ingredients(tx, &request).await?;
            let (vm, operation) = self.new_vm(cx, &request, &image, &flavor);
            vm::insert(tx, &vm)
                .await
                .map_err(|error| name_in_use(error, &request))?;
            operation::insert(tx, &operation).await?;
            let mut events = vec![EventKind::Requested {
                operation: OperationKind::Create,
            }];
            if request.hold {
                events.push(EventKind::Note {
                    text: "Held until released".to_owned(),
                });
            }
            let events: Vec<NewEvent> = events
                .into_iter()
                .map(|event| NewEvent {
                    at: vm.created_at,
                    actor: Actor::User(cx.subject.user_name.clone()),
                    tenant_id: Some(tenant),
                    vm_id: Some(vm.id),
                    host_id: None,
                    event,
                })
                .collect();
            event::append(tx, &events).await?;
            Ok((vm, operation))
        })?;
        self.inner.hub.wake();
        Ok(self.accepted(vm, operation))
    }

    fn new_vm(
        &self,
        cx: &OpContext,
        request: &VmRequest,
        image: &ImageRecord,
        flavor: &FlavorRecord,
    ) -> (VmRecord, OperationRecord) {
        let now = self.world().now();
        let id = new_id!(self.world(), VmId);
        let operation_id = new_id!(self.world(), OperationId);
        let by = cx.subject.user_name.as_str();
        let operation = begun(operation_id, id, OperationKind::Create, by, now);
        let vm = VmRecord {
            id,
            tenant_id: cx.subject.tenant_id,
            owner_id: cx.subject.user_id,
            owner_name: cx.subject.user_name.clone(),
            name: request.name.clone(),
            state: if request.hold {
                VmState::Hold
            } else {
                VmState::Pending
            },
            state_since: now,
            failure: None,
            flavor_name: flavor.name.clone(),
            resources: flavor.resources,
            image_id: image.id,
            image_name: image.name.clone(),
            ssh_key: request.ssh_key.clone(),
            user_data: request.user_data.clone(),
            host: None,
            run_epoch: 0,
            generation: 1,
            operation_id: Some(operation_id),
            explanation: None,
            explained_at: None,
            created_at: now,
        };
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

    /// Keeps a pending VM from being placed.
    ///
    /// # Errors
    /// `Conflict` with the table's sentence, `NotFound`, `Forbidden`.
    pub async fn hold_vm(&self, cx: &OpContext, id: VmId) -> Result<VmView> {
        let (vm, _) = self.act(cx, id, VmAction::Hold).await?;
        self.vm_view(vm).await
    }

    /// Lets a held VM be placed.
    ///
    /// # Errors
    /// As [`Engine::hold_vm`].
    pub async fn release_vm(&self, cx: &OpContext, id: VmId) -> Result<VmView> {
        let (vm, _) = self.act(cx, id, VmAction::Release).await?;
        self.vm_view(vm).await
    }

    /// Asks the guest to switch itself off, then gives everything back.
    ///
    /// # Errors
    /// As [`Engine::hold_vm`].
    pub async fn shutdown_vm(&self, cx: &OpContext, id: VmId) -> Result<AcceptedView> {
        let (vm, operation) = self.act(cx, id, VmAction::Shutdown).await?;
        self.accepted_latest(vm, operation).await
    }

    /// Stops the VM at once and gives everything back.
    ///
    /// # Errors
    /// As [`Engine::hold_vm`].
    pub async fn delete_vm(&self, cx: &OpContext, id: VmId) -> Result<AcceptedView> {
        let (vm, operation) = self.act(cx, id, VmAction::Delete).await?;
        self.accepted_latest(vm, operation).await
    }

    /// Judges, changes and dispatches, for every action of people.
    async fn act(
        &self,
        cx: &OpContext,
        id: VmId,
        action: VmAction,
    ) -> Result<(VmRecord, Option<OperationRecord>)> {
        let world = self.world();
        let actor = Actor::User(cx.subject.user_name.clone());
        let by = cx.subject.user_name.as_str();
        let (vm, operation) = write_tx!(self.store(), |tx| {
            let found = Change::lock(tx, world, actor.clone(), id).await?;
            let permission = Permission::ActOnVm(action);
            let mut change = authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner();
            action
                .judge(change.vm.state)
                .map_err(|refusal| Error::conflict(format!("`{}` {refusal}", change.vm.name)))?;
            match action {
                VmAction::Hold => change.turn(VmState::Hold)?,
                VmAction::Release => {
                    change.vm.explanation = None;
                    change.vm.explained_at = None;
                    change.turn(VmState::Pending)?;
                }
                VmAction::Shutdown => change.begin(world, OperationKind::Shutdown, by)?,
                VmAction::Delete => delete(&mut change, world, by).await?,
                // A console changes nothing of the VM; see `console.rs`.
                VmAction::Console => {}
            }
            change.save().await
        })?;
        self.inner.hub.wake();
        self.dispatch(&vm, operation.as_ref()).await;
        Ok((vm, operation))
    }

    pub(crate) async fn viewable_vm(
        &self,
        cx: &OpContext,
        id: VmId,
    ) -> Result<Authorized<VmRecord>> {
        let found = vm::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewVm, format!("vm `{id}`"), found)
    }

    fn accepted(&self, vm: VmRecord, operation: OperationRecord) -> AcceptedView {
        AcceptedView {
            operation: operation_view(operation.clone()),
            vm: self.join_view(vm, Some(operation)),
        }
    }

    /// As [`Engine::accepted`] where the operation may have ended already.
    async fn accepted_latest(
        &self,
        vm: VmRecord,
        operation: Option<OperationRecord>,
    ) -> Result<AcceptedView> {
        let operation = match (operation, vm.operation_id) {
            (Some(operation), _) => Some(operation),
            (None, Some(id)) => operation::find(&self.store().read(), id).await?,
            (None, None) => None,
        };
        let operation =
            operation.ok_or_else(|| Error::internal("an accepted operation is not recorded"))?;
        Ok(self.accepted(vm, operation))
    }

    async fn vm_view(&self, record: VmRecord) -> Result<VmView> {
        let views = self.vm_views(vec![record]).await?;
        views
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("a view went missing"))
    }

    /// The views of many VMs, in the same order, with one query for all.
    pub(crate) async fn vm_views(&self, records: Vec<VmRecord>) -> Result<Vec<VmView>> {
        let ids: Vec<_> = records.iter().filter_map(|vm| vm.operation_id).collect();
        let operations = operation::find_many(&self.store().read(), &ids).await?;
        let mut operations: std::collections::HashMap<_, _> = operations
            .into_iter()
            .map(|operation| (operation.id, operation))
            .collect();
        Ok(records
            .into_iter()
            .map(|vm| {
                let operation = vm.operation_id.and_then(|id| operations.remove(&id));
                self.join_view(vm, operation)
            })
            .collect())
    }

    fn join_view(&self, record: VmRecord, operation: Option<OperationRecord>) -> VmView {
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
            host,
            run_epoch,
            generation,
            ssh_key,
            has_user_data: user_data.is_some(),
            operation: operation.map(operation_view),
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

/// Looks up what a request names.
async fn ingredients(
    conn: &impl vimana_store::Conn,
    request: &VmRequest,
) -> Result<(ImageRecord, FlavorRecord), TxError> {
    let image = image::find_by_name(conn, &request.image).await?;
    let flavor = flavor::find_by_name(conn, &request.flavor).await?;
    let (image, flavor) = match (image, flavor) {
        (Some(image), Some(flavor)) => (image, flavor),
        (image, flavor) => {
            let absent = [
                image.is_none().then(|| ("image", request.image.as_str())),
                flavor
                    .is_none()
                    .then(|| ("flavor", request.flavor.as_str())),
            ];
            let fields = absent
                .into_iter()
                .flatten()
                .map(|(kind, name)| FieldError::new(kind, format!("there is no {kind} `{name}`")))
                .collect();
            return Err(Error::invalid(fields).into());
        }
    };
    let (needed, given) = (image.virtual_mib, flavor.resources.disk_mib);
    if needed > given {
        let message = format!(
            "its disk of {given} is smaller than image `{}`, which needs {needed}",
            image.name
        );
        return Err(Error::from(FieldError::new("flavor", message)).into());
    }
    Ok((image, flavor))
}

fn name_in_use(error: StoreError, request: &VmRequest) -> TxError {
    if !matches!(error, StoreError::Duplicate { .. }) {
        return error.into();
    }
    let message = format!("there is already a VM named `{}`", request.name);
    let mut refusal = Error::new(ErrorKind::Conflict, message.clone());
    refusal.fields = vec![FieldError::new("name", message)];
    refusal.into()
}

/// A VM that holds nothing on any host is done at once; any other is stopped
/// and cleaned by its host.
async fn delete(change: &mut Change<'_>, world: &crate::World, by: &str) -> Result<(), TxError> {
    if change.vm.host.is_some() {
        return change.begin(world, OperationKind::Delete, by);
    }
    change.begin_and_end(world, OperationKind::Delete, by);
    change.finish().await
}
