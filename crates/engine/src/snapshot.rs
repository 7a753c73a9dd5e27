//! Points in time of VMs.
//!
//! Taking one, going back to it and deleting it are operations of the VM, of
//! one step each, carried out by its host. The record is there before the
//! effect (Taking) and goes after it (Removing); with the VM's disk go all of
//! its snapshots.
//!
//! One may be of a single volume: it is no point that the VM comes from.
//!
//! A snapshot claims what it takes when every block changes after it: the size
//! of the disks in it, each where it is, and of the memory, which is beside the
//! VM's own disk. Thin disks take less; but a host
//! whose disk is full stops everything on it.

use vimana_model::event::EventKind;
use vimana_model::name::SnapshotName;
use vimana_model::operation::{OperationKind, Piece, StepKind};
use vimana_model::quota::Measure;
use vimana_model::snapshot::{MAX_SNAPSHOTS, SnapshotState, SnapshotView, TakeSnapshot, Then};
use vimana_model::state::VmState;
use vimana_model::unit::MiB;
use vimana_model::{Error, FieldError, Result, SnapshotId, VmId, VolumeId};
use vimana_store::snapshot::{Elsewhere, Held, SnapshotRecord};
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;
use vimana_store::{Conn, TxError, snapshot, volume};

use crate::Engine;
use crate::change::Change;
use crate::context::{OpContext, new_id};
use crate::name;
use crate::volume::room;

impl Engine {
    /// The snapshots of a VM, the oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn vm_snapshots(&self, cx: &OpContext, id: VmId) -> Result<Vec<SnapshotView>> {
        let vm = self.viewable_vm(cx, id).await?;
        let found = snapshot::for_vm(&self.store().read(), id).await?;
        let view = |snapshot| view(snapshot, vm.snapshot_id);
        Ok(found.into_iter().map(view).collect())
    }
}

fn view(record: SnapshotRecord, current: Option<SnapshotId>) -> SnapshotView {
    let SnapshotRecord {
        id,
        vm_id,
        parent_id,
        owner_name,
        name,
        state,
        memory,
        resources,
        root,
        volumes,
        claimed,
        scheduled,
        created_at,
    } = record;
    let elsewhere = volumes.iter().filter_map(|held| held.elsewhere.as_ref());
    let elsewhere = elsewhere.map(|elsewhere| elsewhere.size.0);
    let claimed_mib = MiB(elsewhere.fold(claimed.0, u64::saturating_add));
    SnapshotView {
        id,
        vm_id,
        name,
        state,
        memory,
        resources,
        root,
        volumes: volumes.into_iter().map(|held| held.name.into()).collect(),
        claimed_mib,
        scheduled,
        parent_id,
        current: current == Some(id),
        owner: owner_name.to_string(),
        created_at,
    }
}

fn piece(record: &SnapshotRecord) -> Piece {
    Piece::Snapshot {
        id: record.id,
        name: record.name.clone(),
    }
}

impl Change<'_> {
    /// Records a snapshot that is to be taken, claims its room and begins.
    pub(crate) async fn begin_snapshot(
        &mut self,
        by: &str,
        form: &TakeSnapshot,
        scheduled: bool,
    ) -> Result<(), TxError> {
        let name = form.check()?;
        let vm = &self.vm;
        if form.memory && vm.state != VmState::Running {
            let message = format!("`{}` does not run; there is no memory to keep", vm.name);
            return Err(Error::conflict(message).into());
        }
        let taken = snapshot::for_vm(self.tx, vm.id).await?;
        if taken.len() >= MAX_SNAPSHOTS {
            let message = format!("`{}` has {MAX_SNAPSHOTS} snapshots already", vm.name);
            return Err(Error::conflict(message).into());
        }
        let mut volumes = volume::of_vm(self.tx, vm.id).await?;
        let only = form.volume.as_deref().map(str::trim);
        let root = only.is_none();
        if let Some(only) = only {
            // An id is no name, even where a volume is called like one.
            let id: Option<VolumeId> = only.parse().ok();
            volumes.retain(|one| match id {
                Some(id) => one.id == id,
                None => one.name.as_str() == only,
            });
            if volumes.is_empty() {
                let message = format!("`{}` has no volume `{only}`", vm.name);
                return Err(Error::from(FieldError::new("volume", message)).into());
            }
        }
        let size = vm.resources;
        let disk = if root { size.disk_mib.0 } else { 0 };
        let memory = if form.memory { size.memory_mib.0 } else { 0 };
        let beside = |volume: &VolumeRecord| volume.datastore == vm.datastore;
        let here = volumes.iter().filter(|volume| beside(volume));
        let here = here.map(|volume| volume.size.0);
        let claimed = here.fold(disk.saturating_add(memory), u64::saturating_add);
        let held = volumes.into_iter().map(|volume| Held {
            id: volume.id,
            size: Some(volume.size),
            elsewhere: (!beside(&volume)).then_some(Elsewhere {
                datastore: volume.datastore,
                size: volume.size,
            }),
            name: volume.name,
        });
        let record = SnapshotRecord {
            id: new_id!(self.world, SnapshotId),
            vm_id: vm.id,
            parent_id: vm.snapshot_id,
            owner_name: by.to_owned().try_into().map_err(Error::internal)?,
            name,
            state: SnapshotState::Taking,
            memory: form.memory,
            resources: size,
            root,
            volumes: held.collect(),
            claimed: MiB(claimed),
            scheduled,
            created_at: self.now,
        };
        snapshot::insert(self.tx, &record)
            .await
            .map_err(|error| name::in_use(error, "a snapshot", record.name.as_str()))?;
        let one_more = [(Measure::Snapshots.into(), 1)];
        self.take_more(record.owner_name.clone(), one_more.into());
        self.claim_elsewhere(&record).await?;
        self.keep(MiB(self.vm.kept.0.saturating_add(claimed)))
            .await?;
        let kind = OperationKind::Snapshot;
        self.begin(kind, &[StepKind::Snapshot], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    async fn claim_elsewhere(&self, record: &SnapshotRecord) -> Result<(), TxError> {
        let Some(host) = &self.vm.host else {
            return Ok(());
        };
        for Elsewhere { datastore, size } in record.elsewhere() {
            room::change(self.tx, host, datastore, MiB(0), *size).await?;
        }
        Ok(())
    }

    pub(crate) async fn give_back_elsewhere(&self, record: &SnapshotRecord) -> Result<(), TxError> {
        let Some(host) = &self.vm.host else {
            return Ok(());
        };
        for Elsewhere { datastore, size } in record.elsewhere() {
            room::change(self.tx, host, datastore, *size, MiB(0)).await?;
        }
        Ok(())
    }

    pub(crate) async fn begin_revert(&mut self, by: &str, id: SnapshotId) -> Result<(), TxError> {
        let record = self.snapshot(id).await?;
        if record.state != SnapshotState::Ready {
            let message = format!("snapshot `{}` is not whole", record.name);
            return Err(Error::conflict(message).into());
        }
        let then = Then {
            memory: record.memory,
            resources: record.resources,
        };
        then.judge_revert(self.vm.state, self.vm.resources)
            .map_err(|refusal| Error::conflict(format!("snapshot `{}` {refusal}", record.name)))?;
        if self.vm.state == VmState::Running {
            self.refuse_other_volumes(&record).await?;
        }
        for held in &record.volumes {
            self.volume_grows_to(held).await?;
        }
        let kind = OperationKind::Revert;
        self.begin(kind, &[StepKind::Revert], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    /// Its memory knows the volumes that were attached then.
    async fn refuse_other_volumes(&self, record: &SnapshotRecord) -> Result<(), TxError> {
        let now = volume::of_vm(self.tx, self.vm.id).await?;
        let mut now: Vec<_> = now.iter().map(|volume| volume.id).collect();
        let mut then: Vec<_> = record.volumes.iter().map(|held| held.id).collect();
        now.sort();
        then.sort();
        if now == then {
            return Ok(());
        }
        let message = format!(
            "snapshot `{}` has the memory of a machine with other volumes; power the VM off to \
             go back to its disks alone",
            record.name
        );
        Err(Error::conflict(message).into())
    }

    pub(crate) async fn begin_remove_snapshot(
        &mut self,
        by: &str,
        id: SnapshotId,
    ) -> Result<(), TxError> {
        let record = self.snapshot(id).await?;
        snapshot::set_state(self.tx, id, SnapshotState::Removing).await?;
        let kind = OperationKind::RemoveSnapshot;
        self.begin(kind, &[StepKind::RemoveSnapshot], by).await?;
        self.set_piece(piece(&record));
        Ok(())
    }

    /// One of this VM's.
    async fn snapshot(&self, id: SnapshotId) -> Result<SnapshotRecord, TxError> {
        let found = snapshot::find(self.tx, id).await?;
        let found = found.filter(|found| found.vm_id == self.vm.id);
        Ok(found.ok_or_else(|| Error::not_found(format!("snapshot `{id}`")))?)
    }

    pub(crate) async fn snapshot_taken(&mut self, id: SnapshotId) -> Result<(), TxError> {
        let record = self.snapshot(id).await?;
        snapshot::set_state(self.tx, id, SnapshotState::Ready).await?;
        // The VM's own disk has not come from that of a volume.
        if record.root {
            self.vm.snapshot_id = Some(id);
        }
        self.add_event(EventKind::SnapshotTaken { name: record.name });
        if record.scheduled {
            self.prune_snapshots().await?;
        }
        Ok(())
    }

    pub(crate) async fn reverted(&mut self, id: SnapshotId) -> Result<(), TxError> {
        let record = self.snapshot(id).await?;
        if record.root {
            self.vm.snapshot_id = Some(id);
        }
        for held in &record.volumes {
            self.volume_was(held).await?;
        }
        self.add_event(EventKind::Reverted { name: record.name });
        Ok(())
    }

    /// A volume that was larger then is recorded so, and has its room, before it
    /// is.
    async fn volume_grows_to(&mut self, held: &Held) -> Result<(), TxError> {
        let found = volume::lock(self.tx, held.id).await?;
        match (found, held.size) {
            (Some(record), Some(size)) if size > record.size => {
                self.take_larger(&record, size);
                self.volume_has(record, held.size).await
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// A volume that has grown since has its size of then again.
    async fn volume_was(&self, held: &Held) -> Result<(), TxError> {
        match volume::lock(self.tx, held.id).await? {
            Some(record) => self.volume_has(record, held.size).await,
            None => Ok(()),
        }
    }

    /// Records its size, where that is known, and claims it.
    async fn volume_has(&self, mut record: VolumeRecord, size: Option<MiB>) -> Result<(), TxError> {
        let Some(size) = size.filter(|size| *size != record.size) else {
            return Ok(());
        };
        if let Some(host) = &record.host {
            for datastore in record.places() {
                room::change(self.tx, host, datastore, record.size, size).await?;
            }
        }
        record.size = size;
        Ok(volume::update(self.tx, &mut record).await?)
    }

    pub(crate) async fn snapshot_removed(&mut self, id: SnapshotId) -> Result<(), TxError> {
        let name = self.drop_snapshot(id).await?;
        self.add_event(EventKind::SnapshotRemoved { name });
        self.prune_snapshots().await
    }

    /// Nothing is left of it on the host.
    pub(crate) async fn drop_snapshot(&mut self, id: SnapshotId) -> Result<SnapshotName, TxError> {
        let record = self.snapshot(id).await?;
        snapshot::delete(self.tx, &record).await?;
        self.give_back_elsewhere(&record).await?;
        if self.vm.snapshot_id == Some(id) {
            self.vm.snapshot_id = record.parent_id;
        }
        let kept = self.vm.kept.0.saturating_sub(record.claimed.0);
        self.keep(MiB(kept)).await?;
        Ok(record.name)
    }

    /// It may be there, or half of it: all that is left is to delete it.
    pub(crate) async fn leave_snapshot(&mut self, id: SnapshotId) -> Result<(), TxError> {
        Ok(snapshot::set_state(self.tx, id, SnapshotState::Removing).await?)
    }

    /// Snapshots and volumes do not go to the datastore; `otherwise` is what else can be
    /// done.
    pub(crate) async fn refuse_to_leave(&self, otherwise: &str) -> Result<(), TxError> {
        match stays(self.tx, &self.vm).await? {
            Some(message) => Err(Error::conflict(format!("{message}{otherwise}")).into()),
            None => Ok(()),
        }
    }
}

/// What of the VM stays on its host where it is stopped, and so keeps it there.
pub async fn stays(conn: &impl Conn, vm: &VmRecord) -> vimana_store::Result<Option<String>> {
    let has = if !snapshot::for_vm(conn, vm.id).await?.is_empty() {
        "snapshots, which do not go to the datastore; delete them first"
    } else if !volume::of_vm(conn, vm.id).await?.is_empty() {
        "volumes, which do not go to the datastore; detach them first"
    } else {
        return Ok(None);
    };
    Ok(Some(format!("`{}` has {has}", vm.name)))
}
