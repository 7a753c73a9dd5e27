//! The promises about copies of volumes.

use vimana_model::VolumeId;

use super::volumes::{empty, kind, owner};
use super::{COUNT, Harness, answer, guest_answers, new_volume, power, run};
use crate::{FaultKind, HostDriver, Power};

/// A copy is made, reads as it should, and is removed.
async fn copied<H: Harness>(h: &H, driver: &dyn HostDriver, volume: VolumeId, zeros: bool) {
    for _ in 0..2 {
        let copy = driver.copy_volume(volume).await.unwrap();
        assert_eq!(h.copy_reads_zeros(&copy), zeros);
        assert_eq!(
            h.copies().len(),
            1,
            "the later takes the place of the earlier"
        );
    }
    for _ in 0..2 {
        driver.remove_copy(volume).await.unwrap();
        assert_eq!(h.copies(), [""; 0]);
    }
}

pub async fn free_volume_is_copied<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let volume = empty(&*driver).await;
    copied(h, &*driver, volume, true).await;
    let before = driver.copy_volume(volume).await.unwrap();
    h.scribble(volume);
    assert!(h.copy_reads_zeros(&before), "it is as the volume was");
    copied(h, &*driver, volume, false).await;
    assert!(!h.reads_zeros(volume));
}

pub async fn volume_is_copied_while_its_machine_runs_is_off_or_saved<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let vm = spec.vm_id;
    guest_answers(&*driver, vm).await;
    let (volume, other) = (empty(&*driver).await, empty(&*driver).await);
    h.scribble(volume);
    driver.attach(vm, 1, volume).await.unwrap();
    driver.attach(vm, 1, other).await.unwrap();
    copied(h, &*driver, volume, false).await;
    copied(h, &*driver, other, true).await;
    assert_eq!(answer(&*driver, vm, COUNT).await, 'A', "it runs on");
    // What was copied is free for everything else.
    driver.detach(vm, 1, other).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    copied(h, &*driver, volume, false).await;
    driver.load(vm, 2).await.unwrap();
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
    copied(h, &*driver, volume, false).await;
    driver.kill(vm, 2).await.unwrap();
    copied(h, &*driver, volume, false).await;
    driver.boot(vm, 3, &spec.resources).await.unwrap();
    assert_eq!(owner(&*driver, volume).await, Some(vm));
}

pub async fn copying_makes_way_for_everything_else<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = empty(&*driver).await;
    h.scribble(volume);
    driver.attach(vm, 1, volume).await.unwrap();
    let (copied, killed) = tokio::join!(driver.copy_volume(volume), driver.kill(vm, 1));
    killed.unwrap();
    assert_eq!(power(&*driver, vm).await, Some(Power::Off));
    match copied {
        Ok(copy) => assert!(!h.copy_reads_zeros(&copy)),
        Err(fault) => {
            assert_eq!(fault.kind, FaultKind::Cancelled);
            assert_eq!(h.copies(), [""; 0]);
        }
    }
    let (copied, cleaned) = tokio::join!(driver.copy_volume(volume), driver.clean(vm, 1));
    cleaned.unwrap();
    if let Err(fault) = copied {
        assert_eq!(fault.kind, FaultKind::Cancelled);
    }
    // It can be begun anew.
    let copy = driver.copy_volume(volume).await.unwrap();
    assert!(!h.copy_reads_zeros(&copy));
}

pub async fn copy_that_cannot_be_made_leaves_nothing<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let none = driver.copy_volume(new_volume()).await;
    assert_eq!(kind(none), Some(FaultKind::NoSuchVolume));
    driver.remove_copy(new_volume()).await.unwrap();
    let volume = empty(&*driver).await;
    drop(driver);
    let driver = h.driver_on_full_disk().await;
    let full = driver.copy_volume(volume).await;
    assert_eq!(kind(full), Some(FaultKind::NoSpace));
    assert_eq!(h.copies(), [""; 0]);
    drop(driver);
    let driver = h.driver().await;
    copied(h, &*driver, volume, true).await;
    driver.remove_volume(volume).await.unwrap();
    let gone = driver.copy_volume(volume).await;
    assert_eq!(kind(gone), Some(FaultKind::NoSuchVolume));
}

pub async fn driver_that_starts_removes_copies<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = empty(&*driver).await;
    driver.attach(vm, 1, volume).await.unwrap();
    driver.copy_volume(volume).await.unwrap();
    assert_eq!(h.copies().len(), 1);
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(h.copies(), [""; 0]);
    copied(h, &*driver, volume, true).await;
}
