//! The promises about backups.

use vimana_model::backup::DiskId;
use vimana_model::unit::MiB;
use vimana_model::{BackupId, VmId};

use super::volumes::make;
use super::{
    BOOTS, COUNT, Harness, PATIENCE, answer, answers, expect_power, guest_answers, new_backup,
    new_snapshot, new_vm, new_volume, run,
};
use crate::{BackupFiles, Fault, FaultKind, HostDriver, Keep, Power, VolumeSource};

fn kind<T>(result: Result<T, Fault>) -> Option<FaultKind> {
    result.err().map(|fault| fault.kind)
}

/// The content of one disk's file.
fn file<H: Harness>(h: &H, made: &BackupFiles, disk: DiskId) -> Vec<u8> {
    let file = made.files.iter().find(|file| file.disk == disk);
    h.read_file(&file.expect("the disk is in the backup").path)
}

fn root<H: Harness>(h: &H, made: &BackupFiles) -> Vec<u8> {
    file(h, made, DiskId::Root)
}

/// One that is kept: what the root disk's file holds, and since when.
async fn keep<H: Harness>(
    h: &H,
    driver: &dyn HostDriver,
    (vm, epoch): (VmId, u64),
    backup: BackupId,
    since: Option<BackupId>,
) -> (Option<BackupId>, Vec<u8>) {
    let made = driver.back_up(vm, epoch, backup, since).await.unwrap();
    let content = root(h, &made);
    driver.end_backup(vm, epoch, backup, true).await.unwrap();
    (made.since, content)
}

pub async fn running_machine_is_backed_up_and_runs_on<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    assert_eq!(answer(&*driver, vm, COUNT).await, 'A');
    let first = new_backup();
    let made = driver.back_up(vm, 1, first, None).await.unwrap();
    assert_eq!(made.since, None);
    assert_eq!(made.files.len(), 1);
    assert_eq!(made.files[0].size, h.resources().disk_mib);
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B', "it runs on");
    let full = root(h, &made);
    assert_eq!(h.boots_kept(std::slice::from_ref(&full)), 'A');
    let again = driver.back_up(vm, 1, first, None).await.unwrap();
    assert_eq!(again, made);
    for _ in 0..2 {
        driver.end_backup(vm, 1, first, true).await.unwrap();
    }
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    let (second, third) = (new_backup(), new_backup());
    let (since, changes) = keep(h, &*driver, (vm, 1), second, Some(first)).await;
    assert_eq!(since, Some(first));
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'C').await;
    let (since, more) = keep(h, &*driver, (vm, 1), third, Some(second)).await;
    assert_eq!(since, Some(second));
    let chain = [full, changes, more];
    assert_eq!(h.boots_kept(&chain), 'C');
    assert_eq!(h.boots_kept(&chain[..2]), 'B');
    assert_eq!(h.boots_kept(&chain[..1]), 'A');
    // What is no longer known is not made up.
    let (since, all) = keep(h, &*driver, (vm, 1), new_backup(), Some(first)).await;
    assert_eq!(since, None);
    assert_eq!(h.boots_kept(&[all]), 'C');
}

pub async fn machine_that_is_off_is_backed_up<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let vm = spec.vm_id;
    guest_answers(&*driver, vm).await;
    answers(&*driver, vm, BOOTS, 'A').await;
    driver.kill(vm, 1).await.unwrap();
    let (first, second, third) = (new_backup(), new_backup(), new_backup());
    let (since, full) = keep(h, &*driver, (vm, 1), first, None).await;
    assert_eq!(since, None);
    driver.boot(vm, 2, &spec.resources).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    let (since, running) = keep(h, &*driver, (vm, 2), second, Some(first)).await;
    assert_eq!(since, Some(first));
    driver.reset(vm, 2).await.unwrap();
    answers(&*driver, vm, BOOTS, 'C').await;
    driver.kill(vm, 2).await.unwrap();
    let (since, off) = keep(h, &*driver, (vm, 2), third, Some(second)).await;
    assert_eq!(since, Some(second));
    let chain = [full, running, off];
    assert_eq!(h.boots_kept(&chain), 'C');
    assert_eq!(h.boots_kept(&chain[..2]), 'B');
    driver.boot(vm, 3, &spec.resources).await.unwrap();
    answers(&*driver, vm, BOOTS, 'D').await;
}

pub async fn backup_that_is_not_kept_costs_nothing<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    let (first, failed, abandoned, last) = (new_backup(), new_backup(), new_backup(), new_backup());
    let (_, full) = keep(h, &*driver, (vm, 1), first, None).await;
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    driver.back_up(vm, 1, failed, Some(first)).await.unwrap();
    for _ in 0..2 {
        driver.end_backup(vm, 1, failed, false).await.unwrap();
    }
    // Never ended: the next one takes its place.
    driver.back_up(vm, 1, abandoned, Some(first)).await.unwrap();
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'C').await;
    let (since, changes) = keep(h, &*driver, (vm, 1), last, Some(first)).await;
    assert_eq!(since, Some(first));
    assert_eq!(h.boots_kept(&[full, changes]), 'C');
    let since = driver.back_up(vm, 1, new_backup(), Some(failed)).await;
    assert_eq!(since.unwrap().since, None, "it never was");
}

pub async fn changes_are_not_known_after_a_revert_or_a_crash<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let vm = spec.vm_id;
    guest_answers(&*driver, vm).await;
    let (snapshot, first) = (new_snapshot(), new_backup());
    driver
        .snapshot(vm, 1, snapshot, Keep::Memory)
        .await
        .unwrap();
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    keep(h, &*driver, (vm, 1), first, None).await;
    driver.revert(vm, 1, snapshot).await.unwrap();
    let second = new_backup();
    let (since, all) = keep(h, &*driver, (vm, 1), second, Some(first)).await;
    assert_eq!(since, None);
    assert_eq!(h.boots_kept(&[all]), 'A');
    // The same of a machine that is off.
    driver.kill(vm, 1).await.unwrap();
    let third = new_backup();
    let (since, _) = keep(h, &*driver, (vm, 1), third, Some(second)).await;
    assert_eq!(since, Some(second));
    driver.revert(vm, 1, snapshot).await.unwrap();
    let fourth = new_backup();
    let (since, _) = keep(h, &*driver, (vm, 1), fourth, Some(third)).await;
    assert_eq!(since, None);
    driver.boot(vm, 2, &spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    let mut changes = driver.subscribe();
    h.crash(vm).await;
    let crashed = |power: &Power| matches!(power, Power::Crashed { .. });
    expect_power(&*driver, &mut changes, vm, PATIENCE, crashed).await;
    let (since, _) = keep(h, &*driver, (vm, 2), new_backup(), Some(fourth)).await;
    assert_eq!(since, None);
}

pub async fn volumes_are_in_the_backup<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let vm = spec.vm_id;
    guest_answers(&*driver, vm).await;
    let (first, second, third) = (new_backup(), new_backup(), new_backup());
    keep(h, &*driver, (vm, 1), first, None).await;
    let volume = new_volume();
    let made = make(&*driver, volume, MiB(2), &VolumeSource::Empty);
    made.await.unwrap();
    driver.attach(vm, 1, volume).await.unwrap();
    let made = driver.back_up(vm, 1, second, Some(first)).await.unwrap();
    assert_eq!(made.since, None, "of the volume nothing was known");
    let disks: Vec<_> = made.files.iter().map(|f| (f.disk, f.size)).collect();
    let root_size = h.resources().disk_mib;
    let of_volume = DiskId::Volume(volume);
    assert_eq!(disks, [(DiskId::Root, root_size), (of_volume, MiB(2))]);
    let empty = file(h, &made, of_volume);
    driver.end_backup(vm, 1, second, true).await.unwrap();
    assert!(h.zeros_kept(std::slice::from_ref(&empty)));
    driver.grow_volume(volume, MiB(3)).await.unwrap();
    driver.kill(vm, 1).await.unwrap();
    let made = driver.back_up(vm, 1, third, Some(second)).await.unwrap();
    assert_eq!(made.since, Some(second));
    assert_eq!(
        made.files[1].size,
        MiB(3),
        "its changes are known all the same"
    );
    let grown = file(h, &made, of_volume);
    driver.end_backup(vm, 1, third, true).await.unwrap();
    assert!(h.zeros_kept(&[empty.clone(), grown.clone()]));
    h.scribble(volume);
    // What others write to it behind the machine's back is theirs to know of.
    let made = driver.back_up(vm, 1, new_backup(), None).await.unwrap();
    assert!(!h.zeros_kept(&[file(h, &made, of_volume)]));
}

pub async fn backup_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    let (first, second) = (new_backup(), new_backup());
    let made = driver.back_up(vm, 1, first, None).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    let again = driver.back_up(vm, 1, first, None).await.unwrap();
    assert_eq!(again, made);
    let full = root(h, &again);
    driver.end_backup(vm, 1, first, true).await.unwrap();
    driver.reset(vm, 1).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    drop(driver);
    let driver = h.driver().await;
    let (since, changes) = keep(h, &*driver, (vm, 1), second, Some(first)).await;
    assert_eq!(since, Some(first));
    assert_eq!(h.boots_kept(&[full, changes]), 'B');
}

pub async fn backup_that_cannot_be_is_refused<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    let first = new_backup();
    let (_, full) = keep(h, &*driver, (vm, 1), first, None).await;
    driver.save(vm, 1).await.unwrap();
    let saved = driver.back_up(vm, 1, new_backup(), None).await;
    assert_eq!(kind(saved), Some(FaultKind::Conflict));
    driver.load(vm, 2).await.unwrap();
    driver.reset(vm, 2).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
    // A memory that was saved and used takes no mark away.
    let (since, changes) = keep(h, &*driver, (vm, 2), new_backup(), Some(first)).await;
    assert_eq!(since, Some(first));
    assert_eq!(h.boots_kept(&[full, changes]), 'B');
    let none = driver.back_up(new_vm(), 1, new_backup(), None).await;
    assert_eq!(kind(none), Some(FaultKind::NoSuchVm));
    driver.kill(vm, 3).await.unwrap();
    let late = driver.back_up(vm, 2, new_backup(), None).await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
}

/// A start that was taken back before it reached the host gave the machine a
/// later run that never was: its disks are the same.
pub async fn disks_are_those_of_the_run_before_one_that_never_began<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    let early = driver.back_up(vm, 2, new_backup(), None).await;
    assert_eq!(kind(early), Some(FaultKind::NoSuchVm), "the first one runs");
    driver.kill(vm, 2).await.unwrap();
    let (snapshot, volume, backup) = (new_snapshot(), new_volume(), new_backup());
    let made = make(&*driver, volume, MiB(2), &VolumeSource::Empty);
    made.await.unwrap();
    driver.attach(vm, 2, volume).await.unwrap();
    driver.snapshot(vm, 2, snapshot, Keep::Disks).await.unwrap();
    driver.revert(vm, 2, snapshot).await.unwrap();
    driver.remove_snapshot(vm, 2, snapshot).await.unwrap();
    let made = driver.back_up(vm, 2, backup, None).await.unwrap();
    assert_eq!(made.files.len(), 2);
    driver.end_backup(vm, 2, backup, true).await.unwrap();
    driver.detach(vm, 2, volume).await.unwrap();
    driver.boot(vm, 3, &h.resources()).await.unwrap();
    answers(&*driver, vm, BOOTS, 'B').await;
}

pub async fn clean_removes_the_files_of_a_backup<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    driver.back_up(vm, 1, new_backup(), None).await.unwrap();
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
    assert_eq!(h.left_behind(vm), [""; 0]);
}
