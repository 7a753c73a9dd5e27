//! How a VM and its operation move on: every change of either goes through
//! [`Change`], inside one transaction, together with the events it causes.

use vimana_driver::{ImageRef, IncarnationSpec, Seed};
use vimana_model::event::{Actor, EventKind};
use vimana_model::operation::{OperationKind, OperationState, StepKind, StepState};
use vimana_model::state::VmState;
use vimana_model::vm::Failure;
use vimana_model::{Error, HostId, OperationId, Timestamp, VmId};
use vimana_protocol::agent::{Command, CommandRef, Work};
use vimana_store::event::NewEvent;
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::vm::VmRecord;
use vimana_store::{TxError, WriteTx, claim, event, image, operation, vm};

use crate::context::{World, new_id};
use crate::operation::begun;
use crate::{Engine, Settings};

/// A VM under change. Nothing is written before [`Change::save`].
pub struct Change<'a> {
    tx: &'a WriteTx,
    now: Timestamp,
    actor: Actor,
    pub vm: VmRecord,
    /// The operation in flight, if any.
    pub operation: Option<OperationRecord>,
    /// Operations that this change brought to their end.
    ended: Vec<OperationRecord>,
    /// The operation that this change began.
    begun: Option<OperationId>,
    /// The host concerned at the start; its counters may change.
    host_id: Option<HostId>,
    events: Vec<EventKind>,
}

impl<'a> Change<'a> {
    /// Locks the VM and its operation in flight; `None` if there is no such VM.
    pub async fn lock(
        tx: &'a WriteTx,
        world: &World,
        actor: Actor,
        id: VmId,
    ) -> Result<Option<Self>, TxError> {
        let Some(vm) = vm::lock(tx, id).await? else {
            return Ok(None);
        };
        let operation = match vm.operation_id {
            Some(id) => operation::find(tx, id).await?,
            None => None,
        };
        let operation = operation.filter(|found| found.state == OperationState::Running);
        let host_id = vm.host.as_ref().map(|host| host.id);
        let now = world.now();
        Ok(Some(Self {
            tx,
            now,
            actor,
            vm,
            operation,
            ended: Vec::new(),
            begun: None,
            host_id,
            events: Vec::new(),
        }))
    }

    /// The step under way, with its index.
    pub fn step(&self) -> Option<(u32, StepKind)> {
        let operation = self.operation.as_ref()?;
        let index = usize::try_from(operation.step).ok()?;
        operation
            .steps
            .get(index)
            .map(|step| (operation.step, step.kind))
    }

    pub fn add_event(&mut self, event: EventKind) {
        self.events.push(event);
    }

    /// Takes the edge to `to`; nothing to do if the VM is there already.
    pub fn turn(&mut self, to: VmState) -> Result<(), TxError> {
        let from = self.vm.state;
        if from == to {
            return Ok(());
        }
        if !from.can_become(to) {
            return Err(
                Error::internal(format!("the life-cycle has no edge {from} → {to}")).into(),
            );
        }
        self.vm.state = to;
        self.vm.state_since = self.now;
        if to != VmState::Failed {
            self.vm.failure = None;
        }
        self.events.push(EventKind::State { from, to });
        Ok(())
    }

    /// Begins an operation and enters its first step; one in flight is
    /// overtaken by it.
    pub fn begin(&mut self, world: &World, kind: OperationKind, by: &str) -> Result<(), TxError> {
        self.add_operation(world, kind, by);
        self.enter_step()
    }

    /// Records an operation that needs no step of its own.
    pub fn begin_and_end(&mut self, world: &World, kind: OperationKind, by: &str) {
        self.add_operation(world, kind, by);
        if let Some(mut operation) = self.operation.take() {
            for step in &mut operation.steps {
                *step = StepRecord {
                    state: StepState::Skipped,
                    started_at: None,
                    ..*step
                };
            }
            end(&mut operation, OperationState::Succeeded, None, self.now);
            self.ended.push(operation);
        }
    }

    fn add_operation(&mut self, world: &World, kind: OperationKind, by: &str) {
        if let Some(mut overtaken) = self.operation.take() {
            end(&mut overtaken, OperationState::Cancelled, None, self.now);
            self.ended.push(overtaken);
        }
        let record = begun(new_id!(world, OperationId), self.vm.id, kind, by, self.now);
        self.events.push(EventKind::Requested { operation: kind });
        self.vm.operation_id = Some(record.id);
        self.begun = Some(record.id);
        self.operation = Some(record);
    }

    /// Ends the step under way and begins the next, or ends the operation.
    pub async fn end_step(&mut self) -> Result<(), TxError> {
        let Some((_, kind)) = self.step() else {
            return Ok(());
        };
        let now = self.now;
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        if kind != StepKind::Place {
            self.events.push(EventKind::Step { step: kind });
        }
        mark_step(operation, StepState::Done, now);
        operation.step = operation.step.saturating_add(1);
        if usize::try_from(operation.step).is_ok_and(|step| step < operation.steps.len()) {
            mark_step(operation, StepState::Running, now);
            return self.enter_step();
        }
        let kind = operation.kind;
        end(operation, OperationState::Succeeded, None, now);
        self.ended.extend(self.operation.take());
        match kind {
            OperationKind::Create => self.turn(VmState::Running),
            OperationKind::Shutdown | OperationKind::Delete => self.finish().await,
        }
    }

    /// The state that belongs to the step under way.
    pub fn enter_step(&mut self) -> Result<(), TxError> {
        match self.step().map(|(_, kind)| kind) {
            // Placing happens in Pending; a held VM waits before it.
            None | Some(StepKind::Place) => Ok(()),
            Some(StepKind::Prepare) => self.turn(VmState::Prolog),
            Some(StepKind::Boot) => self.turn(VmState::Boot),
            Some(StepKind::Shutdown) => self.turn(VmState::Shutdown),
            Some(StepKind::Kill | StepKind::Clean) => self.turn(VmState::Epilog),
        }
    }

    /// Nothing is left of the VM but its record: gives everything back.
    pub async fn finish(&mut self) -> Result<(), TxError> {
        claim::give_back(self.tx, self.vm.id).await?;
        self.vm.host = None;
        self.turn(VmState::Done)
    }

    /// The operation in flight, if any, failed, and with it the VM. What the
    /// VM holds on its host from here on is told by `kept`.
    pub async fn fail(&mut self, reason: &str, kept: Kept) -> Result<(), TxError> {
        let now = self.now;
        if let Some(mut operation) = self.operation.take() {
            end(&mut operation, OperationState::Failed, Some(reason), now);
            self.ended.push(operation);
        }
        match kept {
            Kept::Nothing => {
                claim::give_back(self.tx, self.vm.id).await?;
                self.vm.host = None;
            }
            Kept::Disk => {
                claim::keep_disk_only(self.tx, self.vm.id).await?;
            }
            Kept::Everything => {}
        }
        let silent = self.vm.state == VmState::Unknown;
        let during = if silent {
            VmState::Running
        } else {
            self.vm.state
        };
        self.turn(VmState::Failed)?;
        self.vm.failure = Some(Failure {
            during,
            reason: reason.to_owned(),
        });
        self.events.push(EventKind::Failed {
            during,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Leaves the record as it is.
    #[expect(clippy::unnecessary_wraps, reason = "ends a transaction's body")]
    pub fn unchanged(self) -> Result<(VmRecord, Option<OperationRecord>), TxError> {
        Ok((self.vm, self.operation))
    }

    /// As [`Change::save`], but writes nothing where nothing happened.
    pub async fn save_if_changed(self) -> Result<(VmRecord, Option<OperationRecord>), TxError> {
        if self.events.is_empty() {
            self.unchanged()
        } else {
            self.save().await
        }
    }

    /// Writes everything down.
    pub async fn save(mut self) -> Result<(VmRecord, Option<OperationRecord>), TxError> {
        vm::update(self.tx, &mut self.vm).await?;
        for record in self.ended.iter().chain(&self.operation) {
            if self.begun == Some(record.id) {
                operation::insert(self.tx, record).await?;
            } else {
                operation::update(self.tx, record).await?;
            }
        }
        let host_id = self.vm.host.as_ref().map(|host| host.id).or(self.host_id);
        let events: Vec<NewEvent> = self
            .events
            .into_iter()
            .map(|event| NewEvent {
                at: self.now,
                actor: self.actor.clone(),
                tenant_id: Some(self.vm.tenant_id),
                vm_id: Some(self.vm.id),
                host_id,
                event,
            })
            .collect();
        if !events.is_empty() {
            event::append(self.tx, &events).await?;
        }
        Ok((self.vm, self.operation))
    }
}

/// What a failed VM still holds on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// No process, no file.
    Nothing,
    /// No process; the disk is there.
    Disk,
    /// Perhaps everything.
    Everything,
}

fn mark_step(operation: &mut OperationRecord, state: StepState, now: Timestamp) {
    let index = usize::try_from(operation.step).unwrap_or(usize::MAX);
    let Some(step) = operation.steps.get_mut(index) else {
        return;
    };
    step.state = state;
    match state {
        StepState::Running => step.started_at = Some(now),
        StepState::Done | StepState::Failed => step.ended_at = Some(now),
        StepState::Waiting | StepState::Skipped => {}
    }
}

fn end(
    operation: &mut OperationRecord,
    state: OperationState,
    error: Option<&str>,
    now: Timestamp,
) {
    for step in &mut operation.steps {
        match (step.state, state) {
            (StepState::Running, OperationState::Failed) => {
                step.state = StepState::Failed;
                step.ended_at = Some(now);
            }
            (StepState::Running | StepState::Waiting, _) => step.state = StepState::Skipped,
            (StepState::Done | StepState::Failed | StepState::Skipped, _) => {}
        }
    }
    operation.state = state;
    operation.error = error.map(str::to_owned);
    operation.ended_at = Some(now);
}

impl Engine {
    /// Sends the command of the step under way to the VM's host, if that is
    /// connected. Otherwise the command goes out when the host connects.
    pub(crate) async fn dispatch(&self, vm: &VmRecord, operation: Option<&OperationRecord>) {
        let (Some(operation), Some(host)) = (operation, vm.host.as_ref()) else {
            return;
        };
        if !self.inner.agents.is_connected(host.id) {
            return;
        }
        match self.command(vm, operation).await {
            Ok(Some(command)) => self.inner.agents.send(host.id, command),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(vm = %vm.id, error = ?error, "a step's command cannot be made");
            }
        }
    }

    async fn command(
        &self,
        vm: &VmRecord,
        operation: &OperationRecord,
    ) -> vimana_model::Result<Option<Command>> {
        let Settings { shutdown_grace, .. } = &self.inner.settings;
        let index = usize::try_from(operation.step).unwrap_or(usize::MAX);
        let work = match operation.steps.get(index).map(|step| step.kind) {
            None | Some(StepKind::Place) => return Ok(None),
            Some(StepKind::Prepare) => Work::Prepare {
                spec: Box::new(self.incarnation_spec(vm).await?),
            },
            Some(StepKind::Boot) => Work::Boot,
            Some(StepKind::Shutdown) => Work::Shutdown {
                grace_ms: u64::try_from(shutdown_grace.as_millis()).unwrap_or(u64::MAX),
            },
            Some(StepKind::Kill) => Work::Kill,
            Some(StepKind::Clean) => Work::Clean,
        };
        Ok(Some(Command {
            command: CommandRef {
                operation_id: operation.id,
                step: operation.step,
            },
            vm_id: vm.id,
            run_epoch: vm.run_epoch,
            work,
        }))
    }

    async fn incarnation_spec(&self, vm: &VmRecord) -> vimana_model::Result<IncarnationSpec> {
        let image = image::find(&self.store().read(), vm.image_id).await?;
        let image = image.ok_or_else(|| Error::not_found(format!("image `{}`", vm.image_name)))?;
        Ok(IncarnationSpec {
            vm_id: vm.id,
            run_epoch: vm.run_epoch,
            resources: vm.resources,
            image: ImageRef {
                id: image.id,
                format: image.format,
                size_bytes: image.size_bytes,
                sha256: image.sha256,
            },
            seed: Seed {
                host_name: vm.name.guest_host_name(),
                ssh_key: vm.ssh_key.clone(),
                user_data: vm.user_data.clone(),
            },
        })
    }
}
