//! The promises about machines that go to another host while they run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vimana_model::HostId;
use vimana_model::backup::DiskId;
use vimana_model::migration::CopyProgress;
use vimana_model::name::DatastoreName;

use super::{
    BOOTS, COUNT, Harness, PATIENCE, answer, expect_power, guest_answers, observed, power, run,
};
use crate::{
    Arrival, CopyWatcher, DiskPlan, Endpoint, Fault, FaultKind, HostDriver, IncarnationSpec, Keep,
    Power, Sending,
};

/// Moments of a sending at which it is taken back, or its driver starts anew.
const MOMENTS_MS: [u64; 7] = [0, 2, 10, 30, 60, 120, 250];

/// Who the hosts are, to each other.
fn source() -> HostId {
    HostId::from_parts(1, [1; 10])
}

fn target() -> HostId {
    HostId::from_parts(2, [2; 10])
}

fn to(endpoint: Endpoint) -> Sending {
    Sending {
        to: target(),
        endpoint,
        max_downtime_ms: 300,
        max_bytes_per_s: None,
        disks: DiskPlan::default(),
    }
}

fn nobody() -> CopyWatcher {
    Arc::new(|_: CopyProgress| {})
}

fn kind<T>(result: Result<T, Fault>) -> Option<FaultKind> {
    result.err().map(|fault| fault.kind)
}

/// A machine whose guest has counted to `A`.
async fn counting<H: Harness>(h: &H, driver: &dyn HostDriver) -> IncarnationSpec {
    let spec = run(h, driver).await;
    guest_answers(driver, spec.vm_id).await;
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, 'A');
    spec
}

/// It runs under `epoch`, and counts on.
async fn goes_on(driver: &dyn HostDriver, spec: &IncarnationSpec, epoch: u64, count: char) {
    let seen = observed(driver, spec.vm_id).await.unwrap();
    assert_eq!((seen.run_epoch, seen.power), (epoch, Power::Running));
    assert_eq!(answer(driver, spec.vm_id, COUNT).await, count);
    assert_eq!(answer(driver, spec.vm_id, BOOTS).await, 'A');
}

/// The names of a disk inside a hypervisor are those of this host alone.
pub async fn machine_whose_disk_has_moved_goes_on_at_another_host<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let mut spec = counting(h, &*from).await;
    let vm = spec.vm_id;
    spec.datastore = h.datastore();
    let moved = from.move_disk(vm, 1, DiskId::Root, &spec.datastore, nobody());
    moved.await.unwrap();
    let arrival = Arrival::of(source());
    let endpoint = at.receive(&spec, &there.image().1, &arrival).await.unwrap();
    from.send(vm, 1, &to(endpoint), nobody()).await.unwrap();
    at.run(vm, 2).await.unwrap();
    goes_on(&*at, &spec, 2, 'B').await;
    from.kill(vm, 2).await.unwrap();
    from.leave(vm, 2, &DiskPlan::default()).await.unwrap();
    assert_eq!(h.left_behind(vm), [""; 0]);
    let back = DatastoreName::local();
    let moved = at.move_disk(vm, 2, DiskId::Root, &back, nobody());
    moved.await.unwrap();
    assert_eq!(there.home(vm), back);
    goes_on(&*at, &spec, 2, 'C').await;
    at.reset(vm, 2).await.unwrap();
    guest_answers(&*at, vm).await;
    assert_eq!(answer(&*at, vm, BOOTS).await, 'B');
}

/// Nothing is left of it here.
async fn remove<H: Harness>(h: &H, driver: &dyn HostDriver, spec: &IncarnationSpec, epoch: u64) {
    driver.kill(spec.vm_id, epoch).await.unwrap();
    driver.clean(spec.vm_id, epoch).await.unwrap();
    assert_eq!(h.left_behind(spec.vm_id), [""; 0]);
}

pub async fn machine_goes_on_at_another_host<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let image = there.image().1;
    let endpoint = at
        .receive(&spec, &image, &Arrival::of(source()))
        .await
        .unwrap();
    let again = at.receive(&spec, &image, &Arrival::of(source())).await;
    assert_eq!(again, Ok(endpoint), "the same place");
    assert_eq!(power(&*at, spec.vm_id).await, Some(Power::Arriving));
    let early = at.run(spec.vm_id, 2).await;
    assert_eq!(kind(early), Some(FaultKind::Hypervisor), "nothing came yet");
    let seen: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
    let told = Arc::clone(&seen);
    let watcher: CopyWatcher = Arc::new(move |progress| told.lock().unwrap().push(progress));
    let mut changes = from.subscribe();
    let sent = from.send(spec.vm_id, 1, &to(endpoint), watcher).await;
    let sent = sent.unwrap();
    assert!(sent.transferred_bytes > 0 && sent.total_ms > 0, "{sent:?}");
    assert!(!seen.lock().unwrap().is_empty());
    let left = |p: &Power| *p == Power::Left;
    expect_power(&*from, &mut changes, spec.vm_id, PATIENCE, left).await;
    let again = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert!(again.is_ok(), "{again:?}");
    at.run(spec.vm_id, 2).await.unwrap();
    at.run(spec.vm_id, 2).await.unwrap();
    goes_on(&*at, &spec, 2, 'B').await;
    remove(h, &*from, &spec, 2).await;
    // Its disk came along: it is what it starts from.
    at.reset(spec.vm_id, 2).await.unwrap();
    guest_answers(&*at, spec.vm_id).await;
    assert_eq!(answer(&*at, spec.vm_id, BOOTS).await, 'B');
    // And back again.
    let spec = IncarnationSpec {
        run_epoch: 2,
        ..spec
    };
    let back = from
        .receive(&spec, &h.image().1, &Arrival::of(target()))
        .await
        .unwrap();
    let sending = Sending {
        to: source(),
        ..to(back)
    };
    at.send(spec.vm_id, 2, &sending, nobody()).await.unwrap();
    from.run(spec.vm_id, 3).await.unwrap();
    assert_eq!(answer(&*from, spec.vm_id, BOOTS).await, 'B');
    remove(&there, &*at, &spec, 3).await;
}

/// A part of its memory may come later: all else is the same.
pub async fn machine_goes_on_at_another_host_by_post_copy<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let (vm, image) = (spec.vm_id, there.image().1);
    let endpoint = at
        .receive(&spec, &image, &Arrival::of(source()).by_post_copy())
        .await;
    let endpoint = endpoint.unwrap();
    let again = at
        .receive(&spec, &image, &Arrival::of(source()).by_post_copy())
        .await;
    assert_eq!(again, Ok(endpoint), "the same place");
    let sent = from.send(vm, 1, &to(endpoint), nobody()).await.unwrap();
    assert_eq!(power(&*from, vm).await, Some(Power::Left));
    let early = from.switch(vm, 1).await;
    assert_eq!(kind(early), Some(FaultKind::Hypervisor), "the same run");
    from.call_off(vm, 1).await.unwrap();
    goes_on(&*from, &spec, 1, 'B').await;
    remove(&there, &*at, &spec, 1).await;
    let endpoint = at
        .receive(&spec, &image, &Arrival::of(source()).by_post_copy())
        .await;
    let sending = to(endpoint.unwrap());
    from.send(vm, 1, &sending, nobody()).await.unwrap();
    let switched = from.switch(vm, 2).await.unwrap();
    assert!(switched.transferred_bytes > 0 && sent.total_ms > 0);
    assert!(from.switch(vm, 2).await.is_ok(), "once more");
    let late = from.call_off(vm, 1).await;
    assert_eq!(kind(late), Some(FaultKind::Superseded));
    at.run(vm, 2).await.unwrap();
    goes_on(&*at, &spec, 2, 'C').await;
    at.complete(vm, 2).await.unwrap();
    at.complete(vm, 2).await.unwrap();
    remove(h, &*from, &spec, 2).await;
    goes_on(&*at, &spec, 2, 'D').await;
    remove(&there, &*at, &spec, 2).await;
}

pub async fn sending_that_is_called_off_leaves_the_machine_running<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    from.call_off(spec.vm_id, 1).await.unwrap();
    goes_on(&*from, &spec, 1, 'B').await;
    let mut count = 'C';
    for moment in MOMENTS_MS {
        let endpoint = at
            .receive(&spec, &there.image().1, &Arrival::of(source()))
            .await
            .unwrap();
        let sending = to(endpoint);
        let (sent, off) = tokio::join!(from.send(spec.vm_id, 1, &sending, nobody()), async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            from.call_off(spec.vm_id, 1).await
        });
        assert_eq!(off, Ok(()), "after {moment} ms");
        if let Err(fault) = sent {
            assert_eq!(fault.kind, FaultKind::Cancelled, "{fault}");
        }
        goes_on(&*from, &spec, 1, count).await;
        count = char::from(u8::try_from(count).unwrap() + 1);
        remove(&there, &*at, &spec, 1).await;
    }
    // Also after it had arrived.
    let endpoint = at
        .receive(&spec, &there.image().1, &Arrival::of(source()))
        .await
        .unwrap();
    let sending = to(endpoint);
    let sent = from.send(spec.vm_id, 1, &sending, nobody()).await;
    sent.unwrap();
    from.call_off(spec.vm_id, 1).await.unwrap();
    remove(&there, &*at, &spec, 1).await;
    goes_on(&*from, &spec, 1, count).await;
}

pub async fn sending_to_where_nobody_waits_leaves_the_machine_running<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let endpoint = at
        .receive(&spec, &there.image().1, &Arrival::of(source()))
        .await
        .unwrap();
    let mut changes = at.subscribe();
    there.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { .. });
    expect_power(&*at, &mut changes, spec.vm_id, PATIENCE, crashed).await;
    let refused = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert_eq!(kind(refused), Some(FaultKind::Hypervisor));
    let ran = at.run(spec.vm_id, 2).await;
    assert_eq!(kind(ran), Some(FaultKind::Hypervisor));
    remove(&there, &*at, &spec, 2).await;
    goes_on(&*from, &spec, 1, 'B').await;
}

/// All of it had come, and it ended before its guest was let run: what its disk
/// holds is all there is of it, and it starts from that.
pub async fn machine_that_arrived_and_never_ran_starts_from_its_disk<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let endpoint = at
        .receive(&spec, &there.image().1, &Arrival::of(source()))
        .await
        .unwrap();
    let sent = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    sent.unwrap();
    let mut changes = at.subscribe();
    there.crash(spec.vm_id).await;
    let crashed = |p: &Power| matches!(p, Power::Crashed { .. });
    expect_power(&*at, &mut changes, spec.vm_id, PATIENCE, crashed).await;
    let ran = at.run(spec.vm_id, 2).await;
    assert_eq!(kind(ran), Some(FaultKind::Hypervisor));
    remove(h, &*from, &spec, 2).await;
    at.kill(spec.vm_id, 3).await.unwrap();
    at.boot(spec.vm_id, 3, &spec.resources).await.unwrap();
    guest_answers(&*at, spec.vm_id).await;
    assert_eq!(answer(&*at, spec.vm_id, BOOTS).await, 'B');
    remove(&there, &*at, &spec, 3).await;
}

pub async fn machine_that_has_left_waits_over_a_restart_of_the_driver<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let endpoint = at
        .receive(&spec, &there.image().1, &Arrival::of(source()))
        .await
        .unwrap();
    drop(at);
    let at = there.driver().await;
    assert_eq!(power(&*at, spec.vm_id).await, Some(Power::Arriving));
    let sent = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    sent.unwrap();
    drop(from);
    let from = h.driver().await;
    assert_eq!(power(&*from, spec.vm_id).await, Some(Power::Left));
    drop(at);
    let at = there.driver().await;
    assert_eq!(power(&*at, spec.vm_id).await, Some(Power::Arriving));
    let again = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert!(again.is_ok(), "{again:?}");
    at.run(spec.vm_id, 2).await.unwrap();
    goes_on(&*at, &spec, 2, 'B').await;
    remove(h, &*from, &spec, 2).await;
}

/// The driver ends at moments spread over the sending's duration; the next one
/// goes on with it, or the machine goes on where it is.
pub async fn sending_goes_on_after_a_restart_of_the_driver<H: Harness>(h: &H) {
    let there = h.beside().await;
    let at = there.driver().await;
    for moment in MOMENTS_MS {
        let from = h.driver().await;
        let spec = counting(h, &*from).await;
        let endpoint = at
            .receive(&spec, &there.image().1, &Arrival::of(source()))
            .await
            .unwrap();
        let sending = to(endpoint);
        let limit = Duration::from_millis(moment);
        let first = tokio::time::timeout(limit, from.send(spec.vm_id, 1, &sending, nobody())).await;
        drop(first);
        drop(from);
        let from = h.driver().await;
        let sent = from.send(spec.vm_id, 1, &sending, nobody()).await;
        if sent.is_ok() {
            at.run(spec.vm_id, 2).await.unwrap();
            goes_on(&*at, &spec, 2, 'B').await;
        } else {
            goes_on(&*from, &spec, 1, 'B').await;
        }
        remove(h, &*from, &spec, 2).await;
        remove(&there, &*at, &spec, 2).await;
    }
}

pub async fn what_does_not_travel_is_not_sent<H: Harness>(h: &H) {
    let there = h.beside().await;
    let (from, at) = (h.driver().await, there.driver().await);
    let spec = counting(h, &*from).await;
    let endpoint = at
        .receive(&spec, &there.image().1, &Arrival::of(source()))
        .await
        .unwrap();
    let snapshot = super::new_snapshot();
    let taken = from.snapshot(spec.vm_id, 1, snapshot, Keep::Disks).await;
    taken.unwrap();
    let refused = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert_eq!(kind(refused), Some(FaultKind::Conflict), "a snapshot");
    let removed = from.remove_snapshot(spec.vm_id, 1, snapshot).await;
    removed.unwrap();
    from.save(spec.vm_id, 1).await.unwrap();
    let refused = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert_eq!(kind(refused), Some(FaultKind::Conflict), "a saved memory");
    from.load(spec.vm_id, 2).await.unwrap();
    let later = from.send(spec.vm_id, 1, &to(endpoint), nobody()).await;
    assert_eq!(kind(later), Some(FaultKind::Superseded), "another run");
    goes_on(&*from, &spec, 2, 'B').await;
}
