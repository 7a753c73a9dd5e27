//! Machines that run on another host before all of their memory is there.

use std::fs;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use vimana_driver::conformance::{Harness as _, new_spec};
use vimana_driver::{
    Arrival, DiskPlan, Endpoint, FaultKind, HostDriver, IncarnationSpec, Power, Sending,
};
use vimana_model::VmId;
use vimana_model::migration::Sent;
use vimana_model::unit::MiB;

use crate::host::QemuHost;
use crate::migration::{WRITES, authority, certified, disk, id, watched, write};

/// A guest that says one letter after the other, from `A` to `Z` and over again,
/// and changes 128 pages of its memory with each: it is never through by itself on a
/// line as slow as [`to`].
#[rustfmt::skip]
const BUSY: [u8; 50] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, // no interrupts, segment 0
    0xba, 0xf8, 0x03, 0xb0, 0x41, // serial line, `A`
    0xee, 0xfe, 0xc0, 0x3c, 0x5b, 0x75, 0x02, 0xb0, 0x41, // say it; the next
    0x50, 0xbb, 0x00, 0x10, // from 0x10000 on
    0x8e, 0xc3, 0x26, 0xfe, 0x06, 0x00, 0x00, // change a byte
    0x81, 0xc3, 0x00, 0x01, 0x81, 0xfb, 0x00, 0x90, 0x75, 0xef, // of each page below 0x90000
    0xb9, 0x00, 0x00, 0xe4, 0x80, 0xe2, 0xfc, // wait a little
    0x58, 0xeb, 0xd8, // and again
];

/// It runs as the first run of a machine with something on its disk.
async fn busy(host: &QemuHost, driver: &dyn HostDriver) -> IncarnationSpec {
    let mut spec = new_spec(host);
    spec.resources.disk_mib = MiB(8);
    let image = image(host);
    driver.prepare(&spec, &image).await.unwrap();
    write(host, spec.vm_id, &WRITES);
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    until_it_says(driver, spec.vm_id, 'F').await;
    spec
}

fn image(host: &QemuHost) -> std::path::PathBuf {
    let image = host.file("busy");
    let mut sector = [0; 512];
    sector[..BUSY.len()].copy_from_slice(&BUSY);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&image, sector).unwrap();
    image
}

/// All that it has said here by now.
async fn said(driver: &dyn HostDriver, vm: VmId) -> String {
    let mut line = driver.serial(vm).await.unwrap();
    let (mut all, mut piece) = (String::new(), [0; 4096]);
    let until = tokio::time::Instant::now() + Duration::from_millis(200);
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout_at(until, line.read(&mut piece)).await {
        all += &String::from_utf8_lossy(&piece[..read]);
    }
    all.retain(|c| c.is_ascii_uppercase());
    all
}

async fn until_it_says(driver: &dyn HostDriver, vm: VmId, letter: char) {
    let says = async { while !said(driver, vm).await.contains(letter) {} };
    let in_time = tokio::time::timeout(Duration::from_secs(20), says).await;
    in_time.unwrap();
}

fn next(letter: char) -> char {
    match letter {
        'Z' => 'A',
        _ => char::from(u8::try_from(letter).unwrap() + 1),
    }
}

/// None is left out, and none is said twice.
fn counts(text: &str) {
    for (a, b) in text.chars().zip(text.chars().skip(1)) {
        assert_eq!(next(a), b, "{text}");
    }
}

fn by_post_copy() -> Arrival {
    Arrival::of(id(1)).by_post_copy()
}

fn to(endpoint: Endpoint) -> Sending {
    assert!(endpoint.post_copy);
    Sending {
        to: id(2),
        endpoint,
        max_downtime_ms: 20,
        max_bytes_per_s: Some(1 << 20),
        disks: DiskPlan::default(),
    }
}

/// Sends the machine until it stands still: what it has said, and a part of its
/// memory is still to come.
async fn send(driver: &dyn HostDriver, vm: VmId, sending: &Sending) -> (Sent, String) {
    let sent = driver.send(vm, 1, sending, watched().0).await.unwrap();
    assert_eq!(sent.downtime_ms, 0, "QEMU is not at the end: {sent:?}");
    let seen = driver.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (1, &Power::Left));
    let before = said(driver, vm).await;
    counts(&before);
    assert_eq!(said(driver, vm).await, before, "it stands still");
    (sent, before)
}

/// It goes on there with what comes next, in the same boot.
async fn goes_on(driver: &dyn HostDriver, vm: VmId, before: &str) {
    let wanted = next(before.chars().last().unwrap());
    until_it_says(driver, vm, wanted).await;
    let after = said(driver, vm).await;
    let (had, has) = (before.len(), after.len());
    println!("{had} letters there, {has} here");
    assert_eq!(after.chars().next(), Some(wanted), "{before} {after}");
    counts(&after);
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_counts_on_while_the_rest_of_its_memory_comes() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let authority = authority();
    let one = a.open(certified(&a, &authority, id(1))).await;
    let two = b.open(certified(&b, &authority, id(2))).await;
    let spec = busy(&a, &*one).await;
    let (vm, image) = (spec.vm_id, image(&b));
    let endpoint = two.receive(&spec, &image, &by_post_copy()).await;
    let endpoint = endpoint.unwrap();
    let again = two.receive(&spec, &image, &by_post_copy()).await;
    assert_eq!(again, Ok(endpoint));
    let sending = to(endpoint);
    let (sent, before) = send(&*one, vm, &sending).await;
    let again = one.send(vm, 1, &sending, watched().0).await;
    assert_eq!(again, Ok(sent));
    let early = one.switch(vm, 1).await.unwrap_err();
    assert_eq!(early.kind, FaultKind::Hypervisor, "{early}");
    let switched = one.switch(vm, 2).await.unwrap();
    assert_eq!(one.switch(vm, 2).await, Ok(switched), "the same once more");
    let late = one.call_off(vm, 1).await.unwrap_err();
    assert_eq!(late.kind, FaultKind::Superseded, "it never goes on here");
    two.run(vm, 2).await.unwrap();
    two.run(vm, 2).await.unwrap();
    two.complete(vm, 2).await.unwrap();
    two.complete(vm, 2).await.unwrap();
    goes_on(&*two, vm, &before).await;
    assert_eq!(said(&*one, vm).await, before, "and nowhere else");
    println!("{sent:?} {switched:?}");
    assert!(switched.transferred_bytes > sent.transferred_bytes);
    assert!(switched.total_ms >= sent.total_ms && switched.downtime_ms >= sent.paused_ms);
    one.kill(vm, 2).await.unwrap();
    assert!(disk(&a, vm) == disk(&b, vm), "all of its disk");
    one.clean(vm, 2).await.unwrap();
    assert_eq!(a.left_behind(vm), [""; 0]);
    // What its arrival was prepared with is in nobody's way.
    two.save(vm, 2).await.unwrap();
    two.load(vm, 3).await.unwrap();
    assert_ne!(said(&*two, vm).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_is_not_handed_over_goes_on_where_it_was() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    let spec = busy(&a, &*one).await;
    let vm = spec.vm_id;
    for restarts in [false, true] {
        let endpoint = two.receive(&spec, &image(&b), &by_post_copy()).await;
        let (_, before) = send(&*one, vm, &to(endpoint.unwrap())).await;
        one.call_off(vm, 1).await.unwrap();
        let after = async { while said(&*one, vm).await.len() < before.len().saturating_add(5) {} };
        let in_time = tokio::time::timeout(Duration::from_secs(20), after).await;
        in_time.unwrap();
        counts(&said(&*one, vm).await);
        two.kill(vm, 1).await.unwrap();
        two.clean(vm, 1).await.unwrap();
        assert_eq!(b.left_behind(vm), [""; 0], "{restarts}");
    }
    one.save(vm, 1).await.unwrap();
    one.load(vm, 2).await.unwrap();
    assert_ne!(said(&*one, vm).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_may_die_at_every_step_of_it() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    let spec = busy(&a, &*one).await;
    let vm = spec.vm_id;
    let endpoint = two
        .receive(&spec, &image(&b), &Arrival::of(id(1)).by_post_copy())
        .await;
    let sending = to(endpoint.unwrap());
    let (sent, before) = send(&*one, vm, &sending).await;
    drop((one, two));
    let (one, two) = (a.driver().await, b.driver().await);
    let seen = one.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (1, &Power::Left));
    assert_eq!(one.send(vm, 1, &sending, watched().0).await, Ok(sent));
    let switched = one.switch(vm, 2).await.unwrap();
    drop((one, two));
    let (one, two) = (a.driver().await, b.driver().await);
    let seen = one.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (1, &Power::Left));
    assert_eq!(one.switch(vm, 2).await, Ok(switched));
    let seen = two.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (1, &Power::Arriving));
    two.run(vm, 2).await.unwrap();
    drop(two);
    let two = b.driver().await;
    let seen = two.inventory().await.unwrap();
    assert_eq!((seen[0].run_epoch, &seen[0].power), (2, &Power::Running));
    two.complete(vm, 2).await.unwrap();
    let after = said(&*two, vm).await;
    assert_ne!(after, "");
    counts(&after);
    assert!(!before.is_empty());
}

/// The source ends with a part of the memory, before or after its guest may run on
/// the target, and while it does.
#[tokio::test(flavor = "multi_thread")]
async fn machine_whose_memory_is_lost_starts_from_its_disk_on_its_new_host() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    for moment in ["before", "after", "running"] {
        let spec = busy(&a, &*one).await;
        let vm = spec.vm_id;
        let endpoint = two.receive(&spec, &image(&b), &by_post_copy()).await;
        // At once: what is missing comes for as long as the guest stands still.
        let sending = to(endpoint.unwrap());
        one.send(vm, 1, &sending, watched().0).await.unwrap();
        let hypervisor = |fault: vimana_driver::Fault| {
            println!("{moment}: {fault}");
            assert_eq!(fault.kind, FaultKind::Hypervisor, "{moment}: {fault}");
        };
        match moment {
            "before" => {
                a.crash(vm).await;
                hypervisor(one.switch(vm, 2).await.unwrap_err());
            }
            "after" => {
                one.switch(vm, 2).await.unwrap();
                a.crash(vm).await;
                // It may not know yet.
                let ran = two.run(vm, 2).await;
                let come = match ran {
                    Ok(()) => two.complete(vm, 2).await,
                    Err(fault) => Err(fault),
                };
                hypervisor(come.unwrap_err());
            }
            _ => {
                one.switch(vm, 2).await.unwrap();
                two.run(vm, 2).await.unwrap();
                a.crash(vm).await;
                hypervisor(two.complete(vm, 2).await.unwrap_err());
                let seen = two.inventory().await.unwrap();
                let crashed = matches!(seen[0].power, Power::Crashed { .. });
                assert!(crashed, "{:?}", seen[0].power);
                hypervisor(two.complete(vm, 2).await.unwrap_err());
            }
        }
        two.kill(vm, 3).await.unwrap();
        two.boot(vm, 3, &spec.resources).await.unwrap();
        until_it_says(&*two, vm, 'C').await;
        assert!(said(&*two, vm).await.starts_with("ABC"), "{moment}");
        for (driver, host) in [(&one, &a), (&two, &b)] {
            driver.kill(vm, 3).await.unwrap();
            driver.clean(vm, 3).await.unwrap();
            assert_eq!(host.left_behind(vm), [""; 0]);
        }
    }
}

/// Whoever knows nothing of post-copy waits for all of it, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn switch_changes_nothing_where_all_had_come() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let (one, two) = (a.driver().await, b.driver().await);
    let spec = busy(&a, &*one).await;
    let vm = spec.vm_id;
    let endpoint = two
        .receive(&spec, &image(&b), &Arrival::of(id(1)))
        .await
        .unwrap();
    let sending = Sending {
        to: id(2),
        endpoint,
        max_downtime_ms: 300,
        max_bytes_per_s: None,
        disks: DiskPlan::default(),
    };
    let sent = one.send(vm, 1, &sending, watched().0).await.unwrap();
    let before = said(&*one, vm).await;
    assert_eq!(one.switch(vm, 2).await, Ok(sent));
    two.run(vm, 2).await.unwrap();
    two.complete(vm, 2).await.unwrap();
    goes_on(&*two, vm, &before).await;
}
