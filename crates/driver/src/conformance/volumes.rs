//! The promises about volumes.

use std::time::Duration;

use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use super::{COUNT, Harness, answer, guest_answers, new_spec, new_vm, new_volume, power, run};
use crate::{
    DiskPlan, Fault, FaultKind, HostDriver, ObservedVolume, Part, Power, VolumePlan, VolumeSource,
};

const SIZE: MiB = MiB(2);

pub(super) fn kind<T>(result: Result<T, Fault>) -> Option<FaultKind> {
    result.err().map(|fault| fault.kind)
}

/// Makes one in the host's own directory.
pub(super) async fn make(
    driver: &dyn HostDriver,
    volume: VolumeId,
    size: MiB,
    from: &VolumeSource,
) -> Result<(), Fault> {
    let here = DatastoreName::local();
    driver.create_volume(volume, size, from, &here).await
}

pub(super) async fn empty(driver: &dyn HostDriver) -> VolumeId {
    let volume = new_volume();
    make(driver, volume, SIZE, &VolumeSource::Empty)
        .await
        .unwrap();
    volume
}

pub(super) async fn seen(driver: &dyn HostDriver, volume: VolumeId) -> Option<ObservedVolume> {
    let all = driver.volumes().await.unwrap();
    all.into_iter().find(|seen| seen.volume_id == volume)
}

pub(super) async fn owner(driver: &dyn HostDriver, volume: VolumeId) -> Option<VmId> {
    seen(driver, volume).await.unwrap().attached_to
}

pub async fn volume_is_made_once_and_reads_zeros<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let volume = empty(&*driver).await;
    let wanted = ObservedVolume {
        volume_id: volume,
        size_mib: SIZE,
        attached_to: None,
        datastore: DatastoreName::local(),
    };
    assert_eq!(driver.volumes().await.unwrap(), [wanted]);
    assert!(h.reads_zeros(volume));
    h.scribble(volume);
    let again = make(&*driver, volume, SIZE, &VolumeSource::Empty);
    again.await.unwrap();
    assert!(!h.reads_zeros(volume), "repeating it changes nothing");
    for _ in 0..2 {
        driver.remove_volume(volume).await.unwrap();
        assert_eq!(driver.volumes().await.unwrap(), []);
    }
    // Nothing of the earlier one, even under its name.
    let anew = make(&*driver, volume, SIZE, &VolumeSource::Empty);
    anew.await.unwrap();
    assert!(h.reads_zeros(volume));
}

pub async fn volume_is_a_copy_of_an_image<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let volume = new_volume();
    let (image, path) = h.image();
    let from = VolumeSource::Image {
        path,
        format: image.format,
    };
    make(&*driver, volume, SIZE, &from).await.unwrap();
    make(&*driver, volume, SIZE, &from).await.unwrap();
    assert!(!h.reads_zeros(volume));
    assert_eq!(seen(&*driver, volume).await.unwrap().size_mib, SIZE);
}

pub async fn volume_that_cannot_be_made_leaves_nothing<H: Harness>(h: &H) {
    let driver = h.driver_on_full_disk().await;
    let made = make(&*driver, new_volume(), SIZE, &VolumeSource::Empty);
    assert_eq!(kind(made.await), Some(FaultKind::NoSpace));
    assert_eq!(driver.volumes().await.unwrap(), []);
}

pub async fn volume_is_attached_and_detached_while_the_machine_is_off<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    let vm = spec.vm_id;
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let (kept, taken) = (empty(&*driver).await, empty(&*driver).await);
    for volume in [kept, kept, taken] {
        driver.attach(vm, 1, volume).await.unwrap();
    }
    driver.detach(vm, 1, taken).await.unwrap();
    driver.detach(vm, 1, taken).await.unwrap();
    assert_eq!(owner(&*driver, kept).await, Some(vm));
    assert_eq!(owner(&*driver, taken).await, None);
    driver.boot(vm, 1, &spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    assert_eq!(h.plugged(&*driver, vm).await, 1);
}

pub async fn volume_is_attached_and_detached_while_the_machine_runs<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let vm = spec.vm_id;
    guest_answers(&*driver, vm).await;
    let (one, two) = (empty(&*driver).await, empty(&*driver).await);
    for volume in [one, one, two] {
        driver.attach(vm, 1, volume).await.unwrap();
    }
    assert_eq!(h.plugged(&*driver, vm).await, 2);
    driver.detach(vm, 1, one).await.unwrap();
    driver.detach(vm, 1, one).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 1);
    assert_eq!(owner(&*driver, one).await, None);
    driver.attach(vm, 1, one).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 2);
    assert_eq!(answer(&*driver, vm, COUNT).await, 'A', "it runs on");
    // What was plugged in stays with the machine.
    driver.kill(vm, 1).await.unwrap();
    driver.boot(vm, 2, &spec.resources).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 2);
}

pub async fn one_machine_at_a_time_has_a_volume<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let (one, two) = (run(h, &*driver).await.vm_id, run(h, &*driver).await.vm_id);
    let volume = empty(&*driver).await;
    let (a, b) = tokio::join!(driver.attach(one, 1, volume), driver.attach(two, 1, volume));
    let conflict = Some(FaultKind::Conflict);
    let (winner, loser) = if a.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1);
    assert_eq!(kind(a).or(kind(b)), conflict);
    assert_eq!(owner(&*driver, volume).await, Some(winner));
    assert_eq!(kind(driver.attach(loser, 1, volume).await), conflict);
    assert_eq!(kind(driver.detach(loser, 1, volume).await), conflict);
    assert_eq!(kind(driver.remove_volume(volume).await), conflict);
    assert_eq!(h.plugged(&*driver, winner).await, 1);
    assert_eq!(h.plugged(&*driver, loser).await, 0);
    driver.detach(winner, 1, volume).await.unwrap();
    driver.attach(loser, 1, volume).await.unwrap();
    driver.detach(loser, 1, volume).await.unwrap();
    driver.remove_volume(volume).await.unwrap();
}

pub async fn volume_grows_and_never_shrinks<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    let volume = empty(&*driver).await;
    let grows = async |to: u64, wanted: u64| {
        driver.grow_volume(volume, MiB(to)).await.unwrap();
        let size = seen(&*driver, volume).await.unwrap().size_mib;
        assert_eq!(size, MiB(wanted));
    };
    grows(3, 3).await;
    grows(1, 3).await;
    driver.attach(vm, 1, volume).await.unwrap();
    grows(5, 5).await;
    grows(5, 5).await;
    driver.kill(vm, 1).await.unwrap();
    grows(6, 6).await;
    assert!(h.reads_zeros(volume));
}

pub async fn attached_volume_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let (here, loose) = (empty(&*driver).await, empty(&*driver).await);
    driver.attach(vm, 1, here).await.unwrap();
    let before = driver.volumes().await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(driver.volumes().await.unwrap(), before);
    assert_eq!(
        kind(driver.remove_volume(here).await),
        Some(FaultKind::Conflict)
    );
    driver.attach(vm, 1, here).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 1);
    driver.detach(vm, 1, here).await.unwrap();
    driver.attach(vm, 1, loose).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 1);
}

pub async fn saved_machine_comes_back_with_its_volumes<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    guest_answers(&*driver, vm).await;
    assert_eq!(answer(&*driver, vm, COUNT).await, 'A');
    let (one, two) = (empty(&*driver).await, empty(&*driver).await);
    driver.attach(vm, 1, one).await.unwrap();
    driver.attach(vm, 1, two).await.unwrap();
    driver.detach(vm, 1, one).await.unwrap();
    driver.save(vm, 1).await.unwrap();
    let conflict = Some(FaultKind::Conflict);
    assert_eq!(kind(driver.attach(vm, 1, one).await), conflict);
    assert_eq!(kind(driver.detach(vm, 1, two).await), conflict);
    assert_eq!(kind(driver.grow_volume(two, MiB(9)).await), conflict);
    // They are none of its files.
    let files = driver.export(vm, 1, &DiskPlan::default()).await.unwrap();
    let parts: Vec<Part> = files.into_iter().map(|(part, _)| part).collect();
    assert_eq!(parts, Part::OWN);
    driver.load(vm, 2).await.unwrap();
    assert_eq!(power(&*driver, vm).await, Some(Power::Running));
    assert_eq!(h.plugged(&*driver, vm).await, 1);
    assert_eq!(answer(&*driver, vm, COUNT).await, 'B');
    driver.detach(vm, 2, two).await.unwrap();
    assert_eq!(h.plugged(&*driver, vm).await, 0);
}

/// With its memory saved, and off.
pub async fn volumes_go_along_with_a_machine_that_does_not_run<H: Harness>(h: &H) {
    for with_memory in [true, false] {
        let other = H::new().await;
        let (from, to) = (h.driver().await, other.driver().await);
        let mut spec = run(h, &*from).await;
        let vm = spec.vm_id;
        guest_answers(&*from, vm).await;
        let (one, two) = (empty(&*from).await, empty(&*from).await);
        h.scribble(one);
        let mut disks = DiskPlan::default();
        for volume_id in [one, two] {
            disks.volumes.push(VolumePlan {
                volume_id,
                size_mib: SIZE,
                datastore: DatastoreName::local(),
                place: from.attach(vm, 1, volume_id).await.unwrap(),
                shared: false,
            });
        }
        if with_memory {
            from.save(vm, 1).await.unwrap();
        } else {
            from.kill(vm, 1).await.unwrap();
        }
        let mut others = disks.clone();
        others.volumes.truncate(1);
        let left_out = from.export(vm, 1, &others).await;
        assert_eq!(kind(left_out), Some(FaultKind::Conflict));
        let files = from.export(vm, 1, &disks).await.unwrap();
        let carried = files
            .iter()
            .map(|(part, path)| (*part, h.carry(path, &other)));
        let carried: Vec<_> = carried.collect();
        assert_eq!(carried.len(), if with_memory { 4 } else { 3 });
        spec.run_epoch = 2;
        spec.image = other.image().0;
        let (image, less) = (other.image().1, &carried[..carried.len() - 1]);
        let bad = to.import(&spec, &image, less, &disks).await;
        assert_eq!(kind(bad), Some(FaultKind::BadImage));
        assert_eq!(to.volumes().await.unwrap(), []);
        for _ in 0..2 {
            to.import(&spec, &image, &carried, &disks).await.unwrap();
        }
        drop(to);
        let to = other.driver().await;
        for (volume, is_empty) in [(one, false), (two, true)] {
            assert_eq!(owner(&*to, volume).await, Some(vm));
            assert_eq!(other.reads_zeros(volume), is_empty);
        }
        from.leave(vm, 2, &disks).await.unwrap();
        assert_eq!(from.volumes().await.unwrap(), []);
        if with_memory {
            to.load(vm, 2).await.unwrap();
        } else {
            to.boot(vm, 3, &spec.resources).await.unwrap();
        }
        assert_eq!(other.plugged(&*to, vm).await, 2);
    }
}

pub async fn clean_detaches_volumes_and_keeps_them<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = empty(&*driver).await;
    h.scribble(volume);
    driver.attach(vm, 1, volume).await.unwrap();
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
    assert_eq!(h.left_behind(vm), [""; 0]);
    assert_eq!(owner(&*driver, volume).await, None);
    assert!(!h.reads_zeros(volume));
}

/// The callers give up at moments spread over the calls' duration.
pub async fn cancelled_attach_and_detach_can_be_repeated<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = run(h, &*driver).await.vm_id;
    let volume = empty(&*driver).await;
    for moment in [0, 1, 2, 4, 8, 15] {
        let after = Duration::from_millis(moment);
        let _ = tokio::time::timeout(after, driver.attach(vm, 1, volume)).await;
        driver.attach(vm, 1, volume).await.unwrap();
        assert_eq!(h.plugged(&*driver, vm).await, 1, "after {moment} ms");
        let _ = tokio::time::timeout(after, driver.detach(vm, 1, volume)).await;
        driver.detach(vm, 1, volume).await.unwrap();
        assert_eq!(h.plugged(&*driver, vm).await, 0, "after {moment} ms");
    }
}

pub async fn volume_calls_for_what_is_not_there_are_refused_or_fine<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let (vm, none) = (run(h, &*driver).await.vm_id, new_volume());
    let volume = empty(&*driver).await;
    let refused = Some(FaultKind::NoSuchVolume);
    assert_eq!(kind(driver.attach(vm, 1, none).await), refused);
    assert_eq!(kind(driver.grow_volume(none, SIZE).await), refused);
    driver.detach(vm, 1, none).await.unwrap();
    driver.remove_volume(none).await.unwrap();
    let no_vm = driver.attach(new_vm(), 1, volume).await;
    assert_eq!(kind(no_vm), Some(FaultKind::NoSuchVm));
    driver.kill(vm, 2).await.unwrap();
    let late = driver.attach(vm, 1, volume).await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
    assert_eq!(owner(&*driver, volume).await, None);
}
