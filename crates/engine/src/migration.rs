//! VMs that go to another host.
//!
//! **Live**, while the machine runs, in four steps. The other host makes place and
//! waits (Receive); the machine is copied there until it stands still on both
//! (Send); it runs on the other host (Run); the host it was on is cleaned (Leave).
//! **Cold**, where it does not run: what it has is copied to the datastore that
//! stopped VMs are in (Upload), the other host fetches and checks it (Arrive), the
//! copy is removed (Discard), and the host it was on cleaned (Leave). A stopped VM
//! is in the datastore already. What both hosts reach of its disks, with a saved
//! memory beside its own, is not copied: the other host takes over what is there
//! (Arrive). Which host a step is for, [`StepKind::is_at_peer`] says.
//!
//! What becomes of each disk is decided once, with the claim ([`disks`]), and both
//! hosts are told so whenever they are told anything: neither looks for itself
//! whether another one reaches a disk, and none removes what the other has.
//!
//! **The commit** is the transaction that ends Send or Arrive: the only one that
//! changes the VM's host. It finds the operation running in that very step, or it
//! does not happen: a cancel, a failure or a deadline that came first has turned
//! the operation to undoing. Before it, the machine is where it was, whatever
//! becomes of the other host; from there on it never runs there again, whatever
//! becomes of the new one. The source of a live migration may go on only by
//! `CallOff`, which is asked of it while the operation is undone, and never after
//! the commit. One that goes cold has all that it had on its old host until the
//! new one has it.
//!
//! **By post-copy**, where that is asked for, a live one runs on the other host
//! before all of its memory is there. It is the same up to the commit: Send has
//! copied the disks and gone through the memory once, and the guest stands still on
//! both; what it has changed meanwhile is still missing. Then the source is told to
//! hand that over while the guest runs elsewhere (Switch), it runs (Run), the rest
//! comes (Complete), and only then the host it was on is cleaned. So nothing of
//! post-copy begins before the commit, and nothing after it lets the source go on:
//! its hypervisor leaves a guest standing that stood before. That costs the guest
//! one more answer of a host while it stands still, and no copying. Should
//! the guest be let run at the source until Switch comes, one whose host falls
//! silent in that moment would run there with nobody to stop it.
//! Complete asks the new host, which alone knows what it has, and whether the guest
//! goes on. Where Switch, Run or Complete fail, what was in its memory is lost: the
//! VM has failed on its new host, with its disk, and can be started there.
//!
//! What the VM holds of the host that is not its own is recorded beside its claim
//! (`store/migration.rs`), for as long as something of it may be there.

mod disks;
mod ways;

use vimana_driver::{DiskPlan, Fault, FaultKind};
use vimana_model::event::EventKind;
use vimana_model::migration::{Destination, Endpoint, Limits, MigrationMode, Sent};
use vimana_model::name::{DatastoreName, HostName};
use vimana_model::operation::{OperationKind, OperationState, Situation, StepKind, StepState};
use vimana_model::saved::SavedMachine;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::HostRef;
use vimana_model::{Error, FieldError, HostId, VmId};
use vimana_protocol::agent::ToAgent;
use vimana_store::claim::Taken;
use vimana_store::host::HostRecord;
use vimana_store::migration::{Carried, MigrationRecord};
use vimana_store::operation::{MigrationPlan, OperationRecord};
use vimana_store::vm::VmRecord;
use vimana_store::{
    Conn, TxError, enrolment, host, host_datastore, migration, operation, snapshot, vm, volume,
};

use crate::Engine;
use crate::change::{Change, Holding, Kept};
use crate::host::host_view;
use crate::placement::facts;
use crate::volume::room;
pub use disks::{Disks, disk_plan, is_between, snapshot_plan};
pub use ways::{refusal_to_take, tied_by_snapshots, ties, ways};

use ways::{obstacle, source_is_away};

/// How a VM goes to another host.
struct Manner {
    mode: MigrationMode,
    /// What it holds of that host.
    holding: Holding,
    /// See [`MigrationPlan::rests_as`].
    rests_as: Option<VmState>,
}

/// How one in that state does.
const fn manner(state: VmState) -> Manner {
    match state {
        VmState::PoweredOff => Manner {
            mode: MigrationMode::Cold,
            holding: Holding::Disk,
            rests_as: Some(VmState::PoweredOff),
        },
        VmState::Suspended | VmState::Stopped => Manner {
            mode: MigrationMode::Cold,
            holding: Holding::Saved,
            rests_as: Some(VmState::Suspended),
        },
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Running
        | VmState::Migrate
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Unknown
        | VmState::Failed => Manner {
            mode: MigrationMode::Live,
            holding: Holding::Full,
            rests_as: None,
        },
    }
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
            elsewhere: Some(disk_plan(found)),
        };
        self.inner.agents.send_frame(found.peer.id, frame);
        Ok(())
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

/// What becomes of the VM's disks; nothing is said where it goes nowhere.
pub async fn disks_on_their_way(conn: &impl Conn, vm: VmId) -> vimana_store::Result<DiskPlan> {
    let found = migration::find(conn, vm).await?;
    Ok(found.as_ref().map(disk_plan).unwrap_or_default())
}

/// Whether it has a machine run elsewhere before all of its memory is there.
pub fn goes_by_post_copy(operation: &OperationRecord) -> bool {
    let mut steps = operation.steps.iter();
    steps.any(|step| step.kind == StepKind::Switch)
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
    /// Begins to bring the VM where it is to go. Everything is looked at before
    /// anything is promised, and the room there claimed.
    ///
    /// # Errors
    /// `Invalid` where there is no such place, `Conflict` with what keeps the VM
    /// from going there.
    pub(crate) async fn begin_migrate(
        &mut self,
        by: &str,
        destination: &Destination,
    ) -> Result<(), TxError> {
        match destination {
            Destination::Host {
                name,
                datastore,
                mode,
                limits,
            } => {
                let to = (name, datastore.as_ref());
                self.begin_travel(by, to, *mode, *limits).await
            }
            Destination::Datastore(to) => self.begin_move_all(by, to).await,
        }
    }

    async fn begin_travel(
        &mut self,
        by: &str,
        (to, into): (&HostName, Option<&DatastoreName>),
        wanted: Option<MigrationMode>,
        limits: Limits,
    ) -> Result<(), TxError> {
        let Manner {
            mode,
            holding,
            rests_as,
        } = manner(self.vm.state);
        if wanted.is_some_and(|wanted| wanted != mode) {
            let name = &self.vm.name;
            let message = match mode {
                MigrationMode::Live => {
                    format!("`{name}` runs: it migrates live; suspend it or power it off first")
                }
                MigrationMode::Cold | MigrationMode::Storage => {
                    format!("`{name}` does not run: it migrates cold")
                }
            };
            return Err(Error::conflict(message).into());
        }
        if mode != MigrationMode::Live && limits.post_copy {
            let message = format!(
                "`{}` does not run: only what runs migrates by post-copy",
                self.vm.name
            );
            return Err(Error::conflict(message).into());
        }
        if mode != MigrationMode::Live && limits != Limits::default() {
            let message = format!(
                "`{}` does not run: there are no limits for what is copied of it",
                self.vm.name
            );
            return Err(Error::conflict(message).into());
        }
        let from = self.vm.host.clone();
        let there = host::find_by_name(self.tx, to).await?;
        // Held until the end: what is wanted of it stays as it is.
        let there = match there {
            Some(there) => enrolment::lock(self.tx, there.id).await?,
            None => None,
        };
        let Some(there) = there else {
            let message = format!("there is no host `{to}`");
            return Err(Error::from(FieldError::new("host", message)).into());
        };
        let peer = host_ref(&there);
        let (resources, disks) = self.carried(&there, into, holding).await?;
        let shares_all = disks.iter().all(|disk| disk.shared);
        let kind = OperationKind::Migrate;
        let steps = kind.steps(Situation {
            post_copy: limits.post_copy,
            ..self.situation(false)
        });
        // What is where both hosts reach it is neither copied nor removed.
        let carries =
            |step: &&StepKind| !shares_all || !matches!(step, StepKind::Upload | StepKind::Discard);
        let steps: Vec<StepKind> = steps.iter().filter(carries).copied().collect();
        self.begin(kind, &steps, by).await?;
        let operation = self.operation.as_mut();
        let operation = operation.ok_or_else(|| Error::internal("an operation has begun"))?;
        let operation_id = operation.id;
        for step in &mut operation.steps {
            if let StepKind::Send | StepKind::Arrive = step.kind {
                step.migration = Some(MigrationPlan {
                    mode,
                    from: from.clone(),
                    to: peer.clone(),
                    datastore: into.cloned(),
                    rests_as,
                    limits,
                    endpoint: None,
                    sent: None,
                });
            }
        }
        let wanted = MigrationRecord {
            vm_id: self.vm.id,
            operation_id,
            peer,
            resources,
            datastore: into.unwrap_or(&self.vm.datastore).clone(),
            disks,
            committed: false,
        };
        match migration::begin(self.tx, &wanted).await? {
            Taken::Ok => {}
            Taken::NoRoom => {
                let message = format!("host `{to}` has no room for `{}`", self.vm.name);
                return Err(Error::conflict(message).into());
            }
        }
        for (_, disk) in wanted.copied_volumes() {
            let claimed = disk.claimed();
            room::change(self.tx, &wanted.peer, &disk.datastore, MiB(0), claimed).await?;
        }
        let begun = EventKind::Expected {
            from: from.map(|from| from.name),
        };
        self.add_host_event(begun, wanted.peer.id);
        Ok(())
    }

    /// What the VM is to hold of the other host, and what becomes of its disks where it
    /// goes there from its own, if it is on one.
    ///
    /// # Errors
    /// `Conflict` with what keeps it from going.
    async fn carried(
        &self,
        there: &HostRecord,
        into: Option<&DatastoreName>,
        holding: Holding,
    ) -> Result<(Resources, Vec<Carried>), TxError> {
        let here = match &self.vm.host {
            Some(on) => {
                let here = host::find(self.tx, on.id).await?;
                let away = || Error::conflict(source_is_away(&self.vm));
                Some(here.filter(|here| here.connected).ok_or_else(away)?)
            }
            None => None,
        };
        let on = here.as_ref().map(|here| here.id);
        let hosts: Vec<HostId> = on.into_iter().chain([there.id]).collect();
        let disks = Disks {
            vm: &self.vm,
            volumes: &volume::of_vm(self.tx, self.vm.id).await?,
            snapshots: &snapshot::for_vm(self.tx, self.vm.id).await?,
            places: &host_datastore::for_hosts(self.tx, &hosts).await?,
        };
        if let Some(obstacle) = obstacle(&disks, here.as_ref(), there) {
            return Err(Error::conflict(obstacle).into());
        }
        if let Some(ties) = ties(self.tx, &self.vm).await? {
            return Err(Error::conflict(ties).into());
        }
        let carried = disks.carried(on, there, into);
        let carried = carried.map_err(Error::conflict)?;
        let size = holding.of(self.vm.resources);
        let facts = facts(&host_view(there.clone(), Vec::new()));
        match disks.lack(size, &carried, &facts) {
            Some(lack) => Err(Error::conflict(lack).into()),
            None => Ok((disks.own_claim(size, &carried), carried)),
        }
    }

    /// The host that is to do `step`.
    pub(crate) async fn host_of(&self, step: StepKind) -> Result<Option<HostId>, TxError> {
        Ok(host_of_step(self.tx, &self.vm, step).await?)
    }

    fn plan(&self) -> Option<&MigrationPlan> {
        let steps = &self.operation.as_ref()?.steps;
        steps.iter().find_map(|step| step.migration.as_ref())
    }

    /// The state of a VM that goes elsewhere and does not run.
    pub(crate) fn rests_as(&self) -> Option<VmState> {
        self.plan().and_then(|plan| plan.rests_as)
    }

    /// That of the step under way, or the one to come that it is for; of Switch,
    /// that of Send.
    fn plan_mut(&mut self) -> Option<&mut MigrationPlan> {
        let switches = self.current().is_some_and(|c| c.kind == StepKind::Switch);
        let operation = self.operation.as_mut()?;
        let from = usize::try_from(operation.step).ok()?;
        let from = from.saturating_sub(usize::from(switches));
        let steps = operation.steps.get_mut(from..)?;
        steps.iter_mut().find_map(|step| step.migration.as_mut())
    }

    /// Where the other host waits, or what sending took.
    pub(crate) fn note_migration(&mut self, endpoint: Option<Endpoint>, sent: Option<Sent>) {
        if let Some(plan) = self.plan_mut() {
            plan.endpoint = endpoint.or(plan.endpoint);
            plan.sent = sent.or(plan.sent);
        }
    }

    /// Why a step failed: whose disk is full, where two hosts have to do with it.
    pub(crate) fn whose(&self, step: StepKind, fault: &Fault) -> String {
        let message = &fault.message;
        match self.plan() {
            Some(plan)
                if fault.kind == FaultKind::NoSpace && plan.mode != MigrationMode::Storage =>
            {
                let to = &plan.to.name;
                if step == StepKind::Send {
                    return format!("the disk of host `{to}` is full");
                }
                if step.is_at_peer() {
                    return format!("host `{to}`: {message}");
                }
                message.clone()
            }
            Some(_) | None => message.clone(),
        }
    }

    /// Whether the step under way cannot go on without what was to come with the
    /// answer that its host gave.
    pub(crate) async fn lacks(
        &self,
        saved: Option<&SavedMachine>,
        endpoint: Option<Endpoint>,
        sent: Option<Sent>,
    ) -> Result<bool, TxError> {
        let Some(current) = self.current().filter(|current| !current.undo) else {
            return Ok(false);
        };
        if current.kind == StepKind::Upload {
            return match saved {
                Some(saved) => Ok(!self.is_whole(saved).await?),
                None => Ok(true),
            };
        }
        Ok((current.kind == StepKind::Receive && endpoint.is_none())
            || (matches!(current.kind, StepKind::Send | StepKind::Switch) && sent.is_none()))
    }

    /// Whether that is all that another host needs of the machine.
    async fn is_whole(&self, saved: &SavedMachine) -> Result<bool, TxError> {
        let disks = disks_on_their_way(self.tx, self.vm.id).await?;
        let off = self.rests_as() == Some(VmState::PoweredOff);
        let wanted = disks.parts(!off);
        Ok(wanted.into_iter().all(|part| saved.has(part)))
    }

    /// The machine has arrived, and stands still on both hosts or does not run: from
    /// here on the other one has it.
    pub(crate) async fn commit_migration(&mut self) -> Result<(), TxError> {
        let found = migration::find(self.tx, self.vm.id).await?;
        let nowhere = || Error::internal("a machine has arrived nowhere");
        let found = found.ok_or_else(nowhere)?;
        self.vm.datastore = found.datastore.clone();
        match self.vm.host.replace(found.peer.clone()) {
            Some(from) => {
                migration::commit(self.tx, &found, &from).await?;
                self.bring_volumes(&found, &from).await?;
            }
            None => migration::settle(self.tx, &found).await?,
        }
        let Some(rests_as) = self.rests_as() else {
            self.vm.run_epoch = self.vm.run_epoch.saturating_add(1);
            // The host it was on may have fallen silent since it answered.
            return self.turn(VmState::Migrate);
        };
        let saved = self.vm.saved.as_ref();
        let sent = Sent {
            transferred_bytes: saved.map_or(0, SavedMachine::size_bytes),
            ..Sent::default()
        };
        self.note_migration(None, Some(sent));
        self.add_migrated();
        self.turn(rests_as)
    }

    /// The VM's volumes are on its new host, too. What was copied of them holds room
    /// on the one they came from until nothing of them is left there.
    async fn bring_volumes(
        &mut self,
        found: &MigrationRecord,
        from: &HostRef,
    ) -> Result<(), TxError> {
        for disk in &found.disks {
            let Some(id) = disk.volume else { continue };
            let record = volume::lock(self.tx, id).await?;
            let lost = || Error::internal("a VM goes with a volume that is not recorded");
            let mut record = record.ok_or_else(lost)?;
            if disk.shared {
                let (from, to) = (from.id, found.peer.id);
                let claimed = disk.claimed();
                host_datastore::hand_over(self.tx, &disk.datastore, from, to, claimed).await?;
            }
            record.host = Some(found.peer.clone());
            record.datastore = disk.datastore.clone();
            volume::update(self.tx, &mut record).await?;
            let came = EventKind::VolumeCame {
                name: record.name,
                to: found.peer.name.clone(),
            };
            self.add_volume_event(came, id);
        }
        Ok(())
    }

    fn add_migrated(&mut self) {
        if let Some(plan) = self.plan() {
            let from = plan.from.as_ref().map(|from| from.name.clone());
            let to = plan.to.name.clone();
            self.add_event(EventKind::Migrated { from, to });
        }
    }

    /// It runs on its new host.
    pub(crate) fn arrived(&mut self) -> Result<(), TxError> {
        self.add_migrated();
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
            let from = usize::try_from(operation.step).unwrap_or(usize::MAX);
            let rest = operation.steps.iter_mut().skip(from);
            for step in rest.take_while(|step| step.kind != StepKind::Leave) {
                step.state = StepState::Skipped;
                operation.step = operation.step.saturating_add(1);
            }
        }
        self.enter_step()?;
        // It may be its silence that all of this comes from.
        if self.peer_is_away().await? {
            self.leave_behind("the host is away");
        }
        Ok(())
    }

    /// Nothing of the VM is left on the other host.
    pub(crate) async fn leave_peer(&mut self) -> Result<(), TxError> {
        if let Some(found) = migration::find(self.tx, self.vm.id).await? {
            migration::end(self.tx, self.vm.id).await?;
            for (_, disk) in found.copied_volumes() {
                let claimed = disk.claimed();
                room::release(self.tx, found.peer.id, &disk.datastore, claimed).await?;
            }
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
