//! A VM and its volumes.

use vimana_model::event::EventKind;
use vimana_model::operation::{OperationKind, Piece, StepKind};
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::volume::{VmRef, VolumeAction, VolumeState};
use vimana_model::{Error, VolumeId};
use vimana_store::snapshot::Held;
use vimana_store::volume::VolumeRecord;
use vimana_store::{TxError, host_datastore, snapshot, volume};

use super::{accept, claim_growth, read_for, room, what};
use crate::change::Change;
use crate::image::{being_read, content_at_hand};
use crate::limits::MAX_VOLUMES_OF_VM;
use crate::quota;

pub fn piece(record: &VolumeRecord) -> Piece {
    Piece::Volume {
        id: record.id,
        name: record.name.clone(),
    }
}

impl Change<'_> {
    /// Gives the volume to this VM: of two who ask at once, one gets it.
    pub(crate) async fn begin_attach(&mut self, by: &str, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        accept(&record, VolumeAction::Attach)?;
        let before = record.clone();
        content_at_hand(self.tx, &mut record).await?;
        self.take_larger(&before, record.size);
        let has = volume::of_vm(self.tx, self.vm.id).await?.len();
        if has >= MAX_VOLUMES_OF_VM {
            let message = format!("`{}` has {MAX_VOLUMES_OF_VM} volumes already", self.vm.name);
            return Err(Error::conflict(message).into());
        }
        let on = self.vm.host.clone();
        let on = on.ok_or_else(|| Error::internal("a VM with a disk at hand has a host"))?;
        match &record.host {
            Some(host) if host.id != on.id && self.shares(&record, &on).await? => {
                let (host, size) = (host.clone(), record.size);
                // The host that reads it does not see what a machine of another
                // one writes meanwhile.
                if let Some(image) = being_read(self.tx, record.id).await? {
                    return Err(read_for(&record, &image).into());
                }
                room::change(self.tx, &host, &record.datastore, size, MiB(0)).await?;
                room::change(self.tx, &on, &record.datastore, MiB(0), size).await?;
                record.host = Some(on);
            }
            Some(host) if host.id != on.id => {
                let message = format!(
                    "volume `{}` is on host `{}`, and `{}` on host `{}`",
                    record.name, host.name, self.vm.name, on.name
                );
                return Err(Error::conflict(message).into());
            }
            Some(_) => {}
            None => {
                room::change(self.tx, &on, &record.datastore, MiB(0), record.size).await?;
                record.host = Some(on);
            }
        }
        record.state = VolumeState::Attaching;
        record.vm = Some(VmRef {
            id: self.vm.id,
            name: self.vm.name.clone(),
        });
        volume::update(self.tx, &mut record).await?;
        let kind = OperationKind::Attach;
        self.begin(kind, &[StepKind::Attach], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    /// Whether another host reaches the volume where it is.
    async fn shares(&self, record: &VolumeRecord, on: &HostRef) -> Result<bool, TxError> {
        let Some(host) = &record.host else {
            return Ok(false);
        };
        if record.datastore.is_local() || record.moving_to.is_some() {
            return Ok(false);
        }
        let of = async |host: &HostRef| -> Result<_, TxError> {
            let known = host_datastore::for_host(self.tx, host.id).await?;
            let mut known = known.into_iter();
            Ok(known.find(|known| known.name == record.datastore))
        };
        let (there, here) = (of(host).await?, of(on).await?);
        let here = here.filter(|here| here.present);
        Ok(there
            .zip(here)
            .is_some_and(|(there, here)| there.id == here.id))
    }

    pub(crate) async fn begin_detach(&mut self, by: &str, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.own_volume(id).await?;
        accept(&record, VolumeAction::Detach)?;
        self.in_no_snapshot(&record).await?;
        record.state = VolumeState::Detaching;
        volume::update(self.tx, &mut record).await?;
        let kind = OperationKind::Detach;
        self.begin(kind, &[StepKind::Detach], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    /// The larger size is recorded, and claimed, before the effect: a volume
    /// that could not be made that large is when it is next attached.
    pub(crate) async fn begin_grow(
        &mut self,
        by: &str,
        id: VolumeId,
        to: MiB,
    ) -> Result<(), TxError> {
        let mut record = self.own_volume(id).await?;
        accept(&record, VolumeAction::Grow)?;
        claim_growth(self.tx, &record, to).await?;
        self.take_larger(&record, to);
        record.size = to;
        volume::update(self.tx, &mut record).await?;
        let kind = OperationKind::Grow;
        self.begin(kind, &[StepKind::Grow], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    /// A volume is to be that large, which its owner takes.
    pub(crate) fn take_larger(&mut self, record: &VolumeRecord, to: MiB) {
        let more = MiB(to.0.saturating_sub(record.size.0));
        if more > MiB(0) {
            let growth = quota::of_volume(&record.datastore, more);
            self.take_more(record.owner_name.clone(), growth);
        }
    }

    pub(super) async fn in_no_snapshot(&self, record: &VolumeRecord) -> Result<(), TxError> {
        let taken = snapshot::for_vm(self.tx, self.vm.id).await?;
        let holds = |held: &Held| held.id == record.id;
        if let Some(snapshot) = taken.iter().find(|taken| taken.volumes.iter().any(holds)) {
            let message = format!(
                "volume `{}` is in snapshot `{}` of `{}`; delete that first",
                record.name, snapshot.name, self.vm.name
            );
            return Err(Error::conflict(message).into());
        }
        Ok(())
    }

    /// A volume of the VM's tenant.
    pub(super) async fn locked_volume(&self, id: VolumeId) -> Result<VolumeRecord, TxError> {
        let found = volume::lock(self.tx, id).await?;
        let found = found.filter(|found| found.tenant_id == self.vm.tenant_id);
        Ok(found.ok_or_else(|| Error::not_found(what(id)))?)
    }

    /// One that this VM has.
    pub(super) async fn own_volume(&self, id: VolumeId) -> Result<VolumeRecord, TxError> {
        let record = self.locked_volume(id).await?;
        if record.vm.as_ref().is_none_or(|vm| vm.id != self.vm.id) {
            let message = format!(
                "volume `{}` is not attached to `{}`",
                record.name, self.vm.name
            );
            return Err(Error::conflict(message).into());
        }
        Ok(record)
    }

    /// Where the guest finds the volume that is being attached.
    pub(crate) async fn note_place(&mut self, place: u8) -> Result<(), TxError> {
        let attaches = self
            .current()
            .is_some_and(|current| current.kind == StepKind::Attach);
        if let (true, Some(Piece::Volume { id, .. })) = (attaches, self.piece()) {
            let mut record = self.locked_volume(id).await?;
            record.place = Some(place);
            volume::update(self.tx, &mut record).await?;
        }
        Ok(())
    }

    pub(crate) async fn volume_attached(&mut self, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        record.state = VolumeState::Attached;
        record.made = true;
        // Its host has brought it to the one that was named.
        match record.moving_to.take() {
            Some(other) => self.volume_left(&mut record, &other).await?,
            None => volume::update(self.tx, &mut record).await?,
        }
        self.add_volume_event(EventKind::VolumeAttached { name: record.name }, id);
        Ok(())
    }

    /// The VM has, or may have, it still.
    pub(crate) async fn volume_stays(&mut self, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        record.state = VolumeState::Attached;
        Ok(volume::update(self.tx, &mut record).await?)
    }

    pub(crate) async fn volume_detached(&mut self, id: VolumeId) -> Result<(), TxError> {
        let mut record = self.locked_volume(id).await?;
        record.state = VolumeState::Ready;
        record.vm = None;
        record.place = None;
        volume::update(self.tx, &mut record).await?;
        self.add_volume_event(EventKind::VolumeDetached { name: record.name }, id);
        Ok(())
    }

    pub(crate) async fn volume_grown(&mut self, id: VolumeId) -> Result<(), TxError> {
        let record = self.locked_volume(id).await?;
        let grown = EventKind::VolumeGrown {
            name: record.name,
            to: record.size,
        };
        self.add_volume_event(grown, id);
        Ok(())
    }

    /// The machine is gone, and has let go of its volumes. Where the VM itself
    /// goes, those go that were to.
    pub(crate) async fn let_volumes_go(&mut self, with_vm: bool) -> Result<(), TxError> {
        for mut record in volume::of_vm(self.tx, self.vm.id).await? {
            let goes = with_vm && record.delete_with_vm;
            record.state = if goes {
                VolumeState::Removing
            } else {
                VolumeState::Ready
            };
            record.vm = None;
            record.place = None;
            volume::update(self.tx, &mut record).await?;
            let (id, name) = (record.id, record.name);
            self.add_volume_event(EventKind::VolumeDetached { name: name.clone() }, id);
            if goes {
                self.add_volume_event(EventKind::VolumeDeleted { name }, id);
            }
        }
        Ok(())
    }
}
