//! A VM under change: every change of a VM and its operation goes through
//! [`Change`], inside one transaction, together with the events it causes.

use std::collections::BTreeMap;

use vimana_model::event::{Actor, EventKind};
use vimana_model::name::UserName;
use vimana_model::operation::OperationState;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::Failure;
use vimana_model::{Error, HostId, OperationId, Timestamp, VmId, VolumeId};
use vimana_store::claim::Taken;
use vimana_store::event::NewEvent;
use vimana_store::operation::OperationRecord;
use vimana_store::vm::{Counts, VmRecord};
use vimana_store::{TxError, WriteTx, claim, event, operation, schedule, snapshot, vm};

use crate::context::World;
use crate::quota::{self, Growth};

/// A VM under change. Nothing is written before [`Change::save`].
pub struct Change<'a> {
    pub(crate) tx: &'a WriteTx,
    pub(crate) world: &'a World,
    pub(crate) now: Timestamp,
    actor: Actor,
    pub vm: VmRecord,
    /// The operation in flight, if any.
    pub operation: Option<OperationRecord>,
    /// Operations that this change brought to their end.
    pub(crate) ended: Vec<OperationRecord>,
    /// The operation that this change began.
    pub(crate) begun: Option<OperationId>,
    /// The host concerned at the start; its counters may change.
    host_id: Option<HostId>,
    events: Vec<(EventKind, Option<VolumeId>)>,
    /// Facts of hosts that are not the VM's own.
    host_events: Vec<(EventKind, HostId)>,
    /// Something changed that is no event.
    touched: bool,
    /// Something is accepted by it: what the VM counts more must fit its quotas.
    pub(crate) accepts: bool,
    /// What is taken more of beside that, and whose it is.
    growth: BTreeMap<UserName, Growth>,
}

/// What a VM and its operation look like after a change.
pub type Changed = (VmRecord, Option<OperationRecord>);

/// What a VM holds of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It runs, or may.
    Full,
    /// It runs while its memory is being saved beside its disk.
    FullAndSaved,
    /// Its memory is saved.
    Saved,
    /// It is off.
    Disk,
}

impl Holding {
    /// The amounts for a VM of this size.
    pub fn of(self, size: Resources) -> Resources {
        let saved = MiB(size.disk_mib.0.saturating_add(size.memory_mib.0));
        match self {
            Self::Full => size,
            Self::FullAndSaved => Resources {
                disk_mib: saved,
                ..size
            },
            Self::Saved => Resources {
                vcpus: 0,
                memory_mib: MiB(0),
                disk_mib: saved,
            },
            Self::Disk => Resources {
                vcpus: 0,
                memory_mib: MiB(0),
                ..size
            },
        }
    }
}

/// With what its snapshots hold beside it.
pub fn with_kept(resources: Resources, kept: MiB) -> Resources {
    Resources {
        disk_mib: MiB(resources.disk_mib.0.saturating_add(kept.0)),
        ..resources
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

impl<'a> Change<'a> {
    /// Locks the VM and its operation in flight; `None` if there is no such VM.
    pub async fn lock(
        tx: &'a WriteTx,
        world: &'a World,
        actor: Actor,
        id: VmId,
    ) -> Result<Option<Self>, TxError> {
        let Some(vm) = vm::lock(tx, id).await? else {
            return Ok(None);
        };
        let operation = operation::in_flight(tx, vm.operation_id).await?;
        Ok(Some(Self::of(tx, world, actor, vm, operation)))
    }

    /// A VM that was just inserted or locked in this transaction.
    pub fn of(
        tx: &'a WriteTx,
        world: &'a World,
        actor: Actor,
        vm: VmRecord,
        operation: Option<OperationRecord>,
    ) -> Self {
        Self {
            tx,
            world,
            now: world.now(),
            actor,
            host_id: vm.host.as_ref().map(|host| host.id),
            vm,
            operation,
            ended: Vec::new(),
            begun: None,
            events: Vec::new(),
            host_events: Vec::new(),
            touched: false,
            accepts: false,
            growth: BTreeMap::new(),
        }
    }

    pub fn is_on(&self, host: HostId) -> bool {
        self.vm.host.as_ref().is_some_and(|on| on.id == host)
    }

    pub fn add_event(&mut self, event: EventKind) {
        self.events.push((event, None));
    }

    /// A fact of a host that is not the VM's own; it is of the VM, too.
    pub fn add_host_event(&mut self, event: EventKind, host: HostId) {
        self.host_events.push((event, host));
    }

    /// A fact that is the volume's, too.
    pub fn add_volume_event(&mut self, event: EventKind, volume: VolumeId) {
        self.events.push((event, Some(volume)));
    }

    /// Something is to be saved that makes no event.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// This user takes so much more, which is recorded: refused by
    /// [`Change::save`] where it does not fit the quotas.
    pub(crate) fn take_more(&mut self, user: UserName, growth: Growth) {
        let before = self.growth.remove(&user).unwrap_or_default();
        self.growth.insert(user, quota::sum(before, growth));
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
        self.add_event(EventKind::State { from, to });
        Ok(())
    }

    /// Changes what the VM holds of its host.
    ///
    /// # Errors
    /// `Conflict` where the host has no room for more.
    pub async fn hold(&mut self, holding: Holding) -> Result<(), TxError> {
        self.hold_exactly(holding.of(self.vm.resources)).await
    }

    /// As [`Change::hold`], for amounts that are not the VM's own. What its
    /// snapshots hold, and a backup that is being made, comes on top.
    pub async fn hold_exactly(&mut self, wanted: Resources) -> Result<(), TxError> {
        if self.vm.host.is_none() {
            return Ok(());
        }
        self.claim_exactly(with_kept(wanted, self.vm.kept)).await
    }

    /// As [`Change::hold_exactly`], everything counted.
    async fn claim_exactly(&mut self, wanted: Resources) -> Result<(), TxError> {
        let Some(host) = &self.vm.host else {
            return Ok(());
        };
        match claim::change(self.tx, self.vm.id, wanted).await? {
            Taken::Ok => Ok(()),
            Taken::NoRoom => {
                let message = format!(
                    "host `{}` has no room for `{}`: it needs {} vCPUs, {} memory and {} disk there",
                    host.name, self.vm.name, wanted.vcpus, wanted.memory_mib, wanted.disk_mib
                );
                Err(Error::conflict(message).into())
            }
        }
    }

    /// Holds so much beside what the VM itself needs: for its snapshots, and for
    /// a backup that is being made.
    ///
    /// # Errors
    /// `Conflict` where the host has no room for more.
    pub(crate) async fn keep(&mut self, kept: MiB) -> Result<(), TxError> {
        let before = std::mem::replace(&mut self.vm.kept, kept);
        if self.vm.host.is_none() {
            return Ok(());
        }
        let claim = claim::find(self.tx, self.vm.id).await?;
        let missing = || Error::internal("a machine on a host without a claim");
        let mut wanted = claim.ok_or_else(missing)?.resources;
        let own = wanted.disk_mib.0.saturating_sub(before.0);
        wanted.disk_mib = MiB(own.saturating_add(kept.0));
        self.claim_exactly(wanted).await
    }

    /// Gives everything on the host back. Its snapshots went with its disk; its
    /// volumes stay where they are.
    pub async fn leave_host(&mut self) -> Result<(), TxError> {
        self.leave(false).await
    }

    /// As [`Change::leave_host`]; `for_good` takes the volumes along that go with
    /// the VM.
    async fn leave(&mut self, for_good: bool) -> Result<(), TxError> {
        self.give_second_place_back().await?;
        claim::give_back(self.tx, self.vm.id).await?;
        for record in snapshot::for_vm(self.tx, self.vm.id).await? {
            self.give_back_elsewhere(&record).await?;
        }
        snapshot::delete_all(self.tx, self.vm.id).await?;
        if for_good {
            schedule::delete_all(self.tx, self.vm.id).await?;
        }
        self.vm.kept = MiB(0);
        self.vm.snapshot_id = None;
        self.let_volumes_go(for_good).await?;
        self.vm.host = None;
        Ok(())
    }

    /// Nothing is left of the VM but its record: gives everything back.
    pub async fn finish(&mut self) -> Result<(), TxError> {
        self.leave(true).await?;
        self.vm.saved = None;
        self.turn(VmState::Done)
    }

    /// The VM broke. What it holds on its host from here on is told by `kept`.
    pub async fn break_down(&mut self, reason: &str, kept: Kept) -> Result<(), TxError> {
        match kept {
            Kept::Nothing => self.leave_host().await?,
            Kept::Disk => self.hold(Holding::Disk).await?,
            Kept::Everything => {}
        }
        // What it was before is in its timeline; it was not silence that broke.
        let during = if self.vm.state == VmState::Unknown {
            VmState::Running
        } else {
            self.vm.state
        };
        self.turn(VmState::Failed)?;
        self.vm.failure = Some(Failure {
            during,
            reason: reason.to_owned(),
        });
        self.add_event(EventKind::Failed {
            during,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Leaves the record as it is.
    #[expect(clippy::unnecessary_wraps, reason = "ends a transaction's body")]
    pub fn unchanged(self) -> Result<Changed, TxError> {
        Ok((self.vm, self.operation))
    }

    /// As [`Change::save`], but writes nothing where nothing happened.
    pub async fn save_if_changed(self) -> Result<Changed, TxError> {
        if self.events.is_empty() && self.host_events.is_empty() && !self.touched {
            self.unchanged()
        } else {
            self.save().await
        }
    }

    /// Writes everything down.
    pub async fn save(mut self) -> Result<Changed, TxError> {
        self.end_backups().await?;
        let counts = quota::counts(&self.vm, self.operation.as_ref());
        let before = std::mem::replace(&mut self.vm.counts, counts);
        vm::update(self.tx, &mut self.vm).await?;
        for record in self.ended.iter().chain(&self.operation) {
            if self.begun == Some(record.id) {
                operation::insert(self.tx, record).await?;
            } else {
                operation::update(self.tx, record).await?;
            }
        }
        if self.accepts {
            self.admit(before).await?;
        }
        let host_id = self.vm.host.as_ref().map(|host| host.id).or(self.host_id);
        let fact = |(event, volume_id)| NewEvent {
            at: self.now,
            actor: self.actor.clone(),
            tenant_id: Some(self.vm.tenant_id),
            vm_id: Some(self.vm.id),
            host_id,
            request_id: None,
            image_id: None,
            volume_id,
            event,
        };
        let elsewhere = self.host_events.drain(..);
        let elsewhere: Vec<NewEvent> = elsewhere
            .map(|(event, host)| NewEvent {
                host_id: Some(host),
                ..fact((event, None))
            })
            .collect();
        let mut facts: Vec<NewEvent> = self.events.drain(..).map(fact).collect();
        facts.extend(elsewhere);
        facts.extend(crate::request::follow(self.tx, &self.vm, self.now).await?);
        if !facts.is_empty() {
            event::append(self.tx, &facts).await?;
        }
        Ok((self.vm, self.operation))
    }

    /// What is taken more of, by what is accepted here, must fit.
    async fn admit(&mut self, before: Counts) -> Result<(), TxError> {
        let of_vm = quota::growth(before, self.vm.counts);
        self.take_more(self.vm.owner_name.clone(), of_vm);
        for (user, growth) in std::mem::take(&mut self.growth) {
            let warnings = quota::admit(self.tx, self.vm.tenant_id, &user, &growth).await?;
            for text in warnings {
                self.add_event(EventKind::Note { text });
            }
        }
        Ok(())
    }

    /// The operation of `state` that is in flight is over.
    pub(crate) fn retire(&mut self, state: OperationState, error: Option<&str>) {
        if let Some(mut operation) = self.operation.take() {
            crate::operation::end(&mut operation, state, error, self.now);
            self.ended.push(operation);
        }
    }
}
