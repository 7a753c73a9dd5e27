//! The promises about saved machines: here, interrupted, and on another host.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    BOOTS, COUNT, Harness, PATIENCE, answer, expect_power, guest_answers, new_spec, new_vm,
    observed, power, run,
};
use crate::{DiskPlan, Fault, FaultKind, HostDriver, IncarnationSpec, Part, Power};

/// Moments of a call at which its caller gives up or is overtaken.
const MOMENTS_MS: [u64; 9] = [0, 1, 3, 8, 15, 25, 40, 60, 100];

/// A machine whose guest has counted to `A`.
async fn counting<H: Harness>(h: &H, driver: &dyn HostDriver) -> IncarnationSpec {
    let spec = run(h, driver).await;
    guest_answers(driver, spec.vm_id).await;
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'A');
    spec
}

/// It runs under `epoch` and goes on where [`counting`] left it.
async fn goes_on(driver: &dyn HostDriver, spec: &IncarnationSpec, epoch: u64) {
    let seen = observed(driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (epoch, Power::Running));
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'B');
    assert_eq!(answer(driver, spec.vm_id, BOOTS).await, 'A');
}

fn kind<T>(result: Result<T, Fault>) -> Option<FaultKind> {
    result.err().map(|fault| fault.kind)
}

pub async fn saved_machine_goes_on_where_it_was<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let mut changes = driver.subscribe();
    driver.save(spec.vm_id, 1).await.unwrap();
    let saved = |p: &Power| *p == Power::Saved;
    expect_power(&*driver, &mut changes, spec.vm_id, PATIENCE, saved).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Saved));
    driver.load(spec.vm_id, 2).await.unwrap();
    driver.load(spec.vm_id, 2).await.unwrap();
    goes_on(&*driver, &spec, 2).await;
    driver.save(spec.vm_id, 2).await.unwrap();
    driver.load(spec.vm_id, 3).await.unwrap();
    assert_eq!(answer(&*driver, spec.vm_id, COUNT).await, 'C');
}

pub async fn saved_machine_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (1, Power::Saved));
    driver.save(spec.vm_id, 1).await.unwrap();
    driver.load(spec.vm_id, 2).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    goes_on(&*driver, &spec, 2).await;
    let again = driver.load(spec.vm_id, 3).await;
    assert_eq!(again, Ok(()), "it runs on, under a higher epoch");
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (3, Power::Running));
}

pub async fn memory_is_used_once<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    let same = driver.load(spec.vm_id, 1).await;
    assert_eq!(kind(same), Some(FaultKind::Hypervisor), "the same run");
    driver.load(spec.vm_id, 2).await.unwrap();
    let mut changes = driver.subscribe();
    h.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { .. });
    expect_power(&*driver, &mut changes, spec.vm_id, PATIENCE, crashed).await;
    for epoch in [2, 3] {
        let gone = driver.load(spec.vm_id, epoch).await;
        assert_eq!(kind(gone), Some(FaultKind::Hypervisor));
    }
}

pub async fn nothing_but_load_uses_a_saved_memory<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let mut spec = counting(h, &*driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    driver.kill(spec.vm_id, 1).await.unwrap();
    driver.shutdown(spec.vm_id, 1, PATIENCE).await.unwrap();
    let refused = Some(FaultKind::Hypervisor);
    assert_eq!(
        kind(driver.boot(spec.vm_id, 1, &spec.resources).await),
        refused
    );
    assert_eq!(
        kind(driver.boot(spec.vm_id, 2, &spec.resources).await),
        refused
    );
    assert_eq!(
        kind(driver.reset(spec.vm_id, 2).await),
        Some(FaultKind::NoSuchVm)
    );
    spec.run_epoch = 3;
    assert_eq!(kind(driver.prepare(&spec, &h.image().1).await), refused);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Saved));
    driver.kill(spec.vm_id, 3).await.unwrap();
    driver.load(spec.vm_id, 4).await.unwrap();
    goes_on(&*driver, &spec, 4).await;
}

pub async fn clean_removes_a_saved_machine<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    driver
        .export(spec.vm_id, 1, &DiskPlan::default())
        .await
        .unwrap();
    driver.clean(spec.vm_id, 1).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
    assert_eq!(observed(&*driver, spec.vm_id).await, None);
    assert_eq!(
        kind(driver.load(spec.vm_id, 2).await),
        Some(FaultKind::NoSuchVm)
    );
}

pub async fn only_what_runs_can_be_saved<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let unknown = driver.save(new_vm(), 1).await;
    assert_eq!(kind(unknown), Some(FaultKind::NoSuchVm));
    let prepared = new_spec(h);
    driver.prepare(&prepared, &h.image().1).await.unwrap();
    let spec = run(h, &*driver).await;
    let later = driver.save(spec.vm_id, 2).await;
    assert_eq!(kind(later), Some(FaultKind::NoSuchVm), "another run");
    driver.kill(spec.vm_id, 2).await.unwrap();
    let mut off = new_spec(h);
    off.run_epoch = 3;
    driver.prepare(&off, &h.image().1).await.unwrap();
    driver.boot(off.vm_id, 3, &off.resources).await.unwrap();
    driver.kill(off.vm_id, 3).await.unwrap();
    for (vm, epoch) in [(prepared.vm_id, 1), (off.vm_id, 3)] {
        for result in [
            driver.save(vm, epoch).await,
            driver.load(vm, epoch + 1).await,
        ] {
            assert_eq!(kind(result), Some(FaultKind::Hypervisor));
        }
    }
    let files = driver.export(prepared.vm_id, 2, &DiskPlan::default()).await;
    assert_eq!(kind(files), Some(FaultKind::Hypervisor));
}

pub async fn failed_save_leaves_the_machine_running<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let before = h.left_behind(spec.vm_id);
    drop(driver);
    let driver = h.driver_on_full_disk().await;
    let fault = driver.save(spec.vm_id, 1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoSpace, "{fault}");
    assert_eq!(h.left_behind(spec.vm_id), before);
    goes_on(&*driver, &spec, 1).await;
}

pub async fn load_takes_back_a_save_that_never_began<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let mut changes = driver.subscribe();
    driver.load(spec.vm_id, 2).await.unwrap();
    let change = changes.recv().await.unwrap();
    assert_eq!((change.run_epoch, change.power), (2, Power::Running));
    goes_on(&*driver, &spec, 2).await;
    let late = driver.save(spec.vm_id, 1).await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
    driver.save(spec.vm_id, 2).await.unwrap();
    driver.load(spec.vm_id, 3).await.unwrap();
    assert_eq!(answer(&*driver, spec.vm_id, COUNT).await, 'C');
}

/// The load comes at moments spread over the save's duration.
pub async fn save_is_overtaken_by_load<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for moment in MOMENTS_MS {
        let spec = counting(h, &*driver).await;
        let (save, load) = tokio::join!(driver.save(spec.vm_id, 1), async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            driver.load(spec.vm_id, 2).await
        });
        assert_eq!(load, Ok(()), "after {moment} ms");
        if let Err(fault) = save {
            // The load may even be seen first.
            let overtaken = [FaultKind::Cancelled, FaultKind::Superseded];
            assert!(overtaken.contains(&fault.kind), "{fault}");
        }
        goes_on(&*driver, &spec, 2).await;
        driver.kill(spec.vm_id, 2).await.unwrap();
        driver.clean(spec.vm_id, 2).await.unwrap();
        assert_eq!(h.left_behind(spec.vm_id), [""; 0], "after {moment} ms");
    }
}

/// The callers of save and load give up at moments spread over their duration.
pub async fn cancelled_save_and_load_lose_nothing<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for moment in MOMENTS_MS {
        let after = Duration::from_millis(moment);
        let spec = counting(h, &*driver).await;
        let vm = spec.vm_id;
        let _ = tokio::time::timeout(after, driver.save(vm, 1)).await;
        driver.save(vm, 1).await.unwrap();
        let _ = tokio::time::timeout(after, driver.load(vm, 2)).await;
        driver.load(vm, 3).await.unwrap();
        goes_on(&*driver, &spec, 3).await;
        driver.kill(vm, 3).await.unwrap();
        driver.clean(vm, 3).await.unwrap();
        assert_eq!(h.left_behind(vm), [""; 0], "after {moment} ms");
    }
}

/// The kill comes at moments spread over the load's duration.
pub async fn kill_overtakes_a_load<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for moment in MOMENTS_MS {
        let spec = counting(h, &*driver).await;
        driver.save(spec.vm_id, 1).await.unwrap();
        let (load, kill) = tokio::join!(driver.load(spec.vm_id, 2), async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            driver.kill(spec.vm_id, 2).await
        });
        assert_eq!(kill, Ok(()));
        let now = power(&*driver, spec.vm_id).await;
        match load {
            Ok(()) => assert_eq!(now, Some(Power::Off), "after {moment} ms"),
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Cancelled, "{fault}");
                assert_eq!(now, Some(Power::Saved), "after {moment} ms");
                driver.load(spec.vm_id, 3).await.unwrap();
                goes_on(&*driver, &spec, 3).await;
            }
        }
    }
}

/// Saves a machine on one host and carries its files to another.
async fn carried<H: Harness>(
    h: &H,
    other: &H,
    driver: &dyn HostDriver,
) -> (IncarnationSpec, Vec<(Part, PathBuf)>) {
    let mut spec = counting(h, driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    let mut files = Vec::new();
    for (part, path) in driver
        .export(spec.vm_id, 1, &DiskPlan::default())
        .await
        .unwrap()
    {
        files.push((part, h.carry(&path, other)));
    }
    spec.run_epoch = 2;
    spec.image = other.image().0;
    (spec, files)
}

pub async fn saved_machine_goes_on_elsewhere<H: Harness>(h: &H) {
    let other = H::new().await;
    let (from, to) = (h.driver().await, other.driver().await);
    let (spec, files) = carried(h, &other, &*from).await;
    let parts: Vec<Part> = files.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, Part::OWN);
    let mut changes = to.subscribe();
    to.import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await
        .unwrap();
    let saved = |p: &Power| *p == Power::Saved;
    expect_power(&*to, &mut changes, spec.vm_id, PATIENCE, saved).await;
    to.import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await
        .unwrap();
    let seen = observed(&*to, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (2, Power::Saved));
    // Nothing of it is needed where it came from.
    from.clean(spec.vm_id, 1).await.unwrap();
    to.load(spec.vm_id, 2).await.unwrap();
    goes_on(&*to, &spec, 2).await;
    to.reset(spec.vm_id, 2).await.unwrap();
    super::answers(&*to, spec.vm_id, BOOTS, 'B').await;
}

pub async fn machine_that_is_off_starts_elsewhere<H: Harness>(h: &H) {
    let other = H::new().await;
    let (from, to) = (h.driver().await, other.driver().await);
    let mut spec = counting(h, &*from).await;
    let runs = from.export(spec.vm_id, 1, &DiskPlan::default()).await;
    assert_eq!(kind(runs), Some(FaultKind::Hypervisor));
    from.kill(spec.vm_id, 1).await.unwrap();
    let files = from
        .export(spec.vm_id, 1, &DiskPlan::default())
        .await
        .unwrap();
    let parts: Vec<Part> = files.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, [Part::Disk]);
    let carried: Vec<_> = files
        .iter()
        .map(|(part, path)| (*part, h.carry(path, &other)))
        .collect();
    spec.run_epoch = 2;
    spec.image = other.image().0;
    to.import(&spec, &other.image().1, &carried, &DiskPlan::default())
        .await
        .unwrap();
    to.import(&spec, &other.image().1, &carried, &DiskPlan::default())
        .await
        .unwrap();
    drop(to);
    let to = other.driver().await;
    let seen = observed(&*to, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (2, Power::Off));
    let has_no_memory = to.load(spec.vm_id, 3).await;
    assert_eq!(kind(has_no_memory), Some(FaultKind::Hypervisor));
    // Nothing of it is needed where it came from.
    from.clean(spec.vm_id, 2).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
    to.boot(spec.vm_id, 3, &spec.resources).await.unwrap();
    super::answers(&*to, spec.vm_id, BOOTS, 'B').await;
}

pub async fn export_changes_nothing<H: Harness>(h: &H) {
    let other = H::new().await;
    let (from, to) = (h.driver().await, other.driver().await);
    let (spec, files) = carried(h, &other, &*from).await;
    to.import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await
        .unwrap();
    to.load(spec.vm_id, 2).await.unwrap();
    let once = from
        .export(spec.vm_id, 1, &DiskPlan::default())
        .await
        .unwrap();
    let left = h.left_behind(spec.vm_id);
    assert_eq!(
        from.export(spec.vm_id, 1, &DiskPlan::default())
            .await
            .unwrap(),
        once
    );
    assert_eq!(h.left_behind(spec.vm_id), left);
    // What runs elsewhere has not touched the files here.
    to.kill(spec.vm_id, 2).await.unwrap();
    from.load(spec.vm_id, 3).await.unwrap();
    goes_on(&*from, &spec, 3).await;
}

pub async fn bad_import_leaves_nothing<H: Harness>(h: &H) {
    let other = H::new().await;
    let (from, to) = (h.driver().await, other.driver().await);
    let (mut spec, files) = carried(h, &other, &*from).await;
    let [(one, a), (two, b)] = files.as_slice() else {
        panic!("a part more or less: {files:?}");
    };
    let swapped = [(*two, a.clone()), (*one, b.clone())];
    for bad in [&swapped[..], &files[1..]] {
        let fault = to
            .import(&spec, &other.image().1, bad, &DiskPlan::default())
            .await;
        assert_eq!(kind(fault), Some(FaultKind::BadImage));
        assert_eq!(other.left_behind(spec.vm_id), [""; 0]);
        assert_eq!(observed(&*to, spec.vm_id).await, None);
    }
    drop(to);
    let to = other.driver_on_full_disk().await;
    let full = to
        .import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await;
    assert_eq!(kind(full), Some(FaultKind::NoSpace));
    assert_eq!(other.left_behind(spec.vm_id), [""; 0]);
    drop(to);
    let to = other.driver().await;
    spec.run_epoch = 3;
    to.import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await
        .unwrap();
    spec.run_epoch = 2;
    let late = to
        .import(&spec, &other.image().1, &files, &DiskPlan::default())
        .await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
    to.load(spec.vm_id, 3).await.unwrap();
    goes_on(&*to, &spec, 3).await;
}
