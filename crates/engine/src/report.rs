//! What agents report: answers to commands, machines that changed by
//! themselves, and the whole inventory when they connect.

use std::collections::HashMap;

use vimana_driver::{Fault, FaultKind, Observed, Power};
use vimana_model::event::{Actor, EventKind};
use vimana_model::operation::StepKind;
use vimana_model::state::VmState;
use vimana_model::{Error, HostId, Result, VmId};
use vimana_protocol::agent::{CommandRef, Outcome};
use vimana_store::operation::OperationRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{TxError, operation, vm, write_tx};

use crate::Engine;
use crate::progress::{Change, Kept};

impl Engine {
    /// Compares what is recorded with what the host really holds.
    pub(crate) async fn reconcile_inventory(
        &self,
        host_id: HostId,
        actor: &Actor,
        inventory: Vec<Observed>,
    ) -> Result<()> {
        let recorded = vm::on_host(&self.store().read(), host_id).await?;
        let mut held: HashMap<VmId, Observed> = inventory
            .into_iter()
            .map(|observed| (observed.vm_id, observed))
            .collect();
        for record in recorded {
            let observed = held.remove(&record.id);
            let (vm, operation) = self
                .reconcile_vm(host_id, actor, record.id, observed)
                .await?;
            self.dispatch(&vm, operation.as_ref()).await;
        }
        for orphan in held.into_values() {
            // Never kill the unknown: it stays until a person decides.
            tracing::warn!(host = %host_id, vm = %orphan.vm_id, "the host holds a machine that is not recorded there");
        }
        Ok(())
    }

    async fn reconcile_vm(
        &self,
        host_id: HostId,
        actor: &Actor,
        id: VmId,
        observed: Option<Observed>,
    ) -> Result<(VmRecord, Option<OperationRecord>)> {
        let world = self.world();
        write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, actor.clone(), id).await? else {
                return Err(Error::not_found(format!("vm `{id}`")).into());
            };
            if change
                .vm
                .host
                .as_ref()
                .is_none_or(|host| host.id != host_id)
            {
                return change.unchanged();
            }
            if change.step().is_some() {
                // The step's command goes out again and settles the rest.
                change.enter_step()?;
            } else {
                let power = observed
                    .as_ref()
                    .filter(|observed| observed.run_epoch == change.vm.run_epoch)
                    .map(|observed| observed.power.clone());
                settle(&mut change, power.as_ref()).await?;
            }
            change.save_if_changed().await
        })
    }

    /// An agent answers a command.
    pub(crate) async fn command_done(
        &self,
        host_id: HostId,
        actor: &Actor,
        command: CommandRef,
        outcome: Outcome,
    ) -> Result<()> {
        let world = self.world();
        let found = operation::find(&self.store().read(), command.operation_id).await?;
        let Some(id) = found.map(|operation| operation.vm_id) else {
            return Ok(());
        };
        let changed = write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, actor.clone(), id).await? else {
                return Ok(None);
            };
            let current = change.operation.as_ref().map(|operation| operation.id);
            let placed_here = change
                .vm
                .host
                .as_ref()
                .is_some_and(|host| host.id == host_id);
            let step = change.step().filter(|(index, _)| *index == command.step);
            let Some((_, kind)) =
                step.filter(|_| placed_here && current == Some(command.operation_id))
            else {
                // An answer to something that is over.
                return Ok(None);
            };
            match &outcome {
                Outcome::Ok { note } => {
                    if let Some(text) = note {
                        change.add_event(EventKind::Note { text: text.clone() });
                    }
                    change.end_step().await?;
                }
                Outcome::Fault { fault } => step_failed(&mut change, kind, fault).await?,
            }
            change.save().await.map(Some)
        })?;
        self.inner.hub.wake();
        if let Some((vm, operation)) = changed {
            self.dispatch(&vm, operation.as_ref()).await;
        }
        Ok(())
    }

    /// An agent saw a machine change by itself.
    pub(crate) async fn observed(
        &self,
        host_id: HostId,
        actor: &Actor,
        observed: Observed,
    ) -> Result<()> {
        let world = self.world();
        let changed = write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, actor.clone(), observed.vm_id).await?;
            let Some(mut change) = lock else {
                return Ok(false);
            };
            let placed_here = change
                .vm
                .host
                .as_ref()
                .is_some_and(|host| host.id == host_id);
            if !placed_here || change.vm.run_epoch != observed.run_epoch {
                return Ok(false);
            }
            match change.step().map(|(_, kind)| kind) {
                None => settle(&mut change, Some(&observed.power)).await?,
                // It ran, and ended before the answer to Boot came through.
                Some(StepKind::Boot) if ended(&observed.power) => {
                    change.end_step().await?;
                    settle(&mut change, Some(&observed.power)).await?;
                }
                // The step in flight will say how it ended.
                Some(
                    StepKind::Place
                    | StepKind::Prepare
                    | StepKind::Boot
                    | StepKind::Shutdown
                    | StepKind::Kill
                    | StepKind::Clean,
                ) => return Ok(false),
            }
            change.save_if_changed().await?;
            Ok(true)
        })?;
        if changed {
            self.inner.hub.wake();
        }
        Ok(())
    }
}

const fn ended(power: &Power) -> bool {
    match power {
        Power::Off | Power::Crashed { .. } => true,
        Power::Prepared | Power::Running => false,
    }
}

/// Brings a VM without an operation in flight in line with what its host
/// observed; `None` means the host does not hold it.
async fn settle(change: &mut Change<'_>, power: Option<&Power>) -> Result<(), TxError> {
    match change.vm.state {
        VmState::Running | VmState::Unknown | VmState::PoweredOff => {}
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Suspended
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Failed => return Ok(()),
    }
    match power {
        Some(Power::Running) => change.turn(VmState::Running),
        Some(Power::Off) => change.turn(VmState::PoweredOff),
        Some(Power::Crashed { reason }) => change.fail(reason, Kept::Disk).await,
        Some(Power::Prepared) => {
            let reason = "the machine did not run any more when its host came back";
            change.fail(reason, Kept::Disk).await
        }
        None => {
            let reason = "its host came back without the machine and its disk";
            change.fail(reason, Kept::Nothing).await
        }
    }
}

/// What a fault means depends on how far the operation was.
async fn step_failed(
    change: &mut Change<'_>,
    kind: StepKind,
    fault: &Fault,
) -> Result<(), TxError> {
    let kept = match (kind, fault.kind) {
        // A host that no longer has the machine has nothing to stop or remove.
        (StepKind::Shutdown | StepKind::Kill | StepKind::Clean, FaultKind::NoSuchVm) => {
            return change.end_step().await;
        }
        // Not overtaken by us, or this step would not be current: who knows.
        (_, FaultKind::Cancelled) => Kept::Everything,
        // A failed prepare leaves nothing behind, a failed boot the disk.
        (StepKind::Place | StepKind::Prepare, _) => Kept::Nothing,
        (StepKind::Boot, FaultKind::NoSuchVm) => Kept::Nothing,
        (StepKind::Boot, _) => Kept::Disk,
        (StepKind::Shutdown | StepKind::Kill | StepKind::Clean, _) => Kept::Everything,
    };
    change.fail(&fault.message, kept).await
}
