//! Snapshots of simulated machines, each taken and used in one moment.

use std::collections::BTreeMap;

use vimana_driver::{DiskPlan, Fault, FaultKind, Keep, ObservedSnapshot, Power, SnapshotPlan};
use vimana_model::unit::Resources;
use vimana_model::{SnapshotId, VmId, VolumeId};

use crate::files::Contents;
use crate::host::{SimHost, State, no_such_vm};
use crate::volume::{no_such_volume, saved};

#[derive(Clone)]
pub(crate) struct Snapshot {
    memory: bool,
    /// Of the root disk, and of the memory; absent where it is of a volume.
    contents: Option<Contents>,
    resources: Resources,
    /// Whether anything was ever written to each volume.
    pub volumes: BTreeMap<VolumeId, bool>,
}

impl Snapshot {
    fn is(&self, plan: &SnapshotPlan) -> bool {
        let mut volumes = plan.volumes.clone();
        volumes.sort();
        // Of one that is off, the host may not know yet how large it is to be.
        let same = (self.memory, self.has_root()) == (plan.memory, plan.root);
        same && self.volumes.keys().eq(&volumes)
    }

    pub const fn has_root(&self) -> bool {
        self.contents.is_some()
    }
}

impl SimHost {
    pub(crate) fn snapshot(
        &self,
        id: VmId,
        epoch: u64,
        snapshot: SnapshotId,
        keep: Keep,
    ) -> Result<(), Fault> {
        self.of_disks(id, epoch)?;
        let mut state = self.state();
        if state.is_saved(id) {
            return Err(saved());
        }
        let mut volumes = state.volumes_of(id);
        if let Keep::Volume(only) = keep {
            volumes.retain(|volume, _| *volume == only);
            if volumes.is_empty() {
                return Err(no_such_volume());
            }
        }
        let vm = state.vms.entry(id).or_default();
        if vm.snapshots.contains_key(&snapshot) {
            return Ok(());
        }
        let machine = vm.machine.as_ref().ok_or_else(no_such_vm)?;
        let memory = keep == Keep::Memory;
        if memory && machine.power != Power::Running {
            return Err(Fault::new(
                FaultKind::Hypervisor,
                "the machine does not run",
            ));
        }
        let taken = Snapshot {
            memory,
            contents: (!matches!(keep, Keep::Volume(_))).then_some(machine.contents),
            resources: machine.resources,
            volumes,
        };
        vm.snapshots.insert(snapshot, taken);
        self.log().keep_snapshots(id, vm.snapshots.clone());
        vm.effects.snapshots += 1;
        Ok(())
    }

    pub(crate) fn revert(&self, id: VmId, epoch: u64, snapshot: SnapshotId) -> Result<(), Fault> {
        self.of_disks(id, epoch)?;
        let mut state = self.state();
        let state = &mut *state;
        if state.is_saved(id) {
            return Err(saved());
        }
        let now = state.volumes_of(id);
        let vm = state.vms.entry(id).or_default();
        let snapshot = vm.snapshots.get(&snapshot).ok_or_else(|| {
            let message = "the machine has no such snapshot";
            Fault::new(FaultKind::NoSuchSnapshot, message)
        })?;
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        if machine.power == Power::Running {
            let (then, has) = (snapshot.resources, machine.resources);
            let fits = (then.vcpus, then.memory_mib) == (has.vcpus, has.memory_mib)
                && snapshot.volumes.keys().eq(now.keys());
            if !snapshot.memory || !fits {
                let message = "the snapshot has no memory that fits the machine that runs";
                return Err(Fault::new(FaultKind::Conflict, message));
            }
            machine.contents.count = snapshot.contents.map_or(0, |then| then.count);
        }
        if let Some(then) = snapshot.contents {
            machine.contents.boots = then.boots;
        }
        for (id, written) in &snapshot.volumes {
            if let Some(volume) = state.volumes.get_mut(id) {
                volume.written = *written;
            }
        }
        vm.effects.reverted += 1;
        // What changed since is not what changed since the backup.
        vm.marks.forget();
        Ok(())
    }

    pub(crate) fn remove_snapshot(&self, vm: VmId, snapshot: SnapshotId) {
        if let Some(held) = self.state().vms.get_mut(&vm) {
            held.snapshots.remove(&snapshot);
            self.log().keep_snapshots(vm, held.snapshots.clone());
        }
    }

    pub(crate) fn snapshots(&self) -> Vec<ObservedSnapshot> {
        let state = self.state();
        let all = state.vms.iter().flat_map(|(vm_id, vm)| {
            vm.snapshots.iter().map(|(id, snapshot)| ObservedSnapshot {
                vm_id: *vm_id,
                snapshot_id: *id,
                memory: snapshot.memory,
            })
        });
        all.collect()
    }
}

impl State {
    pub fn volumes_of(&self, vm: VmId) -> BTreeMap<VolumeId, bool> {
        let ours = self.volumes.iter();
        let ours = ours.filter(|(_, volume)| volume.attached_to == Some(vm));
        ours.map(|(id, volume)| (*id, volume.written)).collect()
    }
}

/// Those of a machine that comes from another host.
///
/// # Errors
/// Where they are not what is in its disks.
pub(crate) fn coming(
    disks: &DiskPlan,
    mut kept: BTreeMap<SnapshotId, Snapshot>,
) -> Result<BTreeMap<SnapshotId, Snapshot>, Fault> {
    let mut come = BTreeMap::new();
    for plan in &disks.snapshots {
        match kept.remove(&plan.snapshot_id) {
            Some(snapshot) if snapshot.is(plan) => {
                come.insert(plan.snapshot_id, snapshot);
            }
            None if !plan.whole => {}
            Some(_) | None => {
                let message = "a snapshot is not what is in the machine's disks";
                return Err(Fault::new(FaultKind::Host, message));
            }
        }
    }
    Ok(come)
}

/// Whether they go where the machine goes.
///
/// # Errors
/// `Conflict`.
pub(crate) fn may_leave(
    has: &BTreeMap<SnapshotId, Snapshot>,
    disks: &DiskPlan,
) -> Result<(), Fault> {
    match disks.takes_snapshots(has.keys().copied()) {
        true => Ok(()),
        false => Err(DiskPlan::other_snapshots()),
    }
}
