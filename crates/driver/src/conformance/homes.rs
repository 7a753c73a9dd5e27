//! The promises about machines' own disks that move to another datastore of their
//! host.

use std::time::Duration;

use vimana_model::VmId;
use vimana_model::backup::DiskId;
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};

use super::volumes::{empty, kind};
use super::{
    BOOTS, COUNT, Harness, answer, guest_answers, new_backup, new_snapshot, new_spec, run,
};
use crate::{Fault, FaultKind, HostDriver, Keep, Power, unwatched};

async fn relocate(
    driver: &dyn HostDriver,
    vm: VmId,
    epoch: u64,
    to: &DatastoreName,
) -> Result<Sent, Fault> {
    let moved = driver.move_disk(vm, epoch, DiskId::Root, to, unwatched());
    moved.await
}

/// A machine whose guest has counted to `A`.
async fn counting<H: Harness>(h: &H, driver: &dyn HostDriver) -> VmId {
    let vm = run(h, driver).await.vm_id;
    guest_answers(driver, vm).await;
    assert_eq!(answer(driver, vm, COUNT).await, 'A');
    vm
}

/// It is started once more, from a disk that has seen so many starts.
async fn starts<H: Harness>(h: &H, driver: &dyn HostDriver, (vm, epoch): (VmId, u64), boots: char) {
    driver.boot(vm, epoch, &h.resources()).await.unwrap();
    guest_answers(driver, vm).await;
    assert_eq!(answer(driver, vm, BOOTS).await, boots);
}

pub async fn own_disk_moves_while_the_machine_is_off<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    let vm = spec.vm_id;
    driver.prepare(&spec, &h.image().1).await.unwrap();
    // Before it ever ran, and after that.
    for (epoch, boots) in [(1, 'A'), (2, 'B'), (3, 'C')] {
        for to in [h.datastore(), DatastoreName::local(), h.datastore()] {
            for _ in 0..2 {
                relocate(&*driver, vm, epoch, &to).await.unwrap();
                assert_eq!(h.home(vm), to);
            }
        }
        starts(h, &*driver, (vm, epoch), boots).await;
        driver.kill(vm, epoch).await.unwrap();
        relocate(&*driver, vm, epoch, &DatastoreName::local())
            .await
            .unwrap();
    }
    let backup = new_backup();
    let made = driver.back_up(vm, 3, backup, None).await.unwrap();
    assert_eq!(h.boots_kept(&[h.read_file(&made.files[0].path)]), 'C');
    driver.end_backup(vm, 3, backup, true).await.unwrap();
    relocate(&*driver, vm, 3, &h.datastore()).await.unwrap();
    driver.clean(vm, 3).await.unwrap();
    assert_eq!(h.left_behind(vm), [""; 0]);
}

pub async fn own_disk_moves_while_the_machine_runs<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await;
    let (here, there) = (DatastoreName::local(), h.datastore());
    for to in [&there, &here, &there] {
        let sent = relocate(&*driver, vm, 1, to).await.unwrap();
        assert!(sent.transferred_bytes > 0, "{sent:?}");
        assert_eq!(h.home(vm), *to);
        let again = relocate(&*driver, vm, 1, to).await.unwrap();
        assert_eq!(again, Sent::default());
        assert_eq!(h.home(vm), *to);
    }
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    // It is a disk like any other there: it is backed up, snapshotted, saved, grown.
    let backup = new_backup();
    let made = driver.back_up(vm, 1, backup, None).await.unwrap();
    assert_eq!(h.boots_kept(&[h.read_file(&made.files[0].path)]), 'A');
    driver.end_backup(vm, 1, backup, true).await.unwrap();
    let snapshot = new_snapshot();
    driver
        .snapshot(vm, 1, snapshot, Keep::Memory)
        .await
        .unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'C');
    driver.revert(vm, 1, snapshot).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'C');
    driver.remove_snapshot(vm, 1, snapshot).await.unwrap();
    let larger = Resources {
        disk_mib: MiB(h.resources().disk_mib.0 + 1),
        ..h.resources()
    };
    driver.resize(vm, 1, &larger).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    driver.load(vm, 2).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'D');
    relocate(&*driver, vm, 2, &here).await.unwrap();
    assert_eq!(h.home(vm), here);
    // What the guest writes from now on is there.
    driver.reset(vm, 2).await.unwrap();
    guest_answers(&*driver, vm).await;
    driver.kill(vm, 2).await.unwrap();
    starts(h, &*driver, (vm, 3), 'C').await;
}

pub async fn own_disk_that_moved_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await;
    relocate(&*driver, vm, 1, &h.datastore()).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(h.home(vm), h.datastore());
    let again = relocate(&*driver, vm, 1, &h.datastore()).await.unwrap();
    assert_eq!(again, Sent::default(), "it is known where it is");
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
    relocate(&*driver, vm, 1, &DatastoreName::local())
        .await
        .unwrap();
    driver.kill(vm, 1).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(h.home(vm), DatastoreName::local());
    starts(h, &*driver, (vm, 2), 'B').await;
}

pub async fn own_disk_that_cannot_move_stays<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await;
    let (here, there) = (DatastoreName::local(), h.datastore());
    let nowhere = DatastoreName::new("nowhere").unwrap();
    let to_nowhere = relocate(&*driver, vm, 1, &nowhere).await;
    assert_eq!(kind(to_nowhere), Some(FaultKind::Unsupported));
    let of_nothing = relocate(&*driver, VmId::from_parts(1, [9; 10]), 1, &there).await;
    assert_eq!(kind(of_nothing), Some(FaultKind::NoSuchVm));
    let volume = empty(&*driver).await;
    driver.attach(vm, 1, volume).await.unwrap();
    let snapshot = new_snapshot();
    driver.snapshot(vm, 1, snapshot, Keep::Disks).await.unwrap();
    let held = relocate(&*driver, vm, 1, &there).await;
    assert_eq!(kind(held), Some(FaultKind::Conflict));
    driver.remove_snapshot(vm, 1, snapshot).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    let saved = relocate(&*driver, vm, 1, &there).await;
    assert_eq!(kind(saved), Some(FaultKind::Conflict));
    assert_eq!(h.home(vm), here);
    driver.load(vm, 2).await.unwrap();
    // A snapshot of a volume alone does not hold it.
    let of_volume = Keep::Volume(volume);
    driver.snapshot(vm, 2, snapshot, of_volume).await.unwrap();
    relocate(&*driver, vm, 2, &there).await.unwrap();
    assert_eq!(h.home(vm), there);
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
}

/// The callers give up at moments spread over the calls' duration.
pub async fn cancelled_move_of_an_own_disk_can_be_repeated_either_way<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = counting(h, &*driver).await;
    let (here, there) = (DatastoreName::local(), h.datastore());
    let mut count = 'A';
    for moment in [0, 1, 2, 4, 8, 15, 30] {
        let moving = relocate(&*driver, vm, 1, &there);
        let _ = tokio::time::timeout(Duration::from_millis(moment), moving).await;
        let to = if moment % 2 == 0 { &here } else { &there };
        relocate(&*driver, vm, 1, to).await.unwrap();
        assert_eq!(h.home(vm), *to, "after {moment} ms");
        count = char::from_u32(u32::from(count) + 1).unwrap();
        assert_eq!(
            answer(&*driver, vm, COUNT).await,
            count,
            "after {moment} ms"
        );
        relocate(&*driver, vm, 1, &here).await.unwrap();
    }
    driver.kill(vm, 1).await.unwrap();
    for (epoch, moment) in [(1, 0), (2, 20), (3, 60), (4, 150)] {
        let moving = relocate(&*driver, vm, epoch, &there);
        let _ = tokio::time::timeout(Duration::from_millis(moment), moving).await;
        let boots = char::from_u32(u32::from('A') + u32::try_from(epoch).unwrap()).unwrap();
        starts(h, &*driver, (vm, epoch + 1), boots).await;
        let home = h.home(vm);
        assert!([&here, &there].contains(&&home));
        driver.kill(vm, epoch + 1).await.unwrap();
        relocate(&*driver, vm, epoch + 1, &here).await.unwrap();
    }
}

/// A kill does not wait for a disk on its way.
pub async fn own_disk_of_a_machine_that_dies_on_the_way_is_whole<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for moment in [0, 2, 5, 10, 20, 40] {
        let vm = counting(h, &*driver).await;
        let to = h.datastore();
        let moving = relocate(&*driver, vm, 1, &to);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            driver.kill(vm, 1).await.unwrap();
        };
        let (_moved, ()) = tokio::join!(moving, killing);
        assert_eq!(super::power(&*driver, vm).await, Some(Power::Off));
        starts(h, &*driver, (vm, 2), 'B').await;
        h.home(vm);
        driver.kill(vm, 2).await.unwrap();
        driver.clean(vm, 2).await.unwrap();
        assert_eq!(h.left_behind(vm), [""; 0]);
    }
}
