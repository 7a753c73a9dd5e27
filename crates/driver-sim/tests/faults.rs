//! What is particular to the simulation: faults, virtual time, counters.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vimana_driver::conformance::new_vm;
use vimana_driver::{
    Fault, FaultKind, GuestEnd, HostDriver as _, ImageRef, IncarnationSpec, Power, Seed,
};
use vimana_driver_sim::{Call, Effects, SimDriver, SimHost};
use vimana_model::ImageId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::Resources;

fn spec() -> IncarnationSpec {
    IncarnationSpec {
        vm_id: new_vm(),
        run_epoch: 1,
        resources: Resources::default(),
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Qcow2,
            size_bytes: 1,
            sha256: String::new(),
        },
        seed: Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn delays_take_virtual_time_and_repeated_calls_count_once() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = spec();
    host.delay(Call::Boot, Duration::from_secs(3600));
    let since = Instant::now();
    for _ in 0..2 {
        driver.prepare(&spec, Path::new("")).await.unwrap();
        driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    }
    assert_eq!(since.elapsed(), Duration::from_secs(7200));
    let wanted = Effects {
        prepared: 1,
        booted: 1,
        ..Effects::default()
    };
    assert_eq!(host.effects(spec.vm_id), wanted);
}

#[tokio::test(start_paused = true)]
async fn injected_fault_strikes_once_and_has_no_effect() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = spec();
    let fault = Fault::new(FaultKind::Hypervisor, "it broke");
    host.fail_next(Call::Prepare, fault.clone());
    let path = Path::new("");
    assert_eq!(driver.prepare(&spec, path).await, Err(fault));
    assert_eq!(host.effects(spec.vm_id), Effects::default());
    assert_eq!(driver.prepare(&spec, path).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn kill_overtakes_a_delayed_boot() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = spec();
    driver.prepare(&spec, Path::new("")).await.unwrap();
    host.delay(Call::Boot, Duration::from_secs(60));
    let (boot, kill) = tokio::join!(
        driver.boot(spec.vm_id, 1, &spec.resources),
        driver.kill(spec.vm_id, 1)
    );
    kill.unwrap();
    assert_eq!(boot.unwrap_err().kind, FaultKind::Cancelled);
    assert_eq!(host.power(spec.vm_id), Some(Power::Prepared));
}

#[tokio::test(start_paused = true)]
async fn deaf_guest_is_switched_off_after_exactly_the_grace_time() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = spec();
    driver.prepare(&spec, Path::new("")).await.unwrap();
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    host.ignore_shutdown(spec.vm_id, true);
    let since = Instant::now();
    let grace = Duration::from_secs(90);
    let end = driver.shutdown(spec.vm_id, 1, grace).await;
    assert_eq!(end, Ok(GuestEnd::Forced));
    assert_eq!(since.elapsed(), grace);
    assert_eq!(host.effects(spec.vm_id).stopped, 1);
}
