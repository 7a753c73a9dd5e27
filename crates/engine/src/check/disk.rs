//! Snapshots and volumes, and the VMs that have them.

use vimana_model::VmId;
use vimana_model::state::VmState;
use vimana_model::unit::MiB;
use vimana_model::volume::VolumeState;
use vimana_store::snapshot;
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;

use super::books::Books;
use super::{Check, Findings};

pub fn check_disks(books: &Books, found: &mut Findings) {
    let kept = snapshot::claimed(&books.snapshots);
    for vm in kept.keys().filter(|vm| is_nowhere(books, **vm)) {
        let what = "it has no disk anywhere, and snapshots";
        found.add(Check::SnapshotOfNoVm, books.about_vm(*vm), what);
    }
    for vm in books.vms.values() {
        let expected = kept.get(&vm.id).copied().unwrap_or(MiB(0));
        if vm.kept != expected && !books.doubts("snapshots", vm.id) {
            let what = format!("its snapshots claim {expected}, recorded is {}", vm.kept);
            found.add(Check::KeptIsOff, books.about_vm(vm.id), what);
        }
    }
    for volume in books.volumes.values() {
        let Some(has) = &volume.vm else { continue };
        if is_nowhere(books, has.id) {
            let what = "a VM has it that has no disk anywhere";
            found.add(Check::VolumeOfNoVm, books.about_volume(volume), what);
        } else if let Some(vm) = books.vms.get(&has.id) {
            check_volume(books, volume, vm, found);
        }
    }
}

fn check_volume(books: &Books, volume: &VolumeRecord, vm: &VmRecord, found: &mut Findings) {
    let id = |host: &Option<vimana_model::vm::HostRef>| host.as_ref().map(|host| host.id);
    if id(&volume.host) != id(&vm.host) {
        let what = "the VM that has it is on another host";
        found.add(Check::VolumeElsewhere, books.about_volume(volume), what);
    }
    let moves = matches!(
        volume.state,
        VolumeState::Attaching | VolumeState::Detaching
    );
    // A VM that failed lets go of it when it is deleted, or keeps it.
    if moves && books.rests(vm) && vm.state != VmState::Failed {
        let what = format!(
            "it is {}, and nothing is in flight for its VM",
            volume.state
        );
        let about = books.about_volume(volume);
        found.add(Check::VolumeMovesWithoutOperation, about, what);
    }
}

/// There is no such VM, or no host has its disk.
fn is_nowhere(books: &Books, id: VmId) -> bool {
    match books.vms.get(&id) {
        Some(vm) => vm.host.is_none(),
        None => books.is_no_vm(id),
    }
}
