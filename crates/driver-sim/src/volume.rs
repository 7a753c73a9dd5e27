//! What the calls of the trait do to simulated volumes, each in one moment.

use vimana_driver::{Fault, FaultKind, ObservedVolume, Power, VolumeSource};
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use crate::host::{SimHost, State};

/// Its content is one bit: whether anything was ever written to it.
pub(crate) struct Volume {
    pub size: MiB,
    pub attached_to: Option<VmId>,
    pub written: bool,
}

impl SimHost {
    /// Something is written to the volume.
    pub fn scribble(&self, volume: VolumeId) {
        if let Some(volume) = self.state().volumes.get_mut(&volume) {
            volume.written = true;
        }
    }

    /// Whether nothing was ever written to the volume; `None` where the host
    /// does not hold it.
    #[must_use]
    pub fn reads_zeros(&self, volume: VolumeId) -> Option<bool> {
        let state = self.state();
        state.volumes.get(&volume).map(|volume| !volume.written)
    }

    pub(crate) fn create_volume(&self, id: VolumeId, size: MiB, from: &VolumeSource) {
        self.state().volumes.entry(id).or_insert_with(|| Volume {
            size,
            attached_to: None,
            written: match from {
                VolumeSource::Empty => false,
                VolumeSource::Image { .. } => true,
            },
        });
    }

    pub(crate) fn remove_volume(&self, id: VolumeId) -> Result<(), Fault> {
        let mut state = self.state();
        match state.volumes.get(&id) {
            Some(volume) if volume.attached_to.is_some() => Err(attached()),
            Some(_) | None => {
                state.volumes.remove(&id);
                Ok(())
            }
        }
    }

    pub(crate) fn grow_volume(&self, id: VolumeId, size: MiB) -> Result<(), Fault> {
        let mut state = self.state();
        let owner = state.volume(id)?.attached_to;
        if owner.is_some_and(|vm| state.is_saved(vm)) {
            return Err(saved());
        }
        let volume = state.volume(id)?;
        volume.size = volume.size.max(size);
        Ok(())
    }

    pub(crate) fn volumes(&self) -> Vec<ObservedVolume> {
        let state = self.state();
        let held = state.volumes.iter();
        held.map(|(id, volume)| ObservedVolume {
            volume_id: *id,
            size_mib: volume.size,
            attached_to: volume.attached_to,
        })
        .collect()
    }

    pub(crate) fn attach(&self, vm: VmId, epoch: u64, id: VolumeId) -> Result<(), Fault> {
        self.of_disks(vm, epoch)?;
        let mut state = self.state();
        let owner = state.volume(id)?.attached_to;
        match owner {
            Some(owner) if owner == vm => return Ok(()),
            Some(_) => return Err(attached()),
            None if state.is_saved(vm) => return Err(saved()),
            None => {}
        }
        state.volume(id)?.attached_to = Some(vm);
        state.vms.entry(vm).or_default().effects.attached += 1;
        Ok(())
    }

    pub(crate) fn detach(&self, vm: VmId, epoch: u64, id: VolumeId) -> Result<(), Fault> {
        self.of_disks(vm, epoch)?;
        let mut state = self.state();
        match state.volumes.get(&id).and_then(|volume| volume.attached_to) {
            None => return Ok(()),
            Some(owner) if owner != vm => return Err(attached()),
            Some(_) if state.is_saved(vm) => return Err(saved()),
            Some(_) => {}
        }
        let mut snapshots = state.vms.entry(vm).or_default().snapshots.values();
        if snapshots.any(|snapshot| snapshot.volumes.contains_key(&id)) {
            let message = "the volume is in a snapshot of its machine";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
        state.volume(id)?.attached_to = None;
        state.vms.entry(vm).or_default().effects.detached += 1;
        Ok(())
    }
}

impl State {
    fn volume(&mut self, id: VolumeId) -> Result<&mut Volume, Fault> {
        let volume = self.volumes.get_mut(&id);
        volume.ok_or_else(|| {
            let message = "the host does not hold this volume";
            Fault::new(FaultKind::NoSuchVolume, message)
        })
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
