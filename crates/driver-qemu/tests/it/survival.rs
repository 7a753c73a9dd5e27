//! Ends and interruptions that are particular to QEMU.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vimana_driver::conformance::{Harness as _, guest_answers, new_spec};
use vimana_driver::{FaultKind, GuestEnd, HostDriver, Power};
use vimana_driver_qemu::OFF;
use vimana_model::VmId;
use vimana_model::unit::MiB;

use crate::host::{QemuHost, run};

async fn power(driver: &dyn HostDriver, vm: VmId) -> Option<Power> {
    let all = driver.inventory().await.unwrap();
    all.into_iter().find(|o| o.vm_id == vm).map(|o| o.power)
}

async fn wait_for(driver: &dyn HostDriver, vm: VmId, wanted: Power) {
    let since = Instant::now();
    while power(driver, vm).await.as_ref() != Some(&wanted) {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{wanted:?} never comes"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn record(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_that_went_off_while_no_agent_was_there_is_off_not_crashed() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    drop(driver);
    let mut line = UnixStream::connect(host.vm_dir(vm).join("serial.sock")).unwrap();
    line.write_all(&[OFF]).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(host.processes(vm).len(), 1, "QEMU waits for an agent");
    drop(line);
    let driver = host.driver().await;
    wait_for(&*driver, vm, Power::Off).await;
    assert!(host.processes(vm).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn start_interrupted_before_its_process_was_recorded_is_undone() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    drop(driver);
    // As if the agent had died between starting QEMU and recording it.
    let path = host.vm_dir(vm).join("process.json");
    let mut started = record(&host.vm_dir(vm), "process.json");
    started["process"] = Value::Null;
    fs::write(&path, started.to_string()).unwrap();
    let driver = host.driver().await;
    assert_eq!(power(&*driver, vm).await, Some(Power::Prepared));
    assert!(host.processes(vm).is_empty());
    driver.boot(vm, 1, &host.resources()).await.unwrap();
    guest_answers(&*driver, vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_pid_is_neither_adopted_nor_killed() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    drop(driver);
    host.crash(vm).await;
    // This very process plays the one that got the pid.
    let mut started = record(&host.vm_dir(vm), "process.json");
    started["process"]["pid"] = json!(std::process::id());
    fs::write(host.vm_dir(vm).join("process.json"), started.to_string()).unwrap();
    let driver = host.driver().await;
    let seen = power(&*driver, vm).await;
    assert!(matches!(seen, Some(Power::Crashed { .. })), "{seen:?}");
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_made_directories_are_removed_and_strange_ones_left() {
    let host = QemuHost::new().await;
    let state = host.config().state_dir;
    let vm = new_spec(&host).vm_id;
    for name in [format!("{vm}.part"), format!("{vm}.gone"), vm.to_string()] {
        fs::create_dir_all(state.join(name)).unwrap();
    }
    fs::create_dir(state.join("notes")).unwrap();
    let driver = host.driver().await;
    assert_eq!(driver.inventory().await.unwrap(), []);
    assert_eq!(host.left_behind(vm), [vm.to_string()]);
    assert!(state.join("notes").exists());
    driver.clean(vm, 1).await.unwrap();
    assert_eq!(host.left_behind(vm), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_start_has_a_reason_and_leaves_no_process() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let spec = new_spec(&host);
    driver.prepare(&spec, &host.image().1).await.unwrap();
    fs::write(host.vm_dir(spec.vm_id).join("disk.qcow2"), "damaged").unwrap();
    let fault = driver
        .boot(spec.vm_id, 1, &spec.resources)
        .await
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Hypervisor);
    assert_eq!(
        fault.message,
        "QEMU did not start: Image is not in qcow2 format"
    );
    assert!(host.processes(spec.vm_id).is_empty());
    assert_eq!(power(&*driver, spec.vm_id).await, Some(Power::Prepared));
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_vanished_is_a_fault_without_a_path() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let spec = new_spec(&host);
    driver.prepare(&spec, &host.image().1).await.unwrap();
    fs::remove_file(host.image().1).unwrap();
    let fault = driver
        .boot(spec.vm_id, 1, &spec.resources)
        .await
        .unwrap_err();
    assert!(!fault.message.contains('/'), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_agent_on_the_same_directory_is_refused() {
    let host = QemuHost::new().await;
    let _first = host.driver().await;
    let second = vimana_driver_qemu::QemuDriver::open(host.config()).await;
    let fault = second.err().unwrap();
    assert_eq!(fault.message, "another agent uses the state directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_beyond_the_hosts_limits_is_refused() {
    let host = QemuHost::new().await;
    let mut config = host.config();
    config.limits.memory = MiB(16);
    let driver = host.open(config).await;
    let spec = new_spec(&host);
    driver.prepare(&spec, &host.image().1).await.unwrap_err();
    assert_eq!(host.left_behind(spec.vm_id), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn image_larger_than_the_disk_or_of_another_size_is_refused() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let mut spec = new_spec(&host);
    let path = host.file("large");
    fs::write(&path, vec![0; (1 << 20) + 512]).unwrap();
    let fault = driver.prepare(&spec, &path).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::BadImage, "{fault}");
    spec.image.size_bytes = (1 << 20) + 512;
    let fault = driver.prepare(&spec, &path).await.unwrap_err();
    assert_eq!(fault.message, "the image is larger than the disk");
    assert_eq!(host.left_behind(spec.vm_id), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_directory_with_a_long_path_works() {
    let host = QemuHost::new().await;
    let mut config = host.config();
    config.state_dir = host.file(&"long, name=".repeat(12)).join("vms");
    let driver = host.open(config).await;
    let spec = new_spec(&host);
    driver.prepare(&spec, &host.image().1).await.unwrap();
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    guest_answers(&*driver, spec.vm_id).await;
    driver.kill(spec.vm_id, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_whose_socket_is_gone_runs_and_can_be_ended() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    drop(driver);
    fs::remove_file(host.vm_dir(vm).join("qmp.sock")).unwrap();
    let driver = host.driver().await;
    assert_eq!(power(&*driver, vm).await, Some(Power::Running));
    for fault in [
        driver.save(vm, 1).await.unwrap_err(),
        driver.reset(vm, 1).await.unwrap_err(),
    ] {
        assert_eq!(fault.kind, FaultKind::Hypervisor);
        assert!(fault.message.ends_with("QEMU cannot be reached"), "{fault}");
    }
    assert_eq!(power(&*driver, vm).await, Some(Power::Running));
    let end = driver.shutdown(vm, 1, Duration::from_millis(100)).await;
    assert_eq!(end, Ok(GuestEnd::Forced));
    assert_eq!(power(&*driver, vm).await, Some(Power::Off));
    driver.boot(vm, 2, &host.resources()).await.unwrap();
    guest_answers(&*driver, vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_grows_with_the_next_run_and_while_it_runs() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    let mut size = host.resources();
    let shown = || {
        let disk = fs::read(host.vm_dir(vm).join("disk.qcow2")).unwrap();
        u64::from_be_bytes(disk[24..32].try_into().unwrap()) >> 20
    };
    for (epoch, asked, wanted) in [(2, 3, 3), (3, 2, 3), (4, 5000, 5000)] {
        driver.kill(vm, epoch).await.unwrap();
        size.disk_mib = MiB(asked);
        driver.boot(vm, epoch, &size).await.unwrap();
        guest_answers(&*driver, vm).await;
        assert_eq!(shown(), wanted);
    }
    size.disk_mib = MiB(6000);
    driver.resize(vm, 4, &size).await.unwrap();
    driver.save(vm, 4).await.unwrap();
    assert_eq!(shown(), 6000);
    driver.load(vm, 5).await.unwrap();
    assert_eq!(power(&*driver, vm).await, Some(Power::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_not_used_with_a_disk_that_was_written_since() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    driver.save(vm, 1).await.unwrap();
    let path = host.vm_dir(vm).join("disk.qcow2");
    let mut disk = fs::OpenOptions::new().append(true).open(&path).unwrap();
    disk.write_all(&[0; 512]).unwrap();
    let fault = driver.load(vm, 2).await.unwrap_err();
    assert!(fault.message.contains("no longer fit"), "{fault}");
    assert_eq!(power(&*driver, vm).await, Some(Power::Saved));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_memory_is_a_fault_and_stays() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = run(&host, &*driver).await;
    driver.save(vm, 1).await.unwrap();
    let path = host.vm_dir(vm).join("memory");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let fault = driver.load(vm, 2).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Hypervisor, "{fault}");
    assert!(host.processes(vm).is_empty());
    assert_eq!(power(&*driver, vm).await, Some(Power::Saved));
    fs::write(&path, whole).unwrap();
    driver.load(vm, 2).await.unwrap();
    assert!(!path.exists(), "it was used up");
}

/// Not a promise with numbers: what the steps take, for whoever looks.
#[tokio::test(flavor = "multi_thread")]
async fn steps_take_milliseconds() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let spec = new_spec(&host);
    let mut took = Vec::new();
    let mut since = Instant::now();
    let mut lap = |what: &str| {
        took.push(format!("{what} {} ms", since.elapsed().as_millis()));
        since = Instant::now();
    };
    driver.prepare(&spec, &host.image().1).await.unwrap();
    lap("prepare");
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    lap("boot");
    guest_answers(&*driver, spec.vm_id).await;
    lap("first output");
    driver.save(spec.vm_id, 1).await.unwrap();
    lap("save");
    let memory = fs::metadata(host.vm_dir(spec.vm_id).join("memory")).unwrap();
    driver.load(spec.vm_id, 2).await.unwrap();
    lap(&format!("load of {} KiB", memory.len() >> 10));
    driver.kill(spec.vm_id, 2).await.unwrap();
    lap("kill");
    driver.clean(spec.vm_id, 2).await.unwrap();
    lap("clean");
    println!("{}", took.join(", "));
}
