//! The promises about guests that start again: on the next run, by reboot and
//! by reset; and about machines that change their size.

use std::time::{Duration, Instant};

use vimana_model::unit::MiB;

use super::{
    BOOTS, COUNT, Harness, PATIENCE, answer, answers, expect_power, guest_answers, new_spec,
    new_vm, observed, power, run,
};
use crate::{FaultKind, GuestEnd, HostDriver, IncarnationSpec, Observed, Power};

/// Long enough for a guest to react, far shorter than a hang.
const GRACE: Duration = Duration::from_secs(15);

/// A machine whose guest has counted to `A`.
async fn counting<H: Harness>(h: &H, driver: &dyn HostDriver) -> IncarnationSpec {
    let spec = run(h, driver).await;
    guest_answers(driver, spec.vm_id).await;
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'A');
    spec
}

/// The guest has started anew; its run is the same, and nobody saw it end.
async fn started_anew(
    driver: &dyn HostDriver,
    changes: &mut tokio::sync::broadcast::Receiver<Observed>,
    spec: &IncarnationSpec,
) {
    answers(driver, spec.vm_id, BOOTS, 'B').await;
    assert_eq!(
        answer(driver, spec.vm_id, COUNT).await,
        'A',
        "from the start"
    );
    let seen = observed(driver, spec.vm_id).await.unwrap();
    assert_eq!(
        (seen.run_epoch, seen.power),
        (spec.run_epoch, Power::Running)
    );
    assert!(changes.try_recv().is_err(), "its power did not change");
}

pub async fn next_run_starts_from_the_same_disk<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let mut larger = spec.resources;
    larger.disk_mib.0 += 1;
    let running = driver.boot(spec.vm_id, 2, &larger).await.unwrap_err();
    assert_eq!(running.kind, FaultKind::Hypervisor, "the first still runs");
    driver.kill(spec.vm_id, 2).await.unwrap();
    driver.boot(spec.vm_id, 3, &larger).await.unwrap();
    driver.boot(spec.vm_id, 3, &larger).await.unwrap();
    answers(&*driver, spec.vm_id, BOOTS, 'B').await;
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (3, Power::Running));
    let mut changes = driver.subscribe();
    h.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { .. });
    expect_power(&*driver, &mut changes, spec.vm_id, PATIENCE, crashed).await;
    // Disks never shrink, and the other sizes are as asked for.
    let mut other = spec.resources;
    other.memory_mib = MiB(other.memory_mib.0 + 16);
    driver.boot(spec.vm_id, 4, &other).await.unwrap();
    answers(&*driver, spec.vm_id, BOOTS, 'C').await;
    drop(driver);
    let driver = h.driver().await;
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (4, Power::Running));
    let mut changes = driver.subscribe();
    h.guest_off(&*driver, spec.vm_id).await;
    let off = |p: &Power| *p == Power::Off;
    let soon = Duration::from_secs(2);
    expect_power(&*driver, &mut changes, spec.vm_id, soon, off).await;
    driver.boot(spec.vm_id, 5, &larger).await.unwrap();
    answers(&*driver, spec.vm_id, BOOTS, 'D').await;
}

pub async fn failed_start_can_be_repeated<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    driver.kill(spec.vm_id, 1).await.unwrap();
    let mut empty = spec.resources;
    empty.vcpus = 0;
    // A driver may be unable to fail so; then it runs.
    let _ = driver.boot(spec.vm_id, 2, &empty).await;
    driver.kill(spec.vm_id, 2).await.unwrap();
    driver.boot(spec.vm_id, 3, &spec.resources).await.unwrap();
    guest_answers(&*driver, spec.vm_id).await;
}

pub async fn reboot_is_by_the_guest<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    let mut changes = driver.subscribe();
    let end = driver.reboot(spec.vm_id, 1, GRACE).await.unwrap();
    assert_eq!(end, GuestEnd::ByGuest);
    started_anew(&*driver, &mut changes, &spec).await;
    h.guest_off(&*driver, spec.vm_id).await;
    let off = |p: &Power| *p == Power::Off;
    expect_power(&*driver, &mut changes, spec.vm_id, PATIENCE, off).await;
}

pub async fn reboot_is_forced_after_the_grace_time<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    h.ignore_shutdown(&*driver, spec.vm_id).await;
    let mut changes = driver.subscribe();
    let (since, grace) = (Instant::now(), Duration::from_millis(700));
    let end = driver.reboot(spec.vm_id, 1, grace).await.unwrap();
    assert_eq!(end, GuestEnd::Forced);
    assert!(since.elapsed() >= grace);
    started_anew(&*driver, &mut changes, &spec).await;
}

pub async fn reset_starts_the_guest_at_once<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    h.ignore_shutdown(&*driver, spec.vm_id).await;
    let mut changes = driver.subscribe();
    driver.reset(spec.vm_id, 1).await.unwrap();
    started_anew(&*driver, &mut changes, &spec).await;
}

pub async fn kill_overtakes_a_reboot<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    h.ignore_shutdown(&*driver, spec.vm_id).await;
    let (reboot, kill) = tokio::join!(driver.reboot(spec.vm_id, 1, 4 * PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        driver.kill(spec.vm_id, 1).await
    });
    kill.unwrap();
    assert_eq!(reboot.unwrap_err().kind, FaultKind::Cancelled);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
}

pub async fn only_what_runs_can_be_restarted_or_resized<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let cases = [
        (new_vm(), 1, FaultKind::NoSuchVm),
        (spec.vm_id, 1, FaultKind::Hypervisor),
        (spec.vm_id, 2, FaultKind::NoSuchVm),
        (spec.vm_id, 1, FaultKind::Superseded),
    ];
    for (vm, epoch, wanted) in cases {
        let faults = [
            driver.reboot(vm, epoch, GRACE).await.err(),
            driver.reset(vm, epoch).await.err(),
            driver.resize(vm, epoch, &spec.resources).await.err(),
        ];
        for fault in faults {
            assert_eq!(fault.map(|f| f.kind), Some(wanted), "epoch {epoch}");
        }
    }
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Prepared));
}

/// Also of machines that were resized: they can be saved and go on.
pub async fn resize_is_as_the_capabilities_say<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = counting(h, &*driver).await;
    driver.resize(spec.vm_id, 1, &spec.resources).await.unwrap();
    let mut more = spec.resources;
    more.vcpus += 1;
    for _ in 0..2 {
        let resized = driver.resize(spec.vm_id, 1, &more).await;
        if driver.capabilities().hot_resize {
            resized.unwrap();
        } else {
            assert_eq!(resized.unwrap_err().kind, FaultKind::Unsupported);
        }
    }
    assert_eq!(answer(&*driver, spec.vm_id, COUNT).await, 'B', "it runs on");
    driver.save(spec.vm_id, 1).await.unwrap();
    driver.load(spec.vm_id, 2).await.unwrap();
    assert_eq!(answer(&*driver, spec.vm_id, COUNT).await, 'C');
}
