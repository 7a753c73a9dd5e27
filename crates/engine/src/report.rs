//! What agents report: answers to commands, machines that changed by
//! themselves, and the whole inventory when they connect.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vimana_driver::{Fault, FaultKind, Observed, Power};
use vimana_model::event::{Actor, EventKind};
use vimana_model::operation::{OperationKind, StepKind};
use vimana_model::state::VmState;
use vimana_model::{HostId, OperationId, Result, VmId};
use vimana_protocol::agent::{CommandRef, Outcome};
use vimana_store::operation::OperationRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{TxError, migration, operation, vm, write_tx};

use crate::Engine;
use crate::agent::Speaker;
use crate::change::{Change, Changed, Holding, Kept};
use crate::dispatch::command_ref;

/// An answer to a command.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The host that gives it; none for the server's own work.
    pub host: Option<HostId>,
    pub command: CommandRef,
    pub claim_epoch: u64,
    pub outcome: Outcome,
}

/// Machines that began to run, or ended, while something was under way for
/// them: what that leads to, its end tells. A step that failed may have done
/// its work all the same. Only in memory: hosts that connect anew say all of it
/// again.
#[derive(Default)]
pub struct Sightings {
    by_vm: Mutex<BTreeMap<VmId, Observed>>,
}

impl Sightings {
    fn keep(&self, observed: Observed) {
        if ended(&observed.power) || observed.power == Power::Running {
            self.lock().insert(observed.vm_id, observed);
        } else {
            self.forget(observed.vm_id);
        }
    }

    fn of(&self, id: VmId) -> Option<Observed> {
        self.lock().get(&id).cloned()
    }

    fn forget(&self, id: VmId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Observed>> {
        self.by_vm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Compares what is recorded with what the host really holds, takes on
    /// the operations under way there, and sends their commands.
    pub(crate) async fn reconcile_inventory(
        &self,
        speaker: &Speaker,
        inventory: Vec<Observed>,
    ) -> Result<()> {
        let recorded = vm::on_host(&self.store().read(), speaker.host_id).await?;
        let in_flight = self.in_flight(&recorded).await?;
        let mut held: BTreeMap<VmId, Observed> = inventory
            .into_iter()
            .map(|observed| (observed.vm_id, observed))
            .collect();
        self.reconcile_peers(speaker, &mut held).await?;
        for record in recorded {
            let observed = held.remove(&record.id);
            let operates = record
                .operation_id
                .is_some_and(|id| in_flight.contains_key(&id));
            // As a rule nothing has changed, and then nothing is written.
            if !operates && is_settled(&record, observed.as_ref()) {
                continue;
            }
            match &observed {
                Some(observed) if operates => self.inner.sightings.keep(observed.clone()),
                Some(_) | None => self.inner.sightings.forget(record.id),
            }
            let changed = self.reconcile_vm(speaker, record.id, observed).await?;
            if let Some((vm, operation)) = changed {
                self.dispatch(&vm, operation.as_ref()).await;
            }
        }
        self.remind_of_volumes(Some(speaker.host_id)).await?;
        self.quarantine(speaker, held).await
    }

    /// Of VMs that are on another host, and go to this one or were on it.
    async fn reconcile_peers(
        &self,
        speaker: &Speaker,
        held: &mut BTreeMap<VmId, Observed>,
    ) -> Result<()> {
        for found in migration::on_host(&self.store().read(), speaker.host_id).await? {
            let observed = held.remove(&found.vm_id);
            let operation = operation::find(&self.store().read(), found.operation_id).await?;
            let changed = self.reconcile_vm(speaker, found.vm_id, observed.clone());
            if let Some((vm, operation)) = changed.await? {
                self.dispatch(&vm, operation.as_ref()).await;
                continue;
            }
            if operation.is_some_and(|operation| !operation.state.is_over()) {
                continue;
            }
            match observed {
                // Left over from a migration that is through.
                Some(observed) => self.discard_leftover(&found, observed.run_epoch).await?,
                None => self.peer_is_clean(speaker, found.vm_id).await?,
            }
        }
        Ok(())
    }

    /// Nothing is left there of what a migration that is through left behind.
    pub(crate) async fn peer_is_clean(&self, speaker: &Speaker, id: VmId) -> Result<()> {
        let world = self.world();
        if migration::find(&self.store().read(), id).await?.is_none() {
            return Ok(());
        }
        write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, speaker.actor.clone(), id).await?;
            let (Some(mut change), true) = (lock, speaker.is_current(tx).await?) else {
                return Ok(());
            };
            let found = migration::find(tx, id).await?;
            let here = found.is_some_and(|found| found.peer.id == speaker.host_id);
            if here && change.current().is_none() {
                change.leave_peer().await?;
                change.save().await?;
            }
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }

    async fn in_flight(
        &self,
        records: &[VmRecord],
    ) -> Result<HashMap<OperationId, OperationRecord>> {
        let mut found = self.operations_of(records).await?;
        found.retain(|_, operation| !operation.state.is_over());
        Ok(found)
    }

    async fn reconcile_vm(
        &self,
        speaker: &Speaker,
        id: VmId,
        observed: Option<Observed>,
    ) -> Result<Option<Changed>> {
        let world = self.world();
        write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, speaker.actor.clone(), id).await?;
            let Some(mut change) = lock else {
                return Ok(None);
            };
            if !speaker.is_current(tx).await? {
                return Ok(None);
            }
            if let Some(current) = change.current() {
                let here = change.is_on(speaker.host_id);
                // It may have begun since the inventory was compared.
                if let Some(observed) = observed.clone().filter(|_| here) {
                    self.inner.sightings.keep(observed);
                }
                if change.host_of(current.kind).await? != Some(speaker.host_id) {
                    // It is another one's turn, or nobody's.
                    if here && change.vm.state == VmState::Unknown {
                        change.reenter_state().await?;
                        change.save_if_changed().await?;
                    }
                    return Ok(None);
                }
                // What is under way goes out again and settles the rest. Answers
                // to what went out before have no effect any more.
                if let Some(operation) = change.operation.as_mut() {
                    operation.claim_epoch = operation.claim_epoch.saturating_add(1);
                }
                change.touch();
                if here {
                    change.reenter_state().await?;
                }
            } else if !change.is_on(speaker.host_id) {
                return Ok(None);
            } else {
                // A run that never came to be left the disk at an earlier one.
                let epoch = change.vm.run_epoch;
                let later = observed
                    .as_ref()
                    .map(|observed| observed.run_epoch)
                    .filter(|run| *run > epoch);
                if let Some(later) = later {
                    // The database has lost what it promised.
                    change.vm.run_epoch = later;
                    let reason = "its host holds a later run of it than is recorded";
                    change.break_down(reason, Kept::Everything).await?;
                    return change.save_if_changed().await.map(Some);
                }
                let of_it = |seen: &&Observed| {
                    seen.run_epoch == epoch
                        || (seen.run_epoch < epoch && seen.power != Power::Running)
                };
                let power = observed
                    .as_ref()
                    .filter(of_it)
                    .map(|observed| observed.power.clone());
                settle(&mut change, power.as_ref()).await?;
            }
            change.save_if_changed().await.map(Some)
        })
    }

    /// A command was answered.
    pub(crate) async fn command_done(&self, actor: &Actor, answer: Answer) -> Result<()> {
        let world = self.world();
        let Answer {
            host,
            command,
            claim_epoch,
            outcome,
        } = answer;
        let found = operation::find(&self.store().read(), command.operation_id).await?;
        let Some(id) = found.and_then(|operation| operation.object.vm()) else {
            return Ok(());
        };
        let changed = write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, actor.clone(), id).await? else {
                return Ok(None);
            };
            let asked = change.operation.as_ref().and_then(|operation| {
                let current = crate::saga::current(operation)?;
                Some((command_ref(operation, current), operation.claim_epoch))
            });
            let doer = match change.current() {
                Some(current) => change.host_of(current.kind).await?,
                None => None,
            };
            let from_there = host.is_none_or(|host| doer == Some(host));
            if asked != Some((command, claim_epoch)) || !from_there {
                // An answer to something that is over, or asked anew.
                return Ok(None);
            }
            let lacks = match &outcome {
                Outcome::Ok {
                    saved,
                    endpoint,
                    sent,
                    ..
                } => change.lacks(saved.as_ref(), *endpoint, *sent).await?,
                Outcome::Fault { .. } | Outcome::Unknown => false,
            };
            match &outcome {
                // A backup of which nobody says what it is, is none.
                Outcome::Ok { backup: None, .. } if change.backs_up() => {
                    change.step_failed(&not_understood()).await?;
                }
                Outcome::Ok { .. } if lacks => {
                    change.step_failed(&not_understood()).await?;
                }
                Outcome::Ok {
                    note,
                    saved,
                    backup,
                    endpoint,
                    sent,
                    place,
                } => {
                    change.note_migration(*endpoint, *sent);
                    if let Some(place) = place {
                        change.note_place(*place).await?;
                    }
                    if let Some(made) = backup.as_ref().filter(|_| change.backs_up()) {
                        change.backup_made(made).await?;
                    }
                    if let Some(text) = note {
                        change.add_event(EventKind::Note { text: text.clone() });
                    }
                    if let Some(saved) = saved {
                        change.vm.saved = Some(saved.clone());
                    }
                    change.end_step().await?;
                }
                Outcome::Fault { fault } => change.step_failed(fault).await?,
                Outcome::Unknown => change.step_failed(&not_understood()).await?,
            }
            self.settle_seen(&mut change).await?;
            change.save().await.map(Some)
        })?;
        if let Some(changed) = changed {
            self.inner.progress.ended(command, changed.1.as_ref());
            self.inner.deadlines.forget(command.operation_id);
            self.moved(changed).await;
        }
        Ok(())
    }

    /// A machine may have ended, or begun to run, while something was under
    /// way for it that is over now.
    pub(crate) async fn settle_seen(&self, change: &mut Change<'_>) -> Result<(), TxError> {
        if change.current().is_some() {
            return Ok(());
        }
        let seen = self.inner.sightings.of(change.vm.id);
        let of_this_run = seen.filter(|seen| seen.run_epoch == change.vm.run_epoch);
        match of_this_run {
            Some(seen) => settle(change, Some(&seen.power)).await,
            None => Ok(()),
        }
    }

    /// An operation moved on, or ended: tells, and has done what comes next.
    pub(crate) async fn moved(&self, changed: Changed) {
        let (vm, operation) = changed;
        if operation.is_none() {
            self.inner.sightings.forget(vm.id);
        }
        if vm.state.is_final()
            && let Err(error) = self.remind_of_volumes(None).await
        {
            // The sweep does it.
            tracing::error!(vm = %vm.id, error = ?error, "its volumes are not removed yet");
        }
        self.inner.hub.wake();
        self.dispatch(&vm, operation.as_ref()).await;
    }

    /// An agent saw a machine change by itself.
    pub(crate) async fn observed(&self, speaker: &Speaker, observed: Observed) -> Result<()> {
        let world = self.world();
        let sightings = &self.inner.sightings;
        let known = vm::find(&self.store().read(), observed.vm_id).await?;
        if known
            .as_ref()
            .is_some_and(|vm| vm.run_epoch > observed.run_epoch)
        {
            return Ok(());
        }
        // The answer to Send comes right behind, and says all of it: the guest, which
        // stands still, does not wait for a transaction that changes nothing.
        let moves = known.is_some_and(|vm| vm.state == VmState::Migrate);
        if moves && observed.power == Power::Left {
            sightings.forget(observed.vm_id);
            return Ok(());
        }
        let changed = write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, speaker.actor.clone(), observed.vm_id).await?;
            let Some(mut change) = lock else {
                return Ok(false);
            };
            let of_this_run = change.vm.run_epoch == observed.run_epoch;
            let here = change.is_on(speaker.host_id);
            if !here || !of_this_run || !speaker.is_current(tx).await? {
                return Ok(false);
            }
            let kind = change.operation.as_ref().map(|operation| operation.kind);
            let boots = change
                .current()
                .is_some_and(|current| current.kind == StepKind::Boot && !current.undo);
            match kind {
                None => settle(&mut change, Some(&observed.power)).await?,
                // It ran, and ended before the answer to Boot came through.
                Some(OperationKind::Create | OperationKind::Start)
                    if boots && ended(&observed.power) =>
                {
                    change.end_step().await?;
                    settle(&mut change, Some(&observed.power)).await?;
                }
                // What is under way will say how it ended.
                Some(_) => {
                    sightings.keep(observed.clone());
                    return Ok(false);
                }
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

/// How a step ended that an agent tells in words of a later version.
fn not_understood() -> Fault {
    let message = "its host is newer than this server, which does not know how it ended";
    Fault::new(FaultKind::Unsupported, message)
}

const fn ended(power: &Power) -> bool {
    match power {
        Power::Off | Power::Crashed { .. } => true,
        Power::Prepared
        | Power::Running
        | Power::Saved
        | Power::Arriving
        | Power::Left
        | Power::Unknown => false,
    }
}

/// Whether record and host agree, so that nothing is to be done.
fn is_settled(record: &VmRecord, observed: Option<&Observed>) -> bool {
    let power = observed
        .filter(|observed| observed.run_epoch == record.run_epoch)
        .map(|observed| &observed.power);
    match record.state {
        VmState::Running => matches!(power, Some(Power::Running)),
        VmState::PoweredOff => matches!(power, Some(Power::Off)),
        VmState::Suspended => matches!(power, Some(Power::Saved)),
        // Whatever is left of it waits for a person.
        VmState::Failed => true,
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Unknown => false,
    }
}

/// Brings a VM without an operation in flight in line with what its host
/// observed; `None` means the host does not hold it.
async fn settle(change: &mut Change<'_>, power: Option<&Power>) -> Result<(), TxError> {
    match change.vm.state {
        VmState::Running | VmState::Unknown | VmState::PoweredOff | VmState::Suspended => {}
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Failed => return Ok(()),
    }
    match power {
        // It is there, and what cannot be understood settles nothing.
        Some(Power::Unknown) => Ok(()),
        Some(Power::Running) => settle_running(change).await,
        Some(Power::Arriving | Power::Left) => {
            let reason = "the machine stands still: it was on its way to another host";
            change.break_down(reason, Kept::Everything).await
        }
        Some(Power::Saved) => {
            if change.vm.state == VmState::PoweredOff {
                return Ok(());
            }
            // Where the disk has no room for what is there already, it stays
            // accounted as it was.
            let _held = change.hold(Holding::Saved).await;
            change.turn(VmState::Suspended)
        }
        Some(Power::Off) if change.vm.state == VmState::Suspended => {
            let reason = "the saved memory was gone when its host came back";
            change.break_down(reason, Kept::Disk).await
        }
        Some(Power::Off) => {
            change.hold(Holding::Disk).await?;
            change.turn(VmState::PoweredOff)
        }
        Some(Power::Crashed { .. }) if change.vm.state == VmState::PoweredOff => Ok(()),
        Some(Power::Crashed { reason }) => change.break_down(reason, Kept::Disk).await,
        Some(Power::Prepared) => {
            let reason = "the machine did not run any more when its host came back";
            change.break_down(reason, Kept::Disk).await
        }
        None => {
            let reason = "its host came back without the machine and its disk";
            change.break_down(reason, Kept::Nothing).await
        }
    }
}

/// The machine runs. One that was off or saved needs its share again; where
/// others have taken that, the record says what is wrong.
async fn settle_running(change: &mut Change<'_>) -> Result<(), TxError> {
    let off = change.vm.state == VmState::PoweredOff;
    if off || change.vm.state == VmState::Suspended {
        if change.hold(Holding::Full).await.is_err() {
            let reason = "the machine runs without a claim on its host";
            return change.break_down(reason, Kept::Everything).await;
        }
        if off {
            change.turn(VmState::Boot)?;
        }
    }
    change.turn(VmState::Running)
}
