//! The promises about snapshots.

use vimana_model::unit::MiB;

use super::volumes::make;
use super::{
    BOOTS, COUNT, Harness, answer, answers, guest_answers, new_snapshot, new_spec, new_vm,
    new_volume, power, run,
};
use crate::{
    DiskPlan, Fault, FaultKind, HostDriver, IncarnationSpec, Keep, ObservedSnapshot, Power,
    VolumeSource,
};

fn kind<T>(result: Result<T, Fault>) -> Option<FaultKind> {
    result.err().map(|fault| fault.kind)
}

/// A machine whose guest has counted to `A`.
async fn counting<H: Harness>(h: &H, driver: &dyn HostDriver) -> IncarnationSpec {
    let spec = run(h, driver).await;
    guest_answers(driver, spec.vm_id).await;
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'A');
    spec
}

pub async fn running_machine_goes_back_to_its_memory<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await.vm_id;
    let (early, late) = (new_snapshot(), new_snapshot());
    driver.snapshot(vm, 1, early, Keep::Memory).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    driver.snapshot(vm, 1, early, Keep::Memory).await.unwrap();
    driver.snapshot(vm, 1, late, Keep::Memory).await.unwrap();
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    for (snapshot, next) in [(early, 'B'), (late, 'C'), (early, 'B')] {
        driver.revert(vm, 1, snapshot).await.unwrap();
        assert_eq!(power(&*driver, vm).await, Some(Power::Running));
        assert_eq!(answer(&*driver, vm, COUNT).await, next);
        assert_eq!(answer(&*driver, vm, BOOTS).await, 'A');
    }
    // Its disk went back, too.
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    for _ in 0..2 {
        driver.remove_snapshot(vm, 1, early).await.unwrap();
    }
    let gone = driver.revert(vm, 1, early).await;
    assert_eq!(kind(gone), Some(FaultKind::NoSuchSnapshot));
    assert_eq!(answer(&*driver, vm, BOOTS).await, 'B', "it runs on");
    driver.revert(vm, 1, late).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'C');
}

pub async fn machine_that_is_off_goes_back_to_its_disks<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let vm = spec.vm_id;
    let (running, off) = (new_snapshot(), new_snapshot());
    driver.snapshot(vm, 1, running, Keep::Disks).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    let busy = driver.revert(vm, 1, running).await;
    assert_eq!(kind(busy), Some(FaultKind::Conflict));
    assert_eq!(answer(&*driver, vm, COUNT).await, 'C', "it runs on");
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    driver.kill(vm, 1).await.unwrap();
    let no_memory = driver.snapshot(vm, 1, off, Keep::Memory).await;
    assert_eq!(kind(no_memory), Some(FaultKind::Hypervisor));
    for _ in 0..2 {
        driver.snapshot(vm, 1, off, Keep::Disks).await.unwrap();
    }
    for (epoch, snapshot, boots) in [(2, running, 'B'), (3, off, 'C'), (4, running, 'B')] {
        for _ in 0..2 {
            driver.revert(vm, epoch - 1, snapshot).await.unwrap();
        }
        assert_eq!(power(&*driver, vm).await, Some(Power::Off));
        driver.boot(vm, epoch, &spec.resources).await.unwrap();
        guest_answers(&*driver, vm).await;
        assert_eq!(answer(&*driver, vm, BOOTS).await, boots);
        driver.kill(vm, epoch).await.unwrap();
    }
    for snapshot in [running, off, off] {
        driver.remove_snapshot(vm, 4, snapshot).await.unwrap();
    }
    assert_eq!(driver.snapshots().await.unwrap(), []);
    driver.boot(vm, 5, &spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    assert_eq!(answer(&*driver, vm, BOOTS).await, 'C');
}

pub async fn volumes_are_in_the_snapshot<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    let vm = spec.vm_id;
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let (volume, later) = (new_volume(), new_volume());
    for id in [volume, later] {
        let made = make(&*driver, id, MiB(2), &VolumeSource::Empty);
        made.await.unwrap();
    }
    driver.attach(vm, 1, volume).await.unwrap();
    driver.boot(vm, 1, &spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    let snapshot = new_snapshot();
    driver.snapshot(vm, 1, snapshot, Keep::Disks).await.unwrap();
    let held = driver.detach(vm, 1, volume).await;
    assert_eq!(kind(held), Some(FaultKind::Conflict));
    driver.attach(vm, 1, later).await.unwrap();
    driver.kill(vm, 1).await.unwrap();
    h.scribble(volume);
    h.scribble(later);
    driver.revert(vm, 1, snapshot).await.unwrap();
    assert!(h.reads_zeros(volume));
    assert!(!h.reads_zeros(later), "it was not in it");
    driver.remove_snapshot(vm, 1, snapshot).await.unwrap();
    driver.detach(vm, 1, volume).await.unwrap();
}

pub async fn a_volume_alone_goes_back<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let vm = spec.vm_id;
    let (volume, other) = (new_volume(), new_volume());
    for id in [volume, other] {
        let made = make(&*driver, id, MiB(2), &VolumeSource::Empty);
        made.await.unwrap();
    }
    let snapshot = new_snapshot();
    let absent = driver.snapshot(vm, 1, snapshot, Keep::Volume(volume)).await;
    assert_eq!(kind(absent), Some(FaultKind::NoSuchVolume));
    for id in [volume, other] {
        driver.attach(vm, 1, id).await.unwrap();
    }
    for _ in 0..2 {
        let taken = driver.snapshot(vm, 1, snapshot, Keep::Volume(volume));
        taken.await.unwrap();
    }
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    let busy = driver.revert(vm, 1, snapshot).await;
    assert_eq!(kind(busy), Some(FaultKind::Conflict));
    let held = driver.detach(vm, 1, volume).await;
    assert_eq!(kind(held), Some(FaultKind::Conflict));
    driver.detach(vm, 1, other).await.unwrap();
    driver.attach(vm, 1, other).await.unwrap();
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    driver.kill(vm, 1).await.unwrap();
    h.scribble(volume);
    h.scribble(other);
    driver.revert(vm, 1, snapshot).await.unwrap();
    assert!(h.reads_zeros(volume));
    assert!(!h.reads_zeros(other), "it was not in it");
    driver.boot(vm, 2, &spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    let boots = answer(&*driver, vm, BOOTS).await;
    assert_eq!(boots, 'C', "nor was the machine's own disk");
    // It is taken out of a machine that runs, and of one that does not.
    driver.remove_snapshot(vm, 2, snapshot).await.unwrap();
    driver.detach(vm, 2, volume).await.unwrap();
    assert_eq!(driver.snapshots().await.unwrap(), []);
}

pub async fn snapshot_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await.vm_id;
    let snapshot = new_snapshot();
    driver
        .snapshot(vm, 1, snapshot, Keep::Memory)
        .await
        .unwrap();
    let wanted = ObservedSnapshot {
        vm_id: vm,
        snapshot_id: snapshot,
        memory: true,
    };
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(driver.snapshots().await.unwrap(), [wanted]);
    driver
        .snapshot(vm, 1, snapshot, Keep::Memory)
        .await
        .unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
    driver.revert(vm, 1, snapshot).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
}

pub async fn snapshot_that_does_not_fit_is_refused<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await.vm_id;
    let (snapshot, volume) = (new_snapshot(), new_volume());
    driver
        .snapshot(vm, 1, snapshot, Keep::Memory)
        .await
        .unwrap();
    let made = make(&*driver, volume, MiB(2), &VolumeSource::Empty);
    made.await.unwrap();
    driver.attach(vm, 1, volume).await.unwrap();
    let conflict = Some(FaultKind::Conflict);
    assert_eq!(kind(driver.revert(vm, 1, snapshot).await), conflict);
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    driver.detach(vm, 1, volume).await.unwrap();
    driver.revert(vm, 1, snapshot).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    assert_eq!(kind(driver.revert(vm, 1, snapshot).await), conflict);
    let saved = driver.snapshot(vm, 1, new_snapshot(), Keep::Disks).await;
    assert_eq!(kind(saved), conflict);
    // Where nobody says that its snapshots go along, it does not go.
    assert_eq!(
        kind(driver.export(vm, 1, &DiskPlan::default()).await),
        conflict
    );
    driver.load(vm, 2).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
}

pub async fn clean_removes_snapshots_and_keeps_volumes<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await.vm_id;
    let volume = new_volume();
    let made = make(&*driver, volume, MiB(2), &VolumeSource::Empty);
    made.await.unwrap();
    driver.attach(vm, 1, volume).await.unwrap();
    driver
        .snapshot(vm, 1, new_snapshot(), Keep::Memory)
        .await
        .unwrap();
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
    assert_eq!(h.left_behind(vm), [""; 0]);
    assert_eq!(driver.snapshots().await.unwrap(), []);
    assert!(h.reads_zeros(volume));
    driver.remove_volume(volume).await.unwrap();
}

pub async fn snapshots_of_what_is_not_there_are_refused_or_fine<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let none = new_snapshot();
    driver.remove_snapshot(vm, 1, none).await.unwrap();
    let gone = driver.revert(vm, 1, none).await;
    assert_eq!(kind(gone), Some(FaultKind::NoSuchSnapshot));
    let no_vm = driver.snapshot(new_vm(), 1, none, Keep::Disks).await;
    assert_eq!(kind(no_vm), Some(FaultKind::NoSuchVm));
    driver.kill(vm, 2).await.unwrap();
    let late = driver.snapshot(vm, 1, none, Keep::Disks).await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
    assert_eq!(driver.snapshots().await.unwrap(), []);
}
