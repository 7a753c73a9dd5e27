//! Disks of a VM that move to another datastore of its host.

use vimana_model::action::{Refusal, VmAction};
use vimana_model::event::EventKind;
use vimana_model::migration::{Limits, MigrationMode};
use vimana_model::name::DatastoreName;
use vimana_model::operation::{OperationKind, Piece, StepKind};
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::volume::VolumeAction;
use vimana_model::{Error, VolumeId};
use vimana_store::operation::MigrationPlan;
use vimana_store::vm::DiskMove;
use vimana_store::volume::VolumeRecord;
use vimana_store::{TxError, claim, snapshot, volume};

use super::attach::piece;
use super::{accept, room};
use crate::change::Change;
use crate::migration::{is_between, tied_by_snapshots};
use crate::quota;

impl Change<'_> {
    /// Begins to bring one of the VM's volumes to another datastore of its host.
    pub(crate) async fn begin_move(
        &mut self,
        by: &str,
        id: VolumeId,
        to: &DatastoreName,
    ) -> Result<(), TxError> {
        let record = self.own_volume(id).await?;
        if *to == record.datastore && record.moving_to.is_none() {
            let message = format!("volume `{}` is in datastore `{to}` already", record.name);
            return Err(Error::conflict(message).into());
        }
        if record.moving_to.is_none() {
            let growth = quota::of_place(to, record.size);
            self.take_more(record.owner_name.clone(), growth);
        }
        self.begin_moves(by, false, vec![record], to).await
    }

    /// The same of its own disk and of all of them, one after the other.
    pub(crate) async fn begin_move_all(
        &mut self,
        by: &str,
        to: &DatastoreName,
    ) -> Result<(), TxError> {
        let name = &self.vm.name;
        let refusal = |refusal: Refusal| Error::conflict(format!("`{name}` {refusal}"));
        VmAction::Move.judge(self.vm.state).map_err(refusal)?;
        let own = *to != self.vm.datastore || self.vm.moving.is_some();
        let mut wanted = Vec::new();
        for found in volume::of_vm(self.tx, self.vm.id).await? {
            let record = self.own_volume(found.id).await?;
            if *to != record.datastore || record.moving_to.is_some() {
                wanted.push(record);
            }
        }
        if !own && wanted.is_empty() {
            let message = format!("all disks of `{name}` are in datastore `{to}` already");
            return Err(Error::conflict(message).into());
        }
        self.begin_moves(by, own, wanted, to).await
    }

    /// `own`: with its own disk, which goes first.
    async fn begin_moves(
        &mut self,
        by: &str,
        own: bool,
        mut volumes: Vec<VolumeRecord>,
        to: &DatastoreName,
    ) -> Result<(), TxError> {
        let on = self.vm.host.clone();
        let on = on.ok_or_else(|| Error::internal("a VM that has disks is on a host"))?;
        if own {
            self.claim_move_of_its_own(&on, to).await?;
        }
        for record in &mut volumes {
            self.claim_move(record, &on, to).await?;
        }
        let pieces: Vec<Option<Piece>> = std::iter::repeat_n(None, usize::from(own))
            .chain(volumes.iter().map(|record| Some(piece(record))))
            .collect();
        let steps = vec![StepKind::Move; pieces.len()];
        self.begin(OperationKind::Move, &steps, by).await?;
        let steps = self.operation.iter_mut().flat_map(|op| &mut op.steps);
        for (step, piece) in steps.zip(pieces) {
            step.piece = piece;
            step.migration = Some(MigrationPlan {
                mode: MigrationMode::Storage,
                from: Some(on.clone()),
                to: on.clone(),
                datastore: Some(to.clone()),
                rests_as: None,
                limits: Limits::default(),
                endpoint: None,
                sent: None,
            });
        }
        Ok(())
    }

    /// As [`Change::claim_move`].
    async fn claim_move_of_its_own(
        &mut self,
        on: &HostRef,
        to: &DatastoreName,
    ) -> Result<(), TxError> {
        if !snapshot::for_vm(self.tx, self.vm.id).await?.is_empty() {
            return Err(Error::conflict(tied_by_snapshots(&self.vm)).into());
        }
        match &mut self.vm.moving {
            None => {
                let held = claim::find(self.tx, self.vm.id).await?;
                let held = held.ok_or_else(|| Error::internal("a VM on a host has a claim"))?;
                let size = held.resources.disk_mib;
                room::change(self.tx, on, to, MiB(0), size).await?;
                let to = to.clone();
                self.vm.moving = Some(DiskMove { to, size });
            }
            Some(moving) if moving.to == *to => {}
            Some(moving) if *to == self.vm.datastore => {
                // The VM's claim is in the other one now, and what was beside it here.
                let held = claim::relocate(self.tx, self.vm.id, &moving.to).await?;
                std::mem::swap(&mut moving.to, &mut self.vm.datastore);
                let size = std::mem::replace(&mut moving.size, held);
                room::change(self.tx, on, &self.vm.datastore, size, held).await?;
            }
            Some(moving) => {
                let what = format!("the disk of `{}`", self.vm.name);
                let message = is_between(&what, &self.vm.datastore, &moving.to);
                return Err(Error::conflict(message).into());
            }
        }
        Ok(())
    }

    /// The room at the other place is claimed before the effect; both are until
    /// it is known which has the volume.
    async fn claim_move(
        &self,
        record: &mut VolumeRecord,
        on: &HostRef,
        to: &DatastoreName,
    ) -> Result<(), TxError> {
        accept(record, VolumeAction::Move)?;
        self.in_no_snapshot(record).await?;
        match &record.moving_to {
            None => {
                room::change(self.tx, on, to, MiB(0), record.size).await?;
                record.moving_to = Some(to.clone());
            }
            // An earlier move came to no known end: it is in one of the two.
            Some(other) if other == to => {}
            Some(other) if *to == record.datastore => {
                let other = other.clone();
                record.moving_to = Some(std::mem::replace(&mut record.datastore, other));
            }
            Some(other) => {
                let what = format!("volume `{}`", record.name);
                let message = is_between(&what, &record.datastore, other);
                return Err(Error::conflict(message).into());
            }
        }
        Ok(volume::update(self.tx, record).await?)
    }

    /// It has arrived.
    pub(crate) async fn volume_moved(&mut self, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        if let Some(to) = record.moving_to.take() {
            let from = std::mem::replace(&mut record.datastore, to.clone());
            self.volume_left(&mut record, &from).await?;
            let name = record.name;
            self.add_volume_event(EventKind::VolumeMoved { name, to }, id);
        }
        Ok(())
    }

    /// It is where it was.
    pub(crate) async fn volume_moved_back(&mut self, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        if let Some(to) = record.moving_to.take() {
            self.volume_left(&mut record, &to).await?;
        }
        Ok(())
    }

    /// Nothing of it is left there.
    pub(super) async fn volume_left(
        &mut self,
        record: &mut VolumeRecord,
        datastore: &DatastoreName,
    ) -> Result<(), TxError> {
        if let Some(host) = &record.host {
            room::change(self.tx, host, datastore, record.size, MiB(0)).await?;
        }
        Ok(volume::update(self.tx, record).await?)
    }

    /// Its own disk has arrived.
    pub(crate) async fn disk_moved(&mut self) -> Result<(), TxError> {
        let (Some(moving), Some(on)) = (self.vm.moving.take(), self.vm.host.clone()) else {
            return Ok(());
        };
        let DiskMove { to, size } = moving;
        let from = std::mem::replace(&mut self.vm.datastore, to.clone());
        let held = claim::relocate(self.tx, self.vm.id, &to).await?;
        room::change(self.tx, &on, &to, size, held).await?;
        room::release(self.tx, on.id, &from, held).await?;
        self.add_event(EventKind::DiskMoved { to });
        Ok(())
    }

    /// Its own disk is where it was, or nowhere any more: in no second place.
    pub(crate) async fn give_second_place_back(&mut self) -> Result<(), TxError> {
        if let (Some(moving), Some(on)) = (self.vm.moving.take(), &self.vm.host) {
            room::release(self.tx, on.id, &moving.to, moving.size).await?;
            self.touch();
        }
        Ok(())
    }
}
