//! Machines that go from host to host, where hosts have certificates.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vimana_driver::conformance::{Harness as _, answer, guest_answers, new_spec};
use vimana_driver::{
    Arrival, CopyWatcher, DiskPlan, Endpoint, FaultKind, HostDriver, IncarnationSpec, Power,
    Sending,
};
use vimana_driver_qemu::{BOOTS, COUNT, Credentials, CredentialsSource, QemuConfig};
use vimana_model::migration::{CopyPhase, CopyProgress, Sent};
use vimana_model::unit::MiB;
use vimana_model::{HostId, Timestamp, VmId};
use vimana_pki::{Authority, CertificateRequest, HostKey, Serial};

use crate::host::QemuHost;

/// Something, nothing, and zeros where something was.
pub const WRITES: [&str; 3] = [
    "write -P 0x5a 1M 256k",
    "write -P 0x5a 3M 64k",
    "write -z 3M 64k",
];

pub fn id(n: u8) -> HostId {
    HostId::from_parts(n.into(), [n; 10])
}

pub fn authority() -> Authority {
    Authority::generate(Serial::from_random([1; 16])).unwrap()
}

/// The host, as the authority knows it.
pub fn certified(host: &QemuHost, authority: &Authority, name: HostId) -> QemuConfig {
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let later = Timestamp::from_ms(4_000_000_000_000);
    let certificate = authority.certify_host(&request, name, Serial::from_random([2; 16]), later);
    let shown = Credentials {
        authority: authority.certificate_pem().to_owned(),
        certificate: certificate.unwrap().pem,
        key: key.to_pem(),
    };
    let mut config = host.config();
    config.migration.tls = Some(CredentialsSource::new(move || Some(shown.clone())));
    config
}

/// On the disk of a machine that does not run yet.
pub fn write(host: &QemuHost, vm: VmId, writes: &[&str]) {
    for write in writes {
        let did = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", write])
            .arg(host.vm_dir(vm).join("disk.qcow2"))
            .output();
        assert!(did.unwrap().status.success());
    }
}

/// A machine whose guest has counted to `A`, with something on its disk.
async fn counting(host: &QemuHost, driver: &dyn HostDriver, writes: &[&str]) -> IncarnationSpec {
    let mut spec = new_spec(host);
    spec.resources.disk_mib = MiB(8);
    driver.prepare(&spec, &host.image().1).await.unwrap();
    write(host, spec.vm_id, writes);
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    guest_answers(driver, spec.vm_id).await;
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'A');
    spec
}

/// What a guest reads on its disk.
pub fn disk(host: &QemuHost, vm: VmId) -> Vec<u8> {
    let raw = host.file("raw");
    let did = Command::new("qemu-img")
        .args(["convert", "-U", "-f", "qcow2", "-O", "raw"])
        .args([&host.vm_dir(vm).join("disk.qcow2"), &raw])
        .output();
    assert!(did.unwrap().status.success());
    fs::read(raw).unwrap()
}

pub fn watched() -> (CopyWatcher, Arc<Mutex<Vec<CopyProgress>>>) {
    let seen: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
    let told = Arc::clone(&seen);
    (Arc::new(move |p| told.lock().unwrap().push(p)), seen)
}

/// From the one to the other, where it goes on: what it took.
async fn moves(configs: [QemuConfig; 2], hosts: &[QemuHost; 2]) -> Sent {
    let [a, b] = hosts;
    let [from, to] = configs;
    let (one, two) = (a.open(from).await, b.open(to).await);
    let spec = counting(a, &*one, &WRITES).await;
    let endpoint = two
        .receive(&spec, &b.image().1, &Arrival::of(id(1)))
        .await
        .unwrap();
    let sending = Sending {
        to: id(2),
        endpoint,
        max_downtime_ms: 300,
        max_bytes_per_s: None,
        disks: DiskPlan::default(),
    };
    let (watcher, seen) = watched();
    let sent = one.send(spec.vm_id, 1, &sending, watcher).await.unwrap();
    let since = Instant::now();
    two.run(spec.vm_id, 2).await.unwrap();
    println!("let run within {:?}", since.elapsed());
    assert_eq!(answer(&*two, spec.vm_id, COUNT).await, 'B');
    assert_eq!(answer(&*two, spec.vm_id, BOOTS).await, 'A');
    assert!(!seen.lock().unwrap().is_empty());
    // No copy of a key stays anywhere.
    for host in [a, b] {
        assert!(!host.vm_dir(spec.vm_id).join("tls").exists());
    }
    one.kill(spec.vm_id, 2).await.unwrap();
    assert!(
        disk(a, spec.vm_id) == disk(b, spec.vm_id),
        "all of its disk"
    );
    one.clean(spec.vm_id, 2).await.unwrap();
    assert_eq!(a.left_behind(spec.vm_id), [""; 0]);
    // What its arrival was prepared with is in nobody's way.
    two.save(spec.vm_id, 2).await.unwrap();
    two.load(spec.vm_id, 3).await.unwrap();
    assert_eq!(answer(&*two, spec.vm_id, COUNT).await, 'C');
    // And back, by the very process that it came to, or another one.
    let back = IncarnationSpec {
        run_epoch: 3,
        ..spec
    };
    let endpoint = one
        .receive(&back, &a.image().1, &Arrival::of(id(2)))
        .await
        .unwrap();
    let sending = Sending {
        to: id(1),
        endpoint,
        ..sending
    };
    let (watcher, _) = watched();
    two.send(back.vm_id, 3, &sending, watcher).await.unwrap();
    two.call_off(back.vm_id, 3).await.unwrap();
    assert_eq!(answer(&*two, back.vm_id, COUNT).await, 'D');
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_moves_and_can_be_saved_afterwards() {
    let hosts = [QemuHost::new().await, QemuHost::new().await];
    let configs = [hosts[0].config(), hosts[1].config()];
    let sent = moves(configs, &hosts).await;
    println!("in the clear: {sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_moves_between_hosts_that_know_each_other_by_certificates() {
    let hosts = [QemuHost::new().await, QemuHost::new().await];
    let authority = authority();
    let configs = [
        certified(&hosts[0], &authority, id(1)),
        certified(&hosts[1], &authority, id(2)),
    ];
    let sent = moves(configs, &hosts).await;
    println!("encrypted: {sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_machine_comes_by_several_connections() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let authority = authority();
    let one = a.open(certified(&a, &authority, id(1))).await;
    let two = b.open(certified(&b, &authority, id(2))).await;
    let mut spec = new_spec(&a);
    spec.resources.memory_mib = MiB(1024);
    let vm = spec.vm_id;
    one.prepare(&spec, &a.image().1).await.unwrap();
    one.boot(vm, 1, &spec.resources).await.unwrap();
    guest_answers(&*one, vm).await;
    let mut count = b'A';
    assert_eq!(answer(&*one, vm, COUNT).await, 'A');
    for calls_off in [true, false] {
        let endpoint = two
            .receive(&spec, &b.image().1, &Arrival::of(id(1)))
            .await
            .unwrap();
        assert_eq!(endpoint.channels, 2);
        let sending = Sending {
            to: id(2),
            endpoint,
            max_downtime_ms: 300,
            max_bytes_per_s: Some(64 << 20),
            disks: DiskPlan::default(),
        };
        let (watcher, seen) = watched();
        let sent = one.send(vm, 1, &sending, watcher).await.unwrap();
        println!("{sent:?}");
        // Zeros are not counted as bytes.
        assert!(
            (1 << 20..64 << 20).contains(&sent.transferred_bytes),
            "{sent:?}"
        );
        assert!(!seen.lock().unwrap().is_empty());
        count += 1;
        if calls_off {
            one.call_off(vm, 1).await.unwrap();
            assert_eq!(answer(&*one, vm, COUNT).await, char::from(count));
            two.kill(vm, 1).await.unwrap();
            two.clean(vm, 1).await.unwrap();
        } else {
            two.run(vm, 2).await.unwrap();
            assert_eq!(answer(&*two, vm, COUNT).await, char::from(count));
            assert_eq!(answer(&*two, vm, BOOTS).await, 'A');
        }
    }
    // Nothing of it is in the way of anything else.
    two.save(vm, 2).await.unwrap();
    two.load(vm, 3).await.unwrap();
    // By post-copy it comes by one.
    one.kill(vm, 3).await.unwrap();
    one.clean(vm, 3).await.unwrap();
    spec.run_epoch = 3;
    let back = one
        .receive(&spec, &a.image().1, &Arrival::of(id(2)).by_post_copy())
        .await;
    let endpoint = back.unwrap();
    assert_eq!((endpoint.channels, endpoint.post_copy), (0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_a_machine_but_the_host_it_is_expected_from() {
    let ours = authority();
    let others = authority();
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let two = b.open(certified(&b, &ours, id(2))).await;
    for (who, to, config) in [
        ("another host", id(2), certified(&a, &ours, id(3))),
        ("another authority's", id(2), certified(&a, &others, id(1))),
        ("nobody", id(2), a.config()),
        ("to another host", id(4), certified(&a, &ours, id(1))),
    ] {
        // The files are those of the last one.
        let config = match (who, config) {
            ("another host", _) => certified(&a, &ours, id(3)),
            ("another authority's", _) => certified(&a, &others, id(1)),
            ("to another host", _) => certified(&a, &ours, id(1)),
            (_, config) => config,
        };
        let one = a.open(config).await;
        let spec = counting(&a, &*one, &[]).await;
        let endpoint = two
            .receive(&spec, &b.image().1, &Arrival::of(id(1)))
            .await
            .unwrap();
        assert!(!endpoint.plain);
        let sending = Sending {
            to,
            // It would be told before it tries.
            endpoint: Endpoint {
                plain: who == "nobody",
                ..endpoint
            },
            max_downtime_ms: 300,
            max_bytes_per_s: None,
            disks: DiskPlan::default(),
        };
        let refused = one.send(spec.vm_id, 1, &sending, watched().0).await;
        let refused = refused.unwrap_err();
        println!("{who}: {refused}");
        assert_eq!(refused.kind, FaultKind::Hypervisor, "{who}: {refused}");
        assert_eq!(answer(&*one, spec.vm_id, COUNT).await, 'B', "{who}");
        let early = two.run(spec.vm_id, 2).await;
        assert_eq!(early.unwrap_err().kind, FaultKind::Hypervisor, "{who}");
        for (driver, host) in [(&one, &a), (&two, &b)] {
            driver.kill(spec.vm_id, 2).await.unwrap();
            driver.clean(spec.vm_id, 2).await.unwrap();
            assert_eq!(host.left_behind(spec.vm_id), [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_others_have_are_passed_over() {
    let host = QemuHost::new().await;
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = [busy, TcpListener::bind("127.0.0.1:0").unwrap()];
    let ports = busy.each_ref().map(|b| b.local_addr().unwrap().port());
    let mut config = host.config();
    config.migration.ports = ports[0]..=ports[0];
    let driver = host.open(config).await;
    let spec = new_spec(&host);
    let image = host.image().1;
    let refused = driver
        .receive(&spec, &image, &Arrival::of(id(1)))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FaultKind::Hypervisor, "{refused}");
    assert_eq!(host.left_behind(spec.vm_id), [""; 0]);
    drop(driver);
    let mut config = host.config();
    config.migration.ports = ports[0]..=ports[0].saturating_add(50);
    let driver = host.open(config).await;
    let endpoint = driver
        .receive(&spec, &image, &Arrival::of(id(1)))
        .await
        .unwrap();
    assert!(!ports.contains(&endpoint.memory_port) && !ports.contains(&endpoint.disk_port));
    let all = driver.inventory().await.unwrap();
    assert_eq!(all[0].power, Power::Arriving);
}

/// A slow line: everything can happen on the way.
fn slowly(endpoint: Endpoint) -> Sending {
    Sending {
        to: id(2),
        endpoint,
        max_downtime_ms: 1,
        max_bytes_per_s: Some(128 * 1024),
        disks: DiskPlan::default(),
    }
}

/// A boot sector that changes half a mebibyte of its memory, over and over.
#[rustfmt::skip]
const RESTLESS: [u8; 22] = [
    0xfa, // no interrupts
    0xbb, 0x00, 0x10, // from 64 KiB on:
    0x8e, 0xdb, 0xfe, 0x06, 0x00, 0x00, //   one byte
    0x81, 0xc3, 0x00, 0x01, //   of each page
    0x81, 0xfb, 0x00, 0x90, 0x72, 0xf0, //   up to 576 KiB,
    0xeb, 0xeb, // and again
];

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_is_changed_faster_than_it_is_copied_is_given_up() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let mut config = a.config();
    config.migration.in_vain = Duration::from_secs(1);
    let image = config.state_dir.with_file_name("restless.img");
    let mut sector = [0; 512];
    sector[..RESTLESS.len()].copy_from_slice(&RESTLESS);
    [sector[510], sector[511]] = [0x55, 0xaa];
    fs::write(&image, sector).unwrap();
    let (one, two) = (a.open(config).await, b.driver().await);
    let spec = new_spec(&a);
    let vm = spec.vm_id;
    one.prepare(&spec, &image).await.unwrap();
    one.boot(vm, 1, &spec.resources).await.unwrap();
    let arrival = Arrival::of(id(1));
    let endpoint = two.receive(&spec, &image, &arrival).await.unwrap();
    let (watcher, seen) = watched();
    let sending = Sending {
        max_bytes_per_s: Some(4 << 20),
        ..slowly(endpoint)
    };
    let refused = one.send(vm, 1, &sending, watcher).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Hypervisor, "{refused}");
    let told = refused.message;
    assert!(told.contains("faster than it is copied"), "{told}");
    let rounds = seen.lock().unwrap().last().unwrap().rounds;
    assert!(rounds >= 30, "{rounds}");
    let here = one.inventory().await.unwrap();
    assert_eq!(here[0].power, Power::Running);
    two.kill(vm, 1).await.unwrap();
    two.leave(vm, 1, &DiskPlan::default()).await.unwrap();
    assert_eq!(b.left_behind(vm), [""; 0]);
}

/// Returns once the sending is that far.
async fn is_in(seen: &Mutex<Vec<CopyProgress>>, phase: CopyPhase) {
    let far = async {
        while seen.lock().unwrap().last().is_none_or(|p| p.phase != phase) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), far).await;
    in_time.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_is_called_off_in_every_phase() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    let spec = counting(&a, &*one, &WRITES).await;
    let mut count = b'A';
    for phase in [CopyPhase::Disks, CopyPhase::Memory] {
        let endpoint = two
            .receive(&spec, &b.image().1, &Arrival::of(id(1)))
            .await
            .unwrap();
        let (watcher, seen) = watched();
        let sending = slowly(endpoint);
        let (sent, off) = tokio::join!(one.send(spec.vm_id, 1, &sending, watcher), async {
            is_in(&seen, phase).await;
            // It goes on meanwhile.
            count += 1;
            let counts = answer(&*one, spec.vm_id, COUNT).await;
            assert_eq!(counts, char::from(count), "{phase:?}");
            // The machine is in nobody else's hands.
            one.call_off(spec.vm_id, 1).await
        });
        assert_eq!(sent.unwrap_err().kind, FaultKind::Cancelled, "{phase:?}");
        assert_eq!(off, Ok(()), "{phase:?}");
        count += 1;
        let counts = answer(&*one, spec.vm_id, COUNT).await;
        assert_eq!(counts, char::from(count), "{phase:?}");
        let seen = seen.lock().unwrap().clone();
        println!("{seen:?}");
        two.kill(spec.vm_id, 1).await.unwrap();
        two.clean(spec.vm_id, 1).await.unwrap();
    }
    // Nothing of it is in the way of anything else.
    one.save(spec.vm_id, 1).await.unwrap();
    one.load(spec.vm_id, 2).await.unwrap();
    assert_eq!(
        answer(&*one, spec.vm_id, COUNT).await,
        char::from(count + 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_outlives_the_agent_once_the_disk_is_in_step() {
    for phase in [CopyPhase::Disks, CopyPhase::Memory] {
        let [a, b] = [QemuHost::new().await, QemuHost::new().await];
        let a = Arc::new(a);
        let two = b.driver().await;
        let agent = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let host = Arc::clone(&a);
        let started = agent.spawn(async move {
            let one = host.driver().await;
            let spec = counting(&host, &*one, &WRITES).await;
            (one, spec)
        });
        let (one, spec) = started.await.unwrap();
        let endpoint = two
            .receive(&spec, &b.image().1, &Arrival::of(id(1)))
            .await
            .unwrap();
        let (watcher, seen) = watched();
        let (sending, vm) = (slowly(endpoint), spec.vm_id);
        let first = sending.clone();
        agent.spawn(async move { one.send(vm, 1, &first, watcher).await });
        is_in(&seen, phase).await;
        // It dies, and all that it was about.
        let end = move || agent.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(end).await.unwrap();
        let one = a.driver().await;
        let seen = one.inventory().await.unwrap();
        assert_eq!(seen[0].power, Power::Running);
        let refused = one.reset(vm, 1).await.unwrap_err();
        assert_eq!(refused.kind, FaultKind::Conflict, "{refused}");
        let sent = one.send(vm, 1, &sending, watched().0).await;
        println!("{phase:?}: {sent:?}");
        if phase == CopyPhase::Disks {
            assert_eq!(sent.unwrap_err().kind, FaultKind::Hypervisor);
            assert_eq!(answer(&*one, vm, COUNT).await, 'B');
        } else {
            sent.unwrap();
            two.run(vm, 2).await.unwrap();
            assert_eq!(answer(&*two, vm, COUNT).await, 'B');
        }
    }
}

/// What can end while a machine is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// Its guest switches itself off.
    Guest,
    /// The source's process is killed, by us or by nobody knows whom.
    Kill,
    Source,
    Target,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_on_the_way_ends_the_sending() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    for phase in [CopyPhase::Disks, CopyPhase::Memory] {
        for ending in [Ending::Guest, Ending::Kill, Ending::Source, Ending::Target] {
            let what = format!("{ending:?} in {phase:?}");
            let spec = counting(&a, &*one, &WRITES).await;
            let vm = spec.vm_id;
            let endpoint = two
                .receive(&spec, &b.image().1, &Arrival::of(id(1)))
                .await
                .unwrap();
            let (watcher, seen) = watched();
            let sending = slowly(endpoint);
            let (sent, ()) = tokio::join!(one.send(vm, 1, &sending, watcher), async {
                is_in(&seen, phase).await;
                match ending {
                    Ending::Guest => a.guest_off(&*one, vm).await,
                    Ending::Kill => one.kill(vm, 1).await.unwrap(),
                    Ending::Source => a.crash(vm).await,
                    Ending::Target => b.crash(vm).await,
                }
            });
            let fault = sent.unwrap_err();
            println!("{what}: {fault}");
            let wanted = match ending {
                Ending::Kill => FaultKind::Cancelled,
                Ending::Guest | Ending::Source | Ending::Target => FaultKind::Hypervisor,
            };
            assert_eq!(fault.kind, wanted, "{what}: {fault}");
            if ending == Ending::Target {
                assert_eq!(answer(&*one, vm, COUNT).await, 'B', "{what}");
            } else {
                let ended = async {
                    while one.inventory().await.unwrap()[0].power == Power::Running {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                let soon = tokio::time::timeout(Duration::from_secs(10), ended).await;
                assert!(soon.is_ok(), "{what}: it has not ended");
                let power = one.inventory().await.unwrap()[0].power.clone();
                let crashed = matches!(power, Power::Crashed { .. });
                assert_eq!(crashed, ending == Ending::Source, "{what}: {power:?}");
                // That is all the same to who takes it back.
                one.call_off(vm, 1).await.unwrap();
            }
            let early = two.run(vm, 2).await;
            assert_eq!(early.unwrap_err().kind, FaultKind::Hypervisor, "{what}");
            for (driver, host) in [(&one, &a), (&two, &b)] {
                driver.kill(vm, 2).await.unwrap();
                driver.clean(vm, 2).await.unwrap();
                assert_eq!(host.left_behind(vm), [""; 0], "{what}");
            }
        }
    }
}

/// The record of a machine that comes from another host.
fn arriving(host: &QemuHost, vm: VmId) -> (PathBuf, Value) {
    let file = host.vm_dir(vm).join("arriving.json");
    let record = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    (file, record)
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_may_have_been_let_run_runs_after_the_agents_death() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    let spec = counting(&a, &*one, &[]).await;
    let vm = spec.vm_id;
    let endpoint = two
        .receive(&spec, &b.image().1, &Arrival::of(id(1)))
        .await
        .unwrap();
    let sending = Sending {
        max_bytes_per_s: None,
        disks: DiskPlan::default(),
        ..slowly(endpoint)
    };
    one.send(vm, 1, &sending, watched().0).await.unwrap();
    // Its disk is served no more.
    while TcpStream::connect((endpoint.address, endpoint.disk_port)).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(two);
    // As if it had died just before the guest was let run.
    let (file, mut record) = arriving(&b, vm);
    record["runs_as"] = json!(2);
    fs::write(&file, record.to_string()).unwrap();
    let two = b.driver().await;
    let seen = two.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (2, &Power::Running));
    assert!(!file.exists());
    two.run(vm, 2).await.unwrap();
    assert_eq!(answer(&*two, vm, COUNT).await, 'B');
    drop(two);
    let two = b.driver().await;
    let seen = two.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (2, &Power::Running));
    assert_eq!(answer(&*two, vm, COUNT).await, 'C');
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_place_that_nobody_was_told_of() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let spec = new_spec(&host);
    let image = host.image().1;
    driver
        .receive(&spec, &image, &Arrival::of(id(1)))
        .await
        .unwrap();
    drop(driver);
    let (file, mut record) = arriving(&host, spec.vm_id);
    record["endpoint"] = Value::Null;
    fs::write(&file, record.to_string()).unwrap();
    let driver = host.driver().await;
    assert_eq!(driver.inventory().await.unwrap(), []);
    assert_eq!(host.left_behind(spec.vm_id), [""; 0]);
    driver
        .receive(&spec, &image, &Arrival::of(id(1)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_never_arrived_is_not_started_from_half_a_disk() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let spec = new_spec(&host);
    let (vm, image) = (spec.vm_id, host.image().1);
    driver
        .receive(&spec, &image, &Arrival::of(id(1)))
        .await
        .unwrap();
    driver.kill(vm, 1).await.unwrap();
    for driver in [Some(driver), None] {
        let driver: Arc<dyn HostDriver> = match driver {
            Some(driver) => driver,
            None => host.driver().await,
        };
        let next = IncarnationSpec {
            run_epoch: 2,
            ..spec.clone()
        };
        let prepared = driver.prepare(&next, &image).await;
        assert_eq!(prepared.unwrap_err().kind, FaultKind::Hypervisor);
        let booted = driver.boot(vm, 2, &spec.resources).await;
        assert_eq!(booted.unwrap_err().kind, FaultKind::Hypervisor);
    }
}
