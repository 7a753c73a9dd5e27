//! Snapshots and volumes, and the VMs that have them.

use std::collections::HashSet;

use vimana_driver::{ObservedSnapshot, ObservedVolume};
use vimana_model::snapshot::SnapshotState;
use vimana_model::state::VmState;
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::volume::VolumeState;
use vimana_model::{HostId, VmId};
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;
use vimana_store::{backup, snapshot};

use super::books::Books;
use super::subject::{Kind, Named, Subject};
use super::{Check, Findings, Outside};

pub fn check_disks(books: &Books, outside: &Outside, found: &mut Findings) {
    check_records(books, found);
    for (host, disks) in &outside.disks {
        check_volumes_of(books, *host, &disks.volumes, found);
        check_snapshots_of(books, *host, &disks.snapshots, found);
    }
}

fn check_records(books: &Books, found: &mut Findings) {
    let mut kept = snapshot::claimed(&books.snapshots);
    for vm in kept.keys().filter(|vm| is_nowhere(books, **vm)) {
        let what = "it has no disk anywhere, and snapshots";
        found.add(Check::SnapshotOfNoVm, books.about_vm(*vm), what);
    }
    for (vm, claimed) in backup::claimed(books.backups.values()) {
        let sum = kept.entry(vm).or_insert(MiB(0));
        sum.0 = sum.0.saturating_add(claimed.0);
    }
    for vm in books.vms.values() {
        let expected = kept.get(&vm.id).copied().unwrap_or(MiB(0));
        if vm.kept != expected
            && !books.doubts("snapshots", vm.id)
            && !books.doubts("backups", vm.id)
        {
            let what = format!(
                "its snapshots and the backup of it claim {expected}, recorded is {}",
                vm.kept
            );
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
    let id = |host: &Option<HostRef>| host.as_ref().map(|host| host.id);
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

/// Whether the host reaches the volume in the datastore of another one.
fn is_shared(books: &Books, volume: &VolumeRecord, host: HostId) -> bool {
    let id = |host: HostId| {
        let mut places = books.places.iter();
        let place = places.find(|place| place.host_id == host && place.name == volume.datastore);
        place.map(|place| place.id)
    };
    let on = volume.host.as_ref().filter(|on| on.id != host);
    on.is_some_and(|on| id(on.id).is_some() && id(on.id) == id(host))
}

/// The volumes that a host holds, and those that it should.
fn check_volumes_of(books: &Books, host: HostId, held: &[ObservedVolume], found: &mut Findings) {
    let named = books.host(host);
    for observed in held {
        let Some(volume) = books.volumes.get(&observed.volume_id) else {
            if books.is_no_volume(observed.volume_id) {
                let what = format!("host {named} holds it, and it is not recorded");
                let itself = Named::new(observed.volume_id, None::<&str>);
                let subject = Subject::new(Kind::Volume, itself);
                found.add(Check::VolumeUnrecorded, subject, what);
            }
            continue;
        };
        let about = books.about_volume(volume);
        let vm = volume.vm.as_ref();
        let migration = vm.and_then(|vm| books.migrations.get(&vm.id));
        if observed.attached_to.is_none() && is_shared(books, volume, host) {
            // Both reach it where it is.
        } else if migration.is_some_and(|migration| migration.peer.id == host) {
            // It goes there with its VM, or has not left there.
        } else if volume.host.as_ref().is_none_or(|on| on.id != host) {
            let what = format!("host {named} holds it, and is not its host");
            found.add(Check::VolumeHeldElsewhere, about, what);
        } else if rests(books, volume) && observed.attached_to != volume.vm.as_ref().map(|vm| vm.id)
        {
            let has = match observed.attached_to {
                Some(vm) => format!("VM {} has it", books.vm(vm)),
                None => "no VM has it".to_owned(),
            };
            let what = format!("it is {}, host {named} says that {has}", volume.state);
            found.add(Check::VolumeOfOtherVm, about, what);
        } else if rests(books, volume) && volume.places().all(|place| *place != observed.datastore)
        {
            let (is, should) = (&observed.datastore, &volume.datastore);
            let what = format!("host {named} has it in datastore {is}, recorded is {should}");
            found.add(Check::VolumeInOtherDatastore, about, what);
        }
    }
    let held: HashSet<_> = held.iter().map(|observed| observed.volume_id).collect();
    for volume in books.volumes.values() {
        let here = volume.host.as_ref().is_some_and(|on| on.id == host);
        let there = volume.made && rests(books, volume);
        if here && there && !held.contains(&volume.id) {
            let what = format!("host {named} does not hold it");
            found.add(Check::VolumeLost, books.about_volume(volume), what);
        }
    }
}

/// The same of snapshots.
fn check_snapshots_of(
    books: &Books,
    host: HostId,
    held: &[ObservedSnapshot],
    found: &mut Findings,
) {
    let at_rest = |id: VmId| {
        let vm = books.vms.get(&id)?;
        let here = vm.host.as_ref().is_some_and(|on| on.id == host);
        let certain = here && books.rests(vm) && vm.state != VmState::Failed;
        (certain && !books.doubts("snapshots", id)).then_some(vm)
    };
    for observed in held {
        let id = observed.snapshot_id;
        let recorded = books.snapshots.iter().any(|snapshot| snapshot.id == id);
        if let Some(vm) = at_rest(observed.vm_id).filter(|_| !recorded) {
            let what = format!("its host holds snapshot {id}, which is not recorded");
            found.add(Check::SnapshotUnrecorded, books.about_vm(vm.id), what);
        }
    }
    let held: HashSet<_> = held.iter().map(|observed| observed.snapshot_id).collect();
    for snapshot in &books.snapshots {
        let ready = snapshot.state == SnapshotState::Ready && !held.contains(&snapshot.id);
        if let Some(vm) = at_rest(snapshot.vm_id).filter(|_| ready) {
            let what = format!("its host does not hold snapshot `{}`", snapshot.name);
            found.add(Check::SnapshotLost, books.about_vm(vm.id), what);
        }
    }
}

/// Nothing is under way for it, and what its host says is what it is.
fn rests(books: &Books, volume: &VolumeRecord) -> bool {
    match (&volume.vm, volume.state) {
        (None, VolumeState::Ready) => true,
        (Some(has), VolumeState::Attached) => books
            .vms
            .get(&has.id)
            .is_some_and(|vm| books.rests(vm) && vm.state != VmState::Failed),
        _ => false,
    }
}

/// There is no such VM, or no host has its disk.
fn is_nowhere(books: &Books, id: VmId) -> bool {
    match books.vms.get(&id) {
        Some(vm) => vm.host.is_none(),
        None => books.is_no_vm(id),
    }
}
