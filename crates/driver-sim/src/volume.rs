//! What the calls of the trait do to simulated volumes, each in one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vimana_driver::{DiskPlan, Fault, FaultKind, ObservedVolume, Power, VolumePlan, VolumeSource};
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use crate::files::Contents;
use crate::host::{SimHost, State, has_process, no_such_vm};
use crate::snapshot::Snapshot;

/// Its content is one bit: whether anything was ever written to it.
pub(crate) struct Volume {
    pub size: MiB,
    pub attached_to: Option<VmId>,
    pub written: bool,
    pub datastore: DatastoreName,
    /// Where the guest of its machine finds it.
    pub place: u8,
}

impl Volume {
    /// One that comes along with a machine, or is handed over with it: the same
    /// here, where what is on it is known when the machine runs.
    pub fn coming(vm: VmId, plan: &VolumePlan, datastore: Option<&SimDatastore>) -> Self {
        let id = plan.volume_id;
        let written = datastore.is_some_and(|store| store.shelf().written.contains(&id));
        Self {
            size: plan.size_mib,
            attached_to: Some(vm),
            written: written && plan.shared,
            datastore: plan.datastore.clone(),
            place: plan.place,
        }
    }
}

/// A datastore; hosts that share it have the same one.
#[derive(Clone, Default)]
pub struct SimDatastore(Arc<Mutex<Shelf>>);

/// What all of its hosts see of a datastore.
#[derive(Default)]
pub(crate) struct Shelf {
    /// What no machine has.
    free: BTreeMap<VolumeId, Volume>,
    /// Of those that machines have: something is written on them.
    written: BTreeSet<VolumeId>,
    /// Machines' own disks, as they are at rest.
    pub roots: BTreeMap<VmId, Root>,
}

/// A machine's own disk, and its memory where that is saved.
#[derive(Clone, Copy)]
pub(crate) struct Root {
    pub contents: Contents,
    pub saved: bool,
}

impl SimDatastore {
    /// The machines whose own disks are there, at rest.
    #[must_use]
    pub fn machines(&self) -> Vec<VmId> {
        self.shelf().roots.keys().copied().collect()
    }

    pub(crate) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimHost {
    /// Something is written to the volume.
    pub fn scribble(&self, volume: VolumeId) {
        let mut state = self.at_hand();
        let state = &mut *state;
        if let Some(held) = state.volumes.get_mut(&volume) {
            held.written = true;
            if let Some(datastore) = state.datastores.get(&held.datastore) {
                datastore.shelf().written.insert(volume);
            }
        }
    }

    /// Whether nothing was ever written to the volume; `None` where the host
    /// does not hold it.
    #[must_use]
    pub fn reads_zeros(&self, volume: VolumeId) -> Option<bool> {
        let state = self.at_hand();
        state.volumes.get(&volume).map(|volume| !volume.written)
    }

    /// The state, with all volumes that the host could use: what is free of its
    /// datastores is put back where others find it.
    fn at_hand(&self) -> AtHand<'_> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = self.state();
        let state = &mut *guard;
        for datastore in state.datastores.values() {
            state.volumes.append(&mut datastore.shelf().free);
        }
        AtHand {
            state: guard,
            _turn: turn,
        }
    }

    /// A further place for volumes.
    pub fn add_datastore(&self, name: DatastoreName) {
        self.share_datastore(name, &SimDatastore::default());
    }

    /// The same, which other hosts reach as well.
    pub fn share_datastore(&self, name: DatastoreName, datastore: &SimDatastore) {
        let datastore = datastore.clone();
        self.state().datastores.insert(name, datastore);
    }

    pub(crate) fn create_volume(
        &self,
        id: VolumeId,
        size: MiB,
        from: &VolumeSource,
        datastore: &DatastoreName,
    ) -> Result<(), Fault> {
        let mut state = self.at_hand();
        state.reaches(datastore)?;
        state.volumes.entry(id).or_insert_with(|| Volume {
            size,
            datastore: datastore.clone(),
            attached_to: None,
            place: 0,
            written: match from {
                VolumeSource::Empty => false,
                VolumeSource::Image { .. } => true,
            },
        });
        Ok(())
    }

    pub(crate) fn remove_volume(&self, id: VolumeId) -> Result<(), Fault> {
        let mut state = self.at_hand();
        match state.volumes.get(&id) {
            Some(volume) if volume.attached_to.is_some() => Err(attached()),
            Some(_) | None => {
                state.volumes.remove(&id);
                Ok(())
            }
        }
    }

    pub(crate) fn grow_volume(&self, id: VolumeId, size: MiB) -> Result<(), Fault> {
        let mut state = self.at_hand();
        let owner = state.volume(id)?.attached_to;
        if owner.is_some_and(|vm| state.is_saved(vm)) {
            return Err(saved());
        }
        let volume = state.volume(id)?;
        volume.size = volume.size.max(size);
        Ok(())
    }

    pub(crate) fn copy_volume(&self, id: VolumeId) -> Result<PathBuf, Fault> {
        let mut state = self.at_hand();
        let state = &mut *state;
        let &mut Volume { size, written, .. } = state.volume(id)?;
        let bytes = content(id, size, written);
        let copied = state.files.copy(id, bytes);
        copied.map_err(|error| Fault::io("copying the volume", &error))
    }

    pub(crate) fn remove_copy(&self, id: VolumeId) -> Result<(), Fault> {
        let removed = self.state().files.remove_copy(id);
        removed.map_err(|error| Fault::io("removing the volume's copy", &error))
    }

    pub(crate) fn remove_copies(&self) {
        self.state().files.remove_copies();
    }

    /// The copies of volumes that the host holds.
    #[must_use]
    pub fn copies(&self) -> Vec<PathBuf> {
        self.state().files.copies()
    }

    pub(crate) fn volumes(&self) -> Vec<ObservedVolume> {
        let state = self.at_hand();
        let held = state.volumes.iter();
        held.map(|(id, volume)| ObservedVolume {
            volume_id: *id,
            size_mib: volume.size,
            attached_to: volume.attached_to,
            datastore: volume.datastore.clone(),
        })
        .collect()
    }

    pub(crate) fn attach(&self, vm: VmId, epoch: u64, id: VolumeId) -> Result<u8, Fault> {
        self.of_disks(vm, epoch)?;
        let mut state = self.at_hand();
        let (owner, place) = {
            let volume = state.volume(id)?;
            (volume.attached_to, volume.place)
        };
        match owner {
            Some(owner) if owner == vm => return Ok(place),
            Some(_) => return Err(attached()),
            None if state.is_saved(vm) => return Err(saved()),
            None => {}
        }
        let held = state.volumes.values();
        let held = held.filter(|volume| volume.attached_to == Some(vm));
        let taken: Vec<u8> = held.map(|volume| volume.place).collect();
        let place = (0..u8::MAX).find(|place| !taken.contains(place));
        let place = place.unwrap_or(u8::MAX);
        let volume = state.volume(id)?;
        volume.attached_to = Some(vm);
        volume.place = place;
        state.vms.entry(vm).or_default().effects.attached += 1;
        Ok(place)
    }

    /// What a machine has here that is another host's now, or still, is not here.
    pub(crate) fn leave_volumes(&self, vm: VmId, disks: &DiskPlan) {
        let mut state = self.state();
        let machine = state.vms.get(&vm).and_then(|vm| vm.machine.as_ref());
        if machine.is_some_and(|machine| has_process(&machine.power)) {
            return;
        }
        state
            .volumes
            .retain(|id, volume| volume.attached_to != Some(vm) || disks.volume(*id).is_none());
    }

    pub(crate) fn move_volume(
        &self,
        vm: VmId,
        epoch: u64,
        id: VolumeId,
        to: &DatastoreName,
    ) -> Result<Sent, Fault> {
        self.of_disks(vm, epoch)?;
        let mut state = self.at_hand();
        let volume = state.volume(id)?;
        if volume.attached_to != Some(vm) {
            let message = "the machine does not have the volume";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
        if volume.datastore == *to {
            return Ok(Sent::default());
        }
        let transferred_bytes = volume.size.bytes().unwrap_or(u64::MAX);
        state.reaches(to)?;
        if state.is_saved(vm) {
            return Err(saved());
        }
        state.in_no_snapshot(vm, id)?;
        let volume = state.volume(id)?;
        let written = volume.written;
        let from = std::mem::replace(&mut volume.datastore, to.clone());
        if let Some(datastore) = state.datastores.get(&from) {
            datastore.shelf().written.remove(&id);
        }
        if let Some(datastore) = state.datastores.get(to).filter(|_| written) {
            datastore.shelf().written.insert(id);
        }
        let vm = state.vms.entry(vm).or_default();
        // The marks were in the file that it left.
        vm.marks.forget_volume(id);
        vm.effects.moved += 1;
        Ok(Sent {
            transferred_bytes,
            ..Sent::default()
        })
    }

    /// A machine's own disk.
    pub(crate) fn move_root(
        &self,
        id: VmId,
        epoch: u64,
        to: &DatastoreName,
    ) -> Result<Sent, Fault> {
        self.of_disks(id, epoch)?;
        let mut guard = self.state();
        let state = &mut *guard;
        let machine = state.vms.get(&id).and_then(|vm| vm.machine.as_ref());
        let machine = machine.ok_or_else(no_such_vm)?;
        if machine.datastore == *to {
            return Ok(Sent::default());
        }
        let transferred_bytes = machine.resources.disk_mib.bytes().unwrap_or(u64::MAX);
        state.reaches(to)?;
        if state.is_saved(id) {
            return Err(saved());
        }
        let vm = state.vms.entry(id).or_default();
        if vm.snapshots.values().any(Snapshot::has_root) {
            let message = "the machine's own disk is in a snapshot";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
        vm.marks.forget();
        vm.effects.moved += 1;
        if let Some(machine) = &mut vm.machine {
            let from = std::mem::replace(&mut machine.datastore, to.clone());
            if let Some(datastore) = state.datastores.get(&from) {
                datastore.shelf().roots.remove(&id);
            }
            if let Some(datastore) = state.datastores.get(to) {
                // Of one that runs, it is not as it will be at rest.
                let root = Root {
                    contents: machine.contents,
                    saved: false,
                };
                datastore.shelf().roots.insert(id, root);
            }
        }
        Ok(Sent {
            transferred_bytes,
            ..Sent::default()
        })
    }

    pub(crate) fn detach(&self, vm: VmId, epoch: u64, id: VolumeId) -> Result<(), Fault> {
        self.of_disks(vm, epoch)?;
        let mut state = self.at_hand();
        match state.volumes.get(&id).and_then(|volume| volume.attached_to) {
            None => return Ok(()),
            Some(owner) if owner != vm => return Err(attached()),
            Some(_) if state.is_saved(vm) => return Err(saved()),
            Some(_) => {}
        }
        state.in_no_snapshot(vm, id)?;
        state.volume(id)?.attached_to = None;
        state.vms.entry(vm).or_default().effects.detached += 1;
        Ok(())
    }
}

/// See [`SimHost::at_hand`].
struct AtHand<'a> {
    state: MutexGuard<'a, State>,
    _turn: MutexGuard<'static, ()>,
}

/// One host at a time has what is free in its hands.
static TURN: Mutex<()> = Mutex::new(());

impl Deref for AtHand<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for AtHand<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for AtHand<'_> {
    fn drop(&mut self) {
        self.state.put_back();
    }
}

/// An empty qcow2 image of that size, as far as its header goes, and behind it
/// what it is a copy of.
fn content(id: VolumeId, size: MiB, written: bool) -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    let bytes = size.bytes().unwrap_or(u64::MAX);
    let l1_entries = bytes.div_ceil(CLUSTER * (CLUSTER / 8));
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let entries = u32::try_from(l1_entries).unwrap_or(u32::MAX);
    let mut image = Vec::new();
    image.extend_from_slice(b"QFI\xfb\0\0\0\x02");
    image.extend_from_slice(&[0; 12]);
    image.extend_from_slice(&16_u32.to_be_bytes());
    image.extend_from_slice(&bytes.to_be_bytes());
    image.extend_from_slice(&[0; 4]);
    image.extend_from_slice(&entries.to_be_bytes());
    image.extend_from_slice(&(2 * CLUSTER).to_be_bytes());
    image.extend_from_slice(&CLUSTER.to_be_bytes());
    image.extend_from_slice(&1_u32.to_be_bytes());
    image.resize(usize::try_from((2 + l1_clusters) * CLUSTER).unwrap_or(0), 0);
    let what = if written { "written" } else { "empty" };
    image.extend_from_slice(format!("{id}: {what}\n").as_bytes());
    image
}

pub fn no_such_volume() -> Fault {
    let message = "the host does not hold this volume";
    Fault::new(FaultKind::NoSuchVolume, message)
}

impl State {
    fn volume(&mut self, id: VolumeId) -> Result<&mut Volume, Fault> {
        let volume = self.volumes.get_mut(&id);
        volume.ok_or_else(no_such_volume)
    }

    /// What is free of the datastores is at the disposal of all who share them.
    pub fn put_back(&mut self) {
        let (volumes, datastores) = (&mut self.volumes, &self.datastores);
        let is_shared = |_: &VolumeId, volume: &mut Volume| {
            volume.attached_to.is_none() && datastores.contains_key(&volume.datastore)
        };
        for (id, volume) in volumes.extract_if(.., is_shared) {
            if let Some(datastore) = datastores.get(&volume.datastore) {
                datastore.shelf().free.insert(id, volume);
            }
        }
    }

    pub fn reaches(&self, datastore: &DatastoreName) -> Result<(), Fault> {
        if datastore.is_local() || self.datastores.contains_key(datastore) {
            return Ok(());
        }
        let message = format!("the host has no datastore `{datastore}`");
        Err(Fault::new(FaultKind::Unsupported, message))
    }

    /// The volumes of a machine that comes from another host.
    pub fn expect_volumes(&mut self, vm: VmId, disks: &DiskPlan) -> Result<(), Fault> {
        for plan in &disks.volumes {
            self.reaches(&plan.datastore)?;
        }
        for plan in &disks.volumes {
            let datastore = self.datastores.get(&plan.datastore);
            let volume = Volume::coming(vm, plan, datastore);
            self.volumes.insert(plan.volume_id, volume);
        }
        Ok(())
    }

    fn in_no_snapshot(&self, vm: VmId, id: VolumeId) -> Result<(), Fault> {
        let snapshots = self.vms.get(&vm).map(|vm| &vm.snapshots);
        let mut snapshots = snapshots.into_iter().flat_map(|taken| taken.values());
        if snapshots.any(|snapshot| snapshot.volumes.contains_key(&id)) {
            let message = "the volume is in a snapshot of its machine";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
        Ok(())
    }

    pub fn is_saved(&self, vm: VmId) -> bool {
        let machine = self.vms.get(&vm).and_then(|vm| vm.machine.as_ref());
        machine.is_some_and(|machine| machine.power == Power::Saved)
    }
}

fn attached() -> Fault {
    Fault::new(FaultKind::Conflict, "the volume is attached to a machine")
}

pub(crate) fn saved() -> Fault {
    let message = "the machine's memory is saved; its volumes stay as they are";
    Fault::new(FaultKind::Conflict, message)
}
