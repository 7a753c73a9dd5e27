//! The promises about volumes that move to another datastore of their host.

use std::time::Duration;

use vimana_model::backup::DiskId;
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use super::volumes::{empty, kind, owner, seen};
use super::{
    COUNT, Harness, answer, guest_answers, new_backup, new_snapshot, new_spec, new_volume, run,
};
use crate::{FaultKind, HostDriver, Keep, VolumeSource, unwatched};

async fn place(driver: &dyn HostDriver, volume: VolumeId) -> DatastoreName {
    seen(driver, volume).await.unwrap().datastore
}

/// A volume that says something, and that the machine has.
async fn written<H: Harness>(h: &H, driver: &dyn HostDriver, vm: VmId) -> VolumeId {
    let volume = empty(driver).await;
    h.scribble(volume);
    driver.attach(vm, 1, volume).await.unwrap();
    volume
}

pub async fn volume_is_made_in_the_datastore_that_is_named<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let (volume, there) = (new_volume(), h.datastore());
    for _ in 0..2 {
        let made = driver.create_volume(volume, MiB(2), &VolumeSource::Empty, &there);
        made.await.unwrap();
    }
    assert_eq!(place(&*driver, volume).await, there);
    assert!(h.reads_zeros(volume));
    let nowhere = DatastoreName::new("nowhere").unwrap();
    let unmade = driver.create_volume(new_volume(), MiB(2), &VolumeSource::Empty, &nowhere);
    assert_eq!(kind(unmade.await), Some(FaultKind::Unsupported));
    driver.remove_volume(volume).await.unwrap();
    assert_eq!(driver.volumes().await.unwrap(), []);
}

pub async fn volume_moves_while_the_machine_is_off<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    let vm = spec.vm_id;
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let volume = written(h, &*driver, vm).await;
    for to in [h.datastore(), DatastoreName::local()] {
        for _ in 0..2 {
            driver
                .move_disk(vm, 1, DiskId::Volume(volume), &to, unwatched())
                .await
                .unwrap();
            assert_eq!(place(&*driver, volume).await, to);
        }
        assert_eq!(owner(&*driver, volume).await, Some(vm));
        assert!(!h.reads_zeros(volume));
    }
    driver.boot(vm, 1, &h.resources()).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 1);
}

pub async fn volume_moves_while_the_machine_runs<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    assert_eq!(answer(&*driver, vm, COUNT).await, 'A');
    let volume = written(h, &*driver, vm).await;
    for to in [h.datastore(), DatastoreName::local(), h.datastore()] {
        for _ in 0..2 {
            driver
                .move_disk(vm, 1, DiskId::Volume(volume), &to, unwatched())
                .await
                .unwrap();
        }
        assert_eq!(place(&*driver, volume).await, to);
        assert_eq!(owner(&*driver, volume).await, Some(vm));
        assert_eq!(h.plugged(&*driver, vm).await, 1);
    }
    // It is a volume like any other there.
    driver.grow_volume(volume, MiB(4)).await.unwrap();
    let backup = new_backup();
    driver.back_up(vm, 1, backup, None).await.unwrap();
    driver.end_backup(vm, 1, backup, true).await.unwrap();
    driver.detach(vm, 1, volume).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 0);
    assert!(!h.reads_zeros(volume));
    driver.attach(vm, 1, volume).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 1);
    assert_eq!(
        answer(&*driver, vm, COUNT).await,
        'B',
        "it ran all the while"
    );
}

pub async fn moved_volume_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = written(h, &*driver, vm).await;
    driver
        .move_disk(vm, 1, DiskId::Volume(volume), &h.datastore(), unwatched())
        .await
        .unwrap();
    let before = driver.volumes().await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(driver.volumes().await.unwrap(), before);
    assert_eq!(h.plugged(&*driver, vm).await, 1);
    driver
        .move_disk(
            vm,
            1,
            DiskId::Volume(volume),
            &DatastoreName::local(),
            unwatched(),
        )
        .await
        .unwrap();
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
    assert!(!h.reads_zeros(volume));
    assert_eq!(place(&*driver, volume).await, DatastoreName::local());
}

pub async fn volume_that_cannot_move_stays<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let (volume, loose) = (written(h, &*driver, vm).await, empty(&*driver).await);
    let there = h.datastore();
    let refused = |kind: FaultKind| Some(kind);
    let nowhere = DatastoreName::new("nowhere").unwrap();
    let to_nowhere = driver
        .move_disk(vm, 1, DiskId::Volume(volume), &nowhere, unwatched())
        .await;
    assert_eq!(kind(to_nowhere), refused(FaultKind::Unsupported));
    let of_nobody = driver
        .move_disk(vm, 1, DiskId::Volume(loose), &there, unwatched())
        .await;
    assert_eq!(kind(of_nobody), refused(FaultKind::Conflict));
    let of_nothing = driver
        .move_disk(vm, 1, DiskId::Volume(new_volume()), &there, unwatched())
        .await;
    assert_eq!(kind(of_nothing), refused(FaultKind::NoSuchVolume));
    let snapshot = new_snapshot();
    driver.snapshot(vm, 1, snapshot, Keep::Disks).await.unwrap();
    let held = driver
        .move_disk(vm, 1, DiskId::Volume(volume), &there, unwatched())
        .await;
    assert_eq!(kind(held), refused(FaultKind::Conflict));
    driver.remove_snapshot(vm, 1, snapshot).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    let saved = driver
        .move_disk(vm, 1, DiskId::Volume(volume), &there, unwatched())
        .await;
    assert_eq!(kind(saved), refused(FaultKind::Conflict));
    assert_eq!(place(&*driver, volume).await, DatastoreName::local());
    driver.load(vm, 2).await.unwrap();
    driver
        .move_disk(vm, 2, DiskId::Volume(volume), &there, unwatched())
        .await
        .unwrap();
    assert_eq!(place(&*driver, volume).await, there);
}

/// The callers give up at moments spread over the calls' duration.
pub async fn cancelled_move_can_be_repeated_either_way<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = written(h, &*driver, vm).await;
    let (here, there) = (DatastoreName::local(), h.datastore());
    for moment in [0, 1, 2, 4, 8, 15, 30] {
        let after = Duration::from_millis(moment);
        let moving = driver.move_disk(vm, 1, DiskId::Volume(volume), &there, unwatched());
        let _ = tokio::time::timeout(after, moving).await;
        let to = if moment % 2 == 0 { &here } else { &there };
        driver
            .move_disk(vm, 1, DiskId::Volume(volume), to, unwatched())
            .await
            .unwrap();
        assert_eq!(place(&*driver, volume).await, *to, "after {moment} ms");
        assert_eq!(h.plugged(&*driver, vm).await, 1, "after {moment} ms");
        driver
            .move_disk(vm, 1, DiskId::Volume(volume), &here, unwatched())
            .await
            .unwrap();
    }
    driver.kill(vm, 1).await.unwrap();
    assert!(!h.reads_zeros(volume));
}

/// A kill does not wait for a volume on its way.
pub async fn volume_of_a_machine_that_dies_on_the_way_is_whole<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for moment in [0, 2, 5, 10, 20] {
        let vm = run(h, &*driver).await.vm_id;
        let volume = written(h, &*driver, vm).await;
        let there = h.datastore();
        let moving = driver.move_disk(vm, 1, DiskId::Volume(volume), &there, unwatched());
        let killing = async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            driver.kill(vm, 1).await.unwrap();
        };
        let (_moved, ()) = tokio::join!(moving, killing);
        driver.clean(vm, 1).await.unwrap();
        assert!(!h.reads_zeros(volume), "after {moment} ms");
        driver.remove_volume(volume).await.unwrap();
    }
    assert_eq!(driver.volumes().await.unwrap(), []);
}
