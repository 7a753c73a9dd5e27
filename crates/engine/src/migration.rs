//! VMs that go to another host while they run.
//!
//! An operation of the VM, of four steps. The other host makes place and waits
//! (Receive); the machine is copied there until it stands still on both (Send); it
//! runs on the other host (Run); the host it was on is cleaned (Leave). Which host
//! a step is for, [`StepKind::is_at_peer`] says.
//!
//! **The commit** is the transaction that ends Send: the only one that changes the
//! VM's host, and its epoch with it. It finds the operation running in that very
//! step, or it does not happen: a cancel, a failure or a deadline that came first
//! has turned the operation to undoing. Before it, the machine runs on where it
//! was, whatever becomes of the other host; from there on it never does, whatever
//! becomes of the new one. The source may go on only by `CallOff`, which is asked
//! of it while the operation is undone, and never after the commit.
//!
//! What the VM holds of the host that is not its own is recorded beside its claim
//! (`store/migration.rs`), for as long as something of it may be there.

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::event::EventKind;
use vimana_model::host::HostState;
use vimana_model::migration::{Endpoint, MigrationMode, MigrationTarget, Sent};
use vimana_model::name::HostName;
use vimana_model::operation::{OperationKind, OperationState, StepKind, StepState};
use vimana_model::state::VmState;
use vimana_model::vm::HostRef;
use vimana_model::{Error, FieldError, HostId, VmId};
use vimana_protocol::agent::ToAgent;
use vimana_store::claim::Taken;
use vimana_store::host::HostRecord;
use vimana_store::migration::MigrationRecord;
use vimana_store::operation::MigrationPlan;
use vimana_store::vm::VmRecord;
use vimana_store::{Conn, TxError, host, migration, operation, vm};

use crate::Engine;
use crate::authorize::authorized;
use crate::change::{Change, Holding, Kept};
use crate::context::OpContext;
use crate::host::host_view;
use crate::placement::facts;

/// What keeps a VM from going from one host to another, as far as the two are
/// concerned.
fn obstacle(vm: &VmRecord, here: &HostRecord, there: &HostRecord) -> Option<String> {
    let (name, to) = (&vm.name, &there.name);
    if here.id == there.id {
        return Some(format!("`{name}` is on host `{to}` already"));
    }
    if there.state != HostState::Enabled || !there.connected {
        return Some(format!("host `{to}` takes no VMs now"));
    }
    if there.zone != here.zone {
        return Some(format!(
            "host `{to}` is in zone `{}`, and `{name}` in zone `{}`: a VM migrates within its zone",
            there.zone, here.zone
        ));
    }
    (there.accelerator != here.accelerator).then(|| {
        format!(
            "host `{to}` runs machines with {}, and the host of `{name}` with {}: none can go from one to the other while it runs",
            there.accelerator, here.accelerator
        )
    })
}

impl Engine {
    /// Has hosts remove what migrations that are through have left there. Which
    /// of the two hosts never runs the machine again, is decided.
    pub(crate) async fn remind_of_leftovers(&self) -> Result<(), Error> {
        let read = self.store().read();
        for found in migration::list(&read).await? {
            let operation = operation::find(&read, found.operation_id).await?;
            if operation.is_some_and(|operation| operation.state.is_over()) {
                self.discard_leftover(&found, 0).await?;
            }
        }
        Ok(())
    }

    /// Has the other host remove what it holds of the VM, of which it may show a
    /// run as late as `seen_epoch`.
    pub(crate) async fn discard_leftover(
        &self,
        found: &MigrationRecord,
        seen_epoch: u64,
    ) -> Result<(), Error> {
        let vm = vm::find(&self.store().read(), found.vm_id).await?;
        let frame = ToAgent::Discard {
            vm_id: found.vm_id,
            // The host may have been told of that run, which is elsewhere.
            run_epoch: vm.map_or(0, |vm| vm.run_epoch).max(seen_epoch),
        };
        self.inner.agents.send_frame(found.peer.id, frame);
        Ok(())
    }

    /// The hosts that a VM may go to, those that suit best first, and then those
    /// that it cannot go to, each with the reason.
    ///
    /// # Errors
    /// `Conflict` where it can go nowhere now, `NotFound`, `Forbidden`.
    pub async fn migration_targets(
        &self,
        cx: &OpContext,
        id: VmId,
    ) -> Result<Vec<MigrationTarget>, Error> {
        let read = self.store().read();
        let found = vm::find(&read, id).await?;
        let permission = Permission::ActOnVm(VmAction::Migrate);
        let vm = authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner();
        let on = vm.host.as_ref().map(|host| host.id);
        let all = host::list(&read).await?;
        let here = all.iter().find(|host| Some(host.id) == on);
        let nowhere = || Error::conflict(format!("`{}` is on no host", vm.name));
        let here = here.ok_or_else(nowhere)?;
        let needs = Holding::Full.of(vm.resources);
        let others = all.iter().filter(|there| there.id != here.id);
        let mut targets: Vec<_> = others
            .map(|there| {
                let facts = facts(&host_view(there.clone(), Vec::new()));
                let room = vimana_placement::fits(needs, &facts);
                let full = || format!("host `{}` has no room for `{}`", there.name, vm.name);
                MigrationTarget {
                    host: host_ref(there),
                    score: vimana_placement::score(needs, &facts),
                    refusal: obstacle(&vm, here, there).or_else(|| (!room).then(full)),
                }
            })
            .collect();
        targets.sort_by(|a, b| {
            let order = |target: &MigrationTarget| target.refusal.is_some();
            order(a)
                .cmp(&order(b))
                .then(b.score.total_cmp(&a.score))
                .then_with(|| a.host.name.cmp(&b.host.name))
        });
        Ok(targets)
    }
}

/// The host that is to do `step` for the VM.
pub async fn host_of_step(
    conn: &impl Conn,
    vm: &VmRecord,
    step: StepKind,
) -> vimana_store::Result<Option<HostId>> {
    if step.is_at_peer() {
        let found = migration::find(conn, vm.id).await?;
        return Ok(found.map(|migration| migration.peer.id));
    }
    Ok(vm.host.as_ref().map(|host| host.id))
}

/// Whether the VM is on the host, goes there, or has left something there.
pub async fn is_about(conn: &impl Conn, vm: &VmRecord, host: HostId) -> vimana_store::Result<bool> {
    if vm.host.as_ref().is_some_and(|on| on.id == host) {
        return Ok(true);
    }
    let found = migration::find(conn, vm.id).await?;
    Ok(found.is_some_and(|migration| migration.peer.id == host))
}

pub fn host_ref(host: &HostRecord) -> HostRef {
    HostRef {
        id: host.id,
        name: host.name.to_string(),
        zone: host.zone.to_string(),
    }
}

impl Change<'_> {
    /// Begins to bring the VM to the host of that name. Everything is looked at
    /// before anything is promised, and the room there claimed.
    ///
    /// # Errors
    /// `Invalid` where there is no such host, `Conflict` with what keeps the VM
    /// from going there.
    pub(crate) async fn begin_migrate(
        &mut self,
        by: &str,
        to: &HostName,
        mode: MigrationMode,
    ) -> Result<(), TxError> {
        let from = self.vm.host.clone();
        let from = from.ok_or_else(|| Error::internal("a VM that runs has a host"))?;
        let Some(there) = host::find_by_name(self.tx, to).await? else {
            let message = format!("there is no host `{to}`");
            return Err(Error::from(FieldError::new("host", message)).into());
        };
        let here = host::find(self.tx, from.id).await?;
        self.refuse_to_travel(here.as_ref(), &there).await?;
        let peer = host_ref(&there);
        let kind = OperationKind::Migrate;
        let steps = kind.steps(self.situation(false));
        self.begin(kind, steps, by).await?;
        let operation = self.operation.as_mut();
        let operation = operation.ok_or_else(|| Error::internal("an operation has begun"))?;
        let operation_id = operation.id;
        for step in &mut operation.steps {
            if step.kind == StepKind::Send {
                step.migration = Some(MigrationPlan {
                    mode,
                    from: from.clone(),
                    to: peer.clone(),
                    endpoint: None,
                    sent: None,
                });
            }
        }
        let wanted = MigrationRecord {
            vm_id: self.vm.id,
            operation_id,
            peer,
            resources: Holding::Full.of(self.vm.resources),
            committed: false,
        };
        match migration::begin(self.tx, &wanted).await? {
            Taken::Ok => {}
            Taken::NoRoom => {
                let message = format!("host `{to}` has no room for `{}`", self.vm.name);
                return Err(Error::conflict(message).into());
            }
        }
        let begun = EventKind::Expected { from: from.name };
        self.add_host_event(begun, wanted.peer.id);
        Ok(())
    }

    /// What keeps the VM from going from one host to the other.
    async fn refuse_to_travel(
        &self,
        here: Option<&HostRecord>,
        there: &HostRecord,
    ) -> Result<(), TxError> {
        let refuse = |message: String| Err(Error::conflict(message).into());
        let name = &self.vm.name;
        let Some(here) = here.filter(|here| here.connected) else {
            return refuse(format!("the host of `{name}` is away"));
        };
        if let Some(obstacle) = obstacle(&self.vm, here, there) {
            return refuse(obstacle);
        }
        if migration::find(self.tx, self.vm.id).await?.is_some() {
            return refuse(format!(
                "the host that `{name}` was on before is not cleaned yet; it is when it connects"
            ));
        }
        self.refuse_to_leave().await
    }

    /// The host that is to do `step`.
    pub(crate) async fn host_of(&self, step: StepKind) -> Result<Option<HostId>, TxError> {
        Ok(host_of_step(self.tx, &self.vm, step).await?)
    }

    fn plan_mut(&mut self) -> Option<&mut MigrationPlan> {
        let steps = &mut self.operation.as_mut()?.steps;
        steps.iter_mut().find_map(|step| step.migration.as_mut())
    }

    /// Where the other host waits, or what sending took.
    pub(crate) fn note_migration(&mut self, endpoint: Option<Endpoint>, sent: Option<Sent>) {
        if let Some(plan) = self.plan_mut() {
            plan.endpoint = endpoint.or(plan.endpoint);
            plan.sent = sent.or(plan.sent);
        }
    }

    /// Whether the step under way cannot go on without what was to come with the
    /// answer that its host gave.
    pub(crate) fn lacks(&self, endpoint: Option<Endpoint>, sent: Option<Sent>) -> bool {
        let forward = self.current().filter(|current| !current.undo);
        forward.is_some_and(|current| {
            (current.kind == StepKind::Receive && endpoint.is_none())
                || (current.kind == StepKind::Send && sent.is_none())
        })
    }

    /// The machine stands still on both hosts and has arrived: from here on the
    /// other one has it.
    pub(crate) async fn commit_migration(&mut self) -> Result<(), TxError> {
        let found = migration::find(self.tx, self.vm.id).await?;
        let nowhere = || Error::internal("a machine has arrived nowhere");
        let found = found.ok_or_else(nowhere)?;
        let from = self.vm.host.replace(found.peer.clone());
        let from = from.ok_or_else(|| Error::internal("a VM that moves has a host"))?;
        migration::commit(self.tx, &found, &from).await?;
        self.vm.run_epoch = self.vm.run_epoch.saturating_add(1);
        Ok(())
    }

    /// It runs on its new host.
    pub(crate) fn arrived(&mut self) -> Result<(), TxError> {
        if let Some(plan) = self.plan_mut() {
            let (from, to) = (plan.from.name.clone(), plan.to.name.clone());
            self.add_event(EventKind::Migrated { from, to });
        }
        self.turn(VmState::Running)
    }

    /// It has arrived, and does not run: its disk is there, and what it was on
    /// before is still to be cleaned.
    pub(crate) async fn arrived_broken(&mut self, reason: &str) -> Result<(), TxError> {
        self.break_down(reason, Kept::Disk).await?;
        self.mark_over(StepState::Failed);
        if let Some(operation) = self.operation.as_mut() {
            operation.error = Some(reason.to_owned());
            operation.step = operation.step.saturating_add(1);
        }
        self.enter_step()
    }

    /// Nothing of the VM is left on the other host.
    pub(crate) async fn leave_peer(&mut self) -> Result<(), TxError> {
        if let Some(found) = migration::find(self.tx, self.vm.id).await? {
            migration::end(self.tx, self.vm.id).await?;
            self.add_host_event(EventKind::Cleared {}, found.peer.id);
        }
        Ok(())
    }

    /// The other host is silent, and nobody knows for how long: nothing waits for
    /// it but what it holds. Whether anything did.
    pub(crate) async fn peer_is_silent(&mut self, peer: &HostRef) -> Result<bool, TxError> {
        let Some(current) = self.current().filter(|current| current.kind.is_at_peer()) else {
            return Ok(false);
        };
        let reason = format!("host `{}` is silent", peer.name);
        if current.kind == StepKind::Leave && !self.is_removed() {
            self.leave_behind(&reason);
            return Ok(true);
        }
        if current.kind != StepKind::Leave {
            self.give_up(&reason, false).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the other host cannot be told anything now.
    pub(crate) async fn peer_is_away(&self) -> Result<bool, TxError> {
        let Some(found) = migration::find(self.tx, self.vm.id).await? else {
            return Ok(true);
        };
        let peer = host::find(self.tx, found.peer.id).await?;
        Ok(peer.is_none_or(|peer| !peer.connected))
    }

    /// Whether the operation under way removes the VM: it ends with nothing left
    /// of it anywhere.
    fn is_removed(&self) -> bool {
        let kind = self.operation.as_ref().map(|operation| operation.kind);
        matches!(kind, Some(OperationKind::Delete | OperationKind::Shutdown))
    }

    /// Those steps, and what is left on another host of a migration that came to
    /// no good end goes with them.
    pub(crate) async fn with_peer(&self, steps: &[StepKind]) -> Result<Vec<StepKind>, TxError> {
        let left = migration::find(self.tx, self.vm.id).await?;
        let last = left.map(|_| StepKind::Leave);
        Ok(steps.iter().copied().chain(last).collect())
    }

    /// The other host cannot be cleaned: what the VM holds there stays recorded
    /// until it says that nothing is left.
    pub(crate) fn leave_behind(&mut self, reason: &str) {
        let error = self.operation.as_ref().and_then(|op| op.error.clone());
        self.mark_over(StepState::Failed);
        self.add_event(EventKind::Note {
            text: format!("The host that it was on is not cleaned yet: {reason}"),
        });
        match error {
            Some(error) => self.retire(OperationState::Failed, Some(&error)),
            None => self.retire(OperationState::Succeeded, None),
        }
    }
}
