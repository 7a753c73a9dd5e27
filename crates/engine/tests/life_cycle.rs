//! The way of a request through the real engine, scheduler and simulated hosts.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test may give up loudly"
)]

use std::time::Duration;

use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::Call;
use vimana_engine::Settings;
use vimana_model::action::VmAction;
use vimana_model::event::EventKind;
use vimana_model::operation::{OperationKind, OperationState};
use vimana_model::unit::Resources;
use vimana_model::vm::CreateVm;
use vimana_model::{ErrorKind, VmId, VmState};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

async fn world_with_host() -> (TestWorld, TestHost, TestScheduler) {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let scheduler = TestScheduler::connect(&world.engine).await;
    (world, host, scheduler)
}

async fn states(world: &TestWorld, id: VmId) -> Vec<VmState> {
    let timeline = world.engine.vm_timeline(&world.admin, id).await.unwrap();
    let turns = timeline.into_iter().filter_map(|entry| match entry.event {
        EventKind::State { to, .. } => Some(to),
        _ => None,
    });
    turns.collect()
}

async fn used(world: &TestWorld) -> Resources {
    world.engine.hosts(&world.admin).await.unwrap()[0].used
}

#[tokio::test]
async fn a_request_runs_and_ends_with_nothing_left() {
    let (world, host, _scheduler) = world_with_host().await;
    let vm = world.create("web-1").await;
    let running = world.until(vm.id, VmState::Running).await;
    assert_eq!(running.host.unwrap().name, "host-1");
    assert_eq!(used(&world).await, vm.resources);

    world.act(vm.id, VmAction::Shutdown).await.unwrap();
    let done = world.until(vm.id, VmState::Done).await;
    assert_eq!(done.host, None);
    let names: Vec<&str> = states(&world, vm.id)
        .await
        .into_iter()
        .map(VmState::name)
        .collect();
    assert_eq!(
        names,
        ["Prolog", "Boot", "Running", "Shutdown", "Epilog", "Done"]
    );
    assert_eq!(used(&world).await, Resources::default());
    assert_eq!(host.sim.power(vm.id), None, "nothing is left on the host");
    let effects = host.sim.effects(vm.id);
    assert_eq!((effects.prepared, effects.booted), (1, 1));
}

#[tokio::test]
async fn a_held_vm_waits_for_its_release() {
    let (world, _host, _scheduler) = world_with_host().await;
    let form = CreateVm {
        name: "later".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        hold: true,
        ..CreateVm::default()
    };
    let vm = world
        .engine
        .create_vm(&world.admin, &form)
        .await
        .unwrap()
        .vm;
    assert_eq!(vm.state, VmState::Hold);
    let other = world.create("now").await;
    world.until(other.id, VmState::Running).await;
    assert_eq!(world.vm(vm.id).await.state, VmState::Hold);
    let refused = world.act(vm.id, VmAction::Hold).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(refused.public, "`later` is already held");
    world.act(vm.id, VmAction::Release).await.unwrap();
    world.until(vm.id, VmState::Running).await;
}

#[tokio::test]
async fn a_pending_vm_says_why_and_is_placed_when_there_is_room() {
    let world = TestWorld::new().await;
    let vm = world.create("waits").await;
    let told = "no scheduler is connected; the request waits for one";
    assert_eq!(vm.pending.unwrap().message, told);

    let _scheduler = TestScheduler::connect(&world.engine).await;
    let mut small = TestHost::new(1);
    small.capacity.disk_mib.0 = 1;
    small.connect(&world.engine).await;
    let waiting = world
        .until_vm(vm.id, "a rejection for its disk", |vm| {
            vm.pending
                .as_ref()
                .is_some_and(|pending| pending.message.contains("disk"))
        })
        .await;
    let pending = waiting.pending.unwrap();
    let rejection = &pending.explanation.as_ref().unwrap().rejections[0];
    assert_eq!(rejection.hosts, ["host-1"]);
    // Another reason replaces the first, in the timeline too.
    let mut smaller = TestHost::new(3);
    smaller.capacity.memory_mib.0 = 1;
    smaller.connect(&world.engine).await;
    world
        .until_vm(vm.id, "a rejection for memory", |vm| {
            vm.pending
                .as_ref()
                .is_some_and(|pending| pending.message.contains("memory"))
        })
        .await;
    let timeline = world.engine.vm_timeline(&world.admin, vm.id).await.unwrap();
    let reasons: Vec<_> = timeline
        .iter()
        .filter_map(|entry| match &entry.event {
            EventKind::NotPlaced { reason } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(
        matches!(reasons[..], [only] if only.contains("memory")),
        "{reasons:?}"
    );

    let mut big = TestHost::new(2);
    big.connect(&world.engine).await;
    let running = world.until(vm.id, VmState::Running).await;
    assert_eq!(running.host.unwrap().name, "host-2");
}

#[tokio::test]
async fn deleting_a_pending_vm_is_immediate() {
    let world = TestWorld::new().await;
    let vm = world.create("never").await;
    let accepted = world.operate(vm.id, VmAction::Delete).await;
    assert_eq!(accepted.vm.state, VmState::Done);
    assert_eq!(accepted.operation.kind, OperationKind::Delete);
    assert_eq!(accepted.operation.state, OperationState::Succeeded);
    let operations = world
        .engine
        .vm_operations(&world.admin, vm.id)
        .await
        .unwrap();
    assert_eq!(operations[1].state, OperationState::Cancelled);
    // The name is free again.
    world.create("never").await;
}

#[tokio::test]
async fn a_full_disk_fails_the_vm_and_gives_the_claim_back() {
    let (world, host, _scheduler) = world_with_host().await;
    let fault = Fault::new(
        FaultKind::NoSpace,
        "writing the disk: the host's disk is full",
    );
    host.sim.fail_next(Call::Prepare, fault);
    let vm = world.create("big").await;
    let failed = world.until(vm.id, VmState::Failed).await;
    let failure = failed.failure.unwrap();
    assert_eq!(failure.during, VmState::Prolog);
    assert_eq!(failure.reason, "writing the disk: the host's disk is full");
    assert_eq!(used(&world).await, Resources::default());
    let accepted = world.operate(vm.id, VmAction::Delete).await;
    assert_eq!(accepted.vm.state, VmState::Done);
}

#[tokio::test]
async fn a_killed_machine_fails_and_keeps_only_its_disk() {
    let (world, host, _scheduler) = world_with_host().await;
    let vm = world.create("victim").await;
    world.until(vm.id, VmState::Running).await;
    host.sim
        .crash(vm.id, "the QEMU process was killed by signal 9");
    let failed = world.until(vm.id, VmState::Failed).await;
    let failure = failed.failure.unwrap();
    assert_eq!(failure.during, VmState::Running);
    assert_eq!(failure.reason, "the QEMU process was killed by signal 9");
    let kept = used(&world).await;
    assert_eq!((kept.vcpus, kept.memory_mib.0), (0, 0));
    assert_eq!(kept.disk_mib, vm.resources.disk_mib);
    world.act(vm.id, VmAction::Delete).await.unwrap();
    world.until(vm.id, VmState::Done).await;
    assert_eq!(used(&world).await, Resources::default());
}

#[tokio::test]
async fn a_guest_that_switches_itself_off_is_powered_off() {
    let (world, host, _scheduler) = world_with_host().await;
    let vm = world.create("sleepy").await;
    world.until(vm.id, VmState::Running).await;
    host.sim.guest_power_off(vm.id);
    world.until(vm.id, VmState::PoweredOff).await;
    world.act(vm.id, VmAction::Delete).await.unwrap();
    world.until(vm.id, VmState::Done).await;
}

#[tokio::test]
async fn a_delete_overtakes_a_slow_prolog() {
    let (world, host, _scheduler) = world_with_host().await;
    host.sim.delay(Call::Prepare, Duration::from_secs(3600));
    let vm = world.create("slow").await;
    world.until(vm.id, VmState::Prolog).await;
    world.act(vm.id, VmAction::Delete).await.unwrap();
    world.until(vm.id, VmState::Done).await;
    assert_eq!(used(&world).await, Resources::default());
}

#[tokio::test]
async fn a_silent_host_makes_its_vms_unknown_until_it_is_back() {
    let settings = Settings {
        silence_grace: Duration::from_millis(100),
        ..Settings::default()
    };
    let world = TestWorld::with_settings(settings).await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let vm = world.create("web-1").await;
    world.until(vm.id, VmState::Running).await;
    host.disconnect();
    world.until(vm.id, VmState::Unknown).await;
    host.connect(&world.engine).await;
    world.until(vm.id, VmState::Running).await;
    assert_eq!(host.sim.effects(vm.id).booted, 1, "it ran all the time");
}

#[tokio::test]
async fn a_server_restart_in_the_middle_of_an_operation_loses_nothing() {
    let (mut world, mut host, scheduler) = world_with_host().await;
    host.sim.delay(Call::Prepare, Duration::from_millis(300));
    let vm = world.create("survivor").await;
    world.until(vm.id, VmState::Prolog).await;
    host.disconnect();
    drop(scheduler);
    world.restart_engine(Settings::default()).await;
    assert_eq!(world.vm(vm.id).await.state, VmState::Prolog);
    host.connect(&world.engine).await;
    world.until(vm.id, VmState::Running).await;
    assert_eq!(host.sim.effects(vm.id).booted, 1);
}

#[tokio::test]
async fn names_are_unique_among_live_vms() {
    let world = TestWorld::new().await;
    world.create("twin").await;
    let form = CreateVm {
        name: "twin".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    };
    let refused = world
        .engine
        .create_vm(&world.admin, &form)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(refused.public, "there is already a VM named `twin`");
    let form = CreateVm {
        image: "nope".to_owned(),
        flavor: "vast".to_owned(),
        ..form
    };
    let refused = world
        .engine
        .create_vm(&world.admin, &form)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert_eq!(
        refused.public,
        "image: there is no image `nope`; flavor: there is no flavor `vast`"
    );
}

#[tokio::test]
async fn twenty_creates_for_the_last_slot_place_one() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.capacity.vcpus = 1;
    host.connect(&world.engine).await;
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(world.create(&format!("vm-{number}")).await.id);
    }
    world.until(ids[0], VmState::Running).await;
    world
        .until_vm(ids[19], "an explanation", |vm| {
            vm.pending
                .as_ref()
                .is_some_and(|pending| pending.explanation.is_some())
        })
        .await;
    assert_eq!(used(&world).await.vcpus, 1);
}
