//! The promises, one function each.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use super::{
    Harness, PATIENCE, expect_power, guest_answers, new_spec, new_vm, observed, power, read_until,
    run, type_text,
};
use crate::{DiskPlan, FaultKind, GuestEnd, Power};

/// Long enough for a guest to react, far shorter than a hang.
const GRACE: Duration = Duration::from_secs(15);

pub async fn prepare_is_idempotent<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = new_spec(h);
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let once = h.left_behind(spec.vm_id);
    driver.prepare(&spec, &h.image().1).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), once);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Prepared));
    driver.boot(spec.vm_id, 1, &h.resources()).await.unwrap();
    driver.prepare(&spec, &h.image().1).await.unwrap();
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Running));
}

pub async fn boot_runs_the_machine_and_is_observed<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let mut changes = driver.subscribe();
    let spec = run(h, &*driver).await;
    let running = |p: &Power| *p == Power::Running;
    expect_power(&*driver, &mut changes, spec.vm_id, PATIENCE, running).await;
    driver.boot(spec.vm_id, 1, &h.resources()).await.unwrap();
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Running));
    guest_answers(&*driver, spec.vm_id).await;
}

pub async fn inventory_names_everything<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let prepared = new_spec(h);
    driver.prepare(&prepared, &h.image().1).await.unwrap();
    let running = run(h, &*driver).await;
    let stopped = run(h, &*driver).await;
    driver.kill(stopped.vm_id, 1).await.unwrap();
    assert_eq!(driver.inventory().await.unwrap().len(), 3);
    for (spec, wanted) in [
        (&prepared, Power::Prepared),
        (&running, Power::Running),
        (&stopped, Power::Off),
    ] {
        let seen = observed(&*driver, spec.vm_id).await.unwrap();
        assert_eq!(seen.run_epoch, spec.run_epoch);
        assert_eq!(seen.power, wanted);
    }
}

pub async fn kill_is_idempotent_and_final<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    driver.kill(spec.vm_id, 1).await.unwrap();
    driver.kill(spec.vm_id, 1).await.unwrap();
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
    let fault = driver
        .boot(spec.vm_id, 1, &h.resources())
        .await
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Hypervisor, "{fault}");
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
}

pub async fn clean_leaves_nothing<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    assert!(!h.left_behind(spec.vm_id).is_empty());
    driver.kill(spec.vm_id, 1).await.unwrap();
    driver.clean(spec.vm_id, 1).await.unwrap();
    driver.clean(spec.vm_id, 1).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
    assert_eq!(observed(&*driver, spec.vm_id).await, None);
}

pub async fn images_are_in_use_as_long_as_machines_are_made_from_them<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let image = h.image().1;
    let nothing: [std::path::PathBuf; 0] = [];
    assert_eq!(driver.images_in_use().await.unwrap(), nothing);
    let (first, second) = (run(h, &*driver).await, new_spec(h));
    driver.prepare(&second, &image).await.unwrap();
    assert_eq!(driver.images_in_use().await.unwrap(), [image.as_path()]);
    driver.kill(first.vm_id, 1).await.unwrap();
    driver.clean(first.vm_id, 1).await.unwrap();
    drop(driver);
    let driver = h.driver().await;
    assert_eq!(driver.images_in_use().await.unwrap(), [image.as_path()]);
    driver.clean(second.vm_id, 1).await.unwrap();
    assert_eq!(driver.images_in_use().await.unwrap(), nothing);
}

pub async fn clean_refuses_while_the_machine_runs<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    driver.clean(spec.vm_id, 1).await.unwrap_err();
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Running));
    guest_answers(&*driver, spec.vm_id).await;
}

pub async fn calls_for_what_is_not_there_are_fine<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let vm = new_vm();
    driver.kill(vm, 1).await.unwrap();
    driver.shutdown(vm, 1, GRACE).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
    let no_boot = driver.boot(vm, 1, &h.resources()).await.unwrap_err();
    assert_eq!(no_boot.kind, FaultKind::NoSuchVm);
    let no_line = driver.serial(vm).await.err().unwrap();
    assert_eq!(no_line.kind, FaultKind::NoSuchVm);
    assert_eq!(driver.inventory().await.unwrap(), []);
}

pub async fn lower_epoch_is_refused_without_effect<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let mut spec = new_spec(h);
    spec.run_epoch = 5;
    driver.prepare(&spec, &h.image().1).await.unwrap();
    driver.boot(spec.vm_id, 5, &h.resources()).await.unwrap();
    let mut old = spec.clone();
    old.run_epoch = 4;
    let refusals = [
        driver.prepare(&old, &h.image().1).await.err(),
        driver.boot(spec.vm_id, 4, &h.resources()).await.err(),
        driver.shutdown(spec.vm_id, 4, GRACE).await.err(),
        driver.kill(spec.vm_id, 4).await.err(),
        driver.save(spec.vm_id, 4).await.err(),
        driver.load(spec.vm_id, 4).await.err(),
        driver
            .export(spec.vm_id, 4, &DiskPlan::default())
            .await
            .err(),
        driver
            .import(&old, &h.image().1, &[], &DiskPlan::default())
            .await
            .err(),
        driver.reboot(spec.vm_id, 4, GRACE).await.err(),
        driver.reset(spec.vm_id, 4).await.err(),
        driver.resize(spec.vm_id, 4, &h.resources()).await.err(),
        driver.clean(spec.vm_id, 4).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.map(|f| f.kind), Some(FaultKind::Superseded));
    }
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (5, Power::Running));
    driver.kill(spec.vm_id, 5).await.unwrap();
    driver.clean(spec.vm_id, 5).await.unwrap();
    let late = driver.prepare(&old, &h.image().1).await.unwrap_err();
    assert_eq!(late.kind, FaultKind::Superseded);
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
}

pub async fn crash_is_observed_within_two_seconds<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    let mut changes = driver.subscribe();
    h.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { reason } if !reason.is_empty());
    let soon = Duration::from_secs(2);
    expect_power(&*driver, &mut changes, spec.vm_id, soon, crashed).await;
    let fault = driver
        .boot(spec.vm_id, 1, &h.resources())
        .await
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Hypervisor, "one run, one start");
    driver.kill(spec.vm_id, 1).await.unwrap();
    driver.clean(spec.vm_id, 1).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
}

pub async fn guest_power_off_is_observed<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    let mut changes = driver.subscribe();
    h.guest_off(&*driver, spec.vm_id).await;
    let off = |p: &Power| *p == Power::Off;
    let soon = Duration::from_secs(2);
    expect_power(&*driver, &mut changes, spec.vm_id, soon, off).await;
    driver.boot(spec.vm_id, 1, &h.resources()).await.unwrap();
    let now = power(&*driver, spec.vm_id).await;
    assert_eq!(
        now,
        Some(Power::Off),
        "a repeated boot starts no second run"
    );
    let mut line = driver.serial(spec.vm_id).await.unwrap();
    let mut last_words = Vec::new();
    line.read_to_end(&mut last_words).await.unwrap();
    assert!(!last_words.is_empty(), "the last output can still be read");
}

pub async fn graceful_shutdown_is_by_the_guest<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    let end = driver.shutdown(spec.vm_id, 1, GRACE).await.unwrap();
    assert_eq!(end, GuestEnd::ByGuest);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
    driver.shutdown(spec.vm_id, 1, GRACE).await.unwrap();
    driver.clean(spec.vm_id, 1).await.unwrap();
}

pub async fn shutdown_is_forced_after_the_grace_time<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    h.ignore_shutdown(&*driver, spec.vm_id).await;
    let grace = Duration::from_millis(700);
    let since = Instant::now();
    let end = driver.shutdown(spec.vm_id, 1, grace).await.unwrap();
    assert_eq!(end, GuestEnd::Forced);
    assert!(since.elapsed() >= grace);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
}

pub async fn kill_overtakes_a_shutdown<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    h.ignore_shutdown(&*driver, spec.vm_id).await;
    let since = Instant::now();
    let (shutdown, kill) = tokio::join!(driver.shutdown(spec.vm_id, 1, 4 * PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        driver.kill(spec.vm_id, 1).await
    });
    kill.unwrap();
    assert_eq!(shutdown.unwrap_err().kind, FaultKind::Cancelled);
    assert!(since.elapsed() < PATIENCE);
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Off));
}

pub async fn machine_survives_a_restart_of_the_driver<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    drop(driver);
    let driver = h.driver().await;
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (1, Power::Running));
    driver.boot(spec.vm_id, 1, &h.resources()).await.unwrap();
    let mut line = driver.serial(spec.vm_id).await.unwrap();
    type_text(&*driver, spec.vm_id, b"still here").await;
    read_until(&mut line, "still here").await;
    let mut changes = driver.subscribe();
    h.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { .. });
    let soon = Duration::from_secs(2);
    expect_power(&*driver, &mut changes, spec.vm_id, soon, crashed).await;
}

pub async fn end_during_a_restart_of_the_driver_is_known_afterwards<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let crashed = run(h, &*driver).await;
    let killed = run(h, &*driver).await;
    let prepared = new_spec(h);
    driver.prepare(&prepared, &h.image().1).await.unwrap();
    driver.kill(killed.vm_id, 1).await.unwrap();
    drop(driver);
    h.crash(crashed.vm_id).await;
    for _ in 0..2 {
        let driver = h.driver().await;
        let seen = power(&*driver, crashed.vm_id).await;
        assert!(matches!(seen, Some(Power::Crashed { .. })), "{seen:?}");
        assert_eq!(power(&*driver, killed.vm_id).await, Some(Power::Off));
        assert_eq!(power(&*driver, prepared.vm_id).await, Some(Power::Prepared));
        driver
            .boot(killed.vm_id, 1, &h.resources())
            .await
            .unwrap_err();
        drop(driver);
    }
    let driver = h.driver().await;
    driver
        .boot(prepared.vm_id, 1, &h.resources())
        .await
        .unwrap();
    driver.clean(crashed.vm_id, 1).await.unwrap();
    assert_eq!(h.left_behind(crashed.vm_id), [""; 0]);
}

pub async fn bad_image_leaves_nothing<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let (image, path) = h.bad_image();
    let mut spec = new_spec(h);
    spec.image = image;
    let fault = driver.prepare(&spec, &path).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::BadImage, "{fault}");
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
    assert_eq!(observed(&*driver, spec.vm_id).await, None);
    spec.image = h.image().0;
    driver.prepare(&spec, &h.image().1).await.unwrap();
}

pub async fn full_disk_leaves_nothing<H: Harness>(h: &H) {
    let driver = h.driver_on_full_disk().await;
    let spec = new_spec(h);
    let fault = driver.prepare(&spec, &h.image().1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoSpace, "{fault}");
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
    assert_eq!(observed(&*driver, spec.vm_id).await, None);
}

pub async fn late_viewer_gets_recent_output<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    let mut early = driver.serial(spec.vm_id).await.unwrap();
    type_text(&*driver, spec.vm_id, b"hello").await;
    let seen_early = read_until(&mut early, "hello").await;
    let mut late = driver.serial(spec.vm_id).await.unwrap();
    assert_eq!(read_until(&mut late, "hello").await, seen_early);
    driver.kill(spec.vm_id, 1).await.unwrap();
    assert_eq!(late.read(&mut [0; 64]).await.unwrap(), 0, "the line ends");
}

pub async fn two_viewers_see_the_same<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let spec = run(h, &*driver).await;
    guest_answers(&*driver, spec.vm_id).await;
    let mut one = driver.serial(spec.vm_id).await.unwrap();
    let mut two = driver.serial(spec.vm_id).await.unwrap();
    type_text(&*driver, spec.vm_id, b"abc").await;
    type_text(&*driver, spec.vm_id, b"xyz").await;
    let (one, two) = tokio::join!(read_until(&mut one, "xyz"), read_until(&mut two, "xyz"));
    assert!(one.contains("abc"));
    assert_eq!(one, two);
}

/// The futures are dropped at moments spread over the call's duration.
pub async fn cancelled_prepare_is_cleaned<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for delay in [0, 1, 3, 8, 20] {
        let spec = new_spec(h);
        let after = Duration::from_millis(delay);
        let image = h.image().1;
        let _ = tokio::time::timeout(after, driver.prepare(&spec, &image)).await;
        driver.kill(spec.vm_id, 1).await.unwrap();
        driver.clean(spec.vm_id, 1).await.unwrap();
        assert_eq!(h.left_behind(spec.vm_id), [""; 0], "after {delay} ms");
        driver.prepare(&spec, &image).await.unwrap();
        assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Prepared));
    }
}

pub async fn cancelled_boot_is_killed_and_cleaned<H: Harness>(h: &H) {
    let driver = h.driver().await;
    for delay in [0, 2, 10, 30, 60, 100] {
        let spec = new_spec(h);
        driver.prepare(&spec, &h.image().1).await.unwrap();
        let after = Duration::from_millis(delay);
        let _ = tokio::time::timeout(after, driver.boot(spec.vm_id, 1, &h.resources())).await;
        driver.kill(spec.vm_id, 1).await.unwrap();
        driver.clean(spec.vm_id, 1).await.unwrap();
        assert_eq!(h.left_behind(spec.vm_id), [""; 0], "after {delay} ms");
        assert_eq!(observed(&*driver, spec.vm_id).await, None);
    }
}

pub async fn next_epoch_can_be_prepared_and_booted<H: Harness>(h: &H) {
    let driver = h.driver().await;
    let mut spec = run(h, &*driver).await;
    spec.run_epoch = 2;
    let fault = driver.prepare(&spec, &h.image().1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Hypervisor, "the first still runs");
    driver.kill(spec.vm_id, 2).await.unwrap();
    driver.prepare(&spec, &h.image().1).await.unwrap();
    let seen = observed(&*driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (2, Power::Prepared));
    driver.boot(spec.vm_id, 2, &h.resources()).await.unwrap();
    guest_answers(&*driver, spec.vm_id).await;
}
